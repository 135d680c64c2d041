package timeline

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/store/searchdb"
)

// Limits of one search.
const (
	defaultFound = 10
	maxFound     = 100
	maxAround    = 20  // events of context, each way
	findAtOnce   = 100 // that are looked at for another page, of those that have the words
	// maxLooked is how many of those that have the words are looked at for one answer: whether the reader may see them, and how many they
	// are. Of more, up to maxCounted, the count is an estimate.
	maxLooked      = 400
	maxCounted     = 10_000
	searchPatience = time.Second // for the index to take in what is committed
	wholeWord      = 3           // words of so many letters are found by their beginnings too
)

// Search finds events by words.
type Search struct {
	rooms *Rooms
	index *searchdb.Reader
}

// NewSearch makes a Search.
func NewSearch(rooms *Rooms, index *searchdb.Reader) *Search { return &Search{rooms, index} }

// SearchQuery asks for events (spec: "POST …/search", room_events).
type SearchQuery struct {
	Term   string
	Keys   []string // empty: all
	Filter *filter.RoomEventFilter
	ByRank bool
	// Context is nil if none is wanted.
	Context *SearchContext
	State   bool
	// Groups are of room_id and sender.
	Groups []string
	From   string // a next_batch; empty: the beginning
}

// SearchContext asks for what is around each event that is found.
type SearchContext struct {
	Before, After int
	Profiles      bool
}

// The keys by which results are grouped.
const (
	GroupRoom   = "room_id"
	GroupSender = "sender"
)

// batch is what a next_batch says. It is in clients' hands, and trusted with nothing.
type batch struct {
	Rank  float32 `json:"r,omitzero"`
	TS    int64   `json:"t"`
	Event int64   `json:"n"`
	// Count is how many there are in all; nil: unknown.
	Count *int `json:"c,omitzero"`
	// Room and Sender are set in a batch of one group: of a room, of a sender, or of both.
	Room   string `json:"o,omitzero"`
	Sender string `json:"s,omitzero"`
}

func (b batch) encode() string {
	out, err := json.Marshal(b)
	if err != nil {
		return "" // numbers and text: cannot be
	}
	return base64.RawURLEncoding.EncodeToString(out)
}

// of is the batch within one group, whose count is not known unless it is of that group already.
func (b batch) of(key, value string) batch {
	part := &b.Room
	if key == GroupSender {
		part = &b.Sender
	}
	if *part != value {
		*part, b.Count = value, nil
	}
	return b
}

// place is the last that was told.
func (b batch) place() *searchdb.Found {
	return &searchdb.Found{Rank: b.Rank, TS: b.TS, Event: shard.Nid(b.Event)}
}

func decodeBatch(s string) (b batch, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(raw, &b)
	}
	if err != nil {
		return b, mxerr.New(mxerr.InvalidParam, "next_batch is not one of this server").WithCause(err)
	}
	return b, nil
}

// hit is an event that is told.
type hit struct {
	searchdb.Found
	a    *readdb.Access
	item *readdb.Item
}

// searching is one search under way.
type searching struct {
	*Search
	v       Viewer
	q       *SearchQuery
	f       *filter.RoomEventFilter
	query   searchdb.EventQuery
	from    batch // where q.From is not empty
	ignored map[string]bool
	rooms   map[shard.Nid]*readdb.Access // nil: the reader sees nothing of it
	limit   int

	hits  []hit
	last  searchdb.Found // the last that was told, or looked at if there is no more room to look
	more  bool
	count int
}

// Events finds events that the reader may see. The answer is the JSON of room_events.
func (s *Search) Events(ctx context.Context, v Viewer, q SearchQuery) (found []byte, err error) {
	err = s.rooms.replica.ReadNow(ctx, func(ctx context.Context) error {
		found, err = s.events(ctx, v, q)
		return err
	})
	return found, err
}

func (s *Search) events(ctx context.Context, v Viewer, q SearchQuery) ([]byte, error) {
	x := &searching{Search: s, v: v, q: &q, f: q.Filter, rooms: map[shard.Nid]*readdb.Access{}}
	if x.f == nil {
		x.f = &filter.RoomEventFilter{}
	}
	x.limit = min(x.f.LimitOr(defaultFound), maxFound)
	if q.From != "" {
		var err error
		if x.from, err = decodeBatch(q.From); err != nil {
			return nil, err
		}
	}
	possible, err := x.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if possible {
		if x.ignored, err = s.rooms.ignored(ctx, v); err != nil {
			return nil, err
		}
		if err := x.find(ctx); err != nil {
			return nil, err
		}
	}
	return x.answer(ctx)
}

