package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/bus/embedded"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const patient = 40 * time.Second

var secret = []byte("the cluster's secret")

// fleet is a NATS server and the lease rows.
type fleet struct {
	nats *bustest.Server
	db   *pgtest.DB
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{nats: bustest.Listen(t), db: pgtest.New(t)}
	_, err := f.db.Pool.Exec(context.Background(), "INSERT INTO shard_lease (shard) SELECT generate_series(0, 3)")
	require.NoError(t, err)
	return f
}

// hold writes who holds a shard, as taking it does.
func (f *fleet) hold(t *testing.T, s shard.ID, n *node) {
	holder, address := "", ""
	if n != nil {
		holder, address = "x#1", n.address
	}
	_, err := f.db.Pool.Exec(context.Background(),
		"UPDATE shard_lease SET epoch = epoch + 1, holder = $2, address = $3 WHERE shard = $1", int16(s), holder, address)
	require.NoError(t, err)
}

// node is a worker that may own shards. Its handler can be replaced.
type node struct {
	*rpc.Server
	bus     *bus.Bus
	address string
	posts   atomic.Int64
	moved   bool // its shards have moved: then nobody responds on NATS for a moment
	handler atomic.Pointer[rpc.Handler]
}

func (n *node) handle(h rpc.Handler) { n.handler.Store(&h) }

func echo(_ context.Context, r rpc.Request) ([]byte, error) {
	return append([]byte("echo "), r.Payload...), nil
}

func (f *fleet) node(t *testing.T, change ...func(*rpc.ServerConfig)) *node {
	n := &node{bus: f.nats.Connect()}
	n.handle(echo)
	cfg := rpc.ServerConfig{
		Bus: n.bus, Secret: secret, Tracer: sdktrace.NewTracerProvider(),
	}
	h := func(ctx context.Context, r rpc.Request) ([]byte, error) { return (*n.handler.Load())(ctx, r) }
	cfg.Handlers = map[string]rpc.Handler{"do": h, "it.is.done": h}
	for _, f := range change {
		f(&cfg)
	}
	n.Server = rpc.NewServer(cfg)
	mux := http.NewServeMux()
	mux.Handle(rpc.Path, n.Server)
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.posts.Add(1)
		mux.ServeHTTP(w, r)
	}))
	n.address = strings.TrimPrefix(hs.URL, "http://")
	t.Cleanup(func() {
		hs.Close()
		for s := range shard.ID(4) {
			n.Close(context.Background(), s)
		}
	})
	return n
}

func (f *fleet) client(t *testing.T, change ...func(*rpc.ClientConfig)) *rpc.Client {
	cfg := rpc.ClientConfig{Bus: f.nats.Connect(), Owners: leasedb.NewDB(f.db.DB), Secret: secret, Tracer: sdktrace.NewTracerProvider()}
	for _, f := range change {
		f(&cfg)
	}
	c := rpc.NewClient(cfg)
	t.Cleanup(c.Close)
	return c
}

func open(t *testing.T, f *fleet, n *node, s shard.ID) {
	require.NoError(t, n.Open(context.Background(), s))
	f.hold(t, s, n)
}

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// ways runs a test over NATS, by HTTP because NATS is down, and by HTTP because nobody responds there.
func ways(t *testing.T, test func(t *testing.T, f *fleet, n *node, c *rpc.Client)) {
	t.Parallel()
	for _, way := range []string{"nats", "nats is down", "nobody responds"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			var n *node
			if way == "nobody responds" {
				n = f.node(t, func(c *rpc.ServerConfig) { c.Bus = nil })
			} else {
				n = f.node(t)
			}
			c := f.client(t)
			open(t, f, n, 2)
			if way == "nats is down" {
				f.nats.Stop()
			}
			test(t, f, n, c)
			if n.moved {
				return
			}
			if way == "nats" {
				require.Zero(t, n.posts.Load())
			} else {
				require.NotZero(t, n.posts.Load())
			}
		})
	}
}

func TestARequestArrivesWhole(t *testing.T) {
	ways(t, func(t *testing.T, _ *fleet, n *node, c *rpc.Client) {
		var got rpc.Request
		var traceID trace.TraceID
		var requestID string
		var left time.Duration
		n.handle(func(ctx context.Context, r rpc.Request) ([]byte, error) {
			got, traceID, requestID = r, trace.SpanContextFromContext(ctx).TraceID(), telemetry.RequestID(ctx)
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return []byte("answer"), nil
		})
		ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(telemetry.WithRequestID(ctxFor(t, 4*time.Second), "id-7"), "caller")
		defer span.End()
		want := rpc.Request{Shard: 2, Method: "it.is.done", Key: []byte("key 1"), Payload: []byte{0, 1, 255}}
		answer, err := c.Call(ctx, want)
		require.NoError(t, err)
		require.Equal(t, "answer", string(answer))
		require.Equal(t, want, got)
		require.Equal(t, span.SpanContext().TraceID(), traceID, "one trace")
		require.Equal(t, "id-7", requestID, "one request")
		require.Positive(t, left)
		require.Less(t, left, 4*time.Second, "the handler has no more time than the caller had")
	})
}

