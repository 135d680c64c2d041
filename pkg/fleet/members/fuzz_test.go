package members

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(`{"draining":true,"nats":true,"positions":[1,2],"lag":3,"memory_bytes":4,"cpu_seconds":0.5,"later":{}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseStatus(text)
		if err != nil {
			require.Equal(t, Status{NotReady: true}, s)
			return
		}
		b, err := json.Marshal(s)
		require.NoError(t, err)
		again, err := ParseStatus(b)
		require.NoError(t, err)
		require.Equal(t, s.wanting(), again.wanting())
	})
}
