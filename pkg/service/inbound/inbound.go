// Package inbound takes what other servers send: it verifies events, stages them, and prepares them for the writers of their rooms.
//
// A transaction is answered when it is staged, which needs no master: [Stager] checks each event's form, room, hash and
// signatures, and the room's server ACL, and stores what passes, with what must not be lost of the rest, in one transaction of the
// database under the sender's transaction id. [Preparer] then brings each room's staged events to the room's writer in the order in which they
// came, having fetched from elsewhere what they name and is not known here; the writer decides on them and deletes the staged rows in
// the transaction that commits what it made of them. So nothing is lost or done twice by the death of any process, and a
// writer never waits for another server.
//
// What a server can make this one do is bounded: in events, bytes, requests and time for each event that it sends, and one room's trouble
// holds up no other. The package may be imported by service/abroad, api/ and the composition root; its types are safe for concurrent
// use.
package inbound

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// Remote asks other servers. It is *fedclient.Client.
type Remote interface {
	Ask(ctx context.Context, to id.ServerName, method, path string, query url.Values, body []byte, limit int64, wait time.Duration, insist bool) ([]byte, error)
}

// KeySource finds keys, as far as they can be had.
type KeySource func(ctx context.Context, requests []signing.Request) signing.Keys

// Verify checks the signatures of events, and gives for each why it does not count, nil if it does.
func Verify(ctx context.Context, keys KeySource, events []*event.Event) []error {
	var requests []signing.Request
	for _, e := range events {
		if e != nil {
			requests = e.AppendKeyRequests(requests)
		}
	}
	known := keys(ctx, unique(requests))
	errs := make([]error, len(events))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	const together = 8
	for from := 0; from < len(events); from += together {
		group.Go(func() error {
			for i := from; i < min(from+together, len(events)); i++ {
				if events[i] == nil {
					errs[i] = errMalformed
					continue
				}
				errs[i] = events[i].Verify(known)
			}
			return nil
		})
	}
	_ = group.Wait() // nothing fails
	return errs
}

var errMalformed = errors.New("event is malformed")

// unique leaves out requests for a key that another one asks for at as late a time.
func unique(requests []signing.Request) []signing.Request {
	type key struct {
		server id.ServerName
		key    id.KeyID
	}
	latest := map[key]int{}
	out := requests[:0:0]
	for _, r := range requests {
		k := key{r.Server, r.Key}
		if i, ok := latest[k]; ok {
			out[i].ValidAt = max(out[i].ValidAt, r.ValidAt)
			continue
		}
		latest[k] = len(out)
		out = append(out, r)
	}
	return out
}

// limiter bounds what is done at the same time by key.
type limiter struct {
	mu   sync.Mutex // guards busy
	busy map[string]*places
}

type places struct {
	taken  int
	missed bool
}

func newLimiter() *limiter { return &limiter{busy: map[string]*places{}} }

// enter takes one of a key's places, if there is one left.
func (l *limiter) enter(key string, most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.busy[key]
	if p == nil {
		p = &places{}
		l.busy[key] = p
	}
	if p.taken >= most {
		p.missed = true
		return false
	}
	p.taken++
	return true
}

// leave gives a place back, and tells whether somebody found none since the key's first was taken.
func (l *limiter) leave(key string) (missed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.busy[key]
	if p.taken--; p.taken == 0 {
		delete(l.busy, key)
	}
	return p.missed
}

func fedPath(endpoint string, segments ...string) string {
	p := "/_matrix/federation/v1/" + endpoint
	for _, s := range segments {
		p += "/" + url.PathEscape(s)
	}
	return p
}

func wrap(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }
