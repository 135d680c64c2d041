package pushrule

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// A plain pattern is found in a body where the search for any pattern finds it.
func TestPlainPatternsAreFoundTheSame(t *testing.T) {
	letters := rapid.StringOfN(rapid.RuneFrom([]rune("aAb_ .\u0130\u212akKäÄß1")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		body, pattern := letters.Draw(t, "body"), letters.Draw(t, "pattern")
		quoted, err := jsontext.AppendQuote(nil, body)
		require.NoError(t, err)
		e := FromParts(Parts{Content: canonical(t, `{"body":`+string(quoted)+`}`)})
		require.Equal(t, body, e.body)
		for _, g := range []*glob{newGlob(pattern), literal(pattern)} {
			require.Equal(t, g.search([]rune(body), true), g.inBody(e), "%q in %q", pattern, body)
		}
	})
}

func canonical(t require.TestingT, s string) []byte {
	c, err := canonjson.Canonical([]byte(s), canonjson.Options{})
	require.NoError(t, err)
	return c
}
