package appservice

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/appservicedb"
)

// post serves one application service for as long as its worker has the role. One goroutine runs it; others offer it what is new.
type post struct {
	*term
	service *Service
	log     *slog.Logger
	wake    chan struct{} // capacity 1: something is new
	knock   chan struct{} // capacity 1: it is to be tried at once

	// Of the running goroutine.
	state  appservicedb.State
	at     shard.Vector // up to where the log was taken in
	saved  time.Time    // when that was last stored
	chunks []chunk      // taken in next
	turn   int          // the shard from which on the log is read next
	rooms  map[shard.Nid]*room

	mu      sync.Mutex // guards what follows
	heads   shard.Heads
	offered []chunk
	held    int // bytes in offered
	soft    soft
}

// chunk is consecutive entries of a shard's log: all that are wanted after prev and up to last.
type chunk struct {
	shard      shard.ID
	prev, last shard.Pos
	entries    []entry.At
}

func newPost(t *term, s *Service, state appservicedb.State) *post {
	return &post{
		term: t, service: s, log: t.log.With("service", s.ID), state: state, at: state.At.Clone(), saved: t.o.Now(),
		wake: make(chan struct{}, 1), knock: make(chan struct{}, 1), rooms: map[shard.Nid]*room{},
		heads: shard.Heads{Positions: make(shard.Vector, len(state.At))},
	}
}

// wants tells whether entries of a kind can concern the application service.
func (p *post) wants(k entry.Kind) bool {
	switch k {
	case entry.KindEvent:
		return true
	case entry.KindReceipt:
		return p.service.Ephemeral
	case entry.KindToDevice:
		return p.service.ToDevice
	case entry.KindDeviceList, entry.KindKeyCounts:
		return p.service.Encryption
	}
	return false
}

// offer takes in what is new, if there is room.
func (p *post) offer(b follow.Batch) {
	p.mu.Lock()
	p.heads.Incarnation = b.Incarnation
	p.heads.Positions[b.Shard] = max(p.heads.Positions[b.Shard], b.Last)
	size := 64
	for i := range b.Entries {
		size += b.Entries[i].Size()
	}
	if last := len(p.offered) - 1; last >= 0 && len(b.Entries) == 0 && p.offered[last].shard == b.Shard && p.offered[last].last == b.Prev {
		p.offered[last].last = b.Last
	} else if len(p.offered) < p.cfg.MaxBatches && p.held+size <= p.cfg.MaxHeld {
		p.offered, p.held = append(p.offered, chunk{b.Shard, b.Prev, b.Last, b.Entries}), p.held+size
	}
	p.mu.Unlock()
	knock(p.wake)
}

// reset takes in how far the log reaches.
func (p *post) reset(at shard.Heads) {
	p.mu.Lock()
	p.heads = shard.Heads{Incarnation: at.Incarnation, Positions: p.heads.Positions.Max(at.Positions)}
	p.mu.Unlock()
	knock(p.wake)
}

func (p *post) kick() { knock(p.knock) }

func knock(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run sends one transaction after the other until ctx ends.
func (p *post) run(ctx context.Context) {
	if p.state.Body != nil && !p.deliver(ctx) {
		return
	}
	for ctx.Err() == nil {
		txn, err := p.gather(ctx)
		if err == nil && txn.empty() {
			err = p.idle(ctx)
		} else if err == nil {
			err = p.send(ctx, txn)
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, follow.ErrRoleLost):
			return
		default:
			p.log.Warn("an application service could not be told what happens; it is tried again", "error", err)
			_ = lifecycle.Sleep(ctx, p.cfg.Retry) // the loop looks at ctx
		}
	}
}

// idle stores the place in the log now and then, and waits for something new.
func (p *post) idle(ctx context.Context) error {
	if p.state.Body != nil {
		if err := p.o.DB.Taken(ctx, p.service.ID, p.state.Txn); err != nil {
			return err
		}
		p.state.Body = nil
	}
	if now := p.o.Now(); now.Sub(p.saved) >= p.cfg.SaveEvery && !p.state.At.AtLeast(p.at) {
		held, err := p.o.DB.Pass(ctx, p.role, p.service.ID, p.at)
		if err != nil {
			return err
		}
		if !held {
			return follow.ErrRoleLost
		}
		p.state.At, p.saved = p.at.Clone(), now
	}
	return lifecycle.Doze(ctx, p.cfg.SaveEvery, p.wake)
}

// send stores a transaction, and sends it until it is taken. What fails before it is stored is begun anew from the place before it.
func (p *post) send(ctx context.Context, txn *transaction) error {
	next := appservicedb.State{Txn: p.state.Txn + 1, Body: txn.body(), At: p.at.Clone()}
	for {
		held, err := p.o.DB.Prepare(ctx, p.role, p.service.ID, next)
		if err == nil && !held {
			return follow.ErrRoleLost
		}
		if err == nil {
			break
		}
		// Whether it was stored is not known: so it is looked at, and nothing else is sent under this number.
		if state, lerr := p.o.DB.Load(ctx, p.service.ID, len(p.at)); lerr == nil && state.Txn >= next.Txn {
			if state.Txn > next.Txn || !bytes.Equal(state.Body, next.Body) {
				return follow.ErrRoleLost
			}
			break
		}
		p.log.Warn("a transaction could not be stored; it is tried again", "error", err)
		if err := lifecycle.Sleep(ctx, p.cfg.Retry); err != nil {
			return err
		}
	}
	p.state, p.saved = next, p.o.Now()
	if len(txn.received) > 0 && p.o.Acknowledge != nil {
		if err := p.o.Acknowledge(ctx, txn.received); err != nil && ctx.Err() == nil {
			p.log.Warn("messages to devices that were told were not removed", "error", err)
		}
	}
	p.deliver(ctx)
	return nil
}

