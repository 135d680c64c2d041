package pushdb

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

const (
	// maxScan is how many events of a stretch are looked at to find those that notify: whoever talks only to himself for longer in a thread
	// does not find what came before.
	maxScan = 5000
	// everyStretch is how many stretches are listed at once without asking before which of them have something.
	everyStretch = 32
)

// Forever is a place that nothing comes after.
const Forever = math.MaxInt64 >> 1

// Window is a part of a room: what came after Above, up to Upto.
type Window struct {
	Room        shard.Nid
	Above, Upto int64
}

// Notification is an event that a user was to be notified of.
type Notification struct {
	Room   shard.Nid
	Thread string
	Ord    int64
	Count  Count
	// Event and TS are the event's, see [Reader.Locate].
	Event shard.Nid
	TS    int64
}

// placed is an event of a room.
type placed struct {
	room shard.Nid
	ord  int64
}

// span is a part of a thread in which the user is of one class.
type span struct {
	room        shard.Nid
	thread      string
	class       Class
	above, upto int64
	latest      int64
}

// listing is one reading of notifications.
type listing struct {
	r     *Reader
	user  string
	loud  bool
	most  int
	spans []span
	rooms []Window
	found map[placed]*Notification
}

// Notified lists the events in parts of rooms that a user was to be notified of, as they were judged when they came, but those that were
// taken back since: of each shard the latest ones, most of them or fewer if there are no more. highlights leaves out the others. The
// number of queries does not depend on what there is, and the rows that are looked at depend on the number of rooms and threads
// and on most, not on how much was said.
func (r *Reader) Notified(ctx context.Context, userID string, in []Window, highlights bool, most int) (map[shard.ID][]Notification, error) {
	l := &listing{r: r, user: userID, loud: highlights, most: most, rooms: in, found: map[placed]*Notification{}}
	for _, step := range []func(context.Context) error{l.divide, l.readTallies, l.readExceptions} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	out := map[shard.ID][]Notification{}
	for _, n := range l.found {
		out[n.Room.Shard()] = append(out[n.Room.Shard()], *n)
	}
	for s, list := range out {
		slices.SortFunc(list, func(a, b Notification) int { return cmp.Compare(b.Ord, a.Ord) })
		out[s] = list[:min(most, len(list))]
	}
	return out, nil
}

// divide makes the spans: of each thread of each room, by the classes that the user was of.
func (l *listing) divide(ctx context.Context) error {
	p := ListThreadsParams{Count: maxThreads}
	for _, w := range l.rooms {
		p.Rooms, p.Above = append(p.Rooms, int64(w.Room)), append(p.Above, w.Above)
	}
	rows, err := l.r.q.ListThreads(ctx, p)
	if err != nil {
		return failed("threads", err)
	}
	threads := map[shard.Nid][]string{}
	for _, g := range rows {
		threads[shard.Nid(g.RoomNid)] = append(threads[shard.Nid(g.RoomNid)], g.Thread)
	}
	changes, err := l.r.q.ListClassesOf(ctx, ListClassesOfParams{Rooms: p.Rooms, UserID: l.user})
	if err != nil {
		return failed("classes", err)
	}
	classes := map[shard.Nid][]ListClassesOfRow{}
	for _, g := range changes {
		classes[shard.Nid(g.RoomNid)] = append(classes[shard.Nid(g.RoomNid)], g)
	}
	for _, w := range l.rooms {
		class, above := ClassAll, w.Above
		add := func(upto int64) {
			upto = min(upto, w.Upto)
			if upto <= above || class == ClassNone {
				return
			}
			for _, t := range append([]string{""}, threads[w.Room]...) {
				l.spans = append(l.spans, span{room: w.Room, thread: t, class: class, above: above, upto: upto})
			}
		}
		for _, g := range classes[w.Room] {
			add(g.Ord - 1)
			class, above = Class(g.Class), max(above, g.Ord-1)
		}
		add(Forever)
	}
	return nil
}

