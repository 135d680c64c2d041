package inbound

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// PreparerOptions are what a Preparer needs. Log may be nil.
type PreparerOptions struct {
	Server id.ServerName
	Shards shard.Map
	DB     *feddb.DB
	Rooms  *roomdb.Reader
	Writer room.Writer
	Remote Remote
	Keys   KeySource
	EDUs   EDUs
	Log    *slog.Logger
	// Poll is how often is looked for work of which no word came. Default 2 s.
	Poll time.Duration
}

// Preparer brings staged events to their rooms.
type Preparer struct {
	o       PreparerOptions
	busy    *limiter // by room
	repairs *limiter // by room and server, and by server
}

// NewPreparer makes a Preparer.
func NewPreparer(o PreparerOptions) *Preparer {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Poll == 0 {
		o.Poll = 2 * time.Second
	}
	return &Preparer{o: o, busy: newLimiter(), repairs: newLimiter()}
}

const (
	// roomsAbreast is how many rooms of one shard are worked on at a time.
	roomsAbreast = 4
	// pieceOfRoom is how many events are handed to a room at a time.
	pieceOfRoom = 50
	// roomPatience bounds the work on one piece.
	roomPatience = 2 * time.Minute
	// longestWait is how long an event is postponed at most, and maxTries after how many tries it is given up.
	longestWait = time.Hour
	maxTries    = 20
	// maxWaiting bounds the events of one server that wait in one room for others to appear.
	maxWaiting = 1000
)

// shardWork is the work on one shard.
type shardWork struct {
	*Preparer
	shard     shard.ID
	roomTasks *errgroup.Group
	gapTasks  *errgroup.Group
	// again tells that there may be work that nobody else tells of.
	again chan struct{}
}

func (w *shardWork) lookAgain() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// Run works on what is staged for a shard until ctx ends. It must be called by whoever holds the shard's preparation, and by nobody
// else. wake tells that something was staged.
func (p *Preparer) Run(ctx context.Context, s shard.ID, wake <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	w := &shardWork{Preparer: p, shard: s, roomTasks: new(errgroup.Group), gapTasks: new(errgroup.Group), again: make(chan struct{}, 1)}
	w.roomTasks.SetLimit(roomsAbreast)
	w.gapTasks.SetLimit(repairsAbreast)
	defer func() {
		_ = w.roomTasks.Wait() // begins repairs
		_ = w.gapTasks.Wait()
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-w.again:
		case <-timer.C:
		}
		p.edus(ctx, s)
		for w.work(ctx) {
			p.edus(ctx, s)
		}
		timer.Reset(p.o.Poll)
	}
}

// work begins to work on rooms that have something staged, and tells whether there were some. Afterwards nothing is due of what a room had:
// it is done, postponed or parked.
func (w *shardWork) work(ctx context.Context) bool {
	due, err := w.o.DB.DueRooms(ctx, w.shard, 64)
	if err != nil {
		if ctx.Err() == nil {
			w.o.Log.Warn("staged events could not be read", "shard", int(w.shard), "error", err)
		}
		return false
	}
	begun := false
	for _, r := range due {
		if ctx.Err() != nil {
			return false
		}
		if !w.busy.enter(r, 1) {
			continue
		}
		begun = true
		w.roomTasks.Go(func() error { // waits for a place
			work, cancel := context.WithTimeout(ctx, roomPatience)
			err := w.room(work, ctx, id.RoomID(r))
			cancel()
			// What was staged after it was looked at was told to nobody else.
			if missed := w.busy.leave(r); missed && err == nil {
				w.lookAgain()
			}
			if err != nil && ctx.Err() == nil {
				w.o.Log.Warn("staged events of a room could not be worked on", "room", r, "error", err)
			}
			return nil
		})
	}
	return begun
}

// edus hands on what is staged besides events, in order for each server.
func (p *Preparer) edus(ctx context.Context, s shard.ID) {
	for ctx.Err() == nil {
		edus, err := p.o.DB.StagedEDUs(ctx, s, 100)
		if err != nil || len(edus) == 0 {
			return
		}
		var done []int64
		failed := map[string]bool{}
		for i := range edus {
			e := &edus[i]
			if failed[e.Origin] {
				continue
			}
			err := p.o.EDUs.Durable(ctx, id.ServerName(e.Origin), e.Type, e.Content)
			var refused *mxerr.Error
			if err != nil && !errors.As(err, &refused) {
				failed[e.Origin] = true
				p.o.Log.Warn("an EDU could not be worked on", "type", e.Type, "origin", e.Origin, "error", err)
				continue
			}
			done = append(done, e.Seq)
		}
		if len(done) > 0 {
			if err := p.o.DB.DropStagedEDUs(ctx, s, done); err != nil {
				return
			}
		}
		if len(done) < len(edus) {
			return
		}
	}
}

// room works on a room's staged events; repairs that it begins last until long. An error leaves the events where they are.
func (w *shardWork) room(ctx, long context.Context, r id.RoomID) error {
	staged, err := w.o.DB.Staged(ctx, w.shard, string(r), pieceOfRoom)
	if err != nil || len(staged) == 0 {
		return err
	}
	ref, ok, err := w.o.Rooms.Room(ctx, w.shard, string(r))
	if err != nil {
		return err
	}
	rules, known := roomver.Get(roomver.Version(ref.Version))
	if !ok || !known {
		return w.o.DB.DropStaged(ctx, w.shard, seqsOf(staged))
	}
	if staged, err = w.rescind(ctx, ref, staged); err != nil || len(staged) == 0 {
		return err
	}
	verdicts, err := w.acceptEach(ctx, r, staged)
	if err != nil {
		return err
	}
	g := &gap{Preparer: w.Preparer, room: r, nid: ref.Nid, shard: w.shard, rules: rules}
	var lacking []feddb.StagedPDU
	for i := range verdicts {
		if verdicts[i].Fate == room.FateMissing && staged[i].Ready {
			lacking = append(lacking, staged[i])
		}
	}
	return w.repair(long, g, lacking)
}

