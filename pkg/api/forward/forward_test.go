package forward

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/fleet/members"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is a list of workers, in the order in which they are to be tried.
type fleet struct {
	workers []members.Worker
	keys    []string
}

func (f *fleet) Rank(kind route.Kind, key string) (out []members.Worker) {
	f.keys = append(f.keys, key)
	for _, w := range f.workers {
		if w.Serves(kind) {
			out = append(out, w)
		}
	}
	return out
}

type node struct {
	server  *httptest.Server
	forward *Forwarder
	seen    chan *http.Request
	bodies  chan string
}

// start starts a worker of a kind that answers its own rows with what it was asked.
func start(t *testing.T, kind route.Kind, fl *fleet, hs httpx.Handlers) *node {
	t.Helper()
	fw, err := New(Options{Members: fl, Self: string(kind), Secret: []byte("0123456789abcdef0123456789abcdef")})
	require.NoError(t, err)
	n := &node{forward: fw, seen: make(chan *http.Request, 10), bodies: make(chan string, 10)}
	if hs == nil {
		hs = httpx.Handlers{}
		for _, r := range route.Table() {
			if r.Kind == kind {
				hs[r.Name] = func(w http.ResponseWriter, r *http.Request) error {
					b, err := httpx.ReadBody(r)
					if err != nil {
						return err
					}
					n.seen <- r
					n.bodies <- string(b)
					return httpx.WriteJSON(w, http.StatusAccepted, map[string]string{"kind": string(kind)})
				}
			}
		}
	}
	rt, err := httpx.New(httpx.Options{Kinds: []route.Kind{kind}, Handlers: hs, Forwarder: fw, Internal: fw.Internal, MaxUpload: 1 << 20})
	require.NoError(t, err)
	n.server = httptest.NewServer(rt)
	t.Cleanup(func() { n.server.Close(); fw.Close() })
	fl.workers = append(fl.workers, members.Worker{Instance: string(kind), Kind: kind, Address: n.address()})
	return n
}

func (n *node) address() string { return strings.TrimPrefix(n.server.URL, "http://") }

func (n *node) do(t *testing.T, method, uri, body string, header ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, n.server.URL+uri, rd)
	require.NoError(t, err)
	req.Host = "matrix.example.org"
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := n.server.Client().Do(req)
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp, string(b)
}

func requireError(t *testing.T, resp *http.Response, body string, status int, text string) {
	t.Helper()
	require.Equal(t, status, resp.StatusCode, body)
	var e struct{ Errcode, Error string }
	require.NoError(t, json.Unmarshal([]byte(body), &e))
	require.Equal(t, string(mxerr.Unknown), e.Errcode)
	require.Contains(t, e.Error, text)
}

const send = "/_matrix/client/v3/rooms/!a%2Fb:c/send/m.room.message/1"

func TestPassesOn(t *testing.T) {
	fl := &fleet{}
	s := start(t, route.Synchrotron, fl, nil)
	m := start(t, route.Master, fl, nil)
	for _, body := range []string{`{"body":"x"}`, strings.Repeat("x", 200<<10)} {
		resp, got := s.do(t, "PUT", send+"?q=%2F&bad=%zz;x", body, "X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https",
			"X-Request-Id", "req-1", "Authorization", "Bearer t")
		require.Equal(t, http.StatusAccepted, resp.StatusCode)
		require.JSONEq(t, `{"kind":"master"}`, got)
		require.Len(t, resp.Header.Values("Access-Control-Allow-Origin"), 1)
		require.Equal(t, []string{"req-1"}, resp.Header.Values("X-Request-Id"))
		r := <-m.seen
		require.Equal(t, body, <-m.bodies)
		require.Equal(t, send+"?q=%2F&bad=%zz;x", r.RequestURI, "raw as it came")
		require.Equal(t, "matrix.example.org", r.Host)
		require.Equal(t, "192.0.2.1, 127.0.0.1", r.Header.Get("X-Forwarded-For"))
		require.Equal(t, "https", r.Header.Get("X-Forwarded-Proto"))
		require.Equal(t, "Bearer t", r.Header.Get("Authorization"))
		require.True(t, m.forward.Internal(r))
	}
	require.Equal(t, []string{"!a/b:c", "!a/b:c"}, fl.keys)
	// its own
	resp, _ := s.do(t, "GET", "/_matrix/client/v3/sync", "")
	require.Equal(t, http.StatusAccepted, resp.StatusCode)
	require.False(t, s.forward.Internal(<-s.seen))
}

