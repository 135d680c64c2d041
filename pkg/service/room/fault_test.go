package room_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// gate is a store that can be stopped before a commit, and that can refuse proposals.
type gate struct {
	commit.Store
	mu      sync.Mutex
	blocked chan struct{} // a commit waits until it is closed; nil: none
	waiting chan struct{} // receives once for each commit that waits
	refuse  func(*entry.Proposal) error
}

func newGate() *gate { return &gate{waiting: make(chan struct{}, 64)} }

func (g *gate) wrap(s commit.Store) commit.Store {
	g.Store = s
	return g
}

// block stops commits until the result is called.
func (g *gate) block() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ch := make(chan struct{})
	g.blocked = ch
	return func() {
		g.mu.Lock()
		g.blocked = nil
		g.mu.Unlock()
		close(ch)
	}
}

func (g *gate) refuseWith(f func(*entry.Proposal) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuse = f
}

func (g *gate) Commit(ctx context.Context, batches []commit.Batch) error {
	g.mu.Lock()
	ch, refuse := g.blocked, g.refuse
	g.mu.Unlock()
	if ch != nil {
		g.waiting <- struct{}{}
		<-ch
	}
	if refuse != nil {
		for _, b := range batches {
			for _, p := range b.Proposals {
				if err := refuse(p.Proposal); err != nil {
					return err
				}
			}
		}
	}
	return g.Store.Commit(ctx, batches)
}

var errPlanted = errors.New("planted")

// eventsIn gives the contents that a proposal's events hold.
func eventsIn(p *entry.Proposal) (list []string) {
	for _, r := range p.Rows {
		if e, ok := r.(*roomdb.Event); ok {
			list = append(list, string(e.JSON))
		}
	}
	return list
}

func refuseOnce(substring string) func(*entry.Proposal) error {
	return func(p *entry.Proposal) error {
		for _, e := range eventsIn(p) {
			if contains(e, substring) {
				return errPlanted
			}
		}
		return nil
	}
}

func contains(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i:i+len(sub)] == sub {
			return true
		}
	}
	return false
}

// started does a command in the background and returns when it has been submitted behind n others.
type result struct {
	answer room.Answer
	err    error
}

func async(w *roomtest.World, key []byte, cmd room.Command) <-chan result {
	ch := make(chan result, 1)
	ctx := w.Ctx()
	go func() {
		a, err := w.Host.Do(ctx, key, cmd)
		ch <- result{a, err}
	}()
	return ch
}

func message(r id.RoomID, by id.UserID, text, txn string) *room.Send {
	o := roomtest.As(by)
	o.Txn = txn
	return &room.Send{Room: r, By: o, Type: "m.room.message", Content: roomtest.Message(text)}
}

func bodies(t *testing.T, w *roomtest.World, r id.RoomID) (list []string) {
	t.Helper()
	for _, e := range timeline(t, w, r) {
		if p := parse(t, e); p.Type == "m.room.message" {
			list = append(list, string(p.Content))
		}
	}
	return list
}

// A proposal that is refused in the middle of others takes with it only what was built on it in its room, and that is done again.
func TestARefusedProposalLeavesNoTrace(t *testing.T) {
	g := newGate()
	w := roomtest.New(t, roomtest.WithStore(g.wrap))
	r := w.Room(alice, roomver.Default)
	w.Join(r, bob)
	w.Send(r, alice, "first")
	for round := range 8 {
		open := g.block()
		bait := async(w, nil, message(r, alice, "bait", ""))
		<-g.waiting
		// All of these are in one group: "bad" is refused, those around it are not.
		bad := fmt.Sprintf("bad-%d", round)
		g.refuseWith(refuseOnce(bad))
		var results []<-chan result
		for i := range 9 {
			text := fmt.Sprintf("good-%d-%d", round, i)
			if i == round {
				text = bad
			}
			results = append(results, async(w, nil, message(r, alice, text, "")))
		}
		results = append(results, async(w, nil, &room.SendState{
			Room: r, By: roomtest.As(alice), Type: "m.room.topic", Content: []byte(fmt.Sprintf(`{"topic":"%d"}`, round)),
		}))
		open()
		require.NoError(t, (<-bait).err)
		failed := 0
		for _, ch := range results {
			if res := <-ch; res.err != nil {
				failed++
				require.ErrorIs(t, res.err, errPlanted)
			}
		}
		require.Equal(t, 1, failed)
		g.refuseWith(nil)
		got := bodies(t, w, r)
		require.NotContains(t, got, string(roomtest.Message(bad)))
		for i := range 9 {
			if i != round {
				n := 0
				for _, b := range got {
					if contains(b, fmt.Sprintf("good-%d-%d", round, i)+`"`) {
						n++
					}
				}
				require.Equal(t, 1, n, "message %d", i)
			}
		}
		checkRoom(t, w, r)
	}
}

