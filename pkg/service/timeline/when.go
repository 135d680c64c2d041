package timeline

import (
	"context"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// whenEvents is how many events are looked at to find the nearest to a time that the reader may see, and whenPages how often.
const (
	whenEvents = 50
	whenPages  = 20
)

// Near gives the event that is closest to a time in ms and that the reader may see: going forward the first at or after it, going
// backward the last at or before it (spec: "GET …/timestamp_to_event"). Where events are missing, other servers are asked whether they have one that
// is closer.
func (r *Rooms) Near(ctx context.Context, v Viewer, room id.RoomID, ts int64, dir Dir) ([]byte, error) {
	a, err := r.access(ctx, room, v)
	if err != nil {
		return nil, err
	}
	it, err := r.near(ctx, a, v, ts, dir)
	if err != nil {
		return nil, err
	}
	if r.filler != nil {
		fetched, err := r.fetchNear(ctx, a, it, ts, dir)
		if err != nil {
			return nil, err
		}
		if fetched {
			if it, err = r.near(ctx, a, v, ts, dir); err != nil {
				return nil, err
			}
		}
	}
	if it == nil {
		return nil, mxerr.New(mxerr.NotFound, "There is no event at that side of the time")
	}
	b := canonjson.AppendString([]byte(`{"event_id":`), string(it.Event.EventID()))
	b = canonjson.AppendInt(append(b, `,"origin_server_ts":`...), it.Event.OriginServerTS())
	return append(b, '}'), nil
}

// near is Near by what is here; nil if there is none.
func (r *Rooms) near(ctx context.Context, a *readdb.Access, v Viewer, ts int64, dir Dir) (*readdb.Item, error) {
	at, read := roomdb.Until(ts), r.db.EventsBefore
	if dir == Forward {
		at, read = roomdb.From(ts), r.db.EventsAfter
	}
	for range whenPages {
		stored, err := read(ctx, a.Ref.Nid, at, whenEvents)
		if err != nil {
			return nil, err
		}
		items, err := r.db.Items(ctx, a.Ref.Version, stored)
		if err != nil {
			return nil, err
		}
		seen, err := r.db.Visible(ctx, a, v.User, items)
		if err != nil {
			return nil, err
		}
		for i, it := range items {
			at = roomdb.Moment{TS: it.Event.OriginServerTS(), Ord: it.Ord}
			if seen[i] {
				return it, nil
			}
		}
		if len(stored) < whenEvents {
			break
		}
	}
	return nil, nil //nolint:nilnil // there is none
}

// Bounds of what is fetched to find one event.
const (
	nearFills    = 20
	nearPatience = 25 * time.Second
)

// fetchNear has the events fetched that lead to one which is closer to a time than what is here, if others know of one. It tells whether that came.
func (r *Rooms) fetchNear(ctx context.Context, a *readdb.Access, here *readdb.Item, ts int64, dir Dir) (bool, error) {
	if gaps, err := r.db.Gaps(ctx, a.Ref.Nid, roomdb.End, roomdb.Beginning, 1); err != nil || len(gaps) == 0 {
		return false, err
	}
	patient, cancel := context.WithTimeout(ctx, nearPatience)
	defer cancel()
	event, at, err := r.filler.Near(patient, a.Ref, ts, dir == Forward)
	if err != nil {
		return false, ctx.Err() // what is here has to do
	}
	closer := here == nil || dir == Backward && at > here.Event.OriginServerTS() || dir == Forward && at < here.Event.OriginServerTS()
	if !closer || dir == Backward && at > ts || dir == Forward && at < ts {
		return false, nil
	}
	below := roomdb.End
	for range nearFills {
		found, err := r.db.EventsByID(patient, a.Ref.Nid, []string{string(event)})
		if err != nil {
			return false, ctx.Err()
		}
		if len(found) > 0 && found[0].Placed {
			return true, nil
		}
		gaps, err := r.db.Gaps(patient, a.Ref.Nid, below, roomdb.Beginning, 1)
		if err != nil || len(gaps) == 0 {
			return false, ctx.Err()
		}
		if moved, err := r.filler.Fill(patient, a.Ref, gaps[0].Ord); err != nil || !moved {
			below = gaps[0].Ord - 1 // nobody fills this one
		}
	}
	return false, nil
}