func TestARefusalComesBackAsItWas(t *testing.T) {
	ways(t, func(t *testing.T, _ *fleet, n *node, c *rpc.Client) {
		calls := 0
		want := mxerr.New(mxerr.LimitExceeded, "slowly").WithStatus(429).With("soft_logout", true)
		want.RetryAfterMs = 1234
		n.handle(func(context.Context, rpc.Request) ([]byte, error) {
			calls++
			return nil, fmt.Errorf("do: %w", want)
		})
		_, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do"})
		var got *mxerr.Error
		require.ErrorAs(t, err, &got)
		require.Equal(t, want, got)
		require.Equal(t, 1, calls, "a refusal is not asked again")
	})
}

func TestAnInternalErrorIsHidden(t *testing.T) {
	ways(t, func(t *testing.T, _ *fleet, n *node, c *rpc.Client) {
		for _, h := range []rpc.Handler{
			func(context.Context, rpc.Request) ([]byte, error) { return nil, errors.New("private") },
			func(context.Context, rpc.Request) ([]byte, error) { panic("private") },
		} {
			n.handle(h)
			_, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do"})
			var got *mxerr.Error
			require.ErrorAs(t, err, &got)
			require.Equal(t, 500, got.HTTPStatus)
			require.NotContains(t, err.Error(), "private")
		}
	})
}

func TestARetryHasTheSameKey(t *testing.T) {
	ways(t, func(t *testing.T, _ *fleet, n *node, c *rpc.Client) {
		var keys []string
		n.handle(func(_ context.Context, r rpc.Request) ([]byte, error) {
			keys = append(keys, string(r.Key))
			switch len(keys) {
			case 1:
				return nil, fmt.Errorf("commit: %w", rpc.ErrNotOwner)
			case 2:
				return nil, fmt.Errorf("commit: %w", rpc.ErrRetry)
			}
			return nil, nil
		})
		_, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do", Key: []byte("k")})
		require.NoError(t, err)
		require.Equal(t, []string{"k", "k", "k"}, keys)
	})
}

func TestTheDeadlineEndsIt(t *testing.T) {
	ways(t, func(t *testing.T, f *fleet, n *node, c *rpc.Client) {
		_, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do"})
		require.NoError(t, err)
		ended := make(chan struct{}, 16)
		n.handle(func(ctx context.Context, _ rpc.Request) ([]byte, error) {
			<-ctx.Done() // or the test hangs
			ended <- struct{}{}
			return nil, ctx.Err()
		})
		_, err = c.Call(ctxFor(t, 200*time.Millisecond), rpc.Request{Shard: 2, Method: "do"})
		require.ErrorIs(t, err, rpc.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-ended
		n.Close(context.Background(), 2)
		f.hold(t, 2, nil)
		_, err = c.Call(ctxFor(t, 200*time.Millisecond), rpc.Request{Shard: 2, Method: "do"})
		require.ErrorIs(t, err, rpc.ErrUnavailable, "nobody holds it")
		canceled, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = c.Call(canceled, rpc.Request{Shard: 2, Method: "do"})
		require.ErrorIs(t, err, context.Canceled)
	})
}

// Under load a shard goes from one to the other and back; no call fails, and none is answered by two.
func TestAHandOverShowsAsASlowerRequest(t *testing.T) {
	ways(t, func(t *testing.T, f *fleet, a *node, c *rpc.Client) {
		b := f.node(t)
		if up, _ := a.bus.Connected(); !up {
			b = f.node(t, func(c *rpc.ServerConfig) { c.Bus = nil })
		}
		var mu sync.Mutex
		done := map[string]int{}
		h := func(_ context.Context, r rpc.Request) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			done[string(r.Key)]++
			return r.Key, nil
		}
		a.handle(h)
		b.handle(h)
		var wg sync.WaitGroup
		var stop atomic.Bool
		var calls atomic.Int64
		for i := range 8 {
			wg.Go(func() {
				for n := 0; !stop.Load(); n++ {
					key := fmt.Sprintf("%d/%d", i, n)
					got, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do", Key: []byte(key)})
					if err != nil || string(got) != key {
						t.Errorf("%s: %q, %v", key, got, err)
						return
					}
					calls.Add(1)
				}
			})
		}
		a.moved = true
		from, to := a, b
		for range 4 {
			seen := calls.Load()
			for calls.Load() < seen+20 && !t.Failed() {
				time.Sleep(time.Millisecond) //nolint:forbidigo // the callers count, and tell nobody
			}
			from.Close(context.Background(), 2)
			f.hold(t, 2, nil)
			time.Sleep(20 * time.Millisecond) //nolint:forbidigo // stands for the loading of the next one
			open(t, f, to, 2)
			from, to = to, from
		}
		stop.Store(true)
		wg.Wait()
		for key, n := range done {
			require.Equal(t, 1, n, "%s ran %d times", key, n)
		}
	})
}

