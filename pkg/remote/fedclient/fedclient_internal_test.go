package fedclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const us id.ServerName = "us.test"

// kept is a Cache that forgets nothing.
type kept struct {
	mu     sync.Mutex // guards values
	values map[string][]byte
}

func (k *kept) Get(_ context.Context, key string) ([]byte, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.values[key]
	return v, ok, nil
}

func (k *kept) Set(_ context.Context, key string, value []byte, _ time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.values[key] = value
	return nil
}

func (k *kept) Delete(_ context.Context, keys ...string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		delete(k.values, key)
	}
	return nil
}

// rig is a client, and what it can meet.
type rig struct {
	*Client
	t     *testing.T
	dns   *names
	clock atomic.Int64
}

func newRig(t *testing.T, deny ...netip.Prefix) *rig {
	t.Helper()
	r := &rig{t: t, dns: &names{addresses: map[string][]string{}}}
	r.clock.Store(1_700_000_000_000)
	key, err := signing.NewKey("ed25519:1", make([]byte, 32))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	ca := httptest.NewTLSServer(nil) // all test servers have one certificate, for 127.0.0.1, ::1 and example.com
	pool.AddCert(ca.Certificate())
	ca.Close()
	r.Client = New(Options{
		Enabled: true, Server: us, Key: key, Guard: outhttp.NewGuard(nil, deny), Cache: &kept{values: map[string][]byte{}}, Roots: pool,
		Resolver: r.dns.resolver(), Now: func() time.Time { return time.UnixMilli(r.clock.Load()) },
	})
	t.Cleanup(r.Close)
	return r
}

func (r *rig) pass(d time.Duration) { r.clock.Add(d.Milliseconds()) }

// serve starts a homeserver whose name is its address.
func (r *rig) serve(h http.HandlerFunc) id.ServerName {
	r.t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.StartTLS()
	r.t.Cleanup(s.Close)
	return id.ServerName(s.Listener.Addr().String())
}

// names is a DNS server. Each question for a name is answered with its next address, the last one again and again.
type names struct {
	mu        sync.Mutex // guards all below
	addresses map[string][]string
	srv       map[string][]dnsmessage.SRVResource
	asked     int
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go n.answer(server) // ends when the resolver closes its end
		return client, nil
	}}
}

// answer speaks DNS as it is spoken over TCP, which the resolver does with what is no packet connection.
func (n *names) answer(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, int(size[0])<<8|int(size[1]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		reply := n.reply(question)
		if _, err := c.Write(append([]byte{byte(len(reply) >> 8), byte(len(reply))}, reply...)); err != nil {
			return
		}
	}
}

func (n *names) reply(question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.Additionals = true, nil
	q := m.Questions[0]
	name := strings.TrimSuffix(q.Name.String(), ".")
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	switch q.Type {
	case dnsmessage.TypeA:
		list := n.addresses[name]
		if len(list) == 0 {
			m.RCode = dnsmessage.RCodeNameError
			break
		}
		if len(list) > 1 {
			n.addresses[name] = list[1:]
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: netip.MustParseAddr(list[0]).As4()}})
	case dnsmessage.TypeSRV:
		for i := range n.srv[name] {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: &n.srv[name][i]})
		}
	default:
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

func get(path string) Request {
	return Request{Method: http.MethodGet, Path: path, Timeout: 20 * time.Second}
}

// What another server answers is bounded in size and time, whatever it says of itself, and never followed elsewhere.
func TestAnswersAreBounded(t *testing.T) {
	released := make(chan struct{})
	var followed atomic.Bool
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		request Request
		want    error
	}{
		"says that it is huge": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000000000000")
			w.WriteHeader(http.StatusOK)
		}, Request{Limit: 1000}, ErrTooLarge},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, Request{Limit: 100_000}, ErrTooLarge},
		"silent": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-released:
			case <-r.Context().Done():
			}
		}, Request{Timeout: 50 * time.Millisecond}, context.DeadlineExceeded},
		"a byte at a time": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(" ")); err != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(time.Millisecond):
				}
			}
		}, Request{Timeout: 50 * time.Millisecond}, context.DeadlineExceeded},
		"headers without end": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range 2000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
			}
		}, Request{}, ErrUnreachable},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				followed.Store(true)
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, Request{}, new(RefusedError)},
		"breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("{"))
			panic(http.ErrAbortHandler)
		}, Request{}, ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			q := c.request
			q.Method, q.Path = http.MethodGet, "/x"
			_, err := r.Do(t.Context(), r.serve(c.handler), q)
			var refused *RefusedError
			if errors.As(c.want, &refused) {
				require.ErrorAs(t, err, &refused)
				require.Nil(t, refused.Err)
				return
			}
			require.ErrorIs(t, err, c.want)
		})
	}
	close(released)
	require.False(t, followed.Load())
}

