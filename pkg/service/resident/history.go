package resident

import (
	"cmp"
	"container/heap"
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Limits of one answer.
const (
	maxBackfill = 100
	maxMissing  = 50
)

// Event answers /event.
func (r *Rooms) Event(ctx context.Context, e id.EventID, origin, self id.ServerName, now int64) ([]byte, error) {
	notFound := mxerr.New(mxerr.NotFound, "The event is not known, or not for you to see")
	rows, err := r.db.EventByIDAnywhere(ctx, string(e))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		row := &rows[i]
		if row.Flags.Has(roomdb.FlagRejected) {
			continue
		}
		refs, err := r.db.Rooms(ctx, []shard.Nid{row.Room})
		if err != nil || len(refs) == 0 {
			return nil, cmp.Or[error](err, notFound)
		}
		ref, err := r.RoomWith(ctx, id.RoomID(refs[0].RoomID), origin)
		if err != nil {
			return nil, err
		}
		events, visible, err := r.shown(ctx, ref, []roomdb.StoredEvent{*row}, origin)
		if err != nil {
			return nil, err
		}
		// An outlier is state that a server in the room may ask for when it needs it.
		if !visible[0] && !row.Flags.Has(roomdb.FlagOutlier) {
			return nil, mxerr.New(mxerr.Forbidden, "The event is not for you to see")
		}
		return transaction(self, now, appendEvents(nil, events)), nil
	}
	return nil, notFound
}

// transaction puts events into the form of a transaction.
func transaction(self id.ServerName, now int64, pdus []byte) []byte {
	b := canonjson.AppendString([]byte(`{"origin":`), string(self))
	b = canonjson.AppendInt(append(b, `,"origin_server_ts":`...), now)
	return append(append(append(b, `,"pdus":`...), pdus...), '}')
}

// byDepth is a heap of events, the deepest first.
type byDepth []roomdb.StoredEvent

func (h byDepth) Len() int { return len(h) }
func (h byDepth) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[j].Depth, h[i].Depth), cmp.Compare(h[j].Ord, h[i].Ord)) < 0
}
func (h byDepth) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byDepth) Push(x any) {
	if e, ok := x.(roomdb.StoredEvent); ok {
		*h = append(*h, e)
	}
}

// Pop implements heap.Interface.
func (h *byDepth) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// back walks from events towards the room's beginning, the deepest first, until there are enough.
func (r *Rooms) back(ctx context.Context, from []roomdb.StoredEvent, count int, stop map[shard.Nid]bool, least int64) ([]roomdb.StoredEvent, error) {
	seen := map[shard.Nid]bool{}
	var h byDepth
	add := func(rows []roomdb.StoredEvent) {
		for i := range rows {
			row := rows[i]
			skip := row.Flags&(roomdb.FlagRejected|roomdb.FlagOutlier) != 0 || stop[row.Nid] || row.Depth < least
			if seen[row.Nid] || skip {
				continue
			}
			seen[row.Nid] = true
			heap.Push(&h, row)
		}
	}
	add(from)
	var out []roomdb.StoredEvent
	for h.Len() > 0 && len(out) < count {
		row, ok := heap.Pop(&h).(roomdb.StoredEvent)
		if !ok {
			break
		}
		out = append(out, row)
		rows, err := r.db.EventsByNid(ctx, row.Prev)
		if err != nil {
			return nil, err
		}
		add(rows)
	}
	return out, nil
}

