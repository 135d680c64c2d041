package searchdb

import (
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func TestWords(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"  ?! ", ""},
		{"Hello, WORLD hello", "'hello':1A,3A 'world':2A"},
		{"José Ｆｕｌｌ İx", "'full':2A 'ix':3A 'jose':1A"},
		{"it's a\\b'c", "'a':3A 'b':4A 'c':5A 'it':1A 's':2A"},
		{"東京都 abc東", "'abc':4A '京都':2A '東':5A '東京':1A '都':3A"},
		{"हिन्दी", "'हिन्दी':1A"},
		{"\xff\xfe ok", "'ok':1A"},
	} {
		require.Equal(t, c.want, Words(nil, Text{c.text, 'A'}).String(), c.text)
	}
	require.Equal(t, `'#o\'b\\' '#r1' 'x':1A 'y':2B`, Words([]string{"r1", "o'\x00b\\"}, Text{"x", 'A'}, Text{"Y", 'B'}).String())
	require.Equal(t, `('#r1' | '#o''b\\')`, anyOf([]string{"r1", `o'b\`}))
}

// What is sent in binary, PostgreSQL reads as what its own text form says, in the order that it keeps.
func TestWordsArePostgreSQLs(t *testing.T) {
	db := pgtest.New(t)
	for _, text := range []string{
		"", "Hello, WORLD hello", "it's a\\b'c", "東京都 abc東", "a ab abc b ba A\u0301", strings.Repeat("one two ", 5000), strings.Repeat("x", 3000) + "é",
	} {
		w := Words([]string{"r1", `o'b\`, "@é:example.org"}, Text{text, 'A'}, Text{text, 'B'})
		var got string
		require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT $1::tsvector::text`, w).Scan(&got))
		var same bool
		require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT $1::text::tsvector = $2::tsvector`, w.String(), w).Scan(&same))
		require.True(t, same, got)
	}
}

func TestWordsAreBounded(t *testing.T) {
	long := Words(nil, Text{strings.Repeat("ab ", 100_000) + strings.Repeat("x", 1000), 'A'})
	require.Less(t, len(long.String()), 10_000)
	one := Words(nil, Text{strings.Repeat("ü", 1000), 'A'}).Lexemes
	require.Len(t, one, 1)
	require.LessOrEqual(t, len(one[0].Word), maxWord)
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
		words := Words(nil, Text{s, 'A'}).Lexemes
		require.True(t, slices.IsSortedFunc(words, func(a, b pgtype.TSVectorLexeme) int { return strings.Compare(a.Word, b.Word) }))
		for _, w := range words {
			require.NotEmpty(t, w.Word)
			require.LessOrEqual(t, len(w.Word), maxWord)
			require.True(t, utf8.ValidString(w.Word))
			require.NotContains(t, w.Word, "\x00")
			require.NotEmpty(t, w.Positions)
			require.LessOrEqual(t, len(w.Positions), maxPlaces)
		}
		q, _ := ParseQuery(s, 2)
		require.NotContains(t, q.words, `\`)
		require.NotContains(t, q.words, "\x00")
		require.Zero(t, strings.Count(q.words, "'")%2)
	})
}
