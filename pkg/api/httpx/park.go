package httpx

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Parking keeps the connections of long polls while they wait. A request that waits in its handler holds all that net/http has given
// it, 10 KiB of buffers and a stack of 8; one that is parked holds two small goroutines. The connection is taken from the server
// (hijacked), answered by us, and, when the client's next request begins, handled here if it is the same again, or else given to the
// server through [Parking.Listener].
//
// What cannot be parked (TLS, HTTP/1.0, a client that wants the connection closed, no Parking) waits in its handler as ever.
// A Parking is safe for concurrent use.
type Parking struct {
	idle time.Duration
	back chan net.Conn
	done chan struct{}
	once sync.Once

	base   context.Context //nolint:containedctx // of all who wait; ends when Stop gives up
	giveUp context.CancelFunc

	mu      sync.Mutex // guards all below
	lame    bool       // nothing is parked any more, and who is answered is asked to go elsewhere
	closing bool       // who has no request is sent away
	conns   map[*parked]struct{}
	empty   chan struct{} // closed when closing and nobody is left

	readers sync.Pool // of *nextReader
}

// parked is one connection.
type parked struct {
	conn net.Conn
	poll poll
	idle bool    // answered, and no next request yet; guarded by the Parking's mu
	next []byte  // what has come of the next request
	one  [1]byte // what is read into
	gone bool    // the client has left
}

// NewParking makes a Parking that keeps an answered connection for idle until its next request.
func NewParking(idle time.Duration) *Parking {
	//nolint:forbidigo // those who wait have left the context of their request
	base, cancel := context.WithCancel(context.Background())
	return &Parking{
		idle: idle, base: base, giveUp: cancel,
		back: make(chan net.Conn), done: make(chan struct{}), conns: make(map[*parked]struct{}), empty: make(chan struct{}),
	}
}

// Listener gives the connections on which a next request has begun. The server must serve it beside its own.
func (p *Parking) Listener(addr net.Addr) net.Listener { return &parkListener{p, addr} }

type parkListener struct {
	p    *Parking
	addr net.Addr
}

func (l *parkListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.p.back:
		return c, nil
	case <-l.p.done:
		return nil, net.ErrClosed
	}
}

func (l *parkListener) Close() error {
	l.p.once.Do(func() { close(l.p.done) })
	return nil
}

func (l *parkListener) Addr() net.Addr { return l.addr }

// Refuse parks nothing from now on, and asks those who are answered to go elsewhere. Who was answered before may still come with a
// next request.
func (p *Parking) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lame = true
}

// Stop sends those away who have no request, and waits until all who wait are answered; when ctx ends they are no longer waited for.
// It comes after the end of the server.
func (p *Parking) Stop(ctx context.Context) error {
	p.once.Do(func() { close(p.done) })
	p.mu.Lock()
	p.lame = true
	if !p.closing {
		p.closing = true
		for k := range p.conns {
			if k.idle {
				_ = k.conn.SetReadDeadline(time.Unix(1, 0))
			}
		}
		if len(p.conns) == 0 {
			close(p.empty)
		}
	}
	p.mu.Unlock()
	defer p.giveUp()
	select {
	case <-p.empty:
		return nil
	case <-ctx.Done():
	}
	p.giveUp()
	p.mu.Lock()
	for k := range p.conns {
		if k.conn != nil {
			_ = k.conn.Close()
		}
	}
	p.mu.Unlock()
	<-p.empty
	return ctx.Err()
}

// enter takes a place; false if nothing is parked any more.
func (p *Parking) enter(k *parked) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lame {
		return false
	}
	p.conns[k] = struct{}{}
	return true
}

func (p *Parking) leave(k *parked) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, k)
	if p.closing && len(p.conns) == 0 {
		close(p.empty)
	}
}

// Waiting is how many connections are parked, with those that have been answered.
func (p *Parking) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Later answers with the JSON that f gives, and lets the connection be parked while f waits for it. f's context ends when the client
// leaves. The handler must return what Later returns, and do nothing after it.
func Later(w http.ResponseWriter, r *http.Request, f func(ctx context.Context) ([]byte, error)) error {
	if rw, ok := w.(*response); ok {
		rw.leave()
		if rw.park(r, f) {
			return nil
		}
	}
	b, err := f(r.Context())
	if err == nil {
		WriteRaw(w, http.StatusOK, b)
	}
	return err
}

// park hands the request to the Parking, if that can be.
func (w *response) park(r *http.Request, f func(ctx context.Context) ([]byte, error)) bool {
	p := w.parking
	if p == nil || w.status != 0 || r.ProtoMajor != 1 || r.ProtoMinor != 1 || r.Close || r.TLS != nil || r.Method != http.MethodGet ||
		r.ContentLength != 0 || len(r.TransferEncoding) > 0 || w.Header().Get("Connection") != "" {
		return false
	}
	k := &parked{}
	if !p.enter(k) {
		return false
	}
	conn, err := w.take(k, r)
	if err != nil {
		p.leave(k)
		return false
	}
	p.mu.Lock()
	k.conn = conn // now Stop can close it; if it has given up already, the context has ended
	p.mu.Unlock()
	w.parked = true
	ctx := trace.ContextWithSpanContext(telemetry.WithRequestID(p.base, RequestID(w)), trace.SpanContextFromContext(r.Context()))
	go p.serve(ctx, k, f, w.later) // Stop waits for it
	return true
}