// A refusal that rests on something which is not committed waits, and is taken back if that fails.
func TestARefusalWaitsForWhatItRestsOn(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint(fails), func(t *testing.T) {
			g := newGate()
			w := roomtest.New(t, roomtest.WithStore(g.wrap))
			r := w.Room(alice, roomver.Default)
			w.Join(r, bob)
			w.Send(r, bob, "warm")
			if fails {
				g.refuseWith(refuseOnce(`"membership":"ban"`))
			}
			open := g.block()
			ban := async(w, nil, &room.SetMembership{Room: r, By: roomtest.As(alice), Target: bob, Action: room.ActionBan})
			<-g.waiting
			said := async(w, nil, message(r, bob, "still here", ""))
			select {
			case res := <-said:
				t.Fatalf("answered on what is not committed: %v", res.err)
			default:
			}
			open()
			if fails {
				require.ErrorIs(t, (<-ban).err, errPlanted)
				require.NoError(t, (<-said).err)
			} else {
				require.NoError(t, (<-ban).err)
				require.True(t, mxerr.Is((<-said).err, mxerr.Forbidden))
			}
			checkRoom(t, w, r)
		})
	}
}

func TestRepeatsAreDoneOnce(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	const repeats = 20
	var results []<-chan result
	for range repeats {
		results = append(results, async(w, nil, message(r, alice, "once", "t1")))
	}
	var ids []id.EventID
	for _, ch := range results {
		res := <-ch
		require.NoError(t, res.err)
		ids = append(ids, res.answer.Event)
	}
	require.Len(t, slices.Compact(ids), 1)
	for range 3 {
		w.Restart()
		w.Send(r, alice, "between")
		res := <-async(w, nil, message(r, alice, "once", "t1"))
		require.NoError(t, res.err)
		require.Equal(t, ids[0], res.answer.Event)
		checkRoom(t, w, r)
	}
	// Another device, user, room or path is another command.
	other := message(r, alice, "once", "t1")
	other.By.Device = "OTHER"
	require.NotEqual(t, ids[0], w.Do(other).Event)
	require.Len(t, bodies(t, w, r), 1+3+1)
}

// The same command by way of two masters, one after another, and a room creation that is repeated.
func TestRepeatedCreation(t *testing.T) {
	w := roomtest.New(t)
	c := room.CreateRoom{Creator: roomtest.As(alice)}
	require.NoError(t, room.Prepare(&c, roomtest.Server, now(), zeros{}))
	first, err := w.Host.Do(w.Ctx(), c.Nonce, &c)
	require.NoError(t, err)
	again, err := w.Host.Do(w.Ctx(), c.Nonce, &c)
	require.NoError(t, err)
	require.Equal(t, first, again)
	w.Restart()
	again, err = w.Host.Do(w.Ctx(), c.Nonce, &c)
	require.NoError(t, err)
	require.Equal(t, first, again)
	w.Send(first.Room, alice, "works")
	other := c
	other.Nonce = []byte("another request")
	_, err = w.Host.Do(w.Ctx(), other.Nonce, &other)
	require.True(t, mxerr.Is(err, mxerr.RoomInUse), "%v", err)
	w.Send(first.Room, alice, "still works")
	require.Len(t, bodies(t, w, first.Room), 2)
}

// A caller who gives up does not stop the command, and a repeat learns what became of it.
func TestACallerWhoGivesUp(t *testing.T) {
	g := newGate()
	w := roomtest.New(t, roomtest.WithStore(g.wrap))
	r := w.Room(alice, roomver.Default)
	w.Send(r, alice, "warm")
	open := g.block()
	ctx, cancel := context.WithCancel(w.Ctx())
	gone := make(chan error, 1)
	go func() {
		_, err := w.Host.Do(ctx, nil, message(r, alice, "left alone", "t"))
		gone <- err
	}()
	<-g.waiting
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled)
	again := async(w, nil, message(r, alice, "left alone", "t"))
	open()
	res := <-again
	require.NoError(t, res.err)
	require.Len(t, bodies(t, w, r), 2)
	checkRoom(t, w, r)
}

// A shard that was lost answers "not the owner", and so does one that is closed.
func TestNotTheOwner(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	w.Send(r, alice, "warm")
	w.Exec(`UPDATE shard_lease SET epoch = epoch + 1 WHERE shard = $1`, int(shardOf(w, r)))
	_, err := w.Host.Do(w.Ctx(), nil, message(r, alice, "lost", ""))
	require.ErrorIs(t, err, command.ErrNotOwner)
	_, err = w.Host.Do(w.Ctx(), nil, message(r, alice, "lost", ""))
	require.ErrorIs(t, err, command.ErrNotOwner)
	w.Restart()
	require.Len(t, bodies(t, w, r), 1)
	w.Send(r, alice, "back")
	checkRoom(t, w, r)
}

// Who opens a shard anew because its epoch was raised may come after its lease lapsed and was taken again.
func TestAnEarlierEpochDoesNotReplaceALaterOne(t *testing.T) {
	w := roomtest.New(t)
	r := w.Room(alice, roomver.Default)
	s := shardOf(w, r)
	require.ErrorIs(t, w.Host.Open(w.Ctx(), s, 0), room.ErrOvertaken)
	w.Send(r, alice, "still open")
	require.NoError(t, w.Host.Open(w.Ctx(), s, 1), "the same again begins anew")
	w.Send(r, alice, "and again")
}
