package fleettest_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// pair is two deployments that federate, a user of each, and a room that both are in and speak in without pause.
type pair struct {
	t      *testing.T
	ctx    context.Context
	fleets []*fleettest.Fleet
	dbs    []*pgtest.DB
	users  []*fleettest.Client
	room   string

	stop  chan struct{}
	group sync.WaitGroup
	sent  [2][]string // messages that were acknowledged, by sender
}

// newPair makes one that lasts for a while.
func newPair(t *testing.T, lasting time.Duration) *pair {
	t.Helper()
	p := &pair{t: t, fleets: federated(t, one(), "localhost", "127.0.0.1"), stop: make(chan struct{})}
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	t.Cleanup(cancel)
	p.ctx = ctx
	for i, f := range p.fleets {
		p.dbs = append(p.dbs, f.Database.Open())
		u, err := fleettest.Register(ctx, f.URL, fmt.Sprint("user", i))
		require.NoError(t, err)
		p.users = append(p.users, u)
	}
	p.room = p.create()
	p.join(1, p.room)
	for i, u := range p.users {
		p.group.Go(func() {
			for n := 0; ; n++ {
				e, err := p.say(u, p.room, fmt.Sprint(u.User, " says ", n))
				if err != nil {
					t.Errorf("send: %v", err)
					return
				}
				p.sent[i] = append(p.sent[i], e)
				select {
				case <-p.stop:
					return
				case <-time.After(30 * time.Millisecond):
				}
			}
		})
	}
	return p
}

// create makes a room of the first user.
func (p *pair) create() string {
	p.t.Helper()
	var a struct {
		Room string `json:"room_id"`
	}
	require.NoError(p.t, p.users[0].Do(p.ctx, http.MethodPost, "/createRoom", map[string]any{"preset": "public_chat", "room_version": "11"}, &a))
	return a.Room
}

// join has a user join a room by way of the first deployment, again and again until it is done.
func (p *pair) join(user int, room string) {
	p.t.Helper()
	via := url.QueryEscape(p.fleets[0].Name)
	_, err := p.users[user].Persist(p.ctx, http.MethodPost, "/join/"+url.PathEscape(room)+"?via="+via+"&server_name="+via, map[string]any{}, nil)
	require.NoError(p.t, err)
}

func (p *pair) say(u *fleettest.Client, room, text string) (string, error) {
	var a struct {
		Event string `json:"event_id"`
	}
	_, err := u.Persist(p.ctx, http.MethodPut, "/rooms/"+url.PathEscape(room)+"/send/m.room.message/"+url.PathEscape(text),
		map[string]any{"msgtype": "m.text", "body": text}, &a)
	return a.Event, err
}

// held lets nothing be written to a deployment's rooms while what is done lasts, and calls it when somebody waits to do so: a transaction that is
// under way, and not committed.
func (p *pair) held(fleet int, also func(db *pgtest.DB) bool, do func()) {
	p.t.Helper()
	db := p.dbs[fleet]
	tx, err := db.Pool.Begin(p.ctx)
	require.NoError(p.t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(p.ctx)) }()
	_, err = tx.Exec(p.ctx, "LOCK TABLE event IN SHARE MODE")
	require.NoError(p.t, err)
	require.Eventually(p.t, func() bool {
		var waiting int
		err := db.Pool.QueryRow(p.ctx, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'event'::regclass").Scan(&waiting)
		return err == nil && waiting > 0 && also(db)
	}, time.Minute, 5*time.Millisecond)
	do()
}

func always(*pgtest.DB) bool { return true }

// staged tells whether events of another server wait for a room.
func staged(p *pair) func(db *pgtest.DB) bool {
	return func(db *pgtest.DB) bool {
		var n int
		err := db.Pool.QueryRow(p.ctx, "SELECT count(*) FROM staged_pdu").Scan(&n)
		return err == nil && n > 0
	}
}

// events gives what a deployment shows of a room, and how deep it is, with what was shown twice.
func (p *pair) events(fleet int, room string) map[string]int64 {
	p.t.Helper()
	rows, err := p.dbs[fleet].Pool.Query(p.ctx,
		"SELECT e.event_id, e.depth FROM event e JOIN room r ON r.nid = e.room_nid WHERE r.room_id = $1 AND e.ord IS NOT NULL", room)
	require.NoError(p.t, err)
	out := map[string]int64{}
	var e string
	var depth int64
	_, err = pgx.ForEachRow(rows, []any{&e, &depth}, func() error { out[e] = depth; return nil })
	require.NoError(p.t, err)
	return out
}

