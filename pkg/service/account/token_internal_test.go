package account

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAccessToken(t *testing.T) {
	for _, lp := range []string{"alice", "a.b_c=d-e/f+g", "1"} {
		token := newToken(accessPrefix, lp)
		got, err := TokenLocalpart(token)
		require.NoError(t, err)
		require.Equal(t, lp, got)
		require.NotEqual(t, token, newToken(accessPrefix, lp))
		for i := range len(token) {
			bad := []byte(token)
			bad[i] ^= 1
			if lp2, err := TokenLocalpart(string(bad)); err == nil {
				require.Equal(t, lp, lp2) // bits of the last character that base64 ignores
			}
		}
	}
}

func FuzzTokenLocalpart(f *testing.F) {
	f.Add(newToken(accessPrefix, "alice"))
	f.Add("hed_..")
	f.Fuzz(func(t *testing.T, s string) {
		if lp, err := TokenLocalpart(s); err == nil {
			require.NotEmpty(t, lp)
		}
	})
}
