package timeline

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// whenEvents is how many events are looked at to find the nearest to a time that the reader may see, and whenPages how often.
const (
	whenEvents = 50
	whenPages  = 20
)

// Near gives the event that is closest to a time in ms and that the reader may see: going forward the first at or after it, going
// backward the last at or before it (spec: "GET …/timestamp_to_event").
func (r *Rooms) Near(ctx context.Context, v Viewer, room id.RoomID, ts int64, dir Dir) ([]byte, error) {
	a, err := r.access(ctx, room, v)
	if err != nil {
		return nil, err
	}
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
			if !seen[i] {
				continue
			}
			b := canonjson.AppendString([]byte(`{"event_id":`), string(it.Event.EventID()))
			b = canonjson.AppendInt(append(b, `,"origin_server_ts":`...), at.TS)
			return append(b, '}'), nil
		}
		if len(stored) < whenEvents {
			break
		}
	}
	return nil, mxerr.New(mxerr.NotFound, "There is no event at that side of the time")
}