// prepare makes the question for the index; possible is false if nothing can be found.
func (x *searching) prepare(ctx context.Context) (possible bool, err error) {
	from := &x.from
	words, ok := searchdb.ParseQuery(x.q.Term, wholeWord)
	x.query = searchdb.EventQuery{Query: words, ByRank: x.q.ByRank, NotSenders: plain(x.f.NotSenders)}
	if !ok {
		return false, nil
	}
	if x.f.Senders != nil {
		x.query.Senders = x.f.Senders
	}
	keys := x.q.Keys
	if len(keys) == 0 {
		keys = []string{string(searchdb.KeyBody), string(searchdb.KeyName), string(searchdb.KeyTopic)}
	}
	for _, k := range keys {
		x.query.Keys = append(x.query.Keys, searchdb.Key(k))
	}
	if from.Sender != "" {
		if x.query.Senders != nil && !slices.Contains(x.query.Senders, from.Sender) {
			return false, nil
		}
		x.query.Senders = []string{from.Sender}
	}
	rows, err := x.Search.rooms.db.Memberships(ctx, string(x.v.User))
	if err != nil {
		return false, err
	}
	var shards []shard.ID
	for i := range rows {
		m := &rows[i]
		in := m.Membership == roomdb.MembershipJoin
		was := !m.Forgotten && (m.Membership == roomdb.MembershipLeave || m.Membership == roomdb.MembershipBan)
		if !in && !was || !x.f.PassRoom(m.RoomID) || from.Room != "" && m.RoomID != from.Room {
			continue
		}
		x.query.Rooms = append(x.query.Rooms, m.Nid)
		if s := m.Nid.Shard(); !slices.Contains(shards, s) {
			shards = append(shards, s)
		}
	}
	if x.query.Rooms, err = x.index.Plain(ctx, x.query.Rooms, shards); err != nil || len(x.query.Rooms) == 0 {
		return false, err
	}
	return true, x.index.Reach(ctx, searchdb.EventsConsumer, shards, searchPatience, entry.KindEvent)
}

// plain leaves out patterns, which the index does not know: they are applied to what was found.
func plain(users []string) []string {
	return slices.DeleteFunc(slices.Clone(users), func(u string) bool { return slices.Contains([]byte(u), '*') })
}

// find looks at what has the words, until the answer is full and all are counted.
func (x *searching) find(ctx context.Context) error {
	beyond := false
	tell := func(h hit) {
		visible := h.item != nil
		switch {
		case len(x.hits) < x.limit:
			x.last = h.Found
			if visible {
				x.hits = append(x.hits, h)
			}
		case visible:
			beyond = true
		}
	}
	count := func(h hit) {
		if h.item != nil {
			x.count++
		}
	}
	enough := func() bool { return beyond }
	var exhausted bool
	var err error
	switch from := x.from; {
	case x.q.From == "":
		exhausted, err = x.look(ctx, nil, func(h hit) { tell(h); count(h) }, func() bool { return false })
		if err == nil && !exhausted {
			err = x.estimate(ctx)
		}
	case from.Count == nil: // the first batch of a group, which has not been counted
		var all bool
		if all, err = x.look(ctx, nil, count, func() bool { return false }); err == nil && !all {
			err = x.estimate(ctx)
		}
		if err != nil {
			return err
		}
		exhausted, err = x.look(ctx, from.place(), tell, enough)
	default:
		x.count = *from.Count
		exhausted, err = x.look(ctx, from.place(), tell, enough)
	}
	// A full answer says where to go on even if nothing is known to follow: clients ask until they are told nothing.
	full := x.limit > 0 && len(x.hits) == x.limit
	x.more = x.last.Event != 0 && (full || beyond || !exhausted)
	return err
}

// estimate adds to the count those that were not looked at, as far as they are counted: as many of them in a hundred are taken for visible
// as were of those that were looked at.
func (x *searching) estimate(ctx context.Context) error {
	all, err := x.index.CountEvents(ctx, x.query, maxCounted)
	if err != nil {
		return err
	}
	x.count += max(0, all-maxLooked) * x.count / maxLooked
	return nil
}