// take takes the connection from whoever serves it.
func (w *response) take(k *parked, r *http.Request) (net.Conn, error) {
	if d, ok := w.ResponseWriter.(*direct); ok {
		k.poll, d.taken = d.poll, true
		return d.conn, nil
	}
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, err
	}
	if server, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok {
		k.poll = poll{server, strings.Clone(r.URL.EscapedPath())}
	}
	if a, ok := conn.(*again); ok && len(a.first) == 0 {
		conn = a.Conn
	}
	if n := buf.Reader.Buffered(); n > 0 {
		b, _ := buf.Reader.Peek(n)
		k.next = bytes.Clone(b)
	}
	return conn, nil
}

// serve waits, answers, and waits for the next request. later writes an error as the router does, and counts the answer.
func (p *Parking) serve(ctx context.Context, k *parked, f func(context.Context) ([]byte, error), later *later) {
	defer p.leave(k)
	b, err := k.wait(ctx, f)
	a := &answer{header: make(http.Header, 10)}
	maps.Copy(a.header, corsHeaders())
	a.header.Set(requestIDHeader, telemetry.RequestID(ctx))
	if k.gone {
		later.done(ctx, statusClientGone, 0)
		_ = k.conn.Close()
		return
	}
	if err != nil {
		later.fail(ctx, a, err)
	} else {
		WriteRaw(a, http.StatusOK, b)
	}
	last := p.isLame()
	later.done(ctx, a.status, int64(len(a.body)))
	if !a.send(k.conn, last) || last || !p.another(k) {
		_ = k.conn.Close()
		return
	}
	if p.next(k) {
		return
	}
	select {
	case p.back <- &again{Conn: k.conn, first: k.next}:
	case <-p.done:
		_ = k.conn.Close()
	}
}

func (p *Parking) isLame() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lame
}

// wait runs f, and ends its context when the client leaves.
func (k *parked) wait(ctx context.Context, f func(context.Context) ([]byte, error)) (b []byte, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if len(k.next) > 0 { // the next request is here already: nobody leaves
		return guarded(ctx, f)
	}
	watched := make(chan struct{})
	go func() { // ends before wait does
		defer close(watched)
		n, err := k.conn.Read(k.one[:])
		switch {
		case n == 1:
			k.next = append(k.next, k.one[0])
		case err != nil && !isTimeout(err):
			k.gone = true
			cancel()
		}
	}()
	b, err = guarded(ctx, f)
	_ = k.conn.SetReadDeadline(time.Unix(1, 0))
	<-watched
	_ = k.conn.SetReadDeadline(time.Time{})
	return b, err
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error) //nolint:errorlint // as it comes from the connection
	return ok && e.Timeout()
}

// guarded turns a panic into an error.
func guarded(ctx context.Context, f func(context.Context) ([]byte, error)) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = mxerr.Internal(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return f(ctx)
}

// another waits for the next request to begin.
func (p *Parking) another(k *parked) bool {
	if len(k.next) > 0 {
		return true
	}
	p.mu.Lock()
	if p.closing {
		p.mu.Unlock()
		return false
	}
	k.idle = true
	_ = k.conn.SetReadDeadline(time.Now().Add(p.idle))
	p.mu.Unlock()
	n, _ := k.conn.Read(k.one[:])
	p.mu.Lock()
	k.idle = false
	_ = k.conn.SetReadDeadline(time.Time{})
	p.mu.Unlock()
	if n == 1 {
		k.next = append(k.next, k.one[0])
	}
	return n == 1
}

// later is what the router does with a request when it is answered.
type later struct {
	fail func(ctx context.Context, w http.ResponseWriter, err error)
	done func(ctx context.Context, status int, written int64)
}

// answer collects what is to be sent.
type answer struct {
	header http.Header
	status int
	body   []byte
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.status = status }
func (a *answer) Write(b []byte) (int, error) {
	if a.body == nil {
		a.body = b // all of it, as WriteRaw gives it
	} else {
		a.body = append(a.body, b...)
	}
	return len(b), nil
}

// sendTime is how long a client may take for an answer.
const sendTime = time.Minute

func (a *answer) send(conn net.Conn, last bool) bool {
	return a.write(conn, net.Buffers{a.head(last), a.body})
}

// head is what is sent before the body.
func (a *answer) head(last bool) []byte {
	a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if last {
		a.header.Set("Connection", "close")
	}
	var head bytes.Buffer
	head.Grow(1 << 10)
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", a.status, http.StatusText(a.status))
	_ = a.header.Write(&head)
	head.WriteString("\r\n")
	return head.Bytes()
}

func (a *answer) write(conn net.Conn, parts net.Buffers) bool {
	_ = conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, err := parts.WriteTo(conn)
	_ = conn.SetWriteDeadline(time.Time{})
	return err == nil
}

// again is a connection of which something has been read already.
type again struct {
	net.Conn
	first []byte
}

func (a *again) Read(b []byte) (int, error) {
	if len(a.first) > 0 {
		n := copy(b, a.first)
		a.first = a.first[n:]
		return n, nil
	}
	return a.Conn.Read(b)
}
