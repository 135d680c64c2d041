package keyring_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/keyring"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	us     id.ServerName = "us.test"
	them   id.ServerName = "them.test"
	notary id.ServerName = "notary.test"
)

// world is servers as a ring can ask them.
type world struct {
	t   *testing.T
	db  *feddb.DB
	now time.Time

	mu        sync.Mutex // guards all below
	documents map[id.ServerName]func() ([]byte, error)
	vouched   func(keys []signing.Request) [][]byte
	asked     map[id.ServerName]int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		t: t, db: feddb.NewDB(pgtest.New(t).DB), now: time.UnixMilli(1_700_000_000_000),
		documents: map[id.ServerName]func() ([]byte, error){}, asked: map[id.ServerName]int{},
	}
}

func (w *world) ring(notaries ...id.ServerName) *keyring.Ring {
	w.t.Helper()
	r := keyring.New(keyring.Options{
		Server: us, Own: []signing.Key{key(w.t, "own", 1)}, Notaries: notaries, Store: w.db, Fetcher: w,
		Budget: cache.NewBudget(cache.BudgetConfig{Memory: 64 << 20}, nil),
		Now:    func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	})
	w.t.Cleanup(r.Close)
	return r
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) publishes(s id.ServerName, f func() ([]byte, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.documents[s] = f
}

func (w *world) times(s id.ServerName) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[s]
}

// ServerKeys implements keyring.Fetcher.
func (w *world) ServerKeys(_ context.Context, s id.ServerName) ([]byte, error) {
	w.mu.Lock()
	w.asked[s]++
	f := w.documents[s]
	w.mu.Unlock()
	if f == nil {
		return nil, errors.New("nobody answers")
	}
	return f()
}

// QueryKeys implements keyring.Fetcher.
func (w *world) QueryKeys(_ context.Context, _ id.ServerName, keys []signing.Request) ([][]byte, error) {
	w.mu.Lock()
	f := w.vouched
	w.mu.Unlock()
	if f == nil {
		return nil, errors.New("nobody answers")
	}
	return f(keys), nil
}

func key(t *testing.T, version string, seed byte) signing.Key {
	t.Helper()
	s := make([]byte, 32)
	s[0] = seed
	k, err := signing.NewKey(id.NewKeyID(id.AlgorithmEd25519, version), s)
	require.NoError(t, err)
	return k
}

func (w *world) document(s id.ServerName, valid time.Duration, keys ...signing.Key) []byte {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	d, err := signing.BuildKeyDocument(s, keys, nil, w.now.Add(valid).UnixMilli())
	require.NoError(w.t, err)
	return d
}

func (w *world) fixed(d []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return d, nil }
}

// has tells whether a ring finds a key that counts now.
func (w *world) has(r *keyring.Ring, s id.ServerName, k signing.Key) bool {
	now := w.nowMilli()
	found, ok := r.Get(w.t.Context(), []signing.Request{{Server: s, Key: k.ID(), ValidAt: now}}).VerifyKey(s, k.ID())
	return ok && found.Key.Equal(k.Public()) && found.ValidAt(now, true)
}

func (w *world) nowMilli() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now.UnixMilli()
}

// Everybody who needs the keys of a server that nobody knows yet has them after one fetch, also those who came while it was under way.
func TestOneFetchForAllWhoWait(t *testing.T) {
	w := newWorld(t)
	r, k := w.ring(), key(t, "a", 2)
	begun, goOn := make(chan struct{}), make(chan struct{})
	d := w.document(them, time.Hour, k)
	w.publishes(them, func() ([]byte, error) { close(begun); <-goOn; return d, nil })
	got := make(chan bool)
	const many = 8
	go func() { got <- w.has(r, them, k) }()
	<-begun
	for range many - 1 {
		go func() { got <- w.has(r, them, k) }()
	}
	close(goOn)
	for range many {
		require.True(t, <-got)
	}
	require.Equal(t, 1, w.times(them))
}