// state gives a room's state as a user is told it: event ids by type and key.
func (p *pair) state(user int, room string) (map[string]string, error) {
	var events []struct {
		ID   string `json:"event_id"`
		Type string `json:"type"`
		Key  string `json:"state_key"`
	}
	if _, err := p.users[user].Persist(p.ctx, http.MethodGet, "/rooms/"+url.PathEscape(room)+"/state", nil, &events); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range events {
		out[e.Type+"|"+e.Key] = e.ID
	}
	return out, nil
}

// agree waits until both sides have the same of a room: its state, and all events since the second came in.
func (p *pair) agree(room string) {
	p.t.Helper()
	why := ""
	ok := func() bool {
		one, err := p.state(0, room)
		if err != nil {
			why = err.Error()
			return false
		}
		two, err := p.state(1, room)
		if err != nil || !maps.Equal(one, two) {
			why = fmt.Sprint("state: ", one, two, err)
			return false
		}
		first, second := p.events(0, room), p.events(1, room)
		since := second[one["m.room.member|"+p.users[1].User]]
		maps.DeleteFunc(first, func(_ string, depth int64) bool { return depth < since })
		maps.DeleteFunc(second, func(_ string, depth int64) bool { return depth < since })
		why = fmt.Sprintf("%d events and %d", len(first), len(second))
		return maps.Equal(first, second)
	}
	for !ok() {
		select {
		case <-p.ctx.Done():
			require.FailNow(p.t, "the servers do not agree", why)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// finish ends the speaking, and demands that both have heard all of it, each message once and in its sender's order.
func (p *pair) finish() {
	p.t.Helper()
	close(p.stop)
	p.group.Wait()
	p.agree(p.room)
	for i := range p.users {
		order := map[string]int{}
		rows, err := p.dbs[i].Pool.Query(p.ctx,
			"SELECT e.event_id FROM event e JOIN room r ON r.nid = e.room_nid WHERE r.room_id = $1 AND e.ord IS NOT NULL ORDER BY e.ord", p.room)
		require.NoError(p.t, err)
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(p.t, err)
		for n, e := range all {
			order[e] = n
		}
		for s := range p.users {
			require.NotEmpty(p.t, p.sent[s])
			require.Len(p.t, slices.Compact(slices.Sorted(slices.Values(p.sent[s]))), len(p.sent[s]))
			last := -1
			for _, e := range p.sent[s] {
				n, there := order[e]
				require.True(p.t, there, "%s of %s is lost to %s", e, p.users[s].User, p.users[i].User)
				require.Greater(p.t, n, last, "out of order")
				last = n
			}
		}
		require.Eventually(p.t, func() bool { return !staged(p)(p.dbs[i]) }, time.Minute, 20*time.Millisecond)
	}
}

// The federation-reader dies when it has taken events that are not in their room yet, while the master is about to write them: nothing is lost,
// nothing comes twice.
func TestFederationReaderKilledBetweenStagingAndCommit(t *testing.T) {
	p := newPair(t, 4*time.Minute)
	for range 2 {
		reader := p.fleets[0].Process("federation-reader-1")
		p.held(0, staged(p), reader.Kill)
		pause(200 * time.Millisecond)
		reader.Restart()
	}
	p.finish()
}

// A master dies in the middle of a join, on the side that lets in and on the side that comes: the user's client asks again, and is in, once,
// with the room's state.
func TestMasterKilledDuringAJoin(t *testing.T) {
	p := newPair(t, 4*time.Minute)
	for round := range 2 {
		room := p.create()
		for n := range 5 {
			_, err := p.say(p.users[0], room, fmt.Sprint("round ", round, " ", n))
			require.NoError(t, err)
		}
		side := round % 2
		master := p.fleets[side].Process("master-1")
		done := make(chan struct{})
		p.held(side, always, func() {
			go func() { defer close(done); p.join(1, room) }() // waited for below
			if side == 1 {
				// What the join has got of the state is on its way into the database.
				require.Eventually(t, func() bool {
					var n int
					err := p.dbs[1].Pool.QueryRow(p.ctx, "SELECT count(*) FROM staged_set").Scan(&n)
					return err == nil && n > 0
				}, time.Minute, 5*time.Millisecond)
			} else {
				pause(300 * time.Millisecond)
			}
			master.Kill()
		})
		master.Restart()
		<-done
		_, err := p.say(p.users[1], room, fmt.Sprint("in at last ", round))
		require.NoError(t, err)
		p.agree(room)
	}
	p.finish()
}
