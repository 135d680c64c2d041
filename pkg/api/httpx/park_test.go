package httpx

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// lot is a server whose /sync waits for what the test gives it.
type lot struct {
	t       *testing.T
	addr    string
	parking *Parking
	metrics *prometheus.Registry
	server  *http.Server
	waits   chan context.Context
	answer  chan func() ([]byte, error)
	taken   atomic.Int64 // connections that the server has been given
	stopped bool
}

// pieces is how many of 100,000 bytes a streamed answer has.
const pieces = 7

func newLot(t *testing.T) *lot {
	t.Helper()
	l := &lot{
		t: t, parking: NewParking(time.Minute), metrics: prometheus.NewRegistry(),
		waits: make(chan context.Context, 10), answer: make(chan func() ([]byte, error), 10),
	}
	rt := newRouter(t, Options{Parking: l.parking, Registerer: l.metrics, Handlers: Handlers{
		"sync": func(w http.ResponseWriter, r *http.Request) error {
			switch what := r.URL.Query().Get("now"); what {
			case "":
				return Later(w, r, l.wait)
			case "panic":
				panic(http.ErrAbortHandler)
			case "pieces", "piece":
				to, piece := NewStream(w), make([]byte, 100_000)
				for i := range pieces {
					for j := range piece { // the same memory each time
						piece[j] = 'a' + byte(i)
					}
					if _, err := to.Write(piece); err != nil {
						return err
					}
					if what == "piece" {
						return mxerr.New(mxerr.Forbidden, "No")
					}
				}
				return nil
			default:
				return WriteJSON(w, 200, map[string]string{"now": what, "more": r.Header.Get("More"), "from": r.RemoteAddr, "host": r.Host})
			}
		},
		"getVersions": func(w http.ResponseWriter, r *http.Request) error {
			b, _ := io.ReadAll(r.Body)
			return WriteJSON(w, 200, map[string]string{"said": string(b), "more": r.Header.Get("More")})
		},
	}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.addr, l.server = ln.Addr().String(), &http.Server{Handler: rt, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			l.taken.Add(1)
		}
	}}
	served := make(chan struct{}, 2)
	for _, ln := range []net.Listener{ln, l.parking.Listener(ln.Addr())} {
		go func() {
			_ = l.server.Serve(ln)
			served <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, l.server.Shutdown(ctx))
		<-served
		<-served
		if !l.stopped {
			require.NoError(t, l.parking.Stop(ctx))
		}
		require.Zero(t, l.parking.Waiting())
	})
	return l
}

