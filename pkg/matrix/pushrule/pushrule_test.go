package pushrule_test

import (
	"os"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
)

func TestDefaultsAreOfTheUserAndWellFormed(t *testing.T) {
	s := pushrule.Defaults(`@a"b:example.org`)
	b, err := json.Marshal(s)
	require.NoError(t, err)
	require.Contains(t, string(b), `"value":"@a\"b:example.org"`)
	seen := map[string]bool{}
	for _, kind := range []string{"override", "content", "room", "sender", "underride"} {
		rules, ok := s.Of(kind)
		require.True(t, ok)
		require.NotNil(t, rules, "an empty kind is an empty list")
		for _, r := range rules {
			require.True(t, strings.HasPrefix(r.ID, ".m.rule.") || strings.HasPrefix(r.ID, ".org.matrix.msc"), r.ID)
			require.False(t, seen[r.ID], r.ID)
			seen[r.ID] = true
			require.Equal(t, r.ID != ".m.rule.master" && r.ID != ".org.matrix.msc4028.encrypted_event", r.Enabled, r.ID)
			got, ok := s.Find(kind, r.ID)
			require.True(t, ok)
			require.Equal(t, r, got)
		}
	}
	require.Len(t, seen, 21)
	// a pattern that is the empty string must be there: it is not the same as none
	require.Contains(t, string(b), `"key":"state_key","pattern":""`)
	_, ok := s.Of("global")
	require.False(t, ok)
}

// The predefined rules are those that the specification spells out, in its order; what is beside them is named after a proposal.
func TestDefaultsAreThoseOfTheSpecification(t *testing.T) {
	b, err := os.ReadFile("testdata/defaults.json")
	require.NoError(t, err)
	var want map[string][]any
	require.NoError(t, json.Unmarshal(b, &want))
	got := map[string][]any{}
	s := pushrule.Defaults("@alice:example.org")
	for _, kind := range []string{"override", "content", "room", "sender", "underride"} {
		rules, _ := s.Of(kind)
		for _, r := range rules {
			if strings.HasPrefix(r.ID, ".org.matrix.msc") {
				continue
			}
			b, err := json.Marshal(r)
			require.NoError(t, err)
			var shown any
			require.NoError(t, json.Unmarshal(b, &shown))
			got[kind] = append(got[kind], shown)
		}
	}
	require.Equal(t, want, got)
}
