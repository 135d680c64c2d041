package timeline

import (
	"context"
	"encoding/base64"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Notifications lists what users were notified of: what was counted for them when it came, in the rooms that they are in, since they are.
// Nothing is stored for it. A batch is the latest that is before where the last one ended, in each shard; the shards are merged by time.
type Notifications struct {
	rooms  *Rooms
	counts *pushdb.Reader
}

// NewNotifications makes a Notifications.
func NewNotifications(rooms *Rooms, counts *pushdb.Reader) *Notifications {
	return &Notifications{rooms, counts}
}

// NotificationsQuery asks for a batch of notifications.
type NotificationsQuery struct {
	From       string // where the last batch ended; empty: the latest
	Limit      int    // at least 1
	Highlights bool   // nothing else
}

// listed says up to where notifications have been listed, by shard.
type listed struct {
	Above map[shard.ID]int64 `json:"a"`
}

func (l listed) encode() string {
	raw, err := json.Marshal(l, json.Deterministic(true))
	if err != nil {
		return "" // numbers: cannot be
	}
	return base64.RawURLEncoding.EncodeToString(raw)
}

func decodeListed(s string) (l listed, err error) {
	if s == "" {
		return listed{Above: map[shard.ID]int64{}}, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(raw, &l)
	}
	if err != nil || l.Above == nil {
		return l, mxerr.New(mxerr.InvalidParam, "from is not a token of this server").WithCause(err)
	}
	return l, nil
}

// List gives a batch, the latest first, as the answer to the client.
func (n *Notifications) List(ctx context.Context, v Viewer, q NotificationsQuery) ([]byte, error) {
	from, err := decodeListed(q.From)
	if err != nil {
		return nil, err
	}
	rows, err := n.rooms.db.Memberships(ctx, string(v.User))
	if err != nil {
		return nil, err
	}
	var windows []pushdb.Window
	refs := map[shard.Nid]roomdb.RoomRef{}
	for i := range rows {
		m := &rows[i]
		if m.Membership != roomdb.MembershipJoin {
			continue
		}
		upto := int64(pushdb.Forever)
		if at, ok := from.Above[m.Nid.Shard()]; ok {
			upto = at - 1
		}
		if upto > int64(m.Pos) {
			windows = append(windows, pushdb.Window{Room: m.Nid, Above: int64(m.Pos), Upto: upto})
			refs[m.Nid] = m.RoomRef
		}
	}
	found, err := n.counts.Notified(ctx, string(v.User), windows, q.Highlights, q.Limit)
	if err != nil {
		return nil, err
	}
	list, more, err := n.merge(ctx, found, q.Limit, from)
	if err != nil {
		return nil, err
	}
	return n.answer(ctx, v, list, refs, from, more)
}

// merge gives the latest of all shards, and notes in at where they end; more tells whether something may follow.
func (n *Notifications) merge(
	ctx context.Context, found map[shard.ID][]pushdb.Notification, limit int, at listed,
) (list []*pushdb.Notification, more bool, err error) {
	var all []*pushdb.Notification
	for _, of := range found {
		for i := range of {
			all = append(all, &of[i])
		}
	}
	if len(all) == 0 {
		return nil, false, nil
	}
	if err := n.counts.Locate(ctx, all); err != nil {
		return nil, false, err
	}
	for len(list) < limit {
		var latest *pushdb.Notification
		for _, of := range found {
			if len(of) > 0 && (latest == nil || of[0].TS > latest.TS || of[0].TS == latest.TS && of[0].Room > latest.Room) {
				latest = &of[0]
			}
		}
		if latest == nil {
			return list, false, nil
		}
		s := latest.Room.Shard()
		list, at.Above[s], found[s] = append(list, latest), latest.Ord, found[s][1:]
	}
	return list, true, nil // perhaps: a shard that gave as many as it was asked for may have others
}

func (n *Notifications) answer(
	ctx context.Context, v Viewer, list []*pushdb.Notification, refs map[shard.Nid]roomdb.RoomRef, at listed, more bool,
) ([]byte, error) {
	if len(list) == 0 {
		return []byte(`{"notifications":[]}`), nil
	}
	items, err := n.items(ctx, list, refs)
	if err != nil {
		return nil, err
	}
	rooms := roomsOf(list)
	reads, err := n.counts.Reads(ctx, string(v.User), rooms)
	if err != nil {
		return nil, err
	}
	rules, err := n.judging(ctx, v.User, rooms, refs)
	if err != nil {
		return nil, err
	}
	who := n.rooms.viewer(v)
	b := []byte(`{"notifications":[`)
	for _, x := range list {
		it := items[x.Event]
		if it == nil {
			continue // it was purged meanwhile
		}
		if b[len(b)-1] != '[' {
			b = append(b, ',')
		}
		b = rules.appendActions(append(b, `{"actions":`...), it, refs[x.Room], x.Count)
		b = append(b, `,"event":`...)
		b = it.Append(b, who, true)
		b = append(b, `,"read":`...)
		if x.Ord <= reads[x.Room].Read(x.Thread) {
			b = append(b, `true`...)
		} else {
			b = append(b, `false`...)
		}
		b = canonjson.AppendString(append(b, `,"room_id":`...), refs[x.Room].RoomID)
		b = append(canonjson.AppendInt(append(b, `,"ts":`...), x.TS), '}')
	}
	b = append(b, ']')
	if more {
		b = canonjson.AppendString(append(b, `,"next_token":`...), at.encode())
	}
	return append(b, '}'), nil
}

// items gives the events, which are of rooms that the reader was in when they came.
func (n *Notifications) items(ctx context.Context, list []*pushdb.Notification, refs map[shard.Nid]roomdb.RoomRef) (map[shard.Nid]*readdb.Item, error) {
	nids := make([]shard.Nid, len(list))
	for i, x := range list {
		nids[i] = x.Event
	}
	out := make(map[shard.Nid]*readdb.Item, len(list))
	if len(nids) == 0 {
		return out, nil
	}
	stored, err := n.rooms.db.EventsByNid(ctx, nids)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stored, func(a, b roomdb.StoredEvent) int { return int(a.Room - b.Room) })
	for len(stored) > 0 {
		room, end := stored[0].Room, 1
		for end < len(stored) && stored[end].Room == room {
			end++
		}
		items, err := n.rooms.db.Items(ctx, refs[room].Version, stored[:end])
		if err != nil {
			return nil, err
		}
		for _, it := range items {
			it.Membership = event.Join
			out[it.Nid] = it
		}
		stored = stored[end:]
	}
	return out, nil
}
