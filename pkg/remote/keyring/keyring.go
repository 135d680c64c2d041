// Package keyring holds the signing keys of other servers: in memory, in PostgreSQL, and where they come from.
//
// A key is believed because its server publishes it, over a connection that was verified, in a document that is signed by it; or, for
// servers that do not answer, because a notary whom the operator trusts says so. Current keys count for seven days at most and are
// fetched anew some time before; whether a key must have been valid when an event was made is for the event's room version to say. How
// often one server is asked is bounded, whatever events claim.
//
// A [Ring] is safe for concurrent use. It may be imported by api/auth and the composition root.
package keyring

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/store/feddb"
)

// Fetcher asks other servers. It is *fedclient.Client.
type Fetcher interface {
	ServerKeys(ctx context.Context, server id.ServerName) ([]byte, error)
	QueryKeys(ctx context.Context, notary id.ServerName, keys []signing.Request) ([][]byte, error)
}

// Store keeps keys. It is *feddb.DB.
type Store interface {
	Keys(ctx context.Context, servers []string) ([]feddb.KeyRow, error)
	PutKeys(ctx context.Context, server string, got int64, document []byte, keys []feddb.Key) error
}

// Options are what a Ring needs. Metrics and Log may be nil.
type Options struct {
	Server id.ServerName
	// Own are this server's keys.
	Own []signing.Key
	// Old are keys that this server signed with before.
	Old []signing.OldKey
	// Notaries are asked for the keys of servers that do not answer.
	Notaries []id.ServerName
	Store    Store
	Fetcher  Fetcher
	Budget   *cache.Budget
	Now      func() time.Time
	Metrics  *telemetry.Metrics
	Log      *slog.Logger
}

const (
	// again is how long a server is not asked again for a key that its last document did not have, or that it did not give.
	again = time.Minute
	// early is how long before the end of a key's validity it is fetched anew.
	early = 12 * time.Hour
	// refreshAgain bounds how often that is tried.
	refreshAgain = 30 * time.Minute
	// abreast is how many servers are asked at a time for one caller.
	abreast = 16
	// maxServers bounds the servers whose keys one caller may need.
	maxServers = 500
)

// Ring finds the keys of servers.
type Ring struct {
	o     Options
	known *cache.Cache[id.ServerName, *keys]
	tasks *lifecycle.Tasks

	mu         sync.Mutex // guards all below, and the replacing of known keys
	refreshing map[id.ServerName]time.Time
	asked      map[string]asking
}

// keys are what is known of one server. It is not changed, but replaced.
type keys struct {
	byID      map[id.KeyID]signing.VerifyKey
	documents map[id.KeyID][]byte
	got       int64
}

// New makes a Ring. Close it in the end.
func New(o Options) *Ring {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Ring{
		o: o, tasks: lifecycle.NewTasks(context.Background()), refreshing: map[id.ServerName]time.Time{},
		asked: map[string]asking{},
	}
	r.known = cache.New("server_keys", o.Budget, o.Metrics, func(s id.ServerName, k *keys) int64 {
		n := int64(128 + len(s))
		for _, d := range k.documents {
			n += int64(160 + len(d))
		}
		return n
	})
	return r
}

// Close ends the refreshing of keys.
func (r *Ring) Close() { r.tasks.Stop() }

// View is the keys that a caller asked for, as far as they could be had. It implements signing.Keys.
type View struct{ byServer map[id.ServerName]*keys }

// VerifyKey implements signing.Keys.
func (v View) VerifyKey(server id.ServerName, key id.KeyID) (signing.VerifyKey, bool) {
	k := v.byServer[server]
	if k == nil {
		return signing.VerifyKey{}, false
	}
	found, ok := k.byID[key]
	return found, ok
}

