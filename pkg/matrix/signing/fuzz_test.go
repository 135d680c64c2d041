package signing_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

func FuzzParseKeyFile(f *testing.F) {
	f.Add("ed25519 auto " + strings.Repeat("A", 43))
	f.Add("# old\n\ned25519 a_b " + strings.Repeat("A", 43) + "\r\ned25519 2 " + strings.Repeat("B", 42) + "E=")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := signing.ParseKeyFile(text)
		if err != nil {
			return
		}
		require.NotEmpty(t, keys)
		for _, k := range keys {
			again, err := signing.ParseKey(k.Format())
			require.NoError(t, err)
			require.Equal(t, k.Format(), again.Format())
		}
	})
}