// look goes through what has the words after a place, as far as one answer may; exhausted says that there is no more.
func (x *searching) look(ctx context.Context, after *searchdb.Found, each func(hit), enough func() bool) (exhausted bool, err error) {
	q := x.query
	q.After = after
	atOnce := findAtOnce
	if after == nil { // all are counted
		atOnce = maxLooked
	}
	for looked := 0; looked < maxLooked && !enough(); looked += atOnce {
		found, err := x.index.Events(ctx, q, atOnce)
		if err != nil {
			return false, err
		}
		seen, err := x.see(ctx, found)
		if err != nil {
			return false, err
		}
		for _, h := range seen {
			each(h)
		}
		if len(found) < atOnce {
			return true, nil
		}
		q.After = &found[len(found)-1]
	}
	return false, nil
}

// see gives, of what was found, what the reader may see and wants to: a hit without an item is none.
func (x *searching) see(ctx context.Context, found []searchdb.Found) ([]hit, error) {
	out := make([]hit, len(found))
	at := make(map[shard.Nid]int, len(found))
	byRoom := make(map[shard.Nid][]shard.Nid)
	nids := make([]shard.Nid, len(found))
	for i, f := range found {
		out[i].Found, at[f.Event], nids[i] = f, i, f.Event
		byRoom[f.Room] = append(byRoom[f.Room], f.Event)
	}
	stored, err := x.Search.rooms.db.EventsByNid(ctx, nids)
	if err != nil {
		return nil, err
	}
	rows := make(map[shard.Nid][]roomdb.StoredEvent)
	for i := range stored {
		if e := &stored[i]; e.RedactedBy == 0 && e.Ord != 0 {
			rows[e.Room] = append(rows[e.Room], *e)
		}
	}
	for room, list := range rows {
		a, err := x.access(ctx, room)
		if err != nil {
			return nil, err
		}
		if a == nil {
			continue
		}
		items, err := x.Search.rooms.db.Items(ctx, a.Ref.Version, list)
		if err != nil {
			return nil, err
		}
		visible, err := x.Search.rooms.db.Visible(ctx, a, x.v.User, items)
		if err != nil {
			return nil, err
		}
		related, err := x.Search.rooms.db.RelatedBy(ctx, a.Ref.Nid, x.f, items)
		if err != nil {
			return nil, err
		}
		for i, it := range items {
			_, state := it.Event.StateKey()
			switch {
			case !visible[i], it.Ord > a.Until, !state && x.ignored[string(it.Event.Sender())]:
			case !it.Passes(x.f, a.Ref.RoomID, related):
			default:
				h := &out[at[it.Nid]]
				h.a, h.item = a, it
			}
		}
	}
	return out, nil
}

func (x *searching) access(ctx context.Context, room shard.Nid) (*readdb.Access, error) {
	if a, known := x.rooms[room]; known {
		return a, nil
	}
	refs, err := x.Search.rooms.db.Rooms(ctx, []shard.Nid{room})
	if err != nil || len(refs) == 0 {
		return nil, err
	}
	a, ok, err := x.Search.rooms.db.AccessTo(ctx, refs[0], x.v.User)
	if err != nil {
		return nil, err
	}
	x.rooms[room] = nil
	if ok {
		x.rooms[room] = &a
	}
	return x.rooms[room], nil
}

