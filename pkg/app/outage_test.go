package app

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// What cannot be answered while the database is away is answered 503, with when to come again, and not as if it were broken.
func TestTheDatabaseIsAway(t *testing.T) {
	server := pgtest.Server(t)
	f := newFleet(t)
	f.db = server.Open()
	f.cfg.Database.DSN = server.DSN
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	const path = "/_matrix/client/v3/profile/@nobody:example.org"
	status, _, _ := w.call(t, "GET", path, "", "")
	require.Equal(t, 404, status)
	server.Kill()
	status, a, header := w.call(t, "GET", path, "", "")
	require.Equal(t, 503, status, a)
	require.Equal(t, "M_UNKNOWN", a["errcode"])
	require.NotEmpty(t, header.Get("Retry-After"))
	server.Start()
	require.Eventually(t, func() bool {
		status, _, _ := w.call(t, "GET", path, "", "")
		return status == 404
	}, time.Minute, 10*time.Millisecond)
}
