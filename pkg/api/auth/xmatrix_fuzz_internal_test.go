package auth

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

func FuzzParseXMatrix(f *testing.F) {
	sig := `sig="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"`
	f.Add(`X-Matrix origin="a.example",destination="b.example",key="ed25519:1",`+sig, "")
	f.Add(`x-matrix origin=a.example:8448, key=ed25519:a_b ,`+sig, `X-Matrix origin="\"`)
	f.Add(`Bearer x`, `X-Matrix ,,,=,="`)
	f.Fuzz(func(t *testing.T, one, two string) {
		got, err := parseXMatrix([]string{one, two})
		if err != nil {
			var e *mxerr.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, 401, e.HTTPStatus)
			return
		}
		require.NotEmpty(t, got)
		require.LessOrEqual(t, len(got), maxSignatures)
		for _, c := range got {
			_, err := id.ParseServerName(string(c.origin))
			require.NoError(t, err)
			require.Len(t, c.sig, 64)
			require.Equal(t, id.AlgorithmEd25519, c.key.Algorithm())
		}
	})
}
