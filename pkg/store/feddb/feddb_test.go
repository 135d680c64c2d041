package feddb_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	home   shard.ID = 1 // of the origins
	around shard.ID = 2 // of the rooms
)

func open(t *testing.T) (*feddb.DB, *pgtest.DB) {
	t.Helper()
	db := pgtest.New(t)
	return feddb.NewDB(db.DB), db
}

func exec(t *testing.T, db *pgtest.DB, sql string, args ...any) {
	t.Helper()
	_, err := db.Pool.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func count(t *testing.T, db *pgtest.DB, table string) (n int) {
	t.Helper()
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

func pdus(room string, events ...string) (out []feddb.StagedPDU) {
	for _, e := range events {
		out = append(out, feddb.StagedPDU{Shard: around, RoomID: room, EventID: e, JSON: []byte(e)})
	}
	return out
}

func stage(t *testing.T, d *feddb.DB, origin, txn string, pdus []feddb.StagedPDU, edus ...feddb.StagedEDU) bool {
	t.Helper()
	fresh, err := d.Stage(t.Context(), home, origin, txn, pdus, edus)
	require.NoError(t, err)
	return fresh
}

// staged gives a room's staged events.
func staged(t *testing.T, d *feddb.DB, room string, most int) []feddb.StagedPDU {
	t.Helper()
	out, err := d.Staged(t.Context(), around, room, most)
	require.NoError(t, err)
	return out
}

func names(list []feddb.StagedPDU) (out []string) {
	for _, p := range list {
		out = append(out, p.EventID)
	}
	return out
}

// seqs gives the places of some of a room's staged events.
func seqs(t *testing.T, d *feddb.DB, room string, events ...string) (out []int64) {
	t.Helper()
	for _, p := range staged(t, d, room, 1000) {
		if slices.Contains(events, p.EventID) {
			out = append(out, p.Seq)
		}
	}
	require.Len(t, out, len(events))
	return out
}

// A transaction that comes again, in whatever form, leaves what it left when it came first; one of the same name from another server is another.
func TestATransactionIsStagedOnce(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	edu := feddb.StagedEDU{Type: "m.direct_to_device", Content: []byte(`{}`)}
	taken := func(s shard.ID, origin string) bool {
		is, err := d.TxnTaken(t.Context(), s, origin, "1")
		require.NoError(t, err)
		return is
	}
	require.False(t, taken(home, "one.test"))
	require.True(t, stage(t, d, "one.test", "1", pdus("!a", "$1", "$2"), edu))
	require.True(t, taken(home, "one.test"))
	require.False(t, taken(home, "two.test"))
	require.False(t, taken(around, "one.test"), "it is known where the origin belongs")
	require.False(t, stage(t, d, "one.test", "1", pdus("!a", "$1", "$2", "$3"), edu, edu))
	require.Equal(t, []string{"$1", "$2"}, names(staged(t, d, "!a", 10)))
	require.Equal(t, 1, count(t, db, "staged_edu"))
	require.True(t, stage(t, d, "two.test", "1", pdus("!a", "$4"), edu))
	require.True(t, stage(t, d, "two.test", "2", nil), "with nothing in it")
	require.Equal(t, []string{"$1", "$2", "$4"}, names(staged(t, d, "!a", 10)))
	require.Equal(t, 2, count(t, db, "staged_edu"))

	got, err := d.StagedEDUs(t.Context(), home, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"one.test", "two.test"}, []string{got[0].Origin, got[1].Origin})
	require.Equal(t, edu.Content, got[0].Content)
	require.Equal(t, edu.Type, got[0].Type)
}

// Of many who bring a transaction at once, one has brought it.
func TestATransactionIsStagedOnceByMany(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	var group sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 8 {
		group.Go(func() {
			fresh, err := d.Stage(t.Context(), home, "one.test", "1", pdus("!a", "$1"), []feddb.StagedEDU{{Type: "x", Content: []byte("{}")}})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("stage: %v", err)
			}
			if fresh {
				won++
			}
		})
	}
	group.Wait()
	require.Equal(t, 1, won)
	require.Equal(t, 1, count(t, db, "staged_pdu"))
	require.Equal(t, 1, count(t, db, "staged_edu"))
}

