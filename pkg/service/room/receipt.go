package room

import (
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// maxForeignThreads is of how many threads another server may tell that a user of its has read them, unless they are seen to be threads.
const maxForeignThreads = 100

// receiptMove is a receipt to be moved.
type receiptMove struct {
	user         id.UserID
	kind, thread string
	event        id.EventID
	ord, ts      int64
	rows         []roomdb.ReceiptRow // the user's receipts afterwards
}

// receiptsFact asks for a user's receipts in the room.
type receiptsFact struct{ user id.UserID }

func (f receiptsFact) load(ctx context.Context, r *live) (any, error) {
	return r.term.host.DB.ReceiptsOf(ctx, r.nid, string(f.user))
}

func (c *Receipt) room() id.RoomID { return c.Room }
func (c *Receipt) more() int       { return 0 }

func (c *Receipt) decide(v *view) (plan, error) {
	switch c.Kind {
	case ReceiptRead, ReceiptReadPrivate:
	default:
		return plan{}, mxerr.New(mxerr.InvalidParam, "receipt type is unknown")
	}
	if len(c.Thread) > 255 {
		return plan{}, mxerr.New(mxerr.InvalidParam, "thread_id is no event id")
	}
	if v.membership(c.User) != event.Join {
		return plan{}, mxerr.New(mxerr.Forbidden, "you are not in the room")
	}
	var ord int64
	var known bool
	if at := v.r.recent.find(c.Event); at != nil {
		ord, known = at.ord, true
	} else {
		if row := v.event(c.Event); row != nil && row.Placed {
			ord, known = row.Ord, true
		}
	}
	rows, cached := v.r.receipts[c.User]
	if !cached {
		rows = ask[[]roomdb.ReceiptRow](v, receiptsFact{c.User})
	}
	if v.lacks() {
		return plan{}, errLacks
	}
	if !known {
		return plan{}, mxerr.New(mxerr.NotFound, "the room has no such event")
	}
	at := slices.IndexFunc(rows, func(r roomdb.ReceiptRow) bool { return r.Kind == c.Kind && r.Thread == c.Thread })
	// Other servers may know events that we do not, but not of any number of threads.
	if c.Thread != "" && (v.local(c.User) || at < 0 && len(rows) >= maxForeignThreads) {
		if err := v.inThread(c.Event, c.Thread); err != nil {
			return plan{}, err
		}
	}
	if at >= 0 && rows[at].EventOrd >= ord {
		return plan{answer: Answer{Room: c.Room, Unchanged: true}}, nil
	}
	ts := c.TS
	if ts == 0 {
		ts = v.now
	}
	now := roomdb.ReceiptRow{
		UserID: string(c.User), Kind: c.Kind, Thread: c.Thread, EventID: string(c.Event), EventOrd: ord, TS: ts,
	}
	rows = slices.Clone(rows)
	if at >= 0 {
		rows[at] = now
	} else {
		rows = append(rows, now)
	}
	return plan{
		receipts: []receiptMove{{c.User, c.Kind, c.Thread, c.Event, ord, ts, rows}}, answer: Answer{Room: c.Room},
	}, nil
}