// answer says what was found.
func (x *searching) answer(ctx context.Context) ([]byte, error) {
	r := x.Search.rooms
	byRoom := make(map[shard.Nid][]*readdb.Item)
	for i := range x.hits {
		byRoom[x.hits[i].Room] = append(byRoom[x.hits[i].Room], x.hits[i].item)
	}
	for room, items := range byRoom {
		if err := r.db.Aggregate(ctx, x.rooms[room], x.v.User, x.ignored, items); err != nil {
			return nil, err
		}
	}
	b := append([]byte(nil), `{"count":`...)
	b = strconv.AppendInt(b, int64(x.count), 10)
	b = append(b, `,"highlights":[`...)
	for i, t := range x.query.Terms {
		if i > 0 {
			b = append(b, ',')
		}
		b = canonjson.AppendString(b, t)
	}
	b = append(b, `],"results":[`...)
	for i := range x.hits {
		h := &x.hits[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(append(b, `{"rank":`...), float64(h.Rank), 'g', -1, 32)
		b = h.item.Append(append(b, `,"result":`...), r.viewer(x.v), false)
		if x.q.Context != nil {
			var err error
			if b, err = x.appendContext(ctx, append(b, `,"context":`...), h); err != nil {
				return nil, err
			}
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	next := x.from
	next.Rank, next.TS, next.Event, next.Count = x.last.Rank, x.last.TS, int64(x.last.Event), &x.count
	if x.more {
		b = canonjson.AppendString(append(b, `,"next_batch":`...), next.encode())
	}
	if len(x.q.Groups) > 0 {
		b = x.appendGroups(append(b, `,"groups":`...), next)
	}
	if x.q.State {
		var err error
		if b, err = x.appendState(ctx, append(b, `,"state":`...)); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendContext appends what is around an event: before it the nearest first, as after it.
func (x *searching) appendContext(ctx context.Context, b []byte, h *hit) ([]byte, error) {
	r := x.Search.rooms
	room := id.RoomID(h.a.Ref.RoomID)
	all := &filter.RoomEventFilter{}
	before := &walker{
		Page: &Page{Room: room, Limit: min(x.q.Context.Before, maxAround), Filter: all}, r: r, a: h.a, v: x.v, ignored: x.ignored,
		from: h.item.Ord - 1, to: roomdb.Beginning,
	}
	after := before.turned(&Page{Room: room, Limit: min(x.q.Context.After, maxAround), Filter: all, Dir: Forward}, h.item.Ord, roomdb.End-1)
	for _, w := range []*walker{before, after} {
		if err := w.walk(ctx); err != nil {
			return nil, err
		}
	}
	around := slices.Concat(before.items, after.items)
	if err := r.db.Aggregate(ctx, h.a, x.v.User, x.ignored, around); err != nil {
		return nil, err
	}
	b = canonjson.AppendString(append(b, `{"start":`...), token.Room{Order: before.end}.Encode())
	b = canonjson.AppendString(append(b, `,"end":`...), token.Room{Order: after.end}.Encode())
	b = r.appendChunk(append(b, `,"events_before":`...), x.v, before.items)
	b = r.appendChunk(append(b, `,"events_after":`...), x.v, after.items)
	if x.q.Context.Profiles {
		members, err := r.membersOf(ctx, h.a, append(around, h.item))
		if err != nil {
			return nil, err
		}
		b = append(b, `,"profile_info":{`...)
		for i, m := range members {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendProfile(b, m)
		}
		b = append(b, '}')
	}
	return append(b, '}'), nil
}

func appendProfile(b []byte, member *readdb.Item) []byte {
	user, _ := member.Event.StateKey()
	b = append(canonjson.AppendString(b, user), ':', '{')
	first := true
	for _, field := range []string{"avatar_url", "displayname"} {
		value, ok := canonjson.GetString(member.Event.Content(), field)
		if !ok {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = canonjson.AppendString(b, field)
		b = canonjson.AppendString(append(b, ':'), value)
	}
	return append(b, '}')
}

// appendGroups appends the groups of what is told, in the order of their first.
func (x *searching) appendGroups(b []byte, next batch) []byte {
	b = append(b, '{')
	for i, key := range x.q.Groups {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(canonjson.AppendString(b, key), ':', '{')
		var values []string
		members := make(map[string][]byte)
		for j := range x.hits {
			h := &x.hits[j]
			value := h.a.Ref.RoomID
			if key == GroupSender {
				value = string(h.item.Event.Sender())
			}
			if members[value] == nil {
				values = append(values, value)
			} else {
				members[value] = append(members[value], ',')
			}
			members[value] = canonjson.AppendString(members[value], string(h.item.Event.EventID()))
		}
		for j, value := range values {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(canonjson.AppendString(b, value), `:{"order":`...)
			b = strconv.AppendInt(b, int64(j+1), 10)
			b = append(append(append(b, `,"results":[`...), members[value]...), ']')
			if x.more {
				b = canonjson.AppendString(append(b, `,"next_batch":`...), next.of(key, value).encode())
			}
			b = append(b, '}')
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendState appends the state, as the reader sees it, of each room of which something is told.
func (x *searching) appendState(ctx context.Context, b []byte) ([]byte, error) {
	b = append(b, '{')
	told := make(map[shard.Nid]bool)
	for i := range x.hits {
		h := &x.hits[i]
		if told[h.Room] {
			continue
		}
		if len(told) > 0 {
			b = append(b, ',')
		}
		told[h.Room] = true
		state, err := x.Search.rooms.State(ctx, x.v, id.RoomID(h.a.Ref.RoomID))
		if err != nil {
			return nil, err
		}
		b = append(canonjson.AppendString(b, h.a.Ref.RoomID), ':')
		b = append(b, state...)
	}
	return append(b, '}'), nil
}
