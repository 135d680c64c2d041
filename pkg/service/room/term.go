package room

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// maxRemembered bounds the answers that a shard's writer remembers. What is older is found again by the committer, at the
// price of loading the room anew.
const maxRemembered = 1024

// term is the time during which this process writes a shard under one epoch, and what it knows meanwhile.
type term struct {
	host   *Host
	shard  shard.ID
	epoch  shard.Epoch
	seq    atomic.Int64 // number of the last nid that was given out
	atoms  *atoms
	typing *typists

	mu      sync.Mutex // guards all below; a leaf, no I/O under it
	closed  bool
	busy    int           // commands that were begun and are not answered
	drained chan struct{} // closed when closed and busy is 0
	rooms   map[id.RoomID]*slot
	// leftover are the undecided proposals of rooms that were let go: the room is not loaded before they are decided.
	leftover map[id.RoomID][]*commit.Ticket
	doing    map[string]*doing
	answers  map[string]Answer // by key, of what was done lately
	order    []string          // the keys of answers as a ring
	next     int
}

// slot is a room that is loaded, or being loaded.
type slot struct {
	ready chan struct{} // closed when room or err is set
	room  *live
	err   error
}

// doing is a command on its way, for its repeats to wait for.
type doing struct {
	done   chan struct{}
	answer Answer
	err    error
}

func newTerm(h *Host, s shard.ID, e shard.Epoch, seq int64) *term {
	t := &term{
		host: h, shard: s, epoch: e, atoms: newAtoms(), drained: make(chan struct{}), rooms: map[id.RoomID]*slot{},
		leftover: map[id.RoomID][]*commit.Ticket{}, doing: map[string]*doing{}, answers: map[string]Answer{},
	}
	t.seq.Store(seq)
	t.typing = newTypists(s, e, h.Ephemeral)
	return t
}

func (t *term) nid() shard.Nid { return shard.MakeNid(t.shard, t.seq.Add(1)) }

func (t *term) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.busy++
	return true
}

func (t *term) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
	t.checkDrained()
}

// close refuses further commands; the result is closed when the last one is answered.
func (t *term) close() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.checkDrained()
	return t.drained
}

func (t *term) checkDrained() {
	if !t.closed || t.busy > 0 {
		return
	}
	select {
	case <-t.drained:
	default:
		close(t.drained)
	}
}

// errAbandoned is what became of a command whose caller gave up before it was known whether it was done.
var errAbandoned = errors.New("caller gave up")

// errRedo says that a command has to be decided again.
var errRedo = errors.New("decide again")