func (l *lot) wait(ctx context.Context) ([]byte, error) {
	l.waits <- ctx
	select {
	case f := <-l.answer:
		return f()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *lot) says(s string) { l.answer <- func() ([]byte, error) { return []byte(s), nil } }

// counted is how many answers of a route the metrics have.
func (l *lot) counted(route string) (n uint64) {
	l.t.Helper()
	families, err := l.metrics.Gather()
	require.NoError(l.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if f.GetName() == "heddle_http_request_duration_seconds" && label.GetValue() == route {
					n += m.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	return n
}

// client is one connection.
type client struct {
	net.Conn
	t  *testing.T
	in *bufio.Reader
}

func (l *lot) client() *client {
	l.t.Helper()
	conn, err := net.Dial("tcp", l.addr)
	require.NoError(l.t, err)
	l.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(l.t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return &client{conn, l.t, bufio.NewReader(conn)}
}

const (
	syncRequest     = "GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: x\r\n\r\n"
	versionsRequest = "GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\nMore: %s\r\n\r\n"
)

func (c *client) ask(s string) {
	c.t.Helper()
	_, err := io.WriteString(c, s)
	require.NoError(c.t, err)
}

func (c *client) read(status int) (string, http.Header) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	require.Equal(c.t, status, resp.StatusCode, string(b))
	if resp.Close {
		resp.Header.Set("Connection", "close")
	}
	return string(b), resp.Header
}

func (c *client) requireClosed() {
	c.t.Helper()
	_, err := c.in.ReadByte()
	require.Error(c.t, err)
	require.False(c.t, isTimeout(err), "it stays open")
}

// What is answered later looks like what is answered at once, and the connection serves on.
func TestParkedIsAnsweredAndServesOn(t *testing.T) {
	l := newLot(t)
	c := l.client()
	var plain http.Header
	for i := range 3 {
		c.ask(syncRequest)
		<-l.waits
		require.Equal(t, 1, l.parking.Waiting())
		l.says(fmt.Sprintf(`{"n":%d}`, i))
		body, parked := c.read(200)
		require.Equal(t, fmt.Sprintf(`{"n":%d}`, i), body)
		c.ask(fmt.Sprintf(versionsRequest, strings.Repeat("x", 40_000)))
		body, plain = c.read(200)
		require.Contains(t, body, strings.Repeat("x", 40_000))
		require.NotEqual(t, parked.Get("X-Request-Id"), plain.Get("X-Request-Id"))
		require.Len(t, parked, len(plain))
		for name := range plain {
			require.NotEmpty(t, parked.Get(name), name)
		}
	}
	require.Eventually(t, func() bool { return l.counted("sync") == 3 }, 10*time.Second, time.Millisecond, "it is counted like the others")
}

// A client that sends its next request without waiting, in one piece or in two, is served both.
func TestParkedWithTheNextRequestBehind(t *testing.T) {
	l := newLot(t)
	next := fmt.Sprintf(versionsRequest, "of the next")
	for cut := range []int{0, 1, 2, len(next) - 1, len(next)} {
		c := l.client()
		c.ask(syncRequest + next[:cut])
		<-l.waits
		c.ask(next[cut:])
		l.says(`{}`)
		body, _ := c.read(200)
		require.Equal(t, `{}`, body)
		body, _ = c.read(200)
		require.Contains(t, body, "of the next")
	}
}

func TestParkedClientLeaves(t *testing.T) {
	l := newLot(t)
	c := l.client()
	c.ask(syncRequest)
	ctx := <-l.waits
	require.NoError(t, c.Close())
	<-ctx.Done()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
}

func TestParkedFails(t *testing.T) {
	l := newLot(t)
	c := l.client()
	for _, f := range []struct {
		give   func() ([]byte, error)
		status int
		code   mxerr.Code
	}{
		{func() ([]byte, error) { return nil, mxerr.New(mxerr.InvalidParam, "no") }, 400, mxerr.InvalidParam},
		{func() ([]byte, error) { return nil, errors.New("secret") }, 500, mxerr.Unknown},
		{func() ([]byte, error) { panic("secret") }, 500, mxerr.Unknown},
	} {
		c.ask(syncRequest)
		<-l.waits
		l.answer <- f.give
		body, _ := c.read(f.status)
		require.Contains(t, body, f.code)
		require.NotContains(t, body, "secret")
	}
}

// A worker that is to stop answers those who wait and asks them to go elsewhere; who has been answered before is served until it stops.
func TestParkedWhenTheWorkerStops(t *testing.T) {
	l := newLot(t)
	waits, idle := l.client(), l.client()
	idle.ask(syncRequest)
	<-l.waits
	l.says(`{}`)
	idle.read(200)
	waits.ask(syncRequest)
	<-l.waits
	l.parking.Refuse()
	late := l.client()
	late.ask(syncRequest)
	<-l.waits
	require.Equal(t, 2, l.parking.Waiting(), "nobody is parked any more")
	l.says(`{}`)
	l.says(`{}`)
	_, header := waits.read(200)
	require.Equal(t, "close", header.Get("Connection"))
	waits.requireClosed()
	late.read(200)
	idle.ask(fmt.Sprintf(versionsRequest, "x"))
	idle.read(200)
}

func TestParkedStop(t *testing.T) {
	l := newLot(t)
	l.stopped = true
	waits, idle := l.client(), l.client()
	idle.ask(syncRequest)
	<-l.waits
	l.says(`{}`)
	idle.read(200)
	waits.ask(syncRequest)
	ctx := <-l.waits
	over, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- l.parking.Stop(over) }()
	idle.requireClosed()
	require.NoError(t, ctx.Err(), "who waits is waited for")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	<-ctx.Done()
	waits.requireClosed()
}

// What cannot be parked waits in its handler.
func TestNotParked(t *testing.T) {
	l := newLot(t)
	for _, request := range []string{
		"GET /_matrix/client/v3/sync HTTP/1.0\r\nHost: x\r\n\r\n",
		"GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /_matrix/client/v3/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
	} {
		c := l.client()
		c.ask(request)
		<-l.waits
		require.Zero(t, l.parking.Waiting())
		l.says(`{"a":1}`)
		body, _ := c.read(200)
		require.Equal(t, `{"a":1}`, body)
	}
}

// A client that syncs on is served without the server; whatever is not plainly the same again, the server takes and judges.
func TestParkedNext(t *testing.T) {
	const get, host = "GET /_matrix/client/v3/sync?now=1 HTTP/1.1\r\n", "Host: x\r\n"
	for name, c := range map[string]struct {
		pieces []string
		status int
		server bool
	}{
		"the same again":    {[]string{get + host + "More: a b\r\nConnection: Keep-Alive\r\n\r\n"}, 200, false},
		"in pieces":         {[]string{get + host, "More: a b\r\n\r\n"}, 200, true},
		"another path":      {[]string{"GET /_matrix/client/versions HTTP/1.1\r\n" + host + "\r\n"}, 200, true},
		"spelt otherwise":   {[]string{"GET /_matrix/client/v3/syn%63?now=1 HTTP/1.1\r\n" + host + "\r\n"}, 404, true},
		"an absolute URL":   {[]string{"GET http://x/_matrix/client/v3/sync?now=1 HTTP/1.1\r\n" + host + "\r\n"}, 200, true},
		"another method":    {[]string{"PUT /_matrix/client/v3/sync HTTP/1.1\r\n" + host + "\r\n"}, 405, true},
		"HTTP/1.0":          {[]string{"GET /_matrix/client/v3/sync?now=1 HTTP/1.0\r\n" + host + "\r\n"}, 200, true},
		"for the last time": {[]string{get + host + "Connection: close\r\n\r\n"}, 200, true},
		"a body":            {[]string{get + host + "Content-Length: 2\r\n\r\n{}"}, 200, true},
		"chunks":            {[]string{get + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"}, 200, true},
		"a long header":     {[]string{get + host + "More: " + strings.Repeat("x", maxNext) + "\r\n\r\n"}, 200, true},
		"no host":           {[]string{get + "\r\n"}, 400, true},
		"two hosts":         {[]string{get + host + host + "\r\n"}, 400, true},
		"a bad host":        {[]string{get + "Host: x y\r\n\r\n"}, 400, true},
		"a bad name":        {[]string{get + host + "a b: c\r\n\r\n"}, 400, true},
		"a bad value":       {[]string{get + host + "More: \x01\r\n\r\n"}, 400, true},
		"a folded line":     {[]string{get + host + "More: a\r\n b\r\n\r\n"}, 200, true},
		"no colon":          {[]string{get + host + "More\r\n\r\n"}, 400, true},
		"a bad target":      {[]string{"GET /_matrix/client/v3/sync?now=1 x HTTP/1.1\r\n" + host + "\r\n"}, 400, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLot(t)
			c1 := l.client()
			for range 2 { // the second is handled here already
				c1.ask(syncRequest)
				<-l.waits
				l.says(`{}`)
				c1.read(200)
			}
			require.Equal(t, int64(1), l.taken.Load())
			for _, s := range c.pieces {
				c1.ask(s)
				if len(c.pieces) > 1 {
					require.Eventually(t, func() bool { return l.taken.Load() == 2 }, 10*time.Second, time.Millisecond)
				}
			}
			body, header := c1.read(c.status)
			require.NotEmpty(t, header.Get("Content-Type")+body)
			want := int64(1)
			if c.server {
				want = 2
			}
			require.Equal(t, want, l.taken.Load())
			if strings.Contains(c.pieces[len(c.pieces)-1], "a b\r\n") {
				require.JSONEq(t, fmt.Sprintf(`{"now":"1","more":"a b","from":%q,"host":"x"}`, c1.LocalAddr()), body)
				for range 3 { // at once, and waiting
					c1.ask(get + host + "\r\n")
					c1.read(200)
					c1.ask(syncRequest)
					<-l.waits
					l.says(`{}`)
					c1.read(200)
				}
			}
		})
	}
}

// An answer that is written as it is made comes so, where the server has no part in it too, and the connection serves on.
func TestParkedNextIsWrittenAsItIsMade(t *testing.T) {
	l := newLot(t)
	c := l.client()
	for range 2 {
		c.ask(syncRequest)
		<-l.waits
		l.says(`{}`)
		c.read(200)
		c.ask("GET /_matrix/client/v3/sync?now=pieces HTTP/1.1\r\nHost: x\r\n\r\n")
		body, header := c.read(200)
		require.Empty(t, header.Get("Content-Length"))
		require.Len(t, body, pieces*100_000)
		for i := range pieces {
			require.Equal(t, 100_000, strings.Count(body, string('a'+rune(i))))
		}
	}
	c.ask("GET /_matrix/client/v3/sync?now=piece HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(c.in, nil)
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "what is cut short does not look whole")
	_ = resp.Body.Close()
	require.Equal(t, int64(1), l.taken.Load())
}

// A handler that breaks off has its connection closed, also where the server has no part in it.
func TestParkedNextBreaksOff(t *testing.T) {
	l := newLot(t)
	c := l.client()
	c.ask(syncRequest)
	<-l.waits
	l.says(`{}`)
	c.read(200)
	c.ask("GET /_matrix/client/v3/sync?now=panic HTTP/1.1\r\nHost: x\r\n\r\n")
	c.requireClosed()
	require.Equal(t, int64(1), l.taken.Load())
}

// What is taken for the same long poll again is one to net/http as well, and all that has come.
func FuzzPlain(f *testing.F) {
	const path = "/_matrix/client/v3/sync"
	f.Add([]byte(syncRequest))
	f.Add([]byte("GET " + path + "?since=a%20b&timeout=1 HTTP/1.1\r\nHost: [::1]:80\r\nMore:  a b \r\nconnection: keep-alive\r\n\r\n"))
	f.Add([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\nMore: a\r\n b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !plain(data, path) {
			return
		}
		in := bufio.NewReader(bytes.NewReader(data))
		r, err := http.ReadRequest(in)
		require.NoError(t, err)
		require.Equal(t, http.MethodGet, r.Method)
		require.Equal(t, path, r.URL.Path)
		require.Empty(t, r.URL.Host)
		require.NotEmpty(t, r.Host)
		require.Equal(t, "HTTP/1.1", r.Proto)
		require.Zero(t, r.ContentLength)
		require.Empty(t, r.TransferEncoding)
		require.False(t, r.Close)
		_, err = in.ReadByte()
		require.ErrorIs(t, err, io.EOF)
	})
}