func TestErrorsOfOthersAreRead(t *testing.T) {
	r := newRig(t)
	var status int
	var body string
	at := r.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = io.WriteString(w, body) })
	for _, c := range []struct {
		status int
		body   string
		code   string
	}{
		{403, `{"errcode":"M_FORBIDDEN","error":"no"}`, "M_FORBIDDEN"},
		{403, `<html>`, ""},
		{404, `{"errcode":17}`, ""},
		{401, `{"errcode":"M_UNKNOWN_TOKEN","error":"be gone","soft_logout":true}`, "M_UNKNOWN"},
		{403, `{"errcode":"M_USER_DEACTIVATED","error":"be gone"}`, "M_UNKNOWN"},
		{500, `{"errcode":"M_FORBIDDEN","error":"no"}`, "M_FORBIDDEN"},
		{500, strings.Repeat("x", 1<<20), ""},
		{200 + 101, ``, ""},
	} {
		status, body = c.status, c.body
		q := get("/x")
		q.Insist = true
		_, err := r.Do(t.Context(), at, q)
		var refused *RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, c.status, refused.Status)
		if c.code == "" {
			require.Nil(t, refused.Err)
		} else {
			require.Equal(t, c.code, string(refused.Err.Code))
			require.NotContains(t, []int{401, 500}, refused.Err.HTTPStatus, "a client would take it for ours")
		}
	}
}

// The certificate must be for the name that is asked for.
func TestCertificates(t *testing.T) {
	r := newRig(t)
	at := r.serve(func(http.ResponseWriter, *http.Request) {})
	_, err := r.Do(t.Context(), at, get("/x"))
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(string(at))
	require.NoError(t, err)
	r.dns.addresses["example.com"], r.dns.addresses["other.test"] = []string{"127.0.0.1"}, []string{"127.0.0.1"}
	_, err = r.Do(t.Context(), id.ServerName("example.com:"+port), get("/x"))
	require.NoError(t, err)
	_, err = r.Do(t.Context(), id.ServerName("other.test:"+port), get("/x"))
	var wrong *tls.CertificateVerificationError
	require.ErrorAs(t, err, &wrong)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	_, err = r.Do(t.Context(), id.ServerName(plain.Listener.Addr().String()), get("/x"))
	require.ErrorIs(t, err, ErrUnreachable)
}

// A name that leads into a denied network is not connected to, neither at once nor when it changes its mind (DNS rebinding), neither
// directly nor by way of SRV records, .well-known or an address as a name.
func TestPrivateNetworksAreNotReached(t *testing.T) {
	r := newRig(t, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	var met atomic.Int32
	at := r.serve(func(http.ResponseWriter, *http.Request) { met.Add(1) })
	_, port, err := net.SplitHostPort(string(at))
	require.NoError(t, err)
	n, err := net.LookupPort("tcp", port)
	require.NoError(t, err)
	r.dns.addresses["inside.test"] = []string{"127.0.0.1"}
	r.dns.srv = map[string][]dnsmessage.SRVResource{
		"_matrix-fed._tcp.srv.test": {{Port: uint16(n), Target: dnsmessage.MustNewName("inside.test.")}},
	}
	r.dns.addresses["srv.test"] = []string{"127.0.0.1"}
	for _, name := range []id.ServerName{
		at, id.ServerName("[::1]:" + port), id.ServerName("[::ffff:127.0.0.1]:" + port), id.ServerName("inside.test:" + port), "srv.test",
	} {
		_, err := r.Do(t.Context(), name, get("/x"))
		require.ErrorIs(t, err, outhttp.ErrDenied, "%s", name)
	}
	// The name is looked up for each connection, and each one is judged by the address that it goes to.
	r.dns.addresses["example.com"] = []string{"203.0.113.1", "127.0.0.1"}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // nobody is at the first address
		_, err = r.Do(ctx, id.ServerName("example.com:"+port), Request{Method: http.MethodGet, Path: "/x", Insist: true})
		cancel()
	}
	require.ErrorIs(t, err, outhttp.ErrDenied)
	require.Zero(t, met.Load())
}

