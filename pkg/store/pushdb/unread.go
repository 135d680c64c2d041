package pushdb

import (
	"context"
	"maps"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// maxThreads bounds the threads of a room in which unread notifications are counted: those in which something happened last.
const maxThreads = 1000

// threadMain is how receipts call the main timeline.
const threadMain = "main"

// Place asks for a user's unread counts in a room: of what came after Base, where the user joined, and up to Upto.
type Place struct {
	Room       shard.Nid
	Base, Upto int64
}

// Unread is what a user has not read in a room, as of a place in its order; it can be carried on from there by what the log tells.
// It is not safe for concurrent use.
type Unread struct {
	Upto int64
	// Counts are by thread, '' the main timeline; what is all read is left out.
	Counts map[string]Count
	// Class is the user's, since ClassFrom.
	Class     Class
	ClassFrom int64
	// all is up to where everything is read, and read up to where a thread is, if that is further.
	all  int64
	read map[string]int64
}

// Read gives up to where a thread is read.
func (u *Unread) Read(thread string) int64 { return max(u.all, u.read[thread]) }

// Total is the sum over all threads.
func (u *Unread) Total() Count { return Sum(u.Counts) }

// Sum adds up counts.
func Sum(counts map[string]Count) (sum Count) {
	for _, c := range counts {
		sum = sum.Plus(c)
	}
	return sum
}

// Add counts something in a thread, or takes it back, if it stands where the user has not read.
func (u *Unread) Add(thread string, ord int64, c Count) {
	if ord <= u.Read(thread) || c == (Count{}) {
		return
	}
	if c = u.Counts[thread].Plus(c); c == (Count{}) {
		delete(u.Counts, thread)
		return
	}
	u.Counts[thread] = c
}

// Receipt moves up to where a thread is read ("" all threads, "main" the main timeline), and gives the threads whose counts are
// to be made anew: those in which something is left.
func (u *Unread) Receipt(thread string, ord int64) (anew []string) {
	if thread == "" {
		if ord <= u.all {
			return nil
		}
		before := maps.Clone(u.read)
		was := u.all
		u.all = ord
		maps.DeleteFunc(u.read, func(_ string, at int64) bool { return at <= ord })
		for t := range u.Counts {
			if ord <= max(was, before[t]) {
				continue
			}
			delete(u.Counts, t)
			if ord < u.Upto {
				anew = append(anew, t)
			}
		}
		return anew
	}
	if thread == threadMain {
		thread = ""
	}
	if ord <= u.Read(thread) {
		return nil
	}
	u.read[thread] = ord
	if _, unread := u.Counts[thread]; !unread {
		return nil
	}
	delete(u.Counts, thread)
	if ord < u.Upto {
		anew = append(anew, thread)
	}
	return anew
}

// Heard is what the log tells of an event that changes counts.
type Heard struct {
	Ord     int64
	Sender  string // if the sender has read up to here by it
	Counted Counted
	Classes map[string]Class
	// Corrected is what an earlier event counted for, nil if that goes on counting.
	Corrected    *Counted
	CorrectedOrd int64
}

// Hear takes in an event that comes after Upto, in the order of the log; false if the counts must be read anew.
func (u *Unread) Hear(userID string, h *Heard) bool {
	if class, ok := h.Classes[userID]; ok {
		u.Class, u.ClassFrom = class, h.Ord
	}
	c := &h.Counted
	u.Upto = h.Ord
	if h.Sender == userID {
		u.say(c.Thread, h.Ord)
	} else {
		u.Add(c.Thread, h.Ord, c.Flags.In(u.Class).Plus(c.Exceptions[userID]))
	}
	old := h.Corrected
	if old == nil || h.CorrectedOrd <= u.Read(old.Thread) {
		return true
	}
	if h.CorrectedOrd < u.ClassFrom {
		return false
	}
	u.Add(old.Thread, h.CorrectedOrd, Count{}.Minus(old.Flags.In(u.Class).Plus(old.Exceptions[userID])))
	return true
}

// say moves up to where a thread is read to where the user has said something in it.
func (u *Unread) say(thread string, ord int64) {
	if thread == "" {
		thread = threadMain
	}
	u.Receipt(thread, ord)
}

// Unread reads a user's unread counts in rooms, in a constant number of queries, in the order of the places.
func (r *Reader) Unread(ctx context.Context, userID string, places []Place) ([]*Unread, error) {
	c := &counting{index: make(map[int64]int, len(places)), out: make([]*Unread, len(places)), classes: make([][]ListClassesOfRow, len(places))}
	for i, p := range places {
		c.index[int64(p.Room)] = i
		c.rooms = append(c.rooms, int64(p.Room))
		c.upto = append(c.upto, p.Upto)
		c.out[i] = &Unread{Upto: p.Upto, Counts: map[string]Count{}, all: p.Base, read: map[string]int64{}}
	}
	for _, step := range []func(context.Context, *Reader, string) error{c.readPlaces, c.readClasses, c.readTallies, c.readExceptions} {
		if err := step(ctx, r, userID); err != nil {
			return nil, err
		}
	}
	return c.out, nil
}

// counting is one reading of counts.
type counting struct {
	index       map[int64]int // of rooms
	rooms, upto []int64
	out         []*Unread
	classes     [][]ListClassesOfRow
}

func (c *counting) readPlaces(ctx context.Context, r *Reader, userID string) error {
	rows, err := r.q.ListRead(ctx, ListReadParams{Rooms: c.rooms, Reader: userID})
	if err != nil {
		return failed("receipts", err)
	}
	for _, g := range rows {
		u := c.out[c.index[g.RoomNid]]
		switch g.Thread {
		case "":
			u.all = max(u.all, g.EventOrd)
		case threadMain:
			u.read[""] = max(u.read[""], g.EventOrd)
		default:
			u.read[g.Thread] = max(u.read[g.Thread], g.EventOrd)
		}
	}
	for _, u := range c.out {
		maps.DeleteFunc(u.read, func(_ string, at int64) bool { return at <= u.all })
	}
	return nil
}

func (c *counting) readClasses(ctx context.Context, r *Reader, userID string) error {
	rows, err := r.q.ListClassesOf(ctx, ListClassesOfParams{Rooms: c.rooms, UserID: userID})
	if err != nil {
		return failed("classes", err)
	}
	for _, g := range rows {
		i := c.index[g.RoomNid]
		if g.Ord <= c.upto[i] {
			c.classes[i] = append(c.classes[i], g)
			c.out[i].Class, c.out[i].ClassFrom = Class(g.Class), g.Ord
		}
	}
	return nil
}

// classAt gives the class that the user has at a place of a room.
func (c *counting) classAt(room int, ord int64) (class Class) {
	for _, g := range c.classes[room] {
		if g.Ord > ord {
			break
		}
		class = Class(g.Class)
	}
	return class
}

func (c *counting) above() []int64 {
	above := make([]int64, len(c.out))
	for i, u := range c.out {
		above[i] = u.all
	}
	return above
}

// stretch is a part of a thread in which the user is of one class: between two of the places that are asked for.
type stretch struct {
	room, from, to int
	thread         string
	class          Class
}

func (c *counting) readTallies(ctx context.Context, r *Reader, _ string) error {
	threads := make([]map[string]bool, len(c.out))
	for i := range threads {
		threads[i] = map[string]bool{"": true}
	}
	rows, err := r.q.ListThreads(ctx, ListThreadsParams{Rooms: c.rooms, Above: c.above(), Count: maxThreads})
	if err != nil {
		return failed("threads", err)
	}
	for _, g := range rows {
		threads[c.index[g.RoomNid]][g.Thread] = true
	}
	var p ListTalliesParams
	var stretches []stretch
	ask := func(room int, thread string, ord int64) int {
		n := len(p.I)
		p.I, p.Rooms = append(p.I, int32(n)), append(p.Rooms, c.rooms[room])
		p.Threads, p.Places = append(p.Threads, thread), append(p.Places, ord)
		return n
	}
	for i, u := range c.out {
		for thread := range threads[i] {
			at := u.Read(thread)
			if at >= u.Upto {
				continue
			}
			from, class := ask(i, thread, at), c.classAt(i, at)
			for _, g := range c.classes[i] {
				if g.Ord <= at || Class(g.Class) == class {
					continue
				}
				to := ask(i, thread, g.Ord-1)
				stretches = append(stretches, stretch{i, from, to, thread, class})
				from, class = to, Class(g.Class)
			}
			stretches = append(stretches, stretch{i, from, ask(i, thread, u.Upto), thread, class})
		}
	}
	found, err := r.q.ListTallies(ctx, p)
	if err != nil {
		return failed("running counts", err)
	}
	running := make([]Running, len(p.I))
	for _, g := range found {
		running[g.I] = Running{Count{g.AllNotify, g.AllHighlight}, Count{g.SomeNotify, g.SomeHighlight}}
	}
	for _, s := range stretches {
		c.out[s.room].Add(s.thread, c.upto[s.room], running[s.to].In(s.class).Minus(running[s.from].In(s.class)))
	}
	return nil
}

func (c *counting) readExceptions(ctx context.Context, r *Reader, userID string) error {
	above := c.above()
	corrections, err := r.q.ListCorrections(ctx, ListCorrectionsParams{Rooms: c.rooms, Above: above, Upto: c.upto})
	if err != nil {
		return failed("corrections", err)
	}
	type event struct{ room, ord int64 }
	gone := make(map[event]bool, len(corrections))
	for _, g := range corrections {
		gone[event{g.RoomNid, g.Ord}] = true
		i := c.index[g.RoomNid]
		c.out[i].Add(g.Thread, g.Ord, Count{}.Minus(Flags(g.Flags).In(c.classAt(i, g.Ord))))
	}
	exceptions, err := r.q.ListExceptions(ctx, ListExceptionsParams{Rooms: c.rooms, Above: above, Upto: c.upto, UserID: userID})
	if err != nil {
		return failed("exceptions", err)
	}
	for _, g := range exceptions {
		if !gone[event{g.RoomNid, g.Ord}] {
			c.out[c.index[g.RoomNid]].Add(g.Thread, g.Ord, Count{int64(g.Notify), int64(g.Highlight)})
		}
	}
	return nil
}
