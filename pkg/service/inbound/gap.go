package inbound

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
)

// Bounds of the repair of one gap.
const (
	askMissing   = 20
	answerLimit  = 8 << 20
	stateLimit   = 256 << 20
	idsLimit     = 32 << 20
	askTimeout   = 30 * time.Second
	stateTimeout = 90 * time.Second
	maxStateIDs  = 200_000
	// maxSingly is how many events are fetched one by one; of more the state is fetched whole.
	maxSingly = 200
	abreast   = 8
)

// gap is the repair of one room's missing events.
type gap struct {
	*Preparer
	room  id.RoomID
	nid   shard.Nid
	shard shard.ID
	rules *roomver.Rules
}

// close fetches what a staged event lacks and has it accepted. An error says that it could not be.
func (g *gap) close(ctx context.Context, staged *feddb.StagedPDU) error {
	e, err := event.Parse(g.rules, staged.JSON)
	if err != nil {
		return g.o.DB.DropStaged(ctx, g.shard, []int64{staged.Seq})
	}
	from := id.ServerName(staged.Origin)
	if from == g.o.Server {
		return errors.New("an event of our own lacks others")
	}
	before, err := g.missing(ctx, from, e)
	if err != nil {
		g.o.Log.Debug("missing events were not given", "room", string(g.room), "from", string(from), "error", err)
	}
	chain := append(before, e)
	var missing []id.EventID
	for range 3 {
		lacking, why, err := g.try(ctx, chain, staged)
		if err != nil || lacking < 0 {
			return err
		}
		missing = why
		if err := g.enter(ctx, from, chain[lacking], missing, staged, lacking == len(chain)-1); err != nil {
			return err
		}
		if chain = chain[lacking+1:]; len(chain) == 0 {
			return nil
		}
	}
	return fmt.Errorf("events before it are missing: %v", missing)
}

// try has a chain of events accepted, the staged one last, and gives the first that lacks others, with these; -1 for none.
func (g *gap) try(ctx context.Context, chain []*event.Event, staged *feddb.StagedPDU) (int, []id.EventID, error) {
	c := &room.Accept{Room: g.room, Staged: make([]int64, len(chain))}
	for _, e := range chain {
		c.Events = append(c.Events, e.JSON())
	}
	c.Staged[len(chain)-1] = staged.Seq
	verdicts, err := g.do(ctx, c)
	if err != nil {
		return 0, nil, err
	}
	for i := range verdicts {
		if verdicts[i].Fate == room.FateMissing {
			return i, verdicts[i].Missing, nil
		}
	}
	return -1, nil, nil
}