// acceptEach is accept that tries events one by one if it fails, so that one that the writer cannot bear spoils nothing for the others. Those are
// postponed, and have no fate.
func (w *shardWork) acceptEach(ctx context.Context, r id.RoomID, staged []feddb.StagedPDU) ([]room.Verdict, error) {
	verdicts, err := w.accept(ctx, r, staged)
	if err == nil {
		return verdicts, nil
	}
	if ctx.Err() != nil || isUnavailable(err) || isContext(err) {
		w.postpone(ctx, w.shard, staged, err)
		return nil, err
	}
	verdicts = make([]room.Verdict, len(staged))
	for i := range staged {
		one, err := w.accept(ctx, r, staged[i:i+1])
		if err != nil {
			w.o.Log.Warn("an event could not be handed to its room", "room", string(r), "event", staged[i].EventID, "error", err)
			w.postpone(ctx, w.shard, staged[i:i+1], err)
			continue
		}
		verdicts[i] = one[0]
	}
	return verdicts, nil
}

func seqsOf(staged []feddb.StagedPDU) []int64 {
	seqs := make([]int64, len(staged))
	for i := range staged {
		seqs[i] = staged[i].Seq
	}
	return seqs
}

// accept hands staged events to the room's writer, which deletes those that it is done with.
func (p *Preparer) accept(ctx context.Context, r id.RoomID, staged []feddb.StagedPDU) ([]room.Verdict, error) {
	c := &room.Accept{Room: r, Staged: seqsOf(staged)}
	for i := range staged {
		c.Events = append(c.Events, staged[i].JSON)
	}
	verdicts, err := p.do(ctx, c)
	if err == nil && len(verdicts) != len(staged) {
		err = fmt.Errorf("%d verdicts on %d events", len(verdicts), len(staged))
	}
	return verdicts, err
}

// do has a command done that answers verdicts.
func (p *Preparer) do(ctx context.Context, cmd room.Command) ([]room.Verdict, error) {
	a, err := p.o.Writer.Do(ctx, nil, cmd)
	if err != nil {
		return nil, err
	}
	var verdicts []room.Verdict
	if err := json.Unmarshal(a.Data, &verdicts); err != nil {
		return nil, wrap("read verdicts", err)
	}
	for _, v := range verdicts {
		if v.Fate == room.FateRejected || v.Fate == room.FateSoftFailed {
			p.o.Log.Info("an event was refused", "event", string(v.Event), "fate", string(v.Fate), "reason", v.Reason)
		}
	}
	return verdicts, nil
}

// postpone lets events wait, ever longer, and gives up those that were tried too often.
func (p *Preparer) postpone(ctx context.Context, s shard.ID, staged []feddb.StagedPDU, why error) {
	var failed error
	for i := range staged {
		e := &staged[i]
		if !e.Ready {
			continue // it waits anyway
		}
		unavailable := isUnavailable(why)
		switch {
		case e.Tries >= maxTries && !unavailable:
			p.o.Log.Warn("an event is given up", "event", e.EventID, "room", e.RoomID, "origin", e.Origin, "error", why)
			failed = p.o.DB.DropStaged(ctx, s, []int64{e.Seq})
		case unavailable || isContext(why): // the master is away, which says nothing of the event
			failed = p.o.DB.Postpone(ctx, s, []int64{e.Seq}, why.Error(), time.Second)
		case e.Tries == 0 && p.tooMany(ctx, s, e):
			p.o.Log.Warn("an event is given up: too many of its server wait", "event", e.EventID, "room", e.RoomID, "origin", e.Origin)
			failed = p.o.DB.DropStaged(ctx, s, []int64{e.Seq})
		default:
			wait := longestWait
			if e.Tries < 10 {
				wait = min(longestWait, 5*time.Second<<e.Tries)
			}
			failed = p.o.DB.Postpone(ctx, s, []int64{e.Seq}, why.Error(), wait)
		}
	}
	if failed != nil && ctx.Err() == nil {
		p.o.Log.Warn("events could not be postponed", "error", failed)
	}
}

// tooMany tells whether a server has as many events waiting in a room as it may.
func (p *Preparer) tooMany(ctx context.Context, s shard.ID, e *feddb.StagedPDU) bool {
	n, err := p.o.DB.Waiting(ctx, s, e.RoomID, e.Origin)
	return err == nil && n >= maxWaiting
}

// isUnavailable tells whether the master is away.
func isUnavailable(err error) bool {
	var refused *mxerr.Error
	return errors.As(err, &refused) && refused.HTTPStatus == 503
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// parsed reads and verifies events that another server gave for a room; what is wrong is left out.
func parsed(ctx context.Context, keys KeySource, rules *roomver.Rules, r id.RoomID, raw []json.RawMessage) []*event.Event {
	events := make([]*event.Event, 0, len(raw))
	for _, pdu := range raw {
		e, err := event.Parse(rules, pdu)
		if err == nil && e.RoomID() == r {
			events = append(events, e)
		}
	}
	errs := Verify(ctx, keys, events)
	i := -1
	return slices.DeleteFunc(events, func(*event.Event) bool { i++; return errs[i] != nil })
}
