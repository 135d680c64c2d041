package app

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a device asks shows when and from where it was used last: noted off the request's path, at the latest when the worker stops.
func TestLastSeen(t *testing.T) {
	f := newFleet(t)
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	_, a, _ := w.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"alice","password":"correct horse","auth":{"type":"m.login.dummy"}}`)
	token := a["access_token"].(string)
	_, err := f.db.Pool.Exec(t.Context(), `UPDATE device SET last_seen = 1, last_seen_ip = '', user_agent = ''`)
	require.NoError(t, err)
	before := time.Now().UnixMilli()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.URL()+"/_matrix/client/v3/account/whoami", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Forwarded-For", "203.0.113.9")
	req.Header.Set("User-Agent", "Loom/1 \xff")
	res, err := (&http.Client{Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
	w.stop(t)

	var at int64
	var ip, agent string
	require.NoError(t, f.db.Pool.QueryRow(t.Context(), `SELECT last_seen, last_seen_ip, user_agent FROM device`).Scan(&at, &ip, &agent))
	require.GreaterOrEqual(t, at, before)
	require.Equal(t, "203.0.113.9", ip)
	require.Equal(t, "Loom/1 \uFFFD", agent)
}
