package app

import (
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/testkit/redistest"
)

// What one worker learns of a server that fails, the others know by way of Redis, and that it is back; without Redis each knows its own.
func TestPausesAreSharedThroughRedis(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	at := id.ServerName(s.Listener.Addr().String())
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	key, err := signing.NewKey("ed25519:1", make([]byte, 32))
	require.NoError(t, err)
	redis, now := redistest.New(t), time.UnixMilli(1_700_000_000_000)
	worker := func() *fedclient.Client {
		store, err := soft.New(soft.Config{URL: redis.URL, Timeout: 5 * time.Second}, soft.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = store.Close() })
		c := fedclient.New(fedclient.Options{
			Enabled: true, Server: "us.test", Key: key, Guard: outhttp.NewGuard(nil, nil), Cache: store, Roots: roots, Now: func() time.Time { return now },
		})
		t.Cleanup(c.Close)
		return c
	}
	one, two, three := worker(), worker(), worker()
	ask := func(c *fedclient.Client) error {
		_, err := c.Do(t.Context(), at, fedclient.Request{Method: http.MethodGet, Path: "/x"})
		require.Error(t, err)
		return err
	}
	require.NotErrorIs(t, ask(one), fedclient.ErrBackoff)
	require.ErrorIs(t, ask(two), fedclient.ErrBackoff, "another worker leaves it alone too")
	require.Equal(t, one.Backoff(t.Context(), at), two.Backoff(t.Context(), at))

	require.True(t, two.Heard(t.Context(), at))
	now = now.Add(time.Second)
	require.Zero(t, one.Backoff(t.Context(), at), "and is told that it is back")

	redis.Stop()
	require.NotErrorIs(t, ask(three), fedclient.ErrBackoff)
	require.ErrorIs(t, ask(three), fedclient.ErrBackoff, "what it has met itself it remembers")
}