// Get finds keys, fetching what is not known or was not valid at the time that the request names. What cannot be had is missing in the
// view: verification then fails for what it signed.
func (r *Ring) Get(ctx context.Context, requests []signing.Request) View {
	byServer := map[id.ServerName][]signing.Request{}
	for _, q := range requests {
		if len(byServer) < maxServers || byServer[q.Server] != nil {
			byServer[q.Server] = append(byServer[q.Server], q)
		}
	}
	v := View{byServer: make(map[id.ServerName]*keys, len(byServer))}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(abreast)
	for server, needs := range byServer {
		if server == r.o.Server {
			mu.Lock()
			v.byServer[server] = r.own()
			mu.Unlock()
			continue
		}
		if k, ok := r.known.Get(server); ok && k.suffice(needs) {
			r.refresh(server, k)
			mu.Lock()
			v.byServer[server] = k
			mu.Unlock()
			continue
		}
		group.Go(func() error {
			k := r.find(ctx, server, needs)
			mu.Lock()
			defer mu.Unlock()
			v.byServer[server] = k
			return nil
		})
	}
	_ = group.Wait() // nothing fails
	return v
}

func (r *Ring) own() *keys {
	k := &keys{byID: map[id.KeyID]signing.VerifyKey{}}
	for _, own := range r.o.Own {
		k.byID[own.ID()] = signing.VerifyKey{Key: own.Public(), ValidUntil: r.o.Now().Add(24 * time.Hour).UnixMilli()}
	}
	for _, old := range r.o.Old {
		k.byID[old.ID] = signing.VerifyKey{Key: old.Key, Expired: old.Expired}
	}
	return k
}

// suffice tells whether all that is needed is there.
func (k *keys) suffice(needs []signing.Request) bool { return len(k.lacking(needs)) == 0 }

// lacking gives what is needed and is not there.
func (k *keys) lacking(needs []signing.Request) (out []signing.Request) {
	for _, n := range needs {
		if key, ok := k.byID[n.Key]; !ok || !key.ValidAt(n.ValidAt, n.ValidAt != 0) {
			out = append(out, n)
		}
	}
	return out
}

// find gives what can be known of a server's keys: from memory, from the database, from the server, from notaries.
func (r *Ring) find(ctx context.Context, server id.ServerName, needs []signing.Request) *keys {
	k := r.direct(ctx, server, needs)
	if len(r.o.Notaries) == 0 {
		return k
	}
	lacking := k.lacking(needs)
	if len(lacking) == 0 {
		return k
	}
	r.once(ctx, "notaries of "+string(server), func(ctx context.Context) { r.askNotaries(ctx, server, lacking) })
	return r.stored(ctx, server)
}

// direct gives what can be known of a server's keys without notaries.
func (r *Ring) direct(ctx context.Context, server id.ServerName, needs []signing.Request) *keys {
	k := r.stored(ctx, server)
	if k.suffice(needs) {
		return k
	}
	r.once(ctx, string(server), func(ctx context.Context) { r.fetch(ctx, server) })
	return r.stored(ctx, server)
}

// stored gives a server's keys from memory, or from the database.
func (r *Ring) stored(ctx context.Context, server id.ServerName) *keys {
	k, err := r.known.Load(ctx, server, r.load)
	if err != nil {
		r.o.Log.Warn("keys could not be read", "server", string(server), "error", err)
		return &keys{}
	}
	return k
}

// askNotaries asks them in turn until one has given what is needed.
func (r *Ring) askNotaries(ctx context.Context, server id.ServerName, needs []signing.Request) {
	for _, notary := range r.o.Notaries {
		documents, err := r.o.Fetcher.QueryKeys(ctx, notary, needs)
		if err != nil {
			r.o.Log.Debug("a notary did not answer", "notary", string(notary), "error", err)
			continue
		}
		for _, d := range documents {
			if k := r.vouched(ctx, d, server, notary); k != nil && k.suffice(needs) {
				return
			}
		}
	}
}

// asking is a question to others that was asked, and is not asked again for a while. done is closed when it is answered.
type asking struct {
	at   time.Time
	done chan struct{}
}