// Who gives up waiting neither ends the fetch for the others nor keeps anybody.
func TestFetchOutlivesWhoAskedFirst(t *testing.T) {
	w := newWorld(t)
	r, k := w.ring(), key(t, "a", 2)
	begun, goOn := make(chan struct{}), make(chan struct{})
	d := w.document(them, time.Hour, k)
	w.publishes(them, func() ([]byte, error) { close(begun); <-goOn; return d, nil })
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan keyring.View)
	go func() { first <- r.Get(ctx, []signing.Request{{Server: them, Key: k.ID(), ValidAt: w.nowMilli()}}) }()
	<-begun
	cancel()
	_, ok := (<-first).VerifyKey(them, k.ID())
	require.False(t, ok)
	close(goOn)
	require.True(t, w.has(r, them, k))
	require.Equal(t, 1, w.times(them))
}

func TestWhatIsNotBelieved(t *testing.T) {
	k, other := key(t, "a", 2), key(t, "a", 3)
	for name, document := range map[string]func(w *world) []byte{
		"of another server":    func(w *world) []byte { return w.document("else.test", time.Hour, k) },
		"no longer valid":      func(w *world) []byte { return w.document(them, -time.Second, k) },
		"signed by another":    func(w *world) []byte { return swapped(w, k, other) },
		"without a signature":  func(w *world) []byte { return unsigned(w.t, w.document(them, time.Hour, k)) },
		"no JSON":              func(*world) []byte { return []byte("<html>") },
		"nothing":              func(*world) []byte { return nil },
		"invalid UTF-8":        func(*world) []byte { return []byte("{\"server_name\":\"them.test\xff\"}") },
		"a list":               func(*world) []byte { return []byte("[]") },
		"nested beyond reason": func(*world) []byte { return nested(100_000) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.publishes(them, w.fixed(document(w)))
			require.False(t, w.has(w.ring(), them, k))
		})
	}
}

func nested(n int) []byte {
	b := make([]byte, 0, 2*n+16)
	b = append(b, `{"verify_keys":`...)
	for range n {
		b = append(b, '[')
	}
	for range n {
		b = append(b, ']')
	}
	return append(b, '}')
}

// unsigned is a document without its signatures.
func unsigned(t *testing.T, d []byte) []byte {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(d, &m))
	delete(m, "signatures")
	out, err := json.Marshal(m)
	require.NoError(t, err)
	return out
}

// swapped is the document of one key with the signature of another under its name.
func swapped(w *world, k, by signing.Key) []byte {
	w.t.Helper()
	signed, err := signing.SignJSON(unsigned(w.t, w.document(them, time.Hour, k)), string(them), by)
	require.NoError(w.t, err)
	return signed
}

// A server that does not answer is asked once in a while only, whatever is claimed to be its.
func TestSilentServerIsAskedSeldom(t *testing.T) {
	w := newWorld(t)
	r := w.ring()
	for i := range 50 {
		require.False(t, w.has(r, them, key(t, "made_up", byte(i))))
	}
	require.Equal(t, 1, w.times(them))
	w.pass(2 * time.Minute)
	require.False(t, w.has(r, them, key(t, "a", 2)))
	require.Equal(t, 2, w.times(them))
}

