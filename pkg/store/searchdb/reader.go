package searchdb

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Reader finds what has been indexed. It works on whatever it is given: a pool of the primary or of a replica, or a transaction.
type Reader struct {
	q *Queries
	// byWords is for what is found by words: how depends on how many have them.
	byWords *Queries
}

// NewReader makes a Reader over a pool, connection or transaction.
func NewReader(db DBTX) *Reader { return &Reader{q: New(db), byWords: New(planned{db})} }

// planned has PostgreSQL plan each query for its parameters. It would plan a prepared one once for all of them after a few: as if any words were
// common, so that it would go through events from the latest on until it has found enough, which for words that few have is through all.
type planned struct{ DBTX }

func (p planned) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return p.DBTX.Query(ctx, sql, slices.Insert(args, 0, any(pgx.QueryExecModeCacheDescribe))...)
}

func (p planned) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return p.DBTX.QueryRow(ctx, sql, slices.Insert(args, 0, any(pgx.QueryExecModeCacheDescribe))...)
}

// Reach waits until a consumer has indexed the entries of some kinds that the log of some shards holds now, or until the patience is
// over: then what is found may lack the latest.
func (r *Reader) Reach(ctx context.Context, consumer string, shards []shard.ID, patience time.Duration, kinds ...entry.Kind) error {
	p := AheadParams{Consumer: consumer}
	for _, s := range shards {
		p.Shards = append(p.Shards, int16(s))
	}
	for _, k := range kinds {
		p.Kinds = append(p.Kinds, int16(k))
	}
	ahead, err := r.q.Ahead(ctx, p)
	if err != nil {
		return fmt.Errorf("read how far %s is: %w", consumer, err)
	}
	to := ReachedParams{Consumer: consumer}
	for _, a := range ahead {
		to.Shards, to.Positions = append(to.Shards, a.Shard), append(to.Positions, a.Pos)
	}
	until := time.Now().Add(patience)
	for pause := 5 * time.Millisecond; len(ahead) > 0 && time.Now().Before(until); pause *= 2 {
		reached, err := r.q.Reached(ctx, to)
		if err != nil {
			return fmt.Errorf("read how far %s is: %w", consumer, err)
		}
		if reached {
			return nil
		}
		if err := lifecycle.Sleep(ctx, min(pause, time.Until(until))); err != nil {
			return err
		}
	}
	return nil
}

// Key is which part of an event is searched.
type Key string

// The keys.
const (
	KeyBody  Key = "content.body"
	KeyName  Key = "content.name"
	KeyTopic Key = "content.topic"
)

func roomLabel(n shard.Nid) string   { return fmt.Sprintf("r%d", n) }
func keyLabel(k Key) string          { return "k" + string(k) }
func senderLabel(user string) string { return "s" + user }
func labelled[T any](l []T, f func(T) string) string {
	labels := make([]string, len(l))
	for i, x := range l {
		labels[i] = f(x)
	}
	return anyOf(labels)
}

// maxRoomLabels is in how many rooms the index itself is asked for; of more, what was found is sifted.
const maxRoomLabels = 100

// maxRanked is how many of those that have the words are ranked, the latest: a common word does not cost what it is common.
const maxRanked = 10_000

// EventQuery says which events are looked for.
type EventQuery struct {
	Query
	Rooms               []shard.Nid
	Keys                []Key    // empty: all
	Senders, NotSenders []string // Senders nil: all
	// ByRank gives the best first; else the latest are first.
	ByRank bool
	// After is the last that was found before; nil to begin.
	After *Found
}

// Found is an event that was found.
type Found struct {
	Rank  float32
	TS    int64
	Event shard.Nid
	Room  shard.Nid
}

// Plain leaves out the rooms that are encrypted; shards are those of the rooms.
func (r *Reader) Plain(ctx context.Context, rooms []shard.Nid, shards []shard.ID) ([]shard.Nid, error) {
	var p EncryptedRoomsParams
	for _, n := range rooms {
		p.Rooms = append(p.Rooms, int64(n))
	}
	for _, s := range shards {
		p.Shards = append(p.Shards, int16(s))
	}
	rows, err := r.q.EncryptedRooms(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("leave out encrypted rooms: %w", err)
	}
	encrypted := make(map[shard.Nid]bool, len(rows))
	for _, n := range rows {
		encrypted[shard.Nid(n)] = true
	}
	return slices.DeleteFunc(slices.Clone(rooms), func(n shard.Nid) bool { return encrypted[n] }), nil
}