// once does what answers a question, unless that was done lately; if it is being done, it waits for that to end. So whoever needs the keys of
// a server that nobody has met before has them after the first fetch, however many need them at once.
func (r *Ring) once(ctx context.Context, question string, do func(ctx context.Context)) {
	r.mu.Lock()
	now := r.o.Now()
	a, ok := r.asked[question]
	if !ok || now.Sub(a.at) >= again {
		r.forgetAsked(now)
		a = asking{at: now, done: make(chan struct{})}
		if !r.tasks.Go(func(ctx context.Context) { // for all who wait, so it does not end with the first of them
			defer close(a.done)
			do(ctx)
		}) {
			close(a.done)
		}
		r.asked[question] = a
	}
	r.mu.Unlock()
	select {
	case <-a.done:
	case <-ctx.Done():
	}
}

// maxAsked bounds the questions that are remembered.
const maxAsked = 10_000

// forgetAsked makes room for another question. The caller holds mu.
func (r *Ring) forgetAsked(now time.Time) {
	if len(r.asked) < maxAsked {
		return
	}
	maps.DeleteFunc(r.asked, func(_ string, a asking) bool { return now.Sub(a.at) >= again })
	if len(r.asked) >= maxAsked { // that many servers within a minute are made up
		clear(r.asked)
	}
}

// load reads the keys of a server from the database.
func (r *Ring) load(ctx context.Context, server id.ServerName) (*keys, error) {
	rows, err := r.o.Store.Keys(ctx, []string{string(server)})
	if err != nil {
		return nil, err
	}
	k := &keys{byID: map[id.KeyID]signing.VerifyKey{}, documents: map[id.KeyID][]byte{}}
	for i := range rows {
		row := &rows[i]
		k.byID[id.KeyID(row.ID)] = signing.VerifyKey{Key: row.Public, ValidUntil: row.ValidUntil, Expired: row.Expired}
		k.documents[id.KeyID(row.ID)] = row.Document
		k.got = max(k.got, row.Got)
	}
	return k, nil
}

// fetch asks a server for its keys and keeps them.
func (r *Ring) fetch(ctx context.Context, server id.ServerName) {
	raw, err := r.o.Fetcher.ServerKeys(ctx, server)
	if err != nil {
		r.o.Log.Debug("keys could not be fetched", "server", string(server), "error", err)
		return
	}
	doc, err := signing.ParseKeyDocument(raw, server)
	if err != nil {
		r.o.Log.Debug("keys were not accepted", "server", string(server), "error", err)
		return
	}
	r.keep(ctx, doc, false)
}

// vouched keeps a document that a notary gave, signed by its server and by the notary, and gives what is known then; nil if it does not count.
func (r *Ring) vouched(ctx context.Context, raw []byte, server, notary id.ServerName) *keys {
	doc, err := signing.ParseKeyDocument(raw, server)
	if err != nil {
		return nil // of another server, or wrong
	}
	var needs []signing.Request
	for _, key := range signing.SignedBy(doc.JSON, string(notary)) {
		needs = append(needs, signing.Request{Server: notary, Key: key, ValidAt: r.o.Now().UnixMilli()})
	}
	if len(needs) == 0 || notary == server {
		return nil
	}
	of := View{map[id.ServerName]*keys{notary: r.direct(ctx, notary, needs)}}
	if err := signing.VerifyServerJSON(doc.JSON, notary, of, r.o.Now().UnixMilli()); err != nil {
		r.o.Log.Warn("a notary's signature is wrong", "notary", string(notary), "error", err)
		return nil
	}
	return r.keep(ctx, doc, true)
}

