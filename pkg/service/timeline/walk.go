package timeline

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// How much is read for one page when little of what is read may be told: so many times, so many events.
const (
	maxScans   = 10
	scanEvents = 200
)

// walker reads a room's timeline from a place towards another, until a page is full.
type walker struct {
	*Page
	r        *Rooms
	a        *readdb.Access
	v        Viewer
	ignored  map[string]bool
	from, to int64
	// findStart says that from is beyond the end of the timeline, and becomes the place of the latest event.
	findStart bool

	items []*readdb.Item
	end   int64 // the place to go on from
	more  bool  // there may be something beyond end
}

func (r *Rooms) walking(ctx context.Context, a *readdb.Access, v Viewer, p *Page) (*walker, error) {
	ignored, err := r.ignored(ctx, v)
	if err != nil {
		return nil, err
	}
	return &walker{Page: p, r: r, a: a, v: v, ignored: ignored}, nil
}

// turned gives a walker of the same reader for another page.
func (w *walker) turned(p *Page, from, to int64) *walker {
	return &walker{Page: p, r: w.r, a: w.a, v: w.v, ignored: w.ignored, from: from, to: to}
}

// read reads the next stored events beyond end.
func (w *walker) read(ctx context.Context, count int) ([]roomdb.StoredEvent, error) {
	if w.Dir == Forward {
		upper := min(w.a.Until, w.to, roomdb.End-1)
		return w.r.db.TimelineForward(ctx, w.a.Ref.Nid, w.end, upper+1, count)
	}
	return w.r.db.TimelineBackward(ctx, w.a.Ref.Nid, min(w.end, w.a.Until)+1, w.to, count)
}

func (w *walker) walk(ctx context.Context) error {
	w.end = w.from
	count := w.Limit + 1
	for scan := range maxScans {
		stored, err := w.read(ctx, count)
		if err != nil {
			return err
		}
		if scan == 0 && w.findStart {
			w.from = roomdb.Beginning
			if len(stored) > 0 {
				w.from = stored[0].Ord
			}
			w.end = w.from
		}
		full, err := w.take(ctx, stored)
		if err != nil {
			return err
		}
		if full {
			w.more = true
			return nil
		}
		if len(stored) < count {
			// Forward, more may come; backward, nothing was before.
			w.more = w.Dir == Forward && w.end != w.from && w.end < w.a.Until
			return nil
		}
		count = max(count, scanEvents)
	}
	w.more = true
	return nil
}

// take takes in what of some stored events is told; full says that the page was full before they were all looked at.
func (w *walker) take(ctx context.Context, stored []roomdb.StoredEvent) (full bool, err error) {
	items, err := w.r.db.Items(ctx, w.a.Ref.Version, stored)
	if err != nil {
		return false, err
	}
	seen, err := w.r.db.Visible(ctx, w.a, w.v.User, items)
	if err != nil {
		return false, err
	}
	related, err := w.r.related(ctx, w.a, w.Filter, items)
	if err != nil {
		return false, err
	}
	for i, it := range items {
		if len(w.items) == w.Limit {
			return true, nil
		}
		if w.end = it.Ord; w.Dir == Backward {
			w.end--
		}
		if seen[i] && w.told(it) && (related == nil || related[string(it.Event.EventID())]) {
			w.items = append(w.items, it)
		}
	}
	return false, nil
}

// told tells whether an event passes the filter, and is no message of somebody whom the reader ignores.
func (w *walker) told(it *readdb.Item) bool {
	if _, state := it.Event.StateKey(); !state && w.ignored[string(it.Event.Sender())] {
		return false
	}
	return passes(w.Filter, string(w.Room), it)
}

func passes(f *filter.RoomEventFilter, roomID string, it *readdb.Item) bool {
	return f.PassRoom(roomID) && f.PassEvent(it.Event.Type(), string(it.Event.Sender()), func() bool {
		_, ok := canonjson.GetString(it.Event.Content(), "url")
		return ok
	})
}
