package app

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A listener with a certificate speaks the protocols that it offers.
func TestListenerSpeaksHTTP2(t *testing.T) {
	srv := httptest.NewTLSServer(nil) // for its certificate
	defer srv.Close()
	for _, h2 := range []bool{true, false} {
		l := newListener("tls", "127.0.0.1:0", &tls.Config{Certificates: srv.TLS.Certificates, MinVersion: tls.VersionTLS12},
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }), time.Second, slog.New(slog.DiscardHandler))
		require.NoError(t, l.Start(t.Context()))
		transport := srv.Client().Transport.(*http.Transport).Clone()
		transport.ForceAttemptHTTP2 = h2
		resp, err := (&http.Client{Transport: transport}).Get("https://" + l.bound.String())
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[h2], string(body))
		transport.CloseIdleConnections()
		require.NoError(t, l.Stop(t.Context()))
	}
}