// keep stores the keys of a document that came from its server, or that somebody vouches for, and remembers them. What a notary has may be older
// than what is known: then the known stays, and a key that is out of use is not brought back.
func (r *Ring) keep(ctx context.Context, doc *signing.KeyDocument, vouched bool) *keys {
	got := r.o.Now().UnixMilli()
	before := r.stored(ctx, doc.Server)
	k := &keys{byID: doc.Keys(got), documents: map[id.KeyID][]byte{}, got: got}
	if vouched {
		maps.DeleteFunc(k.byID, func(keyID id.KeyID, key signing.VerifyKey) bool {
			known, ok := before.byID[keyID]
			return ok && (known.Expired != 0 || key.Expired == 0 && known.ValidUntil >= key.ValidUntil)
		})
	}
	rows := make([]feddb.Key, 0, len(k.byID))
	for keyID, key := range k.byID {
		k.documents[keyID] = doc.JSON
		rows = append(rows, feddb.Key{ID: string(keyID), Public: key.Key, ValidUntil: key.ValidUntil, Expired: key.Expired})
	}
	if err := r.o.Store.PutKeys(ctx, string(doc.Server), got, doc.JSON, rows); err != nil {
		r.o.Log.Warn("keys could not be stored", "server", string(doc.Server), "error", err)
	}
	return r.merge(doc.Server, before, k)
}

// merge remembers fresh keys beside those that only older documents had: what those signed is still theirs.
func (r *Ring) merge(server id.ServerName, before, fresh *keys) *keys {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now, ok := r.known.Get(server); ok {
		before = now
	}
	all := &keys{byID: map[id.KeyID]signing.VerifyKey{}, documents: map[id.KeyID][]byte{}, got: fresh.got}
	maps.Copy(all.byID, before.byID)
	maps.Copy(all.documents, before.documents)
	maps.Copy(all.byID, fresh.byID)
	maps.Copy(all.documents, fresh.documents)
	r.known.Set(server, all)
	return all
}

// refresh fetches the keys of a server anew, in the background, if the one that is used most will soon count no more.
func (r *Ring) refresh(server id.ServerName, k *keys) {
	now := r.o.Now()
	soon := now.Add(early).UnixMilli()
	due := false
	for _, key := range k.byID {
		due = due || key.Expired == 0 && key.ValidUntil < soon
	}
	if !due {
		return
	}
	r.mu.Lock()
	last, tried := r.refreshing[server]
	if tried && now.Sub(last) < refreshAgain {
		r.mu.Unlock()
		return
	}
	if len(r.refreshing) > 10_000 {
		clear(r.refreshing)
	}
	r.refreshing[server] = now
	r.mu.Unlock()
	r.tasks.Go(func(ctx context.Context) { r.fetch(ctx, server) })
}

// Documents gives what a notary answers: documents that name the keys asked for, or all current ones if none is asked for, without this
// server's signature.
func (r *Ring) Documents(ctx context.Context, requests []signing.Request) map[id.ServerName][][]byte {
	now := r.o.Now().UnixMilli()
	byServer := map[id.ServerName][]signing.Request{}
	for _, q := range requests {
		byServer[q.Server] = append(byServer[q.Server], q)
	}
	out := map[id.ServerName][][]byte{}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(abreast)
	for server, needs := range byServer {
		if server == r.o.Server {
			continue
		}
		group.Go(func() error {
			k := r.forNotary(ctx, server, needs, now)
			seen := map[string]bool{}
			mu.Lock()
			defer mu.Unlock()
			for keyID, d := range k.documents {
				asked := false
				for _, n := range needs {
					asked = asked || n.Key == "" || n.Key == keyID
				}
				if asked && !seen[string(d)] {
					seen[string(d)] = true
					out[server] = append(out[server], d)
				}
			}
			return nil
		})
	}
	_ = group.Wait() // nothing fails
	return out
}

// forNotary finds what is asked of a notary; a request without a key is for the current ones.
func (r *Ring) forNotary(ctx context.Context, server id.ServerName, needs []signing.Request, now int64) *keys {
	k, err := r.known.Load(ctx, server, r.load)
	if err != nil {
		return &keys{}
	}
	fresh := false
	for _, n := range needs {
		until := n.ValidAt
		if until == 0 {
			until = now
		}
		for keyID, key := range k.byID {
			fresh = fresh || (n.Key == "" || n.Key == keyID) && key.ValidAt(until, true)
		}
	}
	if fresh {
		return k
	}
	r.once(ctx, string(server), func(ctx context.Context) { r.fetch(ctx, server) })
	return r.stored(ctx, server)
}