func TestClosingWaitsForWhatIsInFlight(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n, c := f.node(t), f.client(t)
	open(t, f, n, 2)
	began, finish := make(chan struct{}), make(chan struct{})
	n.handle(func(ctx context.Context, _ rpc.Request) ([]byte, error) {
		close(began)
		<-finish
		return []byte("finished"), ctx.Err()
	})
	answer := make(chan string, 1)
	go func() {
		b, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do"})
		answer <- fmt.Sprint(string(b), err)
	}()
	<-began
	closed := make(chan struct{})
	go func() { n.Close(context.Background(), 2); close(closed) }()
	require.Eventually(t, func() bool { return !n.Serves(2) }, patient, time.Millisecond)
	_, err := n.Do(context.Background(), rpc.Request{Shard: 2, Method: "do"})
	require.ErrorIs(t, err, rpc.ErrNotOwner)
	select {
	case <-closed:
		t.Fatal("closed with a request in flight")
	default:
	}
	close(finish)
	<-closed
	require.Equal(t, "finished<nil>", <-answer)

	// It does not wait for ever.
	open(t, f, n, 2)
	n.handle(func(ctx context.Context, _ rpc.Request) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	local := make(chan error, 1)
	go func() {
		_, err := n.Do(context.Background(), rpc.Request{Shard: 2, Method: "do"})
		local <- err
	}()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	n.Close(ended, 2)
	require.ErrorIs(t, <-local, rpc.ErrNotOwner, "whoever was cut short asks the next owner")
}

func TestAServerBoundsWhatItTakes(t *testing.T) {
	ways(t, func(t *testing.T, _ *fleet, n *node, c *rpc.Client) {
		_, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do", Payload: make([]byte, rpc.DefaultMaxBytes)})
		require.ErrorIs(t, err, rpc.ErrTooLarge)
		for _, method := range []string{"", "do x", "do.", ".do", "do..it", "do.*", ">", "d\u00f6"} {
			_, err = c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: method})
			require.ErrorContains(t, err, "cannot be sent")
		}
		got, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do", Payload: make([]byte, rpc.DefaultMaxBytes-1000)})
		require.NoError(t, err)
		require.Len(t, got, rpc.DefaultMaxBytes-1000+len("echo "))
		n.handle(func(context.Context, rpc.Request) ([]byte, error) { return make([]byte, rpc.DefaultMaxBytes), nil })
		_, err = c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do"})
		require.True(t, mxerr.Is(err, mxerr.Unknown), "an answer that cannot be carried is an error at once: %v", err)
	})
}

func TestAFullServerIsAskedAgain(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n, c := f.node(t, func(c *rpc.ServerConfig) { c.MaxConcurrent = 1 }), f.client(t)
	open(t, f, n, 2)
	var running, most, calls atomic.Int64
	n.handle(func(context.Context, rpc.Request) ([]byte, error) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		calls.Add(1)
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // stands for work
		return nil, nil
	})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := c.Call(ctxFor(t, patient), rpc.Request{Shard: 2, Method: "do"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, most.Load())
	require.EqualValues(t, 10, calls.Load())
}

