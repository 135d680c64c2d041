package senderdb_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/senderdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	server   = "home.test"
	consumer = "sender-1"
	join     = 4
	leave    = 1
	patience = time.Minute
	tick     = 5 * time.Millisecond
)

func exec(t *testing.T, db *pgtest.DB, sql string, args ...any) {
	t.Helper()
	_, err := db.Pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// open gives a database in which slot 1 of the sender is held under epoch 5 and has the place 10 in both shards.
func open(t *testing.T) (*senderdb.DB, *pgtest.DB, shard.Role) {
	t.Helper()
	db := pgtest.New(t)
	exec(t, db, `INSERT INTO role_lease (role, slot, epoch, holder) VALUES ('sender', 1, 5, 'm1'), ('sender', 2, 5, 'm1')`)
	exec(t, db, `INSERT INTO cursor (consumer, shard, pos) VALUES ('sender-1', 0, 10), ('sender-1', 1, 10), ('sender-2', 0, 10), ('sender-2', 1, 10)`)
	return senderdb.NewDB(db.DB), db, shard.Role{Name: "sender", Slot: 1, Epoch: 5}
}

func cursor(t *testing.T, db *pgtest.DB, of string) (at shard.Vector) {
	t.Helper()
	rows, err := db.Pool.Query(t.Context(), `SELECT pos FROM cursor WHERE consumer = $1 ORDER BY shard`, of)
	require.NoError(t, err)
	at, err = pgx.CollectRows(rows, pgx.RowTo[shard.Pos])
	require.NoError(t, err)
	return at
}

func behind(t *testing.T, d *senderdb.DB, slot int16) []senderdb.Behind {
	t.Helper()
	out, err := d.LoadBehind(t.Context(), slot)
	require.NoError(t, err)
	return out
}

// Who takes a slot over finds where its destinations stood when its place in the log was last stored: both change together, and no place
// goes back.
func TestPlacesSurviveAHandOver(t *testing.T) {
	t.Parallel()
	d, db, role := open(t)
	save := func(role shard.Role, at shard.Vector, set, dropped []senderdb.Behind) bool {
		held, err := d.Save(t.Context(), role, fmt.Sprint("sender-", role.Slot), at, set, dropped)
		require.NoError(t, err)
		return held
	}
	one := []senderdb.Behind{{"one.test", 0, 7}, {"one.test", 1, 3}}
	require.True(t, save(role, shard.Vector{20, 30}, append(one, senderdb.Behind{"two.test", 1, 9}), nil))
	require.Equal(t, shard.Vector{20, 30}, cursor(t, db, consumer))
	require.ElementsMatch(t, append(one, senderdb.Behind{"two.test", 1, 9}), behind(t, d, 1))
	require.Empty(t, behind(t, d, 2))

	// The slot is another's now. What its former holder still wants to store is not stored.
	exec(t, db, `UPDATE role_lease SET epoch = 6 WHERE slot = 1`)
	require.False(t, save(role, shard.Vector{90, 90}, []senderdb.Behind{{"one.test", 0, 1}, {"three.test", 0, 1}}, []senderdb.Behind{{"two.test", 1, 0}}))
	require.Equal(t, shard.Vector{20, 30}, cursor(t, db, consumer))
	require.ElementsMatch(t, append(one, senderdb.Behind{"two.test", 1, 9}), behind(t, d, 1))

	next := role
	next.Epoch = 6
	require.True(t, save(next, shard.Vector{25, 29}, []senderdb.Behind{{"one.test", 0, 22}}, []senderdb.Behind{{"one.test", 1, 0}}))
	require.Equal(t, shard.Vector{25, 30}, cursor(t, db, consumer), "forward only, in each shard for itself")
	require.ElementsMatch(t, []senderdb.Behind{{"one.test", 0, 22}, {"two.test", 1, 9}}, behind(t, d, 1))
	require.Equal(t, shard.Vector{10, 10}, cursor(t, db, "sender-2"), "another slot's is its own")

	// Another slot drops what is its own only.
	other := role
	other.Slot = 2
	require.True(t, save(other, shard.Vector{11, 11}, nil, []senderdb.Behind{{"two.test", 1, 0}}))
	require.ElementsMatch(t, []senderdb.Behind{{"one.test", 0, 22}, {"two.test", 1, 9}}, behind(t, d, 1))

	// What cannot be stored as a whole is not stored at all: the place in the log stays with the destinations'.
	_, err := d.Save(t.Context(), next, consumer, shard.Vector{40, 40}, []senderdb.Behind{{"two.test", 1, 10}, {"\x00", 0, 1}}, nil)
	require.Error(t, err)
	_, err = d.Save(t.Context(), next, "\x00", shard.Vector{40, 40}, []senderdb.Behind{{"two.test", 1, 10}}, []senderdb.Behind{{"one.test", 0, 0}})
	require.Error(t, err)
	require.Equal(t, shard.Vector{25, 30}, cursor(t, db, consumer))
	require.ElementsMatch(t, []senderdb.Behind{{"one.test", 0, 22}, {"two.test", 1, 9}}, behind(t, d, 1))
}

// A lease cannot change hands in the middle of what its holder stores.
func TestAFenceHoldsUntilTheEnd(t *testing.T) {
	t.Parallel()
	d, db, role := open(t)
	// The new holder has changed the lease, and has not committed.
	tx := db.Tx(t)
	_, err := tx.Exec(t.Context(), `UPDATE role_lease SET epoch = 6 WHERE slot = 1`)
	require.NoError(t, err)
	type result struct {
		held bool
		err  error
	}
	done := make(chan result, 1)
	go func() {
		held, err := d.Save(t.Context(), role, consumer, shard.Vector{20, 20}, nil, nil)
		done <- result{held, err}
	}()
	require.Eventually(t, func() bool {
		var waits bool
		err := db.Pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%role_lease%FOR SHARE%'
			AND datname = current_database())`).Scan(&waits)
		return err == nil && waits || len(done) > 0
	}, patience, tick)
	require.NoError(t, tx.Commit(t.Context()))
	r := <-done
	require.NoError(t, r.err)
	require.False(t, r.held)
	require.Equal(t, shard.Vector{10, 10}, cursor(t, db, consumer))
}

func queue(t *testing.T, db *pgtest.DB, s int, destination string, from, to int) {
	t.Helper()
	exec(t, db, `INSERT INTO fed_edu (shard, destination, type, content) SELECT $1, $2, g.n::text, convert_to('{}', 'UTF8') FROM generate_series($3::int, $4::int) AS g (n) ORDER BY g.n`,
		s, destination, from, to)
}

func edus(t *testing.T, d *senderdb.DB, s shard.ID, destination string, most int) (types []string, seqs []int64) {
	t.Helper()
	list, err := d.EDUs(t.Context(), s, destination, most)
	require.NoError(t, err)
	for _, e := range list {
		require.JSONEq(t, `{}`, string(e.Content))
		types, seqs = append(types, e.Type), append(seqs, e.Seq)
	}
	return types, seqs
}

// What is queued for a destination is read from the oldest on, no more than is asked for, and stays until whoever holds the slot says that it was
// acknowledged.
func TestEDUs(t *testing.T) {
	t.Parallel()
	d, db, role := open(t)
	queue(t, db, 1, "one.test", 1, 9)
	queue(t, db, 1, "two.test", 11, 12)
	queue(t, db, 0, "one.test", 21, 22)
	types, seqs := edus(t, d, 1, "one.test", 4)
	require.Equal(t, []string{"1", "2", "3", "4"}, types)
	again, _ := edus(t, d, 1, "one.test", 4)
	require.Equal(t, types, again, "they stay")
	_, others := edus(t, d, 1, "two.test", 4)
	_, elsewhere := edus(t, d, 0, "one.test", 4)

	drop := func(role shard.Role, destination string, seqs ...int64) bool {
		held, err := d.DropEDUs(t.Context(), role, destination, seqs)
		require.NoError(t, err)
		return held
	}
	former := role
	former.Epoch = 4
	require.False(t, drop(former, "one.test", seqs...))
	again, _ = edus(t, d, 1, "one.test", 4)
	require.Equal(t, types, again)
	require.True(t, drop(role, "one.test", append(append(seqs[:2], others...), elsewhere...)...))
	for _, want := range []struct {
		shard       shard.ID
		destination string
		types       []string
	}{{1, "one.test", []string{"3", "4", "5"}}, {1, "two.test", []string{"11", "12"}}, {0, "one.test", []string{"21", "22"}}, {0, "two.test", nil}} {
		got, _ := edus(t, d, want.shard, want.destination, 3)
		require.Equal(t, want.types, got)
	}
	for s, want := range map[shard.ID][]string{0: {"one.test"}, 1: {"one.test", "two.test"}, 2: {}} {
		list, err := d.EDUDestinations(t.Context(), s)
		require.NoError(t, err)
		require.ElementsMatch(t, want, list)
	}
}

// For whom more waits than is kept loses the oldest of it, a piece at a time; nobody else loses anything.
func TestTrimmedEDUs(t *testing.T) {
	t.Parallel()
	d, db, _ := open(t)
	queue(t, db, 1, "dead.test", 1, 12)
	queue(t, db, 1, "slow.test", 1, 5)
	queue(t, db, 0, "dead.test", 1, 12)
	for _, want := range []int64{4, 3, 0} {
		n, err := d.TrimEDUs(t.Context(), 1, 5, 4)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	types, _ := edus(t, d, 1, "dead.test", 20)
	require.Equal(t, []string{"8", "9", "10", "11", "12"}, types)
	types, _ = edus(t, d, 1, "slow.test", 20)
	require.Len(t, types, 5)
	types, _ = edus(t, d, 0, "dead.test", 20)
	require.Len(t, types, 12, "of another shard")
}

// world puts rows of events and members into a database, all of shard 1.
type world struct {
	t  *testing.T
	db *pgtest.DB
	n  int64
}

func (w *world) atom(name string) (nid int64) {
	w.t.Helper()
	w.n++
	exec(w.t, w.db, `INSERT INTO atom (nid, shard, name) VALUES ($1, 1, $2) ON CONFLICT DO NOTHING`, w.n<<8|1, name)
	require.NoError(w.t, w.db.Pool.QueryRow(w.t.Context(), `SELECT nid FROM atom WHERE shard = 1 AND name = $1`, name).Scan(&nid))
	return nid
}

// event stores an event at a position; flags other than 0 are of those that no timeline shows.
func (w *world) event(room shard.Nid, pos int64, name, typ, sender string, flags int) int64 {
	w.t.Helper()
	w.n++
	nid := w.n<<8 | 1
	exec(w.t, w.db, `INSERT INTO event (nid, room_nid, ord, event_id, type, sender, depth, ts, flags, state_before, state_after, json)
		VALUES ($1, $2, $3, $4, $5, $6, 1, 1, $7, 0, 0, convert_to($4, 'UTF8'))`, nid, int64(room), pos, name, w.atom(typ), w.atom(sender), flags)
	return nid
}

func (w *world) member(room shard.Nid, user string, membership int, pos, event int64, local bool) {
	w.t.Helper()
	exec(w.t, w.db, `INSERT INTO member (room_nid, user_id, membership, event_nid, pos, local) VALUES ($1, $2, $3, $4, $5, $6)`,
		int64(room), user, membership, event, pos, local)
}

// Who has left a room is told what happened until then: a server counts as there for what comes before its last user's leave.
func TestHosts(t *testing.T) {
	t.Parallel()
	d, db, _ := open(t)
	w := &world{t: t, db: db}
	a, b, empty := shard.MakeNid(1, 101), shard.MakeNid(1, 102), shard.MakeNid(1, 103)
	create := w.event(a, 1, "$create", "m.room.create", "@us:"+server, 0)
	exec(t, db, `INSERT INTO current_state (room_nid, type, state_key, event_nid, pos) VALUES ($1, $2, $3, $4, 1)`,
		int64(a), w.atom("m.room.create"), w.atom(""), create)
	w.member(a, "@us:"+server, join, 1, 0, true)
	w.member(a, "@x:one.test:8448", join, 5, 0, false)
	w.member(a, "@y:one.test:8448", join, 6, 0, false)
	w.member(a, "@x:left.test", leave, 20, 0, false)
	w.member(b, "@x:left.test", join, 3, 0, false)
	w.member(empty, "@us:"+server, join, 1, 0, true)
	for since, want := range map[shard.Pos][]string{19: {"one.test:8448", "left.test"}, 20: {"one.test:8448"}} {
		list, err := d.Hosts(t.Context(), []shard.Nid{empty, b, a}, []shard.Pos{0, 0, since})
		require.NoError(t, err)
		require.Equal(t, []shard.Nid{empty, b, a}, []shard.Nid{list[0].Room, list[1].Room, list[2].Room})
		require.Empty(t, list[0].Hosts)
		require.Equal(t, []string{"left.test"}, list[1].Hosts)
		require.Nil(t, list[1].Create, "its state is not known")
		require.ElementsMatch(t, want, list[2].Hosts)
		require.Equal(t, "$create", string(list[2].Create))

		there, err := d.StillThere(t.Context(), a, since, []string{"left.test", "one.test:8448", "never.test", server})
		require.NoError(t, err)
		require.ElementsMatch(t, want, there)
	}
	all, err := d.AllHosts(t.Context())
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"one.test:8448", "left.test"}, all)
	for host, want := range map[string][]shard.Nid{"one.test:8448": {a}, "left.test": {b}, server: {}} {
		rooms, err := d.RoomsOf(t.Context(), host)
		require.NoError(t, err)
		require.Equal(t, want, rooms, host)
	}
	rooms, err := d.RoomsOfUser(t.Context(), "@us:"+server)
	require.NoError(t, err)
	require.ElementsMatch(t, []shard.Nid{a, empty}, rooms)
	guests, err := d.RoomsOfGuests(t.Context(), "one.test:8448", []string{"@x:one.test:8448", "@x:left.test", "@z:one.test:8448"})
	require.NoError(t, err)
	require.Equal(t, map[string][]shard.Nid{"@x:one.test:8448": {a}}, guests)
}

// A server that was away is owed of each room the latest event of this server and the latest change of a membership, unless it has had them,
// and each event by which this server made one of its users go.
func TestWhatAServerThatWasAwayIsOwed(t *testing.T) {
	t.Parallel()
	d, db, _ := open(t)
	w := &world{t: t, db: db}
	a, b := shard.MakeNid(1, 101), shard.MakeNid(1, 102)
	const us, them = "@us:" + server, "@them:one.test"
	w.event(a, 1, "$said", "m.room.message", us, 0)
	w.event(a, 5, "$joined", "m.room.member", them, 0)
	w.event(a, 6, "$answer", "m.room.message", us, 0)
	w.event(a, 7, "$theirs", "m.room.message", them, 0)
	w.event(a, 8, "$hidden", "m.room.message", us, 1)
	w.event(b, 4, "$invite", "m.room.member", us, 0) // both in one
	w.event(b, 3, "$before", "m.room.message", us, 0)
	latest := func(above ...shard.Pos) (out []string) {
		list, err := d.Latest(t.Context(), server, []shard.Nid{a, b}, above)
		require.NoError(t, err)
		for i, e := range list {
			require.Equal(t, e.EventID, string(e.JSON))
			require.True(t, i == 0 || list[i-1].Pos < e.Pos, "in the order of their positions")
			out = append(out, fmt.Sprint(e.EventID, " ", e.Pos, " ", e.Sender))
		}
		return out
	}
	require.Equal(t, []string{"$invite 4 " + us, "$joined 5 " + them, "$answer 6 " + us}, latest(0, 0))
	require.Equal(t, []string{"$answer 6 " + us}, latest(5, 4), "beyond what it has had")
	require.Empty(t, latest(6, 4))

	w.member(a, "@kicked:one.test", leave, 10, w.event(a, 10, "$kick", "m.room.member", us, 0), false)
	w.member(b, "@kicked:one.test", leave, 12, w.event(b, 12, "$kick2", "m.room.member", us, 0), false)
	w.member(a, "@left:one.test", leave, 11, w.event(a, 11, "$left", "m.room.member", "@left:one.test", 0), false)
	w.member(a, "@other:two.test", leave, 13, w.event(a, 13, "$else", "m.room.member", us, 0), false)
	departures := func(above map[shard.ID]shard.Pos, most int) (out []string) {
		list, err := d.Departures(t.Context(), server, "one.test", above, most)
		require.NoError(t, err)
		for _, e := range list {
			out = append(out, fmt.Sprint(e.EventID, " ", e.Pos, " ", e.Room.Seq()))
		}
		return out
	}
	require.Equal(t, []string{"$kick 10 101", "$kick2 12 102"}, departures(map[shard.ID]shard.Pos{0: 0, 1: 9}, 10))
	require.Equal(t, []string{"$kick 10 101"}, departures(map[shard.ID]shard.Pos{1: 9}, 1), "the oldest first")
	require.Equal(t, []string{"$kick2 12 102"}, departures(map[shard.ID]shard.Pos{1: 10}, 10))
	require.Empty(t, departures(map[shard.ID]shard.Pos{0: 0}, 10), "of the rooms of another shard")
}

// A server that was away is told whose devices changed meanwhile, of the users whom its own can see.
func TestListsChanged(t *testing.T) {
	t.Parallel()
	d, db, _ := open(t)
	w := &world{t: t, db: db}
	a := shard.MakeNid(1, 101)
	for user, room := range map[string]shard.Nid{"@near:" + server: a, "@still:" + server: a, "@far:" + server: a + 256} {
		w.member(room, user, join, 1, 0, true)
	}
	w.member(a, "@gone:"+server, leave, 1, 0, true)
	w.member(a, "@them:one.test", join, 1, 0, false)
	w.member(a+256, "@them:one.test", leave, 1, 0, false)
	exec(t, db, `INSERT INTO device_list (shard, user_id, pos) VALUES (0, '@near:home.test', 8), (1, '@still:home.test', 8), (0, '@far:home.test', 9),
		(0, '@gone:home.test', 9), (0, '@them:one.test', 9)`)
	for _, c := range []struct {
		above map[shard.ID]shard.Pos
		want  []senderdb.ListChange
	}{
		{map[shard.ID]shard.Pos{0: 7, 1: 7}, []senderdb.ListChange{{"@near:" + server, 8}, {"@still:" + server, 8}}},
		{map[shard.ID]shard.Pos{0: 7, 1: 8}, []senderdb.ListChange{{"@near:" + server, 8}}},
		{map[shard.ID]shard.Pos{1: 0}, []senderdb.ListChange{{"@still:" + server, 8}}},
	} {
		got, err := d.ListsChanged(t.Context(), server, "one.test", c.above)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}
