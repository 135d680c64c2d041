package searchdb

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWords(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"  ?! ", ""},
		{"Hello, WORLD hello", "'hello':1A,3A 'world':2A "},
		{"José Ｆｕｌｌ İx", "'jose':1A 'full':2A 'ix':3A "},
		{"it's a\\b'c", "'it':1A 's':2A 'a':3A 'b':4A 'c':5A "},
		{"東京都 abc東", "'東京':1A '京都':2A '都':3A 'abc':4A '東':5A "},
		{"हिन्दी", "'हिन्दी':1A "},
		{"\xff\xfe ok", "'ok':1A "},
	} {
		require.Equal(t, c.want, Words(nil, Text{c.text, 'A'}), c.text)
	}
	require.Equal(t, `'#r1' '#o''b\\' 'x':1A 'y':2B `, Words([]string{"r1", `o'b\`}, Text{"x", 'A'}, Text{"Y", 'B'}))
}

func TestWordsAreBounded(t *testing.T) {
	long := Words(nil, Text{strings.Repeat("ab ", 100_000) + strings.Repeat("x", 1000), 'A'})
	require.Less(t, len(long), 10_000)
	require.LessOrEqual(t, len(Words(nil, Text{strings.Repeat("ü", 1000), 'A'})), maxWord+8)
}

func TestParseQuery(t *testing.T) {
	for _, c := range []struct {
		term, want string
		terms      []string
	}{
		{"Messages 4", "'messages':* & '4'", []string{"messages", "4"}},
		{"東", "'東':*", []string{"東"}},
		{"東京都", "'東京' & '京都'", []string{"東京都"}},
		{"' | !x", "'x'", []string{"x"}},
	} {
		q, ok := ParseQuery(c.term, 3)
		require.True(t, ok)
		require.Equal(t, c.want, q.words)
		require.Equal(t, c.terms, q.Terms)
	}
	_, ok := ParseQuery(" -- ", 3)
	require.False(t, ok)
	q, _ := ParseQuery(strings.Repeat("a ", 1000), 1)
	require.Len(t, q.Terms, maxTerms)
}

func FuzzWords(f *testing.F) {
	f.Add("Hello ' \\ 東京 \xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, w := range []string{Words(nil, Text{s, 'A'}), func() string { q, _ := ParseQuery(s, 2); return q.words }()} {
			require.NotContains(t, w, `\`)
			require.NotContains(t, w, "\x00")
			require.Zero(t, strings.Count(w, "'")%2)
		}
	})
}