func (l *listing) readTallies(ctx context.Context) error {
	for class, bits := range map[Class]Flags{ClassAll: l.bits(AllNotify, AllHighlight), ClassSome: l.bits(SomeNotify, SomeHighlight)} {
		var of []span
		for _, s := range l.spans {
			if s.class == class {
				of = append(of, s)
			}
		}
		loud := l.loud || class != ClassAll
		if len(of) > everyStretch {
			var err error
			if of, err = l.promising(ctx, of, bits, loud); err != nil {
				return err
			}
		}
		err := l.latest(ctx, of, bits, loud, l.most, func(s *span, ord int64, f Flags) {
			l.found[placed{s.room, ord}] = &Notification{Room: s.room, Thread: s.thread, Ord: ord, Count: f.In(s.class)}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *listing) bits(notify, highlight Flags) Flags {
	if l.loud {
		return highlight
	}
	return notify
}

// promising leaves the spans that can have one of the latest events of their shards: those whose own latest ones are the latest.
func (l *listing) promising(ctx context.Context, all []span, bits Flags, loud bool) ([]span, error) {
	by := map[shard.ID][]span{}
	err := l.latest(ctx, all, bits, loud, 1, func(s *span, ord int64, _ Flags) {
		s.latest = ord
		by[s.room.Shard()] = append(by[s.room.Shard()], *s)
	})
	var out []span
	for _, list := range by {
		slices.SortFunc(list, func(a, b span) int { return cmp.Compare(b.latest, a.latest) })
		out = append(out, list[:min(len(list), l.most)]...)
	}
	return out, err
}

// latest gives the latest events of spans.
func (l *listing) latest(ctx context.Context, of []span, bits Flags, loud bool, count int, each func(s *span, ord int64, f Flags)) error {
	if len(of) == 0 {
		return nil
	}
	p := LatestTalliesParams{UserID: l.user, Scan: maxScan, Bits: int16(bits), Count: int32(count)}
	for i, s := range of {
		p.I, p.Rooms, p.Threads = append(p.I, int32(i)), append(p.Rooms, int64(s.room)), append(p.Threads, s.thread)
		p.Above, p.Upto = append(p.Above, s.above), append(p.Upto, s.upto)
	}
	if loud {
		rows, err := l.r.q.LatestLoudTallies(ctx, LatestLoudTalliesParams(p))
		if err != nil {
			return failed("notifications", err)
		}
		for _, g := range rows {
			each(&of[g.I], g.Ord, Flags(g.Flags))
		}
		return nil
	}
	rows, err := l.r.q.LatestTallies(ctx, p)
	if err != nil {
		return failed("notifications", err)
	}
	for _, g := range rows {
		each(&of[g.I], g.Ord, Flags(g.Flags))
	}
	return nil
}

// readExceptions adds what is more to the user than to the user's class.
func (l *listing) readExceptions(ctx context.Context) error {
	p := LatestExceptionsParams{UserID: l.user, Loud: l.loud, Count: 1}
	for i, w := range l.rooms {
		p.I, p.Rooms = append(p.I, int32(i)), append(p.Rooms, int64(w.Room))
		p.Above, p.Upto = append(p.Above, w.Above), append(p.Upto, w.Upto)
	}
	if len(l.rooms) > everyStretch {
		rows, err := l.r.q.LatestExceptions(ctx, p)
		if err != nil {
			return failed("notifications", err)
		}
		slices.SortFunc(rows, func(a, b LatestExceptionsRow) int { return cmp.Compare(b.Ord, a.Ord) })
		left := map[shard.ID]int{}
		some := LatestExceptionsParams{UserID: l.user, Loud: l.loud}
		for _, g := range rows {
			w := l.rooms[g.I]
			if left[w.Room.Shard()]++; left[w.Room.Shard()] > l.most {
				continue
			}
			some.I, some.Rooms = append(some.I, g.I), append(some.Rooms, int64(w.Room))
			some.Above, some.Upto = append(some.Above, w.Above), append(some.Upto, w.Upto)
		}
		p = some
	}
	p.Count = int32(l.most)
	rows, err := l.r.q.LatestExceptions(ctx, p)
	if err != nil {
		return failed("notifications", err)
	}
	for _, g := range rows {
		at, beyond := placed{l.rooms[g.I].Room, g.Ord}, Count{int64(g.Notify), int64(g.Highlight)}
		if n := l.found[at]; n != nil {
			n.Count = n.Count.Plus(beyond)
			continue
		}
		if beyond.Notify <= 0 { // it is more only than what the class has it, which was not read
			beyond.Notify = 1
		}
		l.found[at] = &Notification{Room: at.room, Thread: g.Thread, Ord: g.Ord, Count: beyond}
	}
	return nil
}

// Locate notes which events notifications are of.
func (r *Reader) Locate(ctx context.Context, list []*Notification) error {
	p := ListEventsAtParams{}
	at := make(map[placed]*Notification, len(list))
	for _, n := range list {
		p.Rooms, p.Places = append(p.Rooms, int64(n.Room)), append(p.Places, n.Ord)
		at[placed{n.Room, n.Ord}] = n
	}
	rows, err := r.q.ListEventsAt(ctx, p)
	if err != nil {
		return failed("events", err)
	}
	for _, g := range rows {
		n := at[placed{shard.Nid(g.RoomNid), g.Ord}]
		n.Event, n.TS = shard.Nid(g.Nid), g.Ts
	}
	return nil
}

// Reads tells up to where a user has read in rooms.
func (r *Reader) Reads(ctx context.Context, userID string, rooms []shard.Nid) (map[shard.Nid]*Unread, error) {
	out := make(map[shard.Nid]*Unread, len(rooms))
	p := ListReadParams{Reader: userID}
	for _, n := range rooms {
		if out[n] == nil {
			out[n] = &Unread{Counts: map[string]Count{}, read: map[string]int64{}}
			p.Rooms = append(p.Rooms, int64(n))
		}
	}
	rows, err := r.q.ListRead(ctx, p)
	if err != nil {
		return nil, failed("receipts", err)
	}
	for _, g := range rows {
		out[shard.Nid(g.RoomNid)].Receipt(g.Thread, g.EventOrd)
	}
	return out, nil
}