// missing asks for the events between what is known here and an event. They come in an order in which each is after those that it names,
// as far as they were given.
func (g *gap) missing(ctx context.Context, from id.ServerName, e *event.Event) ([]*event.Event, error) {
	earliest, err := g.extremities(ctx)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]any{
		"earliest_events": earliest, "latest_events": []id.EventID{e.EventID()}, "limit": askMissing, "min_depth": 0,
	})
	if err != nil {
		return nil, wrap("encode request", err)
	}
	raw, err := g.ask(ctx, from, "POST", fedPath("get_missing_events", string(g.room)), nil, body, answerLimit, askTimeout)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Events []json.RawMessage `json:"events"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, wrap("read missing events", err)
	}
	events := parsed(ctx, g.o.Keys, g.rules, g.room, answer.Events[:min(len(answer.Events), askMissing)])
	events = slices.DeleteFunc(events, func(x *event.Event) bool { return x.EventID() == e.EventID() || x.Type() == event.TypeCreate })
	return inOrder(events, (*event.Event).PrevEvents), nil
}

// extremities gives the room's forward extremities.
func (g *gap) extremities(ctx context.Context) ([]string, error) {
	tip, ok, err := g.o.Rooms.Tip(ctx, g.shard, string(g.room))
	if err != nil || !ok {
		return []string{}, err
	}
	if len(tip.Extremities) == 0 {
		return []string{tip.EventID}, nil
	}
	rows, err := g.o.Rooms.EventsByNid(ctx, tip.Extremities)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].EventID
	}
	return ids, nil
}

// inOrder puts events after those that they name. Among events that name each other in a circle the order is any.
func inOrder(events []*event.Event, names func(*event.Event) []id.EventID) []*event.Event {
	byID := make(map[id.EventID]*event.Event, len(events))
	for _, e := range events {
		byID[e.EventID()] = e
	}
	out := make([]*event.Event, 0, len(events))
	done := make(map[id.EventID]bool, len(events))
	type frame struct {
		e    *event.Event
		next int
	}
	for _, e := range events {
		if done[e.EventID()] {
			continue
		}
		done[e.EventID()] = true
		stack := []frame{{e: e}}
		for len(stack) > 0 {
			f := &stack[len(stack)-1]
			list := names(f.e)
			if f.next == len(list) {
				out = append(out, f.e)
				stack = stack[:len(stack)-1]
				continue
			}
			n := byID[list[f.next]]
			f.next++
			if n != nil && !done[n.EventID()] {
				done[n.EventID()] = true
				stack = append(stack, frame{e: n})
			}
		}
	}
	return out
}

// enter has an event accepted of which nothing before is known, by the state that its server says was there. missing are all events that it
// lacks; if they are auth events alone, these suffice.
func (g *gap) enter(ctx context.Context, from id.ServerName, e *event.Event, missing []id.EventID, staged *feddb.StagedPDU, last bool) error {
	seq := int64(0)
	if last {
		seq = staged.Seq
	}
	if !slices.ContainsFunc(missing, func(m id.EventID) bool { return slices.Contains(e.PrevEvents(), m) }) {
		if err := g.authChain(ctx, from, e); err != nil {
			return err
		}
		chain := &room.Accept{Room: g.room, Events: [][]byte{e.JSON()}, Staged: []int64{seq}}
		verdicts, err := g.do(ctx, chain)
		if err == nil && verdicts[0].Fate == room.FateMissing {
			err = fmt.Errorf("auth events are missing: %v", verdicts[0].Missing)
		}
		return err
	}
	set, err := g.stateBefore(ctx, from, e)
	if err != nil {
		return err
	}
	defer g.dropSet(ctx, set.ID)
	if err := set.Store(ctx, g.o.Writer, g.room); err != nil {
		return err
	}
	verdicts, err := g.do(ctx, &room.Enter{Room: g.room, Set: set.ID, Event: e.JSON(), Staged: seq})
	if err == nil && len(verdicts) == 1 && verdicts[0].Fate == room.FateMissing {
		err = fmt.Errorf("auth events are missing: %v", verdicts[0].Missing)
	}
	return err
}

func (g *gap) dropSet(ctx context.Context, set []byte) {
	if err := g.o.DB.DropSet(context.WithoutCancel(ctx), set); err != nil {
		g.o.Log.Warn("a staged set was not deleted", "error", err)
	}
}

// authChain fetches the auth events of an event and stores them.
func (g *gap) authChain(ctx context.Context, from id.ServerName, e *event.Event) error {
	raw, err := g.ask(ctx, from, "GET", fedPath("event_auth", string(g.room), string(e.EventID())), nil, nil, idsLimit, askTimeout)
	if err != nil {
		return err
	}
	var answer struct {
		Chain []json.RawMessage `json:"auth_chain"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return wrap("read auth chain", err)
	}
	set, err := StageSet(ctx, g.o.DB, parsed(ctx, g.o.Keys, g.rules, g.room, answer.Chain), nil, nil)
	if err != nil {
		return err
	}
	defer g.dropSet(ctx, set.ID)
	return set.Store(ctx, g.o.Writer, g.room)
}