// wellKnownOf has .well-known be asked of a handler, whatever the name, and counts how often.
func (r *rig) wellKnownOf(h http.HandlerFunc) *atomic.Int32 {
	r.t.Helper()
	var n atomic.Int32
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { n.Add(1); h(w, q) }))
	r.t.Cleanup(s.Close)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		},
		TLSClientConfig: &tls.Config{RootCAs: r.o.Roots, ServerName: "example.com", MinVersion: tls.VersionTLS12},
	}
	r.t.Cleanup(transport.CloseIdleConnections)
	r.resolver.http = &http.Client{Transport: transport, CheckRedirect: noLoop}
	return &n
}

func TestWellKnown(t *testing.T) {
	own := target{Host: "them.test", TLS: "them.test"}
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    target
		asked   int32
	}{
		"name and port": {text(`{"m.server":"m.test:443"}`), target{Host: "m.test:443", TLS: "m.test", Port: 443}, 1},
		"name":          {text(`{"m.server":"m.test"}`), target{Host: "m.test", TLS: "m.test"}, 1},
		"address":       {text(`{"m.server":"192.0.2.1"}`), target{Host: "192.0.2.1", TLS: "192.0.2.1", Port: 8448}, 1},
		"itself":        {text(`{"m.server":"them.test"}`), own, 1}, // a delegate is not asked whom it delegates to
		"as HTML": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			text(`{"m.server":"m.test"}`)(w, nil)
		}, target{Host: "m.test", TLS: "m.test"}, 1},
		"no JSON":               {text(`m.test`), own, 1},
		"no text":               {text(`{"m.server":["m.test"]}`), own, 1},
		"no name":               {text(`{"m.server":"https://m.test/"}`), own, 1},
		"nothing":               {text(``), own, 1},
		"invalid UTF-8":         {text("{\"m.server\":\"m\xff.test\"}"), own, 1},
		"not found":             {http.NotFound, own, 1},
		"broken":                {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, own, 1},
		"larger than it may be": {text(`{"m.server":"m.test"}` + strings.Repeat(" ", wellKnownSize)), own, 1},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, own, 1},
		"a redirect": {func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/there" {
				text(`{"m.server":"m.test"}`)(w, q)
				return
			}
			http.Redirect(w, q, "https://else.test/there", http.StatusFound)
		}, target{Host: "m.test", TLS: "m.test"}, 2},
		"a redirect to itself": {func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, q.URL.String(), http.StatusFound)
		}, own, wellKnownHops},
		"redirects without end": {func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, q.URL.Path+"x", http.StatusMovedPermanently)
		}, own, wellKnownHops},
		"a redirect to plain HTTP": {func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "http://them.test/", http.StatusFound)
		}, own, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			asked := r.wellKnownOf(c.handler)
			for range 3 { // the answer is remembered, and so is that there is none
				got, err := r.resolver.resolve(t.Context(), "them.test")
				require.NoError(t, err)
				require.Equal(t, c.want, got)
			}
			require.Equal(t, c.asked, asked.Load())
		})
	}
}

