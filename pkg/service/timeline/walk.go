package timeline

import (
	"context"
	"errors"
	"slices"
	"time"

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
	// filler, if not nil, is asked for what is missing on the way.
	filler Filler
	fills  int

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

var errGap = errors.New("events are missing that only the primary can be asked for")

// Bounds of what one page has fetched from other servers.
const (
	maxFills     = 12
	fillPatience = 25 * time.Second
)

// read reads the next stored events beyond end. cut says that events are missing after them, which cannot be had now: the page ends there.
func (w *walker) read(ctx context.Context, count int) (stored []roomdb.StoredEvent, cut bool, err error) {
	if w.Dir == Forward {
		upper := min(w.a.Until, w.to, roomdb.End-1)
		stored, err = w.r.db.TimelineForward(ctx, w.a.Ref.Nid, w.end, upper+1, count)
		return stored, false, err
	}
	from := min(w.end, w.a.Until)
	for {
		stored, err = w.r.db.TimelineBackward(ctx, w.a.Ref.Nid, from+1, w.to, count)
		if err != nil || w.filler == nil {
			return stored, false, err
		}
		low := w.to
		if len(stored) == count {
			low = stored[count-1].Ord
		}
		gaps, err := w.r.db.Gaps(ctx, w.a.Ref.Nid, min(from, roomdb.End-1)+1, low, 1)
		if err != nil || len(gaps) == 0 {
			return stored, false, err
		}
		if w.r.replica.Away(ctx) { // what is fetched has no entry in the log, by which it would be known to be there
			return nil, false, errGap
		}
		if w.fills < maxFills {
			w.fills++
			moved, err := w.filler.Fill(ctx, w.a.Ref, gaps[0].Ord)
			if moved {
				continue
			}
			if err != nil && ctx.Err() == nil {
				w.fills = maxFills // whoever does not answer shall not be waited for again
			}
		}
		n := slices.IndexFunc(stored, func(e roomdb.StoredEvent) bool { return e.Ord < gaps[0].Ord })
		if n < 0 {
			n = len(stored)
		}
		if n > 0 || len(w.items) > 0 { // the next page asks again
			return stored[:n], true, nil
		}
		return stored, false, nil
	}
}

func (w *walker) walk(ctx context.Context) error {
	w.end = w.from
	count := w.Limit + 1
	patient, cancel := context.WithTimeout(ctx, fillPatience)
	defer cancel()
	for scan := range maxScans {
		stored, cut, err := w.read(patient, count)
		if err != nil && patient.Err() != nil && ctx.Err() == nil { // what is there is told all the same
			w.filler = nil
			stored, cut, err = w.read(ctx, count)
		}
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
		if full || cut {
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
	related, err := w.r.db.RelatedBy(ctx, w.a.Ref.Nid, w.Filter, items)
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
		if seen[i] && w.told(it, related) {
			w.items = append(w.items, it)
		}
	}
	return false, nil
}

// told tells whether an event passes the filter, and is no message of somebody whom the reader ignores.
func (w *walker) told(it *readdb.Item, related map[string]bool) bool {
	if _, state := it.Event.StateKey(); !state && w.ignored[string(it.Event.Sender())] {
		return false
	}
	return it.Passes(w.Filter, string(w.Room), related)
}
