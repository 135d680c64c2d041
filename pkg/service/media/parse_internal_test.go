package media

import (
	"io"
	"mime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func FuzzParts(f *testing.F) {
	f.Add("multipart/mixed; boundary=x", "--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x--\r\n")
	f.Add("multipart/mixed; boundary=\"a b\"", "--a b\r\n\r\n{}\r\n--a b\r\nLocation: https://example.org/\r\n\r\n\r\n--a b--")
	f.Add("text/plain", "x")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		part, err := contentPart(contentType, strings.NewReader(body))
		if err != nil {
			require.ErrorIs(t, err, errParts)
			return
		}
		b, _ := io.ReadAll(part)
		require.LessOrEqual(t, len(b), len(body))
	})
}

// Whatever a file is called, its name comes back as it was, and nothing else gets into the header.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "a.txt", "a b", `a"b\c;d`, "🐔", "a\r\nSet-Cookie: x=y", "\xff", "%41", "a*b'c", strings.Repeat("x", 2000)} {
		f.Add(s, "image/png", "attachment; filename="+s)
	}
	f.Fuzz(func(t *testing.T, name, contentType, header string) {
		clean := cleanName(name)
		require.True(t, utf8.ValidString(clean))
		kind := cleanType(contentType)
		_, _, err := mime.ParseMediaType(kind)
		require.NoError(t, err)
		d := Disposition(kind, clean)
		require.NotContains(t, d+kind, "\n")
		require.NotContains(t, d+kind, "\r")
		require.Equal(t, clean, nameOf(d), d)
		got := nameOf(header)
		require.True(t, utf8.ValidString(got))
		require.LessOrEqual(t, len(got), maxNameLength)
	})
}