// Names with a port, and addresses, lead straight on.
func TestDirectNames(t *testing.T) {
	r := newRig(t)
	asked := r.wellKnownOf(http.NotFound)
	for name, want := range map[id.ServerName]target{
		"192.0.2.1":       {"192.0.2.1", "192.0.2.1", 8448},
		"192.0.2.1:1":     {"192.0.2.1:1", "192.0.2.1", 1},
		"[2001:db8::1]":   {"[2001:db8::1]", "2001:db8::1", 8448},
		"[2001:db8::1]:2": {"[2001:db8::1]:2", "2001:db8::1", 2},
		"m.test:3":        {"m.test:3", "m.test", 3},
	} {
		got, err := r.resolver.resolve(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Zero(t, asked.Load())
	for _, name := range []id.ServerName{"", "a b", "m.test:", "m.test:0x1", "m.test/x", "[::1", "a\x00.test"} {
		_, err := r.Do(t.Context(), name, get("/x"))
		require.ErrorIs(t, err, ErrUnreachable, "%q", name)
	}
}

func TestWellKnownLifetime(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for _, c := range []struct {
		header http.Header
		want   time.Duration
	}{
		{http.Header{}, 24 * time.Hour},
		{http.Header{"Cache-Control": {"max-age=7200"}}, 2 * time.Hour},
		{http.Header{"Cache-Control": {"public, max-age=\"7200\""}}, 2 * time.Hour},
		{http.Header{"Cache-Control": {"max-age=99999999999999"}}, 48 * time.Hour},
		{http.Header{"Cache-Control": {"max-age=-1"}}, 24 * time.Hour},
		{http.Header{"Cache-Control": {"max-age=0"}}, 5 * time.Minute},
		{http.Header{"Cache-Control": {"no-store"}}, 5 * time.Minute},
		{http.Header{"Expires": {now.Add(3 * time.Hour).UTC().Format(http.TimeFormat)}}, 3 * time.Hour},
		{http.Header{"Expires": {"soon"}}, 5 * time.Minute},
		{http.Header{"Expires": {now.Add(9000 * time.Hour).UTC().Format(http.TimeFormat)}}, 48 * time.Hour},
		{http.Header{"Cache-Control": {"max-age=7200"}, "Expires": {"0"}}, 2 * time.Hour},
	} {
		require.Equal(t, c.want, lifetime(c.header, now), "%v", c.header)
	}
}

// SRV records lead to where they say, with the certificate of the name that was asked for; broken ones lead nowhere bad.
func TestSRV(t *testing.T) {
	r := newRig(t)
	at := r.serve(func(w http.ResponseWriter, q *http.Request) { _, _ = io.WriteString(w, q.Host) })
	_, port, err := net.SplitHostPort(string(at))
	require.NoError(t, err)
	n, err := net.LookupPort("tcp", port)
	require.NoError(t, err)
	r.wellKnownOf(http.NotFound)
	r.dns.addresses["host.test"] = []string{"127.0.0.1"}
	for _, service := range []string{"_matrix-fed._tcp.example.com", "_matrix._tcp.example.com"} {
		r.dns.srv = map[string][]dnsmessage.SRVResource{
			service: {
				{Priority: 1, Port: 1, Target: dnsmessage.MustNewName("host.test.")}, // nobody is there
				{Priority: 2, Port: uint16(n), Target: dnsmessage.MustNewName("host.test.")},
			},
		}
		r.Close()
		b, err := r.Do(t.Context(), "example.com", get("/x"))
		require.NoError(t, err)
		require.Equal(t, "example.com", string(b))
	}
	require.Equal(t, []string{"none.test:8448"}, r.resolver.srv(t.Context(), "none.test"))
	many := make([]dnsmessage.SRVResource, 200)
	for i := range many {
		many[i] = dnsmessage.SRVResource{Port: uint16(i + 1), Target: dnsmessage.MustNewName("host.test.")}
	}
	r.dns.srv = map[string][]dnsmessage.SRVResource{
		"_matrix-fed._tcp.many.test": many, "_matrix-fed._tcp.away.test": {{Target: dnsmessage.MustNewName(".")}},
	}
	require.LessOrEqual(t, len(r.resolver.srv(t.Context(), "many.test")), maxTargets)
	require.NotContains(t, r.resolver.srv(t.Context(), "away.test"), ":0")
}

// A server that does not answer is left alone, ever longer, until it is heard of.
func TestPauses(t *testing.T) {
	r := newRig(t)
	var asked atomic.Int32
	var broken atomic.Bool
	broken.Store(true)
	at := r.serve(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if broken.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	ask := func(insist bool) error {
		q := get("/x")
		q.Insist = insist
		_, err := r.Do(t.Context(), at, q)
		return err
	}
	require.Error(t, ask(false))
	require.ErrorIs(t, ask(false), ErrBackoff)
	require.Equal(t, int32(1), asked.Load())
	before := r.Backoff(t.Context(), at)
	require.Positive(t, before)
	for range 4 {
		r.pass(r.Backoff(t.Context(), at) + time.Millisecond)
		require.NotErrorIs(t, ask(false), ErrBackoff)
		after := r.Backoff(t.Context(), at)
		require.Greater(t, after, before)
		before = after
	}
	require.Error(t, ask(true), "who waits for an answer is not put off")
	require.Equal(t, int32(6), asked.Load())
	broken.Store(false)
	require.True(t, r.Heard(t.Context(), at))
	require.False(t, r.Heard(t.Context(), at))
	require.NoError(t, ask(false))
	for range 40 {
		r.pauses.failed(t.Context(), at)
		r.pass(r.Backoff(t.Context(), at) + time.Millisecond)
	}
	r.pauses.failed(t.Context(), at)
	require.LessOrEqual(t, r.Backoff(t.Context(), at), longestPause*5/4)
}

func TestWhoIsNotAsked(t *testing.T) {
	r := newRig(t)
	_, err := r.Do(t.Context(), us, get("/x"))
	require.ErrorIs(t, err, ErrSelf)
	r.o.Enabled = false
	_, err = r.Do(t.Context(), "them.test", get("/x"))
	require.ErrorIs(t, err, ErrDisabled)
}

// Requests to a server go over one connection by HTTP/2, one after the other and side by side.
func TestConnectionsAreKept(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	met := map[string]int{} // requests by connection
	at := r.serve(func(_ http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		met[q.Proto+" "+q.RemoteAddr]++
	})
	for range 5 {
		_, err := r.Do(t.Context(), at, get("/x"))
		require.NoError(t, err)
	}
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := r.Do(t.Context(), at, get("/x")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Len(t, met, 1)
	for connection, n := range met {
		require.Contains(t, connection, "HTTP/2.0 ")
		require.Equal(t, 15, n)
	}
}

// The address that is signed is the one that is sent, whatever is in it.
func TestSignedAddressIsTheSentOne(t *testing.T) {
	r := newRig(t)
	var got, header string
	at := r.serve(func(_ http.ResponseWriter, q *http.Request) {
		got, header = q.RequestURI, q.Header.Get("Authorization")
	})
	path := Path("/_matrix/x", "!a/b:c?d#e", "$ä %2F", "+", "..")
	q := Request{Method: http.MethodPut, Path: path, Query: url.Values{"v": {"a b", "ü&="}}, Body: []byte(`{"b":1,"a":1.5e3}`)}
	_, err := r.Do(t.Context(), at, q)
	require.NoError(t, err)
	object, err := RequestObject(us, at, http.MethodPut, got, q.Body)
	require.NoError(t, err)
	_, sig, _ := strings.Cut(header, `sig="`)
	raw, err := signing.DecodeBase64(strings.TrimSuffix(sig, `"`))
	require.NoError(t, err)
	require.True(t, signing.Verify(r.o.Key.Public(), object, raw))
	require.Contains(t, header, `destination="`+string(at)+`"`)
}

func FuzzWellKnown(f *testing.F) {
	f.Add([]byte(`{"m.server":"m.test:443"}`), "max-age=5", "")
	f.Add([]byte(`{"m.server":"[::1]"}`), "no-store", "Thu, 01 Dec 1994 16:00:00 GMT")
	f.Add([]byte("{\"m.server\":\"\xff\"}"), `max-age="`, "0")
	now := time.UnixMilli(1_700_000_000_000)
	f.Fuzz(func(t *testing.T, body []byte, control, expires string) {
		d := lifetime(http.Header{"Cache-Control": {control}, "Expires": {expires}}, now)
		require.GreaterOrEqual(t, d, wellKnownLeast)
		require.LessOrEqual(t, d, wellKnownLongest)
		name, err := parseWellKnown(body)
		if err != nil {
			require.Empty(t, name)
			return
		}
		require.True(t, name.Valid())
		at, ok := direct(name)
		if !ok {
			at = target{Host: name.Host(), TLS: name.Host()}
		}
		_, err = http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+at.dialed()+"/x", http.NoBody)
		require.NoError(t, err)
	})
}