// A key counts until its end, is fetched anew before it, and what is known outlives the process.
func TestKeysEndAndAreRefreshed(t *testing.T) {
	w := newWorld(t)
	k := key(t, "a", 2)
	w.publishes(them, func() ([]byte, error) { return w.document(them, 24*time.Hour, k), nil })
	r := w.ring()
	require.True(t, w.has(r, them, k))
	require.True(t, w.has(w.ring(), them, k), "another process finds it in the database")
	require.Equal(t, 1, w.times(them))

	w.pass(13 * time.Hour) // it will end in less than twelve
	require.True(t, w.has(r, them, k))
	require.Eventually(t, func() bool {
		rows, err := w.db.Keys(t.Context(), []string{string(them)})
		return err == nil && len(rows) == 1 && rows[0].ValidUntil == w.nowMilli()+(24*time.Hour).Milliseconds()
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, 2, w.times(them))
	w.publishes(them, nil)
	w.pass(23 * time.Hour)
	r = w.ring()
	require.True(t, w.has(r, them, k), "by the document that was fetched before the end of the first")
	w.pass(2 * time.Hour)
	require.False(t, w.has(r, them, k), "expired, and there is no newer one")
}

// What a notary says counts if the notary has signed it, and does not bring back what is known to be out of use.
func TestNotary(t *testing.T) {
	k, n := key(t, "a", 2), key(t, "n", 9)
	vouch := func(_ *world, d []byte, by signing.Key) [][]byte {
		signed, err := signing.SignJSON(d, string(notary), by)
		require.NoError(t, err)
		return [][]byte{signed}
	}
	for name, c := range map[string]struct {
		answer func(w *world) [][]byte
		ok     bool
	}{
		"vouched for":        {func(w *world) [][]byte { return vouch(w, w.document(them, time.Hour, k), n) }, true},
		"not vouched for":    {func(w *world) [][]byte { return [][]byte{w.document(them, time.Hour, k)} }, false},
		"wrong signature":    {func(w *world) [][]byte { return vouch(w, w.document(them, time.Hour, k), key(t, "n", 8)) }, false},
		"of another server":  {func(w *world) [][]byte { return vouch(w, w.document("else.test", time.Hour, k), n) }, false},
		"not by the server":  {func(w *world) [][]byte { return vouch(w, swapped(w, k, key(t, "a", 4)), n) }, false},
		"not valid any more": {func(w *world) [][]byte { return vouch(w, w.document(them, -time.Hour, k), n) }, false},
		"nothing":            {func(*world) [][]byte { return nil }, false},
		"rubbish before it": {func(w *world) [][]byte {
			return append([][]byte{[]byte("x")}, vouch(w, w.document(them, time.Hour, k), n)...)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.publishes(notary, w.fixed(w.document(notary, time.Hour, n)))
			answer := c.answer(w)
			w.vouched = func([]signing.Request) [][]byte { return answer }
			require.Equal(t, c.ok, w.has(w.ring(notary), them, k))
		})
	}
	t.Run("two notaries that vouch for each other alone", func(t *testing.T) {
		w := newWorld(t)
		one, two := id.ServerName("one.test"), id.ServerName("two.test")
		d := map[id.ServerName][]byte{one: w.document(one, time.Hour, n), two: w.document(two, time.Hour, n)}
		w.vouched = func(keys []signing.Request) [][]byte {
			signed, err := signing.SignJSON(w.document(keys[0].Server, time.Hour, k), string(two), n)
			require.NoError(t, err)
			return [][]byte{signed, d[one], d[two]}
		}
		require.False(t, w.has(w.ring(one, two), them, k))
	})
}

func TestNotaryDoesNotBringBackAnOldKey(t *testing.T) {
	w := newWorld(t)
	old, current, n := key(t, "old", 2), key(t, "new", 3), key(t, "n", 9)
	before := w.document(them, time.Hour, old)
	w.publishes(notary, w.fixed(w.document(notary, 48*time.Hour, n)))
	r := w.ring(notary)
	retired, err := signing.BuildKeyDocument(them, []signing.Key{current}, []signing.OldKey{{ID: old.ID(), Key: old.Public(), Expired: w.nowMilli() - 1000}},
		w.nowMilli()+time.Hour.Milliseconds())
	require.NoError(t, err)
	w.publishes(them, w.fixed(retired))
	require.True(t, w.has(r, them, current))
	w.publishes(them, nil)
	w.vouched = func([]signing.Request) [][]byte {
		signed, err := signing.SignJSON(before, string(notary), n)
		require.NoError(t, err)
		return [][]byte{signed}
	}
	w.pass(2 * time.Minute)
	require.False(t, w.has(r, them, old))
	require.False(t, w.has(w.ring(notary), them, old), "nor is it in the database")
	view := r.Get(t.Context(), []signing.Request{{Server: them, Key: old.ID(), ValidAt: w.nowMilli()}})
	k, ok := view.VerifyKey(them, old.ID())
	require.True(t, ok, "what it signed in its time is still good")
	require.True(t, k.ValidAt(w.nowMilli()-time.Hour.Milliseconds(), true))
}

func TestDocumentsForOthers(t *testing.T) {
	w := newWorld(t)
	k := key(t, "a", 2)
	w.publishes(them, w.fixed(w.document(them, time.Hour, k)))
	r := w.ring()
	require.Len(t, r.Documents(t.Context(), []signing.Request{{Server: them}})[them], 1)
	require.Len(t, r.Documents(t.Context(), []signing.Request{{Server: them, Key: k.ID()}})[them], 1)
	require.Empty(t, r.Documents(t.Context(), []signing.Request{{Server: them, Key: "ed25519:none"}})[them])
	require.Empty(t, r.Documents(t.Context(), []signing.Request{{Server: us}})[us], "its own it knows better")
}