func TestWhatIsForgedIsRefused(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.node(t)
	open(t, f, n, 2)
	var calls atomic.Int64
	n.handle(func(context.Context, rpc.Request) ([]byte, error) { calls.Add(1); return nil, nil })

	// What a true client sends, for whoever listens on the way.
	var heard http.Header
	var body []byte
	tap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard, body = r.Header.Clone(), must(io.ReadAll(r.Body))
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer tap.Close()
	f.hold(t, 2, &node{address: strings.TrimPrefix(tap.URL, "http://")})
	c := f.client(t, func(c *rpc.ClientConfig) { c.Bus = nil })
	_, err := c.Call(ctxFor(t, 300*time.Millisecond), rpc.Request{Shard: 2, Method: "do", Payload: []byte("true")})
	require.ErrorIs(t, err, rpc.ErrUnavailable)

	post := func(h http.Header, body []byte) int {
		req := must(http.NewRequest(http.MethodPost, "http://"+n.address+rpc.Path, bytes.NewReader(body)))
		req.Header = h
		resp := must(http.DefaultClient.Do(req))
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	defer http.DefaultClient.CloseIdleConnections()
	with := func(name, value string) http.Header {
		h := heard.Clone()
		h.Set(name, value)
		return h
	}
	require.Equal(t, 403, post(http.Header{}, body), "unsigned")
	require.Equal(t, 403, post(heard, append(bytes.Clone(body), 0)), "another body")
	require.Equal(t, 403, post(with("X-Heddle-Nonce", strings.Repeat("0", 32)), body), "another nonce")
	require.Equal(t, 403, post(with("X-Heddle-Auth", strings.Repeat("00", 32)), body), "another signature")
	require.Equal(t, 403, post(with("X-Heddle-Auth", "zz"), body), "no signature")
	require.Equal(t, 413, post(heard, make([]byte, rpc.DefaultMaxBytes+1)))
	require.Zero(t, calls.Load())
	require.Equal(t, 200, post(heard, body), "the true one, to show that the others failed for the right reason")
	require.EqualValues(t, 1, calls.Load())

	// A worker with another secret is no worker of ours, and neither is who answers in its name.
	f.hold(t, 2, n)
	stranger := f.client(t, func(c *rpc.ClientConfig) { c.Bus, c.Secret = nil, []byte("other") })
	_, err = stranger.Call(ctxFor(t, 200*time.Millisecond), rpc.Request{Shard: 2, Method: "do"})
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	forger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte{8, 1}) // "ok"
	}))
	defer forger.Close()
	f.hold(t, 2, &node{address: strings.TrimPrefix(forger.URL, "http://")})
	fresh := f.client(t, func(c *rpc.ClientConfig) { c.Bus = nil })
	_, err = fresh.Call(ctxFor(t, 2*time.Second), rpc.Request{Shard: 2, Method: "do"})
	require.ErrorIs(t, err, rpc.ErrUnavailable)
	require.ErrorContains(t, err, "not signed")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestTheShortCutStaysInTheProcess(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	n := f.node(t)
	other := f.node(t)
	c := f.client(t)
	open(t, f, n, 2)
	open(t, f, other, 3)
	f.nats.Stop() // so that what leaves the process is a post
	r := rpc.NewRouter(n.Server, c, true)
	req := rpc.Request{Shard: 2, Method: "do", Key: []byte("k"), Payload: []byte("x")}
	require.True(t, r.Local(req))
	got, err := r.Call(ctxFor(t, patient), req)
	require.NoError(t, err)
	require.Equal(t, "echo x", string(got))
	require.Zero(t, n.posts.Load())

	got, err = r.Call(ctxFor(t, patient), rpc.Request{Shard: 3, Method: "do"})
	require.NoError(t, err)
	require.Equal(t, "echo ", string(got))
	require.EqualValues(t, 1, other.posts.Load(), "another's shard")

	off := rpc.NewRouter(n.Server, c, false)
	require.False(t, off.Local(req))
	_, err = off.Call(ctxFor(t, patient), req)
	require.NoError(t, err)
	require.EqualValues(t, 1, n.posts.Load(), "over the wire to itself")

	// The shard leaves while the request is under way: it is followed, with its key.
	var key string
	other.handle(func(_ context.Context, r rpc.Request) ([]byte, error) { key = string(r.Key); return nil, nil })
	moved := false
	n.handle(func(context.Context, rpc.Request) ([]byte, error) {
		if !moved {
			open(t, f, other, 2)
			moved = true
		}
		return nil, rpc.ErrNotOwner
	})
	_, err = r.Call(ctxFor(t, patient), req)
	require.NoError(t, err)
	require.Equal(t, "k", key)
}

func BenchmarkCall(b *testing.B) {
	srv := embedded.NewServer(embedded.Config{Scratch: b.TempDir()})
	require.NoError(b, srv.Start(context.Background()))
	defer func() { _ = srv.Stop(context.Background()) }()
	connect := func() *bus.Bus {
		return must(bus.Connect(context.Background(), bus.Config{}, bus.Options{Server: srv}))
	}
	sb, cb := connect(), connect()
	defer sb.Close()
	defer cb.Close()
	s := rpc.NewServer(rpc.ServerConfig{Bus: sb, Secret: secret, Handlers: map[string]rpc.Handler{"do": echo}})
	require.NoError(b, s.Open(context.Background(), 1))
	defer s.Close(context.Background(), 1)
	c := rpc.NewClient(rpc.ClientConfig{Bus: cb, Secret: secret})
	req := rpc.Request{Shard: 1, Method: "do", Key: []byte("0123456789abcdef"), Payload: make([]byte, 900)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Call(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
}