func TestStreamedBodyAndLimits(t *testing.T) {
	fl := &fleet{}
	s := start(t, route.Synchrotron, fl, nil)
	m := start(t, route.Master, fl, nil)
	big := strings.Repeat("y", 900<<10)
	resp, _ := s.do(t, "POST", "/_matrix/media/v3/upload", big)
	require.Equal(t, http.StatusAccepted, resp.StatusCode)
	require.Equal(t, big, <-m.bodies)
	resp, _ = s.do(t, "POST", "/_matrix/media/v3/upload", big+big)
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)

	// too large and without a length
	pr, pw := io.Pipe()
	go func() {
		_, _ = pw.Write([]byte(big))
		_, _ = pw.Write([]byte(big))
		_ = pw.Close()
	}()
	req, err := http.NewRequest(http.MethodPost, s.server.URL+"/_matrix/media/v3/upload", pr)
	require.NoError(t, err)
	resp, err = s.server.Client().Do(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestEntityTooLarge, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
}

func TestLongPollsAndFlushesPass(t *testing.T) {
	fl := &fleet{}
	release := make(chan struct{})
	start(t, route.Synchrotron, fl, httpx.Handlers{"sync": func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = io.WriteString(w, "one\n")
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "two\n")
		return nil
	}})
	m := start(t, route.Master, fl, nil)
	resp, err := m.server.Client().Get(m.server.URL + "/_matrix/client/v3/sync")
	require.NoError(t, err)
	defer resp.Body.Close()
	rd := bufio.NewReader(resp.Body)
	line, err := rd.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "one\n", line, "before the handler is done")
	close(release)
	line, err = rd.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "two\n", line)
}

func TestClientsLeavingIsPassedOn(t *testing.T) {
	fl := &fleet{}
	in, gone := make(chan struct{}), make(chan struct{})
	start(t, route.Synchrotron, fl, httpx.Handlers{"sync": func(_ http.ResponseWriter, r *http.Request) error {
		close(in)
		<-r.Context().Done()
		close(gone)
		return r.Context().Err()
	}})
	m := start(t, route.Master, fl, nil)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.server.URL+"/_matrix/client/v3/sync", nil)
	require.NoError(t, err)
	go func() { <-in; cancel() }()
	_, err = m.server.Client().Do(req)
	require.ErrorIs(t, err, context.Canceled)
	<-gone
}

func TestNoWorker(t *testing.T) {
	s := start(t, route.Synchrotron, &fleet{}, nil)
	resp, body := s.do(t, "PUT", send, "{}")
	requireError(t, resp, body, 503, "master")
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
}

// deadAddress refuses connections.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().String()
}

func TestTriesAnotherIfTheFirstIsDown(t *testing.T) {
	fl := &fleet{workers: []members.Worker{{Instance: "dead", Kind: route.Master, Address: deadAddress(t)}}}
	s := start(t, route.Synchrotron, fl, nil)
	m := start(t, route.Master, fl, nil)
	for _, body := range []string{"", "{}", strings.Repeat("x", 900<<10)} {
		resp, _ := s.do(t, "POST", "/_matrix/media/v3/upload", body)
		require.Equal(t, http.StatusAccepted, resp.StatusCode)
		require.Equal(t, body, <-m.bodies)
		<-m.seen
	}
	fl.workers = fl.workers[:1]
	resp, body := s.do(t, "PUT", send, "{}")
	requireError(t, resp, body, 503, "master")
	require.NotEmpty(t, resp.Header.Get("Retry-After"))
}

func TestDoesNotRepeatWhatMayHaveBeenDone(t *testing.T) {
	// A worker that takes the request and dies.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var taken atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				taken.Add(1)
			}
			_ = c.Close()
		}
	}()
	fl := &fleet{workers: []members.Worker{{Instance: "dies", Kind: route.Master, Address: l.Addr().String()}}}
	s := start(t, route.Synchrotron, fl, nil)
	m := start(t, route.Master, fl, nil)
	resp, body := s.do(t, "PUT", send, "{}")
	requireError(t, resp, body, 502, "master")
	require.EqualValues(t, 1, taken.Load())
	require.Empty(t, m.seen)
	require.NoError(t, l.Close())
	<-done
}

func TestLoops(t *testing.T) {
	fl := &fleet{}
	s := start(t, route.Synchrotron, fl, nil)
	// The register says that the synchrotron is a master, as it might for a moment.
	f := start(t, route.FederationReader, fl, nil)
	fl.workers = []members.Worker{{Instance: "stale", Kind: route.Master, Address: s.address()}}
	resp, body := f.do(t, "PUT", send, "{}")
	requireError(t, resp, body, 503, "master")
	require.Len(t, fl.keys, 1, "the synchrotron did not pass it on again")

	// A client cannot make its request look so.
	m := start(t, route.Master, fl, nil)
	fl.workers = fl.workers[1:]
	for _, forged := range []string{"1", strings.Repeat("0", 64)} {
		resp, _ = s.do(t, "PUT", send, "{}", guardHeader, forged)
		require.Equal(t, http.StatusAccepted, resp.StatusCode)
		r := <-m.seen
		require.Len(t, r.Header.Values(guardHeader), 1)
		require.NotEqual(t, forged, r.Header.Get(guardHeader))
	}
	// nor use one request's mark for another
	r := httptest.NewRequest(http.MethodPut, send, nil)
	r.Header.Set(guardHeader, s.forward.guard(r))
	require.True(t, s.forward.Internal(r))
	other := httptest.NewRequest(http.MethodPut, send+"2", nil)
	other.Header.Set(guardHeader, r.Header.Get(guardHeader))
	require.False(t, s.forward.Internal(other))
}

