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
	findAtOnce   = 100 // that are looked at, of those that have the words
	// maxLooked is how many of those that have the words are looked at for one answer: whether the reader may see them, and how many
	// they are. A count beyond it is not told.
	maxLooked      = 400
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
	// Group and Value are set in a batch of one group.
	Group string `json:"g,omitzero"`
	Value string `json:"v,omitzero"`
}

func (b batch) encode() string {
	out, err := json.Marshal(b)
	if err != nil {
		return "" // numbers and text: cannot be
	}
	return base64.RawURLEncoding.EncodeToString(out)
}

func decodeBatch(s string) (b batch, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(raw, &b)
	}
	if err != nil || b.Group != "" && b.Group != GroupRoom && b.Group != GroupSender {
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
	ignored map[string]bool
	rooms   map[shard.Nid]*readdb.Access // nil: the reader sees nothing of it
	limit   int

	hits  []hit
	last  searchdb.Found // the last that was told, or looked at if there is no more room to look
	more  bool
	count int
}

// Events finds events that the reader may see. The answer is the JSON of room_events.
func (s *Search) Events(ctx context.Context, v Viewer, q SearchQuery) ([]byte, error) {
	x := &searching{Search: s, v: v, q: &q, f: q.Filter, rooms: map[shard.Nid]*readdb.Access{}}
	if x.f == nil {
		x.f = &filter.RoomEventFilter{}
	}
	x.limit = min(x.f.LimitOr(defaultFound), maxFound)
	var from *batch
	if q.From != "" {
		b, err := decodeBatch(q.From)
		if err != nil {
			return nil, err
		}
		from = &b
	}
	possible, err := x.prepare(ctx, from)
	if err != nil {
		return nil, err
	}
	if possible {
		if x.ignored, err = s.rooms.ignored(ctx, v); err != nil {
			return nil, err
		}
		if err := x.find(ctx, from); err != nil {
			return nil, err
		}
	}
	return x.answer(ctx)
}

// prepare makes the question for the index; possible is false if nothing can be found.
func (x *searching) prepare(ctx context.Context, from *batch) (possible bool, err error) {
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
	group, value := "", ""
	if from != nil {
		group, value = from.Group, from.Value
		x.query.After = &searchdb.Found{Rank: from.Rank, TS: from.TS, Event: shard.Nid(from.Event)}
	}
	if group == GroupSender {
		if x.query.Senders != nil && !slices.Contains(x.query.Senders, value) {
			return false, nil
		}
		x.query.Senders = []string{value}
	}
	rows, err := x.Search.rooms.db.Memberships(ctx, string(x.v.User))
	if err != nil {
		return false, err
	}
	var shards []shard.ID
	for i := range rows {
		m := &rows[i]
		in := m.Membership == roomdb.MembershipJoin
		// A room that the reader has left is searched if it is named.
		was := !m.Forgotten && (m.Membership == roomdb.MembershipLeave || m.Membership == roomdb.MembershipBan) && x.f.Rooms != nil
		if !in && !was || !x.f.PassRoom(m.RoomID) || group == GroupRoom && m.RoomID != value {
			continue
		}
		x.query.Rooms = append(x.query.Rooms, m.Nid)
		if s := m.Nid.Shard(); !slices.Contains(shards, s) {
			shards = append(shards, s)
		}
	}
	if len(x.query.Rooms) == 0 {
		return false, nil
	}
	return true, x.index.Reach(ctx, searchdb.EventsConsumer, shards, searchPatience, entry.KindEvent)
}

// plain leaves out patterns, which the index does not know: they are applied to what was found.
func plain(users []string) []string {
	return slices.DeleteFunc(slices.Clone(users), func(u string) bool { return slices.Contains([]byte(u), '*') })
}

// find looks at what has the words, until the answer is full and all are counted.
func (x *searching) find(ctx context.Context, from *batch) error {
	counting := from == nil || from.Count == nil
	if !counting {
		x.count = *from.Count
	} else if from != nil {
		x.query.After = nil // it is counted from the beginning, and told from the place on
	}
	for looked := 0; looked < maxLooked; looked += findAtOnce {
		found, err := x.index.Events(ctx, x.query, findAtOnce)
		if err != nil {
			return err
		}
		seen, err := x.see(ctx, found)
		if err != nil {
			return err
		}
		for i := range found {
			full := len(x.hits) == x.limit
			if !full && x.after(from, found[i]) {
				x.last = found[i]
				if seen[i].item != nil {
					x.hits = append(x.hits, seen[i])
				}
			}
			if counting && seen[i].item != nil {
				x.count++
			}
		}
		if len(found) < findAtOnce {
			x.more = len(x.hits) == x.limit && x.limit > 0
			return nil
		}
		if !counting && len(x.hits) == x.limit {
			break
		}
		x.query.After = &found[len(found)-1]
	}
	x.more = x.last.Event != 0
	return nil
}

// after tells whether something that was found comes after a place.
func (x *searching) after(from *batch, f searchdb.Found) bool {
	switch {
	case from == nil:
		return true
	case x.q.ByRank && f.Rank != from.Rank:
		return f.Rank < from.Rank
	case f.TS != from.TS:
		return f.TS < from.TS
	}
	return int64(f.Event) < from.Event
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
		related, err := x.Search.rooms.related(ctx, a, x.f, items)
		if err != nil {
			return nil, err
		}
		for i, it := range items {
			_, state := it.Event.StateKey()
			switch {
			case !visible[i], it.Ord > a.Until, !state && x.ignored[string(it.Event.Sender())]:
			case !passes(x.f, a.Ref.RoomID, it), related != nil && !related[string(it.Event.EventID())]:
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
	next := batch{Rank: x.last.Rank, TS: x.last.TS, Event: int64(x.last.Event), Count: &x.count}
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
	next.Count = nil // of all, not of the group
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
				next.Group, next.Value = key, value
				b = canonjson.AppendString(append(b, `,"next_batch":`...), next.encode())
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