// Who brings events that another brings at the same time in the opposite order is not told of it.
func TestTheSameEventsInOppositeOrder(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	const other = `INSERT INTO staged_pdu (shard, room_id, event_id, origin, json) VALUES ($1, '!a', $2, 'two.test', '') ON CONFLICT DO NOTHING`
	tx, err := db.Pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), `SET LOCAL deadlock_timeout = '1min'`) // it is not this one that gives way
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), other, around, "$2")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := d.Stage(t.Context(), home, "one.test", "1", pdus("!a", "$1", "$2"), nil)
		done <- err
	}()
	for waiting := 0; waiting == 0; {
		require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND database =
			(SELECT oid FROM pg_database WHERE datname = current_database()) OR NOT granted AND locktype = 'transactionid'`).Scan(&waiting))
	}
	_, err = tx.Exec(t.Context(), other, around, "$1")
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-done)
	require.Equal(t, 2, count(t, db, "staged_pdu"))
	require.Equal(t, 1, count(t, db, "fed_txn"))
}

// An event that is staged already keeps its place, its text and what is known of it, whoever brings it again; in another room it is another.
func TestAnEventIsStagedOnce(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	stage(t, d, "one.test", "1", pdus("!a", "$1", "$2"))
	require.NoError(t, d.Postpone(t.Context(), around, seqs(t, d, "!a", "$1"), "no", time.Hour))
	before := staged(t, d, "!a", 10)
	again := pdus("!a", "$2", "$1", "$3", "$3")
	again[1].JSON = []byte("another text")
	require.True(t, stage(t, d, "two.test", "1", append(again, pdus("!b", "$1")...)))
	after := staged(t, d, "!a", 10)
	require.Equal(t, before, after[:2])
	require.Equal(t, []string{"$1", "$2", "$3"}, names(after))
	require.Equal(t, "one.test", after[0].Origin)
	require.Equal(t, "two.test", after[2].Origin)
	require.Equal(t, 1, after[0].Tries)
	require.Equal(t, []string{"$1"}, names(staged(t, d, "!b", 10)))
}

// Where the last of a transaction cannot be stored nothing of it is, and it can come again as if it had not come.
func TestATransactionIsStagedAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	_, err := d.Stage(t.Context(), home, "one.test", "1", pdus("!a", "$1"), []feddb.StagedEDU{{Type: "good", Content: []byte("{}")}, {Type: "\x00", Content: []byte("{}")}})
	require.Error(t, err)
	for _, table := range []string{"fed_txn", "staged_pdu", "staged_edu"} {
		require.Zero(t, count(t, db, table), table)
	}
	require.True(t, stage(t, d, "one.test", "1", pdus("!a", "$1"), feddb.StagedEDU{Type: "good", Content: []byte("{}")}))
	require.Equal(t, []string{"$1"}, names(staged(t, d, "!a", 10)))
}

// Rooms are worked on in the order in which their oldest due event came, and a room's events in the order in which they came. What is
// postponed or parked makes no room due, but is read with what is.
func TestTheOrderOfWork(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	due := func(most int) []string {
		rooms, err := d.DueRooms(t.Context(), around, most)
		require.NoError(t, err)
		return rooms
	}
	stage(t, d, "one.test", "1", slices.Concat(pdus("!b", "$b1"), pdus("!a", "$a1"), pdus("!c", "$c1"), pdus("!b", "$b2")))
	stage(t, d, "two.test", "1", pdus("!a", "$a0", "$a2"))
	elsewhere := pdus("!else", "$e1")
	elsewhere[0].Shard = around + 1
	stage(t, d, "two.test", "2", elsewhere)
	require.Equal(t, []string{"!b", "!a", "!c"}, due(10))
	require.Equal(t, []string{"!b", "!a"}, due(2))
	require.Equal(t, []string{"$a1", "$a0", "$a2"}, names(staged(t, d, "!a", 10)))

	require.NoError(t, d.Park(t.Context(), around, seqs(t, d, "!b", "$b1"), time.Hour))
	require.Equal(t, []string{"!a", "!c", "!b"}, due(10), "it counts by what is due")
	require.NoError(t, d.Postpone(t.Context(), around, seqs(t, d, "!b", "$b2"), "why not", time.Hour))
	require.Equal(t, []string{"!a", "!c"}, due(10))
	list := staged(t, d, "!b", 10)
	require.Equal(t, []string{"$b1", "$b2"}, names(list))
	require.Equal(t, [2]int{0, 1}, [2]int{list[0].Tries, list[1].Tries}, "to be parked is no try")
	require.False(t, list[0].Ready || list[1].Ready)

	// Who parked it was killed: it is due again when the time is over.
	require.NoError(t, d.Park(t.Context(), around, []int64{list[0].Seq}, -time.Second))
	require.Equal(t, []string{"!b", "!a", "!c"}, due(10))
	require.True(t, staged(t, d, "!b", 10)[0].Ready)

	// Nothing is done to the events of another shard that happen to be named.
	all := seqs(t, d, "!c", "$c1")
	require.NoError(t, d.DropStaged(t.Context(), around+1, all))
	require.NoError(t, d.Park(t.Context(), around+1, all, time.Hour))
	require.NoError(t, d.Postpone(t.Context(), around+1, all, "", time.Hour))
	require.Equal(t, []string{"!b", "!a", "!c"}, due(10))
	require.NoError(t, d.DropStaged(t.Context(), around, all))
	require.Equal(t, []string{"!b", "!a"}, due(10))
}

// However many events wait, those that are due are read, and some of those that wait with them. Of the due ones those that failed
// before give way.
func TestWhatIsReadOfARoomIsBounded(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	var waiting, fresh []string
	for i := range 20 {
		waiting, fresh = append(waiting, fmt.Sprintf("$w%02d", i)), append(fresh, fmt.Sprintf("$f%02d", i))
	}
	stage(t, d, "one.test", "1", pdus("!a", waiting...))
	require.NoError(t, d.Postpone(t.Context(), around, seqs(t, d, "!a", waiting...), "no", time.Hour))
	stage(t, d, "two.test", "1", pdus("!a", fresh...))
	// The first is due before the others that wait, the second is due already.
	require.NoError(t, d.Postpone(t.Context(), around, seqs(t, d, "!a", "$w07"), "no", time.Minute))
	require.NoError(t, d.Postpone(t.Context(), around, seqs(t, d, "!a", "$w09"), "no", -time.Minute))
	require.Equal(t, []string{"$w00", "$w07", "$f00", "$f01"}, names(staged(t, d, "!a", 2)))
	require.NoError(t, d.DropStaged(t.Context(), around, seqs(t, d, "!a", fresh[1:]...)))
	require.Equal(t, []string{"$w00", "$w07", "$w09", "$f00"}, names(staged(t, d, "!a", 2)))

	for origin, want := range map[string]int{"one.test": 20, "two.test": 0} {
		n, err := d.Waiting(t.Context(), around, "!a", origin)
		require.NoError(t, err)
		require.Equal(t, want, n, origin)
	}
	n, err := d.Waiting(t.Context(), around, "!b", "one.test")
	require.NoError(t, err)
	require.Zero(t, n)

	for i := range 5 {
		stage(t, d, "one.test", fmt.Sprint("e", i), nil, feddb.StagedEDU{Type: fmt.Sprint(i), Content: []byte("{}")})
	}
	edus, err := d.StagedEDUs(t.Context(), home, 3)
	require.NoError(t, err)
	require.Len(t, edus, 3)
	for i, e := range edus {
		require.Equal(t, fmt.Sprint(i), e.Type)
	}
	require.NoError(t, d.DropStagedEDUs(t.Context(), around, []int64{edus[2].Seq}), "of another shard")
	require.NoError(t, d.DropStagedEDUs(t.Context(), home, []int64{edus[0].Seq, edus[1].Seq}))
	edus, err = d.StagedEDUs(t.Context(), home, 3)
	require.NoError(t, err)
	require.Equal(t, "2", edus[0].Type)
}

// What a room's writer made of staged events and that they are staged no more are one: who is killed between leaves them staged.
func TestStagedEventsGoWithWhatWasMadeOfThem(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	stage(t, d, "one.test", "1", pdus("!a", "$1", "$2", "$3"))
	commit := func(also string) error {
		return pg.InTx(t.Context(), db.Pool, func(tx pgx.Tx) error {
			var b pgx.Batch
			feddb.QueueStagedGone(&b, []entry.Placed[*feddb.StagedGone]{
				{Place: entry.Place{Shard: around}, Row: &feddb.StagedGone{Seqs: seqs(t, d, "!a", "$1", "$3")}},
				{Place: entry.Place{Shard: around + 1}, Row: &feddb.StagedGone{Seqs: seqs(t, d, "!a", "$2")}}, // which has none of that place
			})
			b.Queue(also)
			return tx.SendBatch(t.Context(), &b).Close()
		})
	}
	require.Error(t, commit("SELECT 1/0"))
	require.Equal(t, []string{"$1", "$2", "$3"}, names(staged(t, d, "!a", 10)))
	require.NoError(t, commit("SELECT 1"))
	require.Equal(t, []string{"$2"}, names(staged(t, d, "!a", 10)))
}

func set(n int) (out []feddb.SetEvent) {
	for i := range n {
		out = append(out, feddb.SetEvent{EventID: fmt.Sprint("$", i), State: i%3 == 0, JSON: []byte(fmt.Sprint(i))})
	}
	return out
}

// A set is read in the order in which it was put, as a whole or in pieces, though it is larger than what is read at a time.
func TestSets(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	all := set(2000)
	require.NoError(t, d.PutSet(t.Context(), []byte("a"), all))
	require.NoError(t, d.PutSet(t.Context(), []byte("b"), set(3)))
	read := func(of string) []feddb.SetEvent {
		got, err := d.Set(t.Context(), []byte(of))
		require.NoError(t, err)
		return got
	}
	require.Equal(t, all, read("a"))
	for _, piece := range [][2]int{{0, 3}, {998, 4}, {1999, 10}, {2000, 1}} {
		got, err := d.SetPiece(t.Context(), []byte("a"), piece[0], piece[1])
		require.NoError(t, err)
		require.Equal(t, all[piece[0]:min(piece[0]+piece[1], len(all))], got)
	}
	require.Error(t, d.PutSet(t.Context(), []byte("b"), set(1)), "a name is taken once")
	require.Equal(t, set(3), read("b"))
	require.NoError(t, d.DropSet(t.Context(), []byte("a")))
	require.Empty(t, read("a"))
	require.Equal(t, set(3), read("b"))
	require.Equal(t, 1, count(t, db, "staged_set"))

	broken := set(1500)
	broken[1400].EventID = "\x00" // in the second piece
	require.Error(t, d.PutSet(t.Context(), []byte("c"), broken))
	require.Equal(t, 3, count(t, db, "staged_event"))
	require.Equal(t, 1, count(t, db, "staged_set"))
}

// What nobody asks for or takes any more goes, a piece at a time and the sets as a whole; what is younger stays.
func TestSweeps(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	for i := range 5 {
		stage(t, d, "one.test", fmt.Sprint(i), pdus("!a", fmt.Sprint("$", i)))
		require.NoError(t, d.PutSet(t.Context(), fmt.Append(nil, i), set(3)))
	}
	exec(t, db, `UPDATE fed_txn SET at = now() - interval '2 hours' WHERE txn_id < '3'`)
	exec(t, db, `UPDATE staged_set SET at = now() - interval '2 hours' WHERE set_id < '3'`)
	for _, of := range []struct {
		table string
		sweep func(age time.Duration, most int) (int64, error)
	}{
		{"fed_txn", func(age time.Duration, most int) (int64, error) { return d.SweepTxns(t.Context(), age, most) }},
		{"staged_set", func(age time.Duration, most int) (int64, error) { return d.SweepSets(t.Context(), age, most) }},
	} {
		for _, step := range []struct {
			age  time.Duration
			most int
			want int64
		}{{3 * time.Hour, 10, 0}, {time.Hour, 2, 2}, {time.Hour, 2, 1}, {time.Hour, 2, 0}} {
			n, err := of.sweep(step.age, step.most)
			require.NoError(t, err)
			require.Equal(t, step.want, n, of.table)
			if of.table == "staged_set" {
				require.Equal(t, 3*count(t, db, "staged_set"), count(t, db, "staged_event"), "each as a whole")
			}
		}
		require.Equal(t, 2, count(t, db, of.table))
	}
	for i := range 5 {
		taken, err := d.TxnTaken(t.Context(), home, "one.test", fmt.Sprint(i))
		require.NoError(t, err)
		require.Equal(t, i >= 3, taken)
		got, err := d.Set(t.Context(), fmt.Append(nil, i))
		require.NoError(t, err)
		require.Len(t, got, 3*min(1, i/3))
	}
	require.Equal(t, 5, count(t, db, "staged_pdu"), "events wait for as long as it takes")
}

// Of copies of a key the later one counts, in whatever order they come.
func TestKeys(t *testing.T) {
	t.Parallel()
	d, _ := open(t)
	put := func(server string, got int64, keys ...feddb.Key) {
		require.NoError(t, d.PutKeys(t.Context(), server, got, fmt.Append(nil, "document ", got), keys))
	}
	put("one.test", 100, feddb.Key{ID: "ed25519:a", Public: []byte("a"), ValidUntil: 1000}, feddb.Key{ID: "ed25519:b", Public: []byte("b"), Expired: 50})
	put("one.test", 200, feddb.Key{ID: "ed25519:a", Public: []byte("a"), ValidUntil: 2000})
	put("one.test", 150, feddb.Key{ID: "ed25519:a", Public: []byte("old"), ValidUntil: 1500}, feddb.Key{ID: "ed25519:b", Public: []byte("b"), Expired: 60})
	put("two.test", 100, feddb.Key{ID: "ed25519:a", Public: []byte("theirs")})
	put("three.test", 100)
	rows, err := d.Keys(t.Context(), []string{"one.test", "three.test"})
	require.NoError(t, err)
	slices.SortFunc(rows, func(a, b feddb.KeyRow) int { return strings.Compare(a.ID, b.ID) })
	require.Equal(t, []feddb.KeyRow{
		{"one.test", feddb.Key{ID: "ed25519:a", Public: []byte("a"), ValidUntil: 2000}, 200, []byte("document 200")},
		{"one.test", feddb.Key{ID: "ed25519:b", Public: []byte("b"), Expired: 60}, 150, []byte("document 150")},
	}, rows)
}

// Of what two proposals of a batch say of a room the later counts; EDUs stand in the order in which they were queued.
func TestWhatProposalsWrite(t *testing.T) {
	t.Parallel()
	_, db := open(t)
	var b pgx.Batch
	room := shard.MakeNid(around, 1)
	stripped := func(user, events string) entry.Placed[*feddb.Stripped] {
		return entry.Placed[*feddb.Stripped]{Place: entry.Place{Shard: around}, Row: &feddb.Stripped{Room: room, UserID: user, Events: []byte(events)}}
	}
	feddb.QueueStripped(&b, []entry.Placed[*feddb.Stripped]{stripped("@a", "1"), stripped("@b", "2"), stripped("@a", "3")})
	var edus []entry.Placed[*feddb.EDU]
	for i := range 30 {
		edus = append(edus, entry.Placed[*feddb.EDU]{Place: entry.Place{Shard: home}, Row: &feddb.EDU{Destination: "one.test", Type: fmt.Sprintf("%02d", i), Content: []byte("{}")}})
	}
	feddb.QueueEDUs(&b, edus)
	feddb.QueueStripped(&b, []entry.Placed[*feddb.Stripped]{stripped("@b", "4")})
	require.NoError(t, db.Pool.SendBatch(t.Context(), &b).Close())
	var all, order string
	require.NoError(t, db.Pool.QueryRow(t.Context(),
		`SELECT string_agg(user_id || convert_from(events, 'UTF8'), ' ' ORDER BY user_id) FROM stripped_state WHERE room_nid = $1`, int64(room)).Scan(&all))
	require.Equal(t, "@a3 @b4", all)
	require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT string_agg(type, '' ORDER BY seq) FROM fed_edu WHERE shard = 1`).Scan(&order))
	require.True(t, strings.HasPrefix(order, "000102") && strings.HasSuffix(order, "272829"), order)
}