// deliver sends the transaction that is stored until it is taken; false if ctx ended before.
func (p *post) deliver(ctx context.Context) bool {
	sum := sha256.Sum256(p.state.Body)
	// By what it holds too: numbers are used again after a database was restored.
	name := strconv.FormatInt(p.state.Txn, 10) + "-" + hex.EncodeToString(sum[:6])
	path := "/transactions/" + url.PathEscape(name)
	wait := p.cfg.MinBackoff
	for tries := 1; ctx.Err() == nil; tries++ {
		began := time.Now()
		a, err := p.o.Client.ask(ctx, p.service, question{
			Method: http.MethodPut, Path: apiPath + path, Old: path, Body: p.state.Body, Timeout: p.cfg.Timeout,
		})
		if err == nil && !a.Good() {
			err = fmt.Errorf("it answered %d %s", a.Status, a.code())
		}
		if err == nil {
			p.metrics.took.WithLabelValues(p.service.ID).Observe(time.Since(began).Seconds())
			p.metrics.sent.WithLabelValues(p.service.ID, "taken").Inc()
			if tries > 1 {
				p.log.Info("an application service is back", "transaction", name, "tries", tries)
			}
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		p.metrics.sent.WithLabelValues(p.service.ID, "failed").Inc()
		p.log.Warn("an application service does not take a transaction; it is tried again", "transaction", name, "tries", tries, "error", err)
		_ = lifecycle.Doze(ctx, wait, p.knock) // the next try fails if ctx has ended
		wait = min(2*wait, p.cfg.MaxBackoff)
	}
	return false
}

// gather takes in the log until a transaction is full, or nothing more is there.
func (p *post) gather(ctx context.Context) (*transaction, error) {
	t := &transaction{p: p}
	for !t.full() {
		if len(p.chunks) == 0 {
			more, err := p.more(ctx)
			if err != nil {
				if !t.empty() {
					return t, nil // what is there is sent; what fails is tried again with the next
				}
				return nil, err
			}
			if !more {
				break
			}
			continue
		}
		if err := p.takeChunk(ctx, t); err != nil {
			if !t.empty() {
				return t, nil
			}
			return nil, err
		}
	}
	t.addSoft(ctx)
	return t, nil
}

// takeChunk takes in the first chunk, or as much of it as there is room for.
func (p *post) takeChunk(ctx context.Context, t *transaction) error {
	c := &p.chunks[0]
	switch at := p.at[c.shard]; {
	case c.last <= at: // known already
		p.chunks = p.chunks[1:]
		return nil
	case c.prev > at: // something before it is missing, and is read from the database
		p.chunks = nil
		return p.read(ctx)
	}
	for len(c.entries) > 0 && c.entries[0].Pos <= p.at[c.shard] {
		c.entries = c.entries[1:]
	}
	seen, err := p.look(ctx, c)
	if err != nil {
		return err
	}
	for i := range c.entries {
		if t.full() {
			c.entries = c.entries[i:]
			return nil
		}
		t.take(&c.entries[i], seen)
		p.at[c.shard] = c.entries[i].Pos
	}
	p.at[c.shard] = max(p.at[c.shard], c.last)
	p.chunks = p.chunks[1:]
	return nil
}

// more gets the next chunks: those that were offered, or what the database has where those do not lead on. It tells whether there was anything.
func (p *post) more(ctx context.Context) (bool, error) {
	p.mu.Lock()
	p.chunks, p.offered, p.held = p.offered, nil, 0
	behind := !p.at.AtLeast(p.heads.Positions)
	p.mu.Unlock()
	if len(p.chunks) > 0 {
		return true, nil
	}
	if !behind {
		return false, nil
	}
	return true, p.read(ctx)
}

// maxRead is how many entries are read from the database at a time.
const maxRead = 500

var errEnough = errors.New("enough was read")

// read reads the next entries from the database. It begins with another shard each time, so that one with much does not hold back the rest.
func (p *post) read(ctx context.Context) error {
	from, err := p.o.Source.Heads(ctx)
	if err != nil {
		return err
	}
	incarnation := from.Incarnation
	var out []chunk
	n, stopped := 0, false
	positions := p.at.Clone()
	for s := range positions {
		if s < p.turn {
			positions[s] = math.MaxInt64 // not now
		}
	}
	reached := p.at.Clone()
	heads, err := p.o.Source.Read(ctx, shard.Heads{Incarnation: incarnation, Positions: positions}, func(s shard.ID, entries []entry.At) error {
		c := chunk{shard: s, prev: reached[s], last: entries[len(entries)-1].Pos}
		for i := range entries {
			if p.wants(entries[i].Kind) {
				c.entries = append(c.entries, entries[i])
			}
		}
		reached[s] = c.last
		out = append(out, c)
		if n += len(entries); n >= maxRead {
			p.turn, stopped = (int(s)+1)%len(positions), true
			return errEnough
		}
		return nil
	})
	switch {
	case stopped: // the error is ours
	case errors.Is(err, shard.ErrTrimmed):
		p.log.Error("what an application service is owed is no longer in the log; it goes on from now", "error", err)
		p.at = p.at.Max(from.Positions)
		return nil
	case err != nil:
		return err
	default:
		for s := range heads.Positions { // beyond the last entry there are none
			if s >= p.turn && heads.Positions[s] > reached[s] {
				out = append(out, chunk{shard: shard.ID(s), prev: reached[s], last: heads.Positions[s]})
			}
		}
		p.turn = 0
	}
	p.chunks = out
	return nil
}
