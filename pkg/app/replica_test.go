package app

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// First syncs, pages of rooms and searches are read from a replica that has what they tell, and are the same where it has not.
func TestReadsFromAReplica(t *testing.T) {
	primary := pgtest.Server(t)
	standby := primary.Standby()
	f := newFleet(t)
	f.db = primary.Open()
	f.cfg.Database.DSN, f.cfg.Database.ReadDSN = primary.DSN, standby.DSN
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	there, err := pgx.Connect(t.Context(), standby.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { _ = there.Close(context.Background()) })

	const client = "/_matrix/client/v3"
	post := func(method, path, token, body string) map[string]any {
		status, a, _ := w.call(t, method, client+path, token, body)
		require.Equal(t, 200, status, "%s: %v", path, a)
		return a
	}
	token := post("POST", "/register", "", `{"username":"alice","password":"correct horse","auth":{"type":"m.login.dummy"}}`)["access_token"].(string)
	room := post("POST", "/createRoom", token, `{}`)["room_id"].(string)
	reads := func() (n int64) { // of events, on the replica
		require.NoError(t, there.QueryRow(t.Context(),
			`SELECT coalesce(sum(seq_scan + coalesce(idx_scan, 0)), 0)::bigint FROM pg_stat_user_tables WHERE relname = 'event'`).Scan(&n))
		return n
	}
	n := 0
	say := func() string {
		n++
		text := fmt.Sprint("word", n)
		post("PUT", fmt.Sprintf("/rooms/%s/send/m.room.message/%d", room, n), token, `{"msgtype":"m.text","body":"`+text+`"}`)
		return text
	}
	search := func(text string) {
		found := post("POST", "/search", token, `{"search_categories":{"room_events":{"search_term":"`+text+`"}}}`)
		require.Contains(t, fmt.Sprint(found), text)
	}
	synced := func(text string) { // a first sync tells what its worker has heard, which may be a moment after the answer to who sent it
		require.Eventually(t, func() bool { return strings.Contains(fmt.Sprint(post("GET", "/sync", token, "")), text) }, time.Minute, 5*time.Millisecond)
	}
	replayed := func() {
		var upto string
		require.NoError(t, f.db.Pool.QueryRow(t.Context(), `SELECT pg_current_wal_lsn()::text`).Scan(&upto))
		require.Eventually(t, func() (done bool) {
			require.NoError(t, there.QueryRow(t.Context(), `SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn`, upto).Scan(&done))
			return done
		}, time.Minute, 5*time.Millisecond)
	}
	before := reads()
	require.Eventually(t, func() bool { // what it counts it tells late
		text := say()
		replayed()
		synced(text)
		require.Contains(t, fmt.Sprint(post("GET", "/rooms/"+room+"/messages?dir=b", token, "")), text)
		return reads() > before
	}, 2*time.Minute, 20*time.Millisecond, "the replica is read")

	_, err = there.Exec(t.Context(), `SELECT pg_wal_replay_pause()`)
	require.NoError(t, err)
	text := say()
	synced(text)
	require.Contains(t, fmt.Sprint(post("GET", "/rooms/"+room+"/messages?dir=b", token, "")), text)
	search(text)
	_, err = there.Exec(t.Context(), `SELECT pg_wal_replay_resume()`)
	require.NoError(t, err)
	search(say())
}