// Backfill answers /backfill.
func (r *Rooms) Backfill(ctx context.Context, room id.RoomID, from []id.EventID, limit int, origin, self id.ServerName, now int64) ([]byte, error) {
	ref, err := r.RoomWith(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	start, err := r.named(ctx, ref, from)
	if err != nil {
		return nil, err
	}
	rows, err := r.back(ctx, start, min(max(limit, 1), maxBackfill), nil, -1)
	if err != nil {
		return nil, err
	}
	events, _, err := r.shown(ctx, ref, rows, origin)
	if err != nil {
		return nil, err
	}
	return transaction(self, now, appendEvents(nil, events)), nil
}

// named finds events of a room; those that are not known are left out.
func (r *Rooms) named(ctx context.Context, ref *Ref, ids []id.EventID) ([]roomdb.StoredEvent, error) {
	if len(ids) > maxBackfill {
		return nil, mxerr.New(mxerr.InvalidParam, "Too many events")
	}
	names := make([]string, len(ids))
	for i, e := range ids {
		names[i] = string(e)
	}
	return r.db.EventsByID(ctx, ref.Nid, names)
}

// MissingQuery is what /get_missing_events asks for.
type MissingQuery struct {
	Earliest []id.EventID `json:"earliest_events"`
	Latest   []id.EventID `json:"latest_events"`
	Limit    *int         `json:"limit"`
	MinDepth int64        `json:"min_depth"`
}

// Missing answers /get_missing_events: what comes before the latest events and after the earliest, oldest first.
func (r *Rooms) Missing(ctx context.Context, room id.RoomID, q *MissingQuery, origin id.ServerName) ([]byte, error) {
	ref, err := r.RoomWith(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	limit := 10
	if q.Limit != nil {
		limit = min(max(*q.Limit, 0), maxMissing)
	}
	latest, err := r.named(ctx, ref, q.Latest)
	if err != nil {
		return nil, err
	}
	earliest, err := r.named(ctx, ref, q.Earliest)
	if err != nil {
		return nil, err
	}
	stop := map[shard.Nid]bool{}
	for i := range earliest {
		stop[earliest[i].Nid] = true
	}
	var prev []shard.Nid
	for i := range latest {
		stop[latest[i].Nid] = true
		prev = append(prev, latest[i].Prev...)
	}
	slices.Sort(prev)
	from, err := r.db.EventsByNid(ctx, slices.Compact(prev))
	if err != nil {
		return nil, err
	}
	rows, err := r.back(ctx, from, limit, stop, q.MinDepth)
	if err != nil {
		return nil, err
	}
	slices.Reverse(rows)
	events, _, err := r.shown(ctx, ref, rows, origin)
	if err != nil {
		return nil, err
	}
	return append(appendEvents([]byte(`{"events":`), events), '}'), nil
}

// At answers /timestamp_to_event.
func (r *Rooms) At(ctx context.Context, room id.RoomID, ts int64, backward bool, origin id.ServerName) (id.EventID, int64, error) {
	ref, err := r.RoomWith(ctx, room, origin)
	if err != nil {
		return "", 0, err
	}
	e, at, ok, err := r.fed.EventNear(ctx, ref.Nid, ts, backward)
	if err != nil {
		return "", 0, err
	}
	if !ok {
		return "", 0, mxerr.New(mxerr.NotFound, "There is no such event")
	}
	return id.EventID(e), at, nil
}

// Accepted tells whether an event is stored and part of the room: what a join has to be before it is answered.
func (r *Rooms) Accepted(ctx context.Context, ref *Ref, e id.EventID) (bool, error) {
	rows, err := r.db.EventsByID(ctx, ref.Nid, []string{string(e)})
	if err != nil || len(rows) == 0 {
		return false, err
	}
	return rows[0].Flags&(roomdb.FlagRejected|roomdb.FlagSoftFailed|roomdb.FlagOutlier) == 0, nil
}

// Parse reads an event that another server sent for a room.
func Parse(rules *roomver.Rules, pdu []byte, room id.RoomID) (*event.Event, error) {
	e, err := event.Parse(rules, pdu)
	if err != nil {
		return nil, mxerr.New(mxerr.BadJSON, "The event is malformed: "+err.Error())
	}
	if e.RoomID() != room {
		return nil, mxerr.New(mxerr.InvalidParam, "The event is of another room")
	}
	return e, nil
}