// A server is in a room while a user of its is: not by one who is invited or went, nor by a name that only ends like its own.
func TestHosts(t *testing.T) {
	t.Parallel()
	d, db := open(t)
	a, b := shard.MakeNid(around, 1), shard.MakeNid(around, 2)
	for _, m := range []struct {
		room       shard.Nid
		user       string
		membership int
		local      bool
	}{
		{a, "@x:one.test:8448", 4, false},
		{a, "@y:one.test:8448", 4, false},
		{a, "@x:two.test", 2, false},
		{a, "@us:home.test", 4, true},
		{b, "@x:two.test", 4, false},
		{b, "@x:one.test:8448", 1, false},
		{b, "@x:not.one.test:8448", 4, false},
	} {
		exec(t, db, `INSERT INTO member (room_nid, user_id, membership, event_nid, pos, local) VALUES ($1, $2, $3, 1, 1, $4)`, int64(m.room), m.user, m.membership, m.local)
	}
	for room, want := range map[shard.Nid][]string{a: {"one.test:8448"}, b: {"two.test", "not.one.test:8448"}} {
		hosts, err := d.Hosts(t.Context(), room)
		require.NoError(t, err)
		require.ElementsMatch(t, want, hosts)
		for _, host := range []string{"one.test:8448", "two.test", "not.one.test:8448", "home.test", "test"} {
			in, err := d.HostInRoom(t.Context(), room, host)
			require.NoError(t, err)
			require.Equal(t, slices.Contains(want, host), in, host)
			rooms, err := d.HostIn(t.Context(), host, []shard.Nid{a, b})
			require.NoError(t, err)
			require.Equal(t, in, rooms[room], host)
		}
	}
	rooms, err := d.HostIn(t.Context(), "two.test", []shard.Nid{a})
	require.NoError(t, err)
	require.Empty(t, rooms, "no other room than those that were asked for")
}
