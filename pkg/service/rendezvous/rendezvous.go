// Package rendezvous lets two devices that know nothing of each other but an address exchange short texts, which they encrypt: how a device
// logs in by a QR code that another one shows or scans (MSC4108, MSC4388).
//
// A session holds one text at a time. Whoever replaces it says which one it has read, so that nothing is overwritten unread. Sessions
// live in the soft store, a few minutes, and may be lost with it: the person scans again. What they hold, how long, and how many
// there can be at a time is bounded, since anybody may make one.
//
// [Sessions] is safe for concurrent use by any number of workers. It is imported by api/ and the composition root; it knows no HTTP.
package rendezvous

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

const (
	// MaxData bounds a text.
	MaxData = 4 << 10
	// Lifetime is how long a session lives, whatever happens in it: a person has to log in and to agree meanwhile.
	Lifetime = 5 * time.Minute
	// idBytes are random: an id is all that it takes to write to a session.
	idBytes = 24
)

// creation bounds how many sessions there are at a time, those of all clients together: about 2,000, of 4 KiB each.
func creation() soft.Rate { return soft.Rate{PerSecond: 5, Burst: 500} }

// Session is what a session holds.
type Session struct {
	ID   string `json:"-"`
	Data []byte `json:"d"`
	// Seq counts the texts so far: it tells which one Data is.
	Seq      int64 `json:"n"`
	Modified int64 `json:"m"` // ms
	Expires  int64 `json:"e"` // ms
}

// Left is how long the session lives.
func (s *Session) Left(now time.Time) time.Duration { return time.UnixMilli(s.Expires).Sub(now) }

// Sessions are the sessions of one protocol.
type Sessions struct {
	prefix string
	store  *soft.Store
	now    func() time.Time
}

// New makes the Sessions of a protocol.
func New(protocol string, store *soft.Store, now func() time.Time) *Sessions {
	return &Sessions{prefix: "rendezvous:" + protocol + ":", store: store, now: now}
}

// key is where a session is kept. What reads the store does not learn the ids of sessions.
func (s *Sessions) key(id string) string {
	sum := sha256.Sum256([]byte(id))
	return s.prefix + base64.RawURLEncoding.EncodeToString(sum[:])
}

func down(err error) error {
	return mxerr.Unavailable("Sessions of logins cannot be kept now", 2000).WithCause(err)
}

func unknown() error { return mxerr.New(mxerr.NotFound, "There is no such session, or it has expired") }

func check(data []byte) error {
	if len(data) > MaxData {
		return mxerr.New(mxerr.TooLarge, fmt.Sprintf("A session holds %d bytes at most", MaxData))
	}
	return nil
}

// Create makes a session that holds a text.
func (s *Sessions) Create(ctx context.Context, data []byte) (Session, error) {
	if err := check(data); err != nil {
		return Session{}, err
	}
	if a := s.store.Take(ctx, "rendezvous:create", creation(), 1); !a.OK {
		return Session{}, mxerr.Limited(a.RetryAfter.Milliseconds() + 1)
	}
	raw := make([]byte, idBytes)
	_, _ = rand.Read(raw) // never fails, by its documentation
	now := s.now()
	x := Session{
		ID: base64.RawURLEncoding.EncodeToString(raw), Data: data, Seq: 1, Modified: now.UnixMilli(), Expires: now.Add(Lifetime).UnixMilli(),
	}
	value, err := json.Marshal(&x)
	if err != nil {
		return x, err
	}
	if err := s.store.Set(ctx, s.key(x.ID), value, Lifetime); err != nil {
		return x, down(err)
	}
	return x, nil
}

func (s *Sessions) load(ctx context.Context, id string) (x Session, raw []byte, err error) {
	raw, ok, err := s.store.Get(ctx, s.key(id))
	switch {
	case err != nil:
		return x, nil, down(err)
	case !ok || json.Unmarshal(raw, &x) != nil || x.Expires <= s.now().UnixMilli():
		return x, nil, unknown()
	}
	x.ID = id
	return x, raw, nil
}

// Get gives what a session holds. Refused with M_NOT_FOUND.
func (s *Sessions) Get(ctx context.Context, id string) (Session, error) {
	x, _, err := s.load(ctx, id)
	return x, err
}

// Put replaces the text of a session if it is still the one of number seq; done is false, and the session as it is, if it is not. Refused with
// M_NOT_FOUND.
func (s *Sessions) Put(ctx context.Context, id string, seq int64, data []byte) (x Session, done bool, err error) {
	if err := check(data); err != nil {
		return x, false, err
	}
	x, raw, err := s.load(ctx, id)
	if err != nil || x.Seq != seq {
		return x, false, err
	}
	now := s.now()
	next := x
	next.Data, next.Seq, next.Modified = data, seq+1, now.UnixMilli()
	value, err := json.Marshal(&next)
	if err != nil {
		return x, false, err
	}
	done, err = s.store.CompareAndSet(ctx, s.key(id), raw, value, next.Left(now))
	switch {
	case err != nil:
		return x, false, down(err)
	case !done: // somebody was faster
		x, _, err = s.load(ctx, id)
		return x, false, err
	}
	return next, true, nil
}

// Delete ends a session. Refused with M_NOT_FOUND.
func (s *Sessions) Delete(ctx context.Context, id string) error {
	if _, _, err := s.load(ctx, id); err != nil {
		return err
	}
	if err := s.store.Delete(ctx, s.key(id)); err != nil {
		return down(err)
	}
	return nil
}
