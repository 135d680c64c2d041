package fedtest_test

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// A server that says nothing is waited for as long as a client wants to wait, is told as having failed, and is asked again the next time: a client
// without patience has nobody else's server be left alone.
func TestKeysOfASilentServer(t *testing.T) {
	ca := certtest.NewAuthority(t)
	home := fedtest.Run(t, ca, "127.0.0.1")
	alice := home.NewUser(t, "alice")
	silent := fedtest.NewRemote(t, ca)
	released := make(chan struct{})
	var waiting, speaks atomic.Bool
	bob := "@bob:" + string(silent.Name)
	for _, what := range []string{"query", "claim"} {
		silent.Handle("/_matrix/federation/v1/user/keys/"+what, func(w http.ResponseWriter, _ *http.Request) {
			if !speaks.Load() {
				waiting.Store(true)
				<-released
				waiting.Store(false)
			}
			_, _ = io.WriteString(w, `{"device_keys":{"`+bob+`":{"D":{"user_id":"`+bob+`","device_id":"D"}}},"one_time_keys":{"`+bob+`":{"D":{"a:1":{}}}}}`)
		})
	}
	ask := map[string]map[string]any{
		"/keys/query": {"timeout": 200, "device_keys": map[string]any{bob: []string{}, alice.User: []string{}}},
		"/keys/claim": {"timeout": 200, "one_time_keys": map[string]any{bob: map[string]string{"D": "a"}}},
	}
	for path, q := range ask {
		waiting.Store(false)
		a := alice.Must(t, "POST", path, q)
		require.Contains(t, a["failures"], string(silent.Name), path)
		require.True(t, waiting.Load(), "it says nothing still")
		if path == "/keys/query" {
			require.Contains(t, a["device_keys"], alice.User)
		}
	}
	for path, q := range ask {
		q["timeout"] = -1
		status, code := alice.Refused(t, "POST", path, q)
		require.Equal(t, 400, status)
		require.Equal(t, "M_INVALID_PARAM", code)
		delete(q, "timeout")
	}
	speaks.Store(true)
	close(released)
	require.Contains(t, alice.Must(t, "POST", "/keys/query", ask["/keys/query"])["device_keys"], bob)
	require.Contains(t, alice.Must(t, "POST", "/keys/claim", ask["/keys/claim"])["one_time_keys"], bob)
}