func TestNeverToItself(t *testing.T) {
	fl := &fleet{}
	s := start(t, route.Synchrotron, fl, nil)
	fl.workers = []members.Worker{{Instance: string(route.Synchrotron), Kind: route.Master, Address: s.address()}}
	resp, body := s.do(t, "PUT", send, "{}")
	requireError(t, resp, body, 503, "master")
}

func TestKeys(t *testing.T) {
	key := func(sticky route.Sticky, uri, auth string) string {
		r := httptest.NewRequest(http.MethodGet, uri, nil)
		if auth != "" {
			r.Header.Set("Authorization", auth)
		}
		return Key(&route.Row{Sticky: sticky}, r)
	}
	require.Equal(t, "hed_YWxpY2U", key(route.ByUser, "/", "Bearer hed_YWxpY2U.secret.sum"))
	require.Equal(t, "hed_YWxpY2U", key(route.ByUser, "/?access_token=hed_YWxpY2U.other.sum", ""))
	require.Equal(t, "as.token@x:y", key(route.ByUser, "/?user_id=@x:y", "bearer as.token"))
	require.Empty(t, key(route.ByUser, "/", ""))
	require.Equal(t, "a.org", key(route.ByOrigin, "/", `X-Matrix key="x",origin="a.org",sig="s"`))
	require.Equal(t, "a.org:1", key(route.ByOrigin, "/", `X-Matrix origin=a.org:1, key=x`))
	require.Empty(t, key(route.ByOrigin, "/", "Bearer x"))
	require.Empty(t, key(route.ByNone, "/", "Bearer x"))
}

func TestNewWantsASecret(t *testing.T) {
	_, err := New(Options{Secret: []byte("short")})
	require.Error(t, err)
}

// A token of a later release: the older worker has its request answered by one of that release, with the body that it has read already,
// and answers itself if there is none, or if it was asked by another.
func TestATokenOfALaterRelease(t *testing.T) {
	fl := &fleet{}
	unknown := func(_ http.ResponseWriter, r *http.Request) error {
		if _, err := httpx.ReadBody(r); err != nil {
			return err
		}
		return mxerr.New(mxerr.InvalidParam, "not one of this server").WithCause(&token.UnknownVersionError{Version: 2})
	}
	older := worker(t, fl, "older", 1, unknown)
	resp, body := older.do(t, "POST", sliding, `{"lists":{}}`)
	require.Equal(t, http.StatusBadRequest, resp.StatusCode, body)
	require.Contains(t, body, string(mxerr.InvalidParam))

	worker(t, fl, "as-old", 1, func(http.ResponseWriter, *http.Request) error { panic("asked in vain") })
	worker(t, fl, "newer", 2, func(w http.ResponseWriter, r *http.Request) error {
		b, err := httpx.ReadBody(r)
		if err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, map[string]string{"got": string(b), "of": r.URL.RawQuery})
	})
	for range 3 { // on one connection
		resp, body = older.do(t, "POST", sliding+"?pos=later", `{"lists":{}}`)
		require.Equal(t, http.StatusOK, resp.StatusCode, body)
		require.JSONEq(t, `{"got":"{\"lists\":{}}","of":"pos=later"}`, body)
	}
	guard := httptest.NewRequest(http.MethodPost, sliding, nil)
	resp, body = older.do(t, "POST", sliding, `{}`, guardHeader, older.forward.guard(guard))
	require.Equal(t, http.StatusBadRequest, resp.StatusCode, "it came from another worker: "+body)
}

const sliding = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"

// worker starts a synchrotron that reads a feature level and answers sliding sync.
func worker(t *testing.T, fl *fleet, instance string, reads int32, h httpx.Handler) *node {
	t.Helper()
	fw, err := New(Options{Members: fl, Self: instance, Secret: []byte("0123456789abcdef0123456789abcdef")})
	require.NoError(t, err)
	rt, err := httpx.New(httpx.Options{
		Kinds: []route.Kind{route.Synchrotron}, Handlers: httpx.Handlers{"slidingSync": h}, Forwarder: fw, Internal: fw.Internal,
		Elsewhere: fw.LaterRelease,
	})
	require.NoError(t, err)
	n := &node{forward: fw, server: httptest.NewServer(rt)}
	t.Cleanup(func() { n.server.Close(); fw.Close() })
	fl.workers = append(fl.workers, members.Worker{Instance: instance, Kind: route.Synchrotron, Address: n.address(), ProtocolMax: reads})
	return n
}