// stateBefore fetches the state before an event, as far as it is not known here.
func (g *gap) stateBefore(ctx context.Context, from id.ServerName, e *event.Event) (*Set, error) {
	query := url.Values{"event_id": {string(e.EventID())}}
	raw, err := g.ask(ctx, from, "GET", fedPath("state_ids", string(g.room)), query, nil, idsLimit, stateTimeout)
	if err != nil {
		return nil, err
	}
	var answer struct {
		State []id.EventID `json:"pdu_ids"`
		Chain []id.EventID `json:"auth_chain_ids"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, wrap("read state ids", err)
	}
	if len(answer.State)+len(answer.Chain) > maxStateIDs {
		return nil, errors.New("state is too large")
	}
	lacking, err := g.unknown(ctx, append(slices.Clone(answer.State), answer.Chain...))
	if err != nil {
		return nil, err
	}
	var events []*event.Event
	if len(lacking) > maxSingly {
		events, err = g.wholeState(ctx, from, query)
	} else {
		events = g.singly(ctx, from, lacking)
	}
	if err != nil {
		return nil, err
	}
	return StageSet(ctx, g.o.DB, events, answer.State, nil)
}

// unknown leaves out the events that are stored.
func (g *gap) unknown(ctx context.Context, ids []id.EventID) ([]id.EventID, error) {
	known := map[string]bool{}
	for part := range slices.Chunk(ids, 1000) {
		names := make([]string, len(part))
		for i, e := range part {
			names[i] = string(e)
		}
		have, err := g.o.DB.KnownEvents(ctx, g.nid, names)
		if err != nil {
			return nil, err
		}
		for _, e := range have {
			known[e] = true
		}
	}
	var out []id.EventID
	for _, e := range ids {
		if !known[string(e)] {
			known[string(e)] = true
			out = append(out, e)
		}
	}
	return out, nil
}

// singly fetches events one by one. What cannot be had is left out.
func (g *gap) singly(ctx context.Context, from id.ServerName, ids []id.EventID) []*event.Event {
	var mu sync.Mutex
	var raw []json.RawMessage
	var group errgroup.Group
	group.SetLimit(abreast)
	for _, e := range ids {
		group.Go(func() error {
			b, err := g.ask(ctx, from, "GET", fedPath("event", string(e)), nil, nil, answerLimit, askTimeout)
			if err != nil {
				return nil
			}
			var answer struct {
				PDUs []json.RawMessage `json:"pdus"`
			}
			if json.Unmarshal(b, &answer) != nil || len(answer.PDUs) != 1 {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			raw = append(raw, answer.PDUs[0])
			return nil
		})
	}
	_ = group.Wait() // nothing fails
	return parsed(ctx, g.o.Keys, g.rules, g.room, raw)
}

func (g *gap) wholeState(ctx context.Context, from id.ServerName, query url.Values) ([]*event.Event, error) {
	raw, err := g.ask(ctx, from, "GET", fedPath("state", string(g.room)), query, nil, stateLimit, stateTimeout)
	if err != nil {
		return nil, err
	}
	var answer struct {
		State []json.RawMessage `json:"pdus"`
		Chain []json.RawMessage `json:"auth_chain"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, wrap("read state", err)
	}
	return parsed(ctx, g.o.Keys, g.rules, g.room, append(answer.State, answer.Chain...)), nil
}

// Set is events on their way to a room's writer.
type Set struct {
	ID     []byte
	pieces []int // how many events each piece has
}

// pieceBytes bounds what of a set is committed at a time.
const pieceBytes = 1 << 20

// StageSet stores events for a room's writer, in the order of their auth events. state names those that are the state; of events that are not
// among the given ones it holds no more than the name. keep, if not nil, is an id to use.
func StageSet(ctx context.Context, db *feddb.DB, events []*event.Event, state []id.EventID, keep []byte) (*Set, error) {
	set := &Set{ID: keep}
	if set.ID == nil {
		set.ID = make([]byte, 16)
		_, _ = rand.Read(set.ID) // never fails
	}
	in := make(map[id.EventID]bool, len(state))
	for _, e := range state {
		in[e] = true
	}
	rows := make([]feddb.SetEvent, 0, len(events)+len(state))
	n, bytes := 0, 0
	// The create event comes first: from room version 12 on events do not name it, and are checked against it all the same.
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b *event.Event) int { return rank(a) - rank(b) })
	for _, e := range inOrder(events, (*event.Event).AuthEvents) {
		if n > 0 && (n == room.MaxOutliers || bytes+e.Size() > pieceBytes) {
			set.pieces, n, bytes = append(set.pieces, n), 0, 0
		}
		n, bytes = n+1, bytes+e.Size()
		rows = append(rows, feddb.SetEvent{EventID: string(e.EventID()), State: in[e.EventID()], JSON: e.JSON()})
		delete(in, e.EventID())
	}
	if n > 0 {
		set.pieces = append(set.pieces, n)
	}
	for _, e := range state {
		if in[e] {
			delete(in, e)
			rows = append(rows, feddb.SetEvent{EventID: string(e), State: true, JSON: []byte{}})
		}
	}
	return set, db.PutSet(ctx, set.ID, rows)
}

// stageList stores events for a room's writer as they are, and names the set.
func stageList(ctx context.Context, db *feddb.DB, events []*event.Event) ([]byte, error) {
	set := make([]byte, 16)
	_, _ = rand.Read(set) // never fails
	rows := make([]feddb.SetEvent, len(events))
	for i, e := range events {
		rows[i] = feddb.SetEvent{EventID: string(e.EventID()), JSON: e.JSON()}
	}
	return set, db.PutSet(ctx, set, rows)
}

func rank(e *event.Event) int {
	if e.Type() == event.TypeCreate {
		return 0
	}
	return 1
}

// Store has the set's events stored as outliers.
func (s *Set) Store(ctx context.Context, w room.Writer, r id.RoomID) error {
	from := 0
	for _, n := range s.pieces {
		if _, err := w.Do(ctx, nil, &room.Outliers{Room: r, Set: s.ID, From: from, Count: n}); err != nil {
			return wrap("store state", err)
		}
		from += n
	}
	return nil
}