// nothing tells whether nothing can be found.
func (q *EventQuery) nothing() bool {
	return len(q.Rooms) == 0 || q.Senders != nil && len(q.Senders) == 0
}

// text gives what the index is asked.
func (q *EventQuery) text() string {
	all := []string{q.words}
	if len(q.Rooms) <= maxRoomLabels {
		all = append(all, labelled(q.Rooms, roomLabel))
	}
	if len(q.Keys) > 0 {
		all = append(all, labelled(q.Keys, keyLabel))
	}
	if len(q.Senders) > 0 {
		all = append(all, labelled(q.Senders, senderLabel))
	}
	if len(q.NotSenders) > 0 {
		all = append(all, "!"+labelled(q.NotSenders, senderLabel))
	}
	return strings.Join(all, " & ")
}

// rooms gives the numbers of the rooms.
func (q *EventQuery) rooms() []int64 {
	rooms := make([]int64, len(q.Rooms))
	for i, n := range q.Rooms {
		rooms[i] = int64(n)
	}
	return rooms
}

// CountEvents counts events as [Reader.Events] finds them, from the first on, up to a number.
func (r *Reader) CountEvents(ctx context.Context, q EventQuery, most int) (int, error) {
	if q.nothing() {
		return 0, nil
	}
	n, err := r.byWords.CountFound(ctx, CountFoundParams{Query: q.text(), Rooms: q.rooms(), Most: int32(most)})
	if err != nil {
		return 0, fmt.Errorf("count events: %w", err)
	}
	return int(n), nil
}

// Events finds events, at most a number. What it finds may have been redacted since, and its readers may not be allowed to see it.
func (r *Reader) Events(ctx context.Context, q EventQuery, most int) ([]Found, error) {
	if q.nothing() {
		return nil, nil
	}
	after := Found{Rank: math.MaxFloat32, TS: math.MaxInt64, Event: math.MaxInt64}
	if q.After != nil {
		after = *q.After
	}
	query, rooms := q.text(), q.rooms()
	var out []Found
	var err error
	if q.ByRank {
		var rows []FindRankedRow
		rows, err = r.byWords.FindRanked(ctx, FindRankedParams{
			Terms: q.words, Query: query, Rooms: rooms, Rank: after.Rank, Ts: after.TS, Nid: int64(after.Event), Most: int32(most),
			Candidates: maxRanked,
		})
		for _, f := range rows {
			out = append(out, Found{f.Rank, f.Ts, shard.Nid(f.EventNid), shard.Nid(f.RoomNid)})
		}
	} else {
		var rows []FindRecentRow
		rows, err = r.byWords.FindRecent(ctx, FindRecentParams{
			Terms: q.words, Query: query, Rooms: rooms, Ts: after.TS, Nid: int64(after.Event), Most: int32(most),
		})
		for _, f := range rows {
			out = append(out, Found{f.Rank, f.Ts, shard.Nid(f.EventNid), shard.Nid(f.RoomNid)})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find events: %w", err)
	}
	return slices.Clip(out), nil
}

// Person is one of the user directory.
type Person struct{ UserID, DisplayName, AvatarURL string }

// People finds people whom the asker may find: by all words of a term, or, of a term that begins with an @, by the beginning of the
// user id.
func (r *Reader) People(ctx context.Context, asker, term string, most int) ([]Person, error) {
	term = storable(term)
	q, ok := ParseQuery(term, 1)
	p := FindPeopleParams{Asker: asker, Terms: q.words, Most: int32(most)}
	like := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(strings.TrimSpace(term)))
	if rest, is := strings.CutPrefix(like, "@"); is && rest != "" {
		p.Beginning, ok = like+"%", true
	}
	if !ok {
		return nil, nil
	}
	p.Exact = "@" + strings.TrimPrefix(like, "@") + ":%"
	if strings.Contains(like, ":") {
		p.Exact = like
	}
	rows, err := r.byWords.FindPeople(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("find people: %w", err)
	}
	out := make([]Person, len(rows))
	for i, f := range rows {
		out[i] = Person{UserID: f.UserID, DisplayName: f.DisplayName, AvatarURL: f.AvatarUrl}
	}
	return out, nil
}