// once has a command done, unless the same one is under way or was done lately.
func (t *term) once(ctx context.Context, key []byte, cmd Command) (Answer, error) {
	if key == nil {
		return t.do(ctx, nil, cmd, nil)
	}
	for {
		t.mu.Lock()
		if a, ok := t.answers[string(key)]; ok {
			t.mu.Unlock()
			return a, nil
		}
		d, other := t.doing[string(key)]
		if !other {
			d = &doing{done: make(chan struct{})}
			t.doing[string(key)] = d
		}
		t.mu.Unlock()
		if !other {
			return t.do(ctx, key, cmd, d)
		}
		select {
		case <-d.done:
			if !errors.Is(d.err, errAbandoned) {
				return d.answer, d.err
			}
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}
}

// settled ends a command that was begun under a key.
func (t *term) settled(key []byte, d *doing, a Answer, err error) {
	if d == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	d.answer, d.err = a, err
	close(d.done)
	delete(t.doing, string(key))
	if err != nil || a.Sign { // what is to be signed first is not done
		return
	}
	if _, ok := t.answers[string(key)]; ok {
		return
	}
	if len(t.order) < maxRemembered {
		t.order = append(t.order, string(key))
	} else {
		delete(t.answers, t.order[t.next])
		t.order[t.next] = string(key)
		t.next = (t.next + 1) % maxRemembered
	}
	t.answers[string(key)] = a
}

// do does a command, and tells those who wait for the same one.
func (t *term) do(ctx context.Context, key []byte, cmd Command, d *doing) (Answer, error) {
	w, err := t.begin(ctx, key, cmd)
	for {
		if err != nil || w.ticket == nil {
			switch {
			case err != nil && ctx.Err() != nil:
				t.settled(key, d, Answer{}, errAbandoned)
			default:
				t.settled(key, d, w.answer, err)
			}
			return w.answer, err
		}
		select {
		case <-w.ticket.Done():
		case <-ctx.Done():
			t.finishLater(ctx, key, w, d)
			return Answer{}, ctx.Err()
		}
		var a Answer
		if a, err = w.finish(ctx); !errors.Is(err, errRedo) {
			t.settled(key, d, a, err)
			return a, err
		}
		t.host.metrics.redone.Inc()
		w, err = t.begin(ctx, key, cmd)
	}
}

// finishLater waits for a commit in the place of a caller who gave up. The term is not drained before.
func (t *term) finishLater(ctx context.Context, key []byte, w work, d *doing) {
	t.mu.Lock()
	t.busy++
	t.mu.Unlock()
	go func() {
		defer t.leave()
		<-w.ticket.Done()
		a, err := w.finish(context.WithoutCancel(ctx))
		if errors.Is(err, errRedo) {
			err = errAbandoned
		}
		t.settled(key, d, a, err)
	}()
}

// work is a command that was decided. Without a ticket it is done.
type work struct {
	ticket *commit.Ticket
	answer Answer
	// finish is called once the ticket's outcome is known; errRedo asks for another decision.
	finish func(ctx context.Context) (Answer, error)
}

// begin decides a command and submits what it makes.
func (t *term) begin(ctx context.Context, key []byte, cmd Command) (work, error) {
	switch c := cmd.(type) {
	case *CreateRoom:
		return t.create(ctx, key, c)
	case *Outline:
		return t.outline(ctx, key, c)
	case *SetAlias:
		return t.setAlias(ctx, key, c)
	case *DeleteAlias:
		return t.deleteAlias(ctx, key, c)
	case roomCommand:
		return t.onRoom(ctx, key, c)
	}
	return work{}, fmt.Errorf("unknown command %s", cmd.Method())
}

// outcome reads a ticket whose outcome is known, for proposals that hang on no room.
func (t *term) outcome(ctx context.Context, ticket *commit.Ticket, a Answer) (Answer, error) {
	out, err := ticket.Wait(context.WithoutCancel(ctx)) // it is decided
	switch {
	case err != nil && lost(err):
		return Answer{}, t.lose(err)
	case err != nil:
		return Answer{}, commitError(err)
	case out.Repeated:
		return decodeAnswer(out.Result)
	}
	return a, nil
}

// lose ends the term: the shard is not ours under this epoch. Its commands are refused until the Host is opened again.
func (t *term) lose(err error) error {
	t.close()
	return fmt.Errorf("%w: %w", command.ErrNotOwner, err)
}

// commitError says why a proposal was not committed.
func commitError(err error) error {
	switch {
	case errors.Is(err, commit.ErrTooLarge):
		return mxerr.New(mxerr.TooLarge, "request makes more than can be stored at once")
	case errors.Is(err, commit.ErrUnavailable):
		return mxerr.Unavailable("the database is not available", time.Second.Milliseconds())
	}
	return fmt.Errorf("commit: %w", err)
}

// txnKey gives the key of a command that carries a client's transaction id, nil for others.
func txnKey(cmd Command) []byte {
	var by *Origin
	var path []string
	switch c := cmd.(type) {
	case *Send:
		by, path = &c.By, []string{string(c.Room), c.Type}
	case *SendState:
		by, path = &c.By, []string{string(c.Room), c.Type, c.StateKey}
	case *Redact:
		by, path = &c.By, []string{string(c.Room), string(c.Target)}
	case *SetMembership:
		by, path = &c.By, []string{string(c.Room), string(c.Action), string(c.Target)}
	default:
		return nil
	}
	if by.Txn == "" {
		return nil
	}
	h := sha256.New()
	var n [4]byte
	for _, s := range append(path, cmd.Method(), string(by.User), string(by.Device), by.Txn) {
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return h.Sum(nil)
}

// NewKey gives a random key, for a command that is to be safe to repeat.
func NewKey() []byte {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	return key
}

// encodeAnswer is how an answer is stored with its key.
func encodeAnswer(a Answer) []byte {
	b, _ := json.Marshal(storedAnswer{string(a.Event), string(a.Room), a.Unchanged, a.Data}) // nothing in it can fail
	return b
}

func decodeAnswer(b []byte) (Answer, error) {
	var s storedAnswer
	if err := json.Unmarshal(b, &s); err != nil {
		return Answer{}, fmt.Errorf("read earlier answer: %w", err)
	}
	return Answer{Event: id.EventID(s.Event), Room: id.RoomID(s.Room), Unchanged: s.Unchanged, Data: s.Data}, nil
}

type storedAnswer struct {
	Event     string `json:"e,omitempty"`
	Room      string `json:"r,omitempty"`
	Unchanged bool   `json:"u,omitempty"`
	Data      []byte `json:"d,omitempty"`
}

// KeyOf gives the key that a writer takes for a command that it was given none for: from the client's transaction id, or a
// random one.
func KeyOf(cmd Command) []byte {
	if key := txnKey(cmd); key != nil {
		return key
	}
	return NewKey()
}
