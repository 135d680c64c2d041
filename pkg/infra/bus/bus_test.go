package bus_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/infra/bus/embedded"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func logStream() bus.Stream {
	return bus.Stream{Name: "LOG", Subjects: []string{"log.>"}, MaxAge: time.Minute, MaxBytes: 16 << 20, Memory: true}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// await waits for a value, or fails at the context's end.
func await[T any](t *testing.T, ctx context.Context, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-ctx.Done():
		require.FailNow(t, "nothing came")
		panic("unreachable")
	}
}

// onBoth runs a test on an in-process server and on one that listens.
func onBoth(t *testing.T, test func(t *testing.T, s *bustest.Server)) {
	t.Run("in process", func(t *testing.T) { test(t, bustest.New(t)) })
	t.Run("listening", func(t *testing.T) { test(t, bustest.Listen(t)) })
}

func TestRequestReply(t *testing.T) {
	onBoth(t, func(t *testing.T, s *bustest.Server) {
		ctx := testContext(t)
		server, client := s.Connect(), s.Connect()
		sub, err := server.Subscribe(ctx, "rpc.*.echo", func(in *bus.Incoming) {
			require.True(t, in.WantsReply())
			require.NoError(t, in.Respond(in.Data, bus.Header{"Subject": {in.Subject}, "Key": in.Header["Key"]}))
		})
		require.NoError(t, err)
		r, err := client.Request(ctx, bus.Message{Subject: "rpc.7.echo", Data: []byte("hello"), Header: bus.Header{"Key": {"v"}}})
		require.NoError(t, err)
		require.Equal(t, "hello", string(r.Data))
		require.Equal(t, "rpc.7.echo", r.Header.Get("Subject"))
		require.Equal(t, "v", r.Header.Get("Key"))

		sub.Stop()
		sub.Stop()
		_, err = client.Request(ctx, bus.Message{Subject: "rpc.7.echo"})
		require.ErrorIs(t, err, bus.ErrNoResponders)
	})
}

func TestRequestHonoursContext(t *testing.T) {
	ctx := testContext(t)
	b := bustest.New(t).Connect()
	got := make(chan struct{}, 1)
	sub, err := b.Subscribe(ctx, "silent", func(*bus.Incoming) { got <- struct{}{} })
	require.NoError(t, err)
	defer sub.Stop()
	rctx, cancel := context.WithCancel(ctx)
	go func() { <-got; cancel() }()
	_, err = b.Request(rctx, bus.Message{Subject: "silent"})
	require.ErrorIs(t, err, context.Canceled)
}

func TestStopWaitsForTheHandler(t *testing.T) {
	ctx := testContext(t)
	b := bustest.New(t).Connect()
	entered, leave, left := make(chan struct{}), make(chan struct{}), false
	sub, err := b.Subscribe(ctx, "s", func(*bus.Incoming) {
		close(entered)
		<-leave
		left = true
	})
	require.NoError(t, err)
	require.NoError(t, b.Publish(bus.Message{Subject: "s"}))
	await(t, ctx, entered)
	go close(leave)
	sub.Stop()
	require.True(t, left)
}

func TestLossFailsWhatIsUnderWayAtOnce(t *testing.T) {
	ctx := testContext(t)
	s := bustest.Listen(t)
	b := s.Connect()
	up, changed := b.Connected()
	require.True(t, up)
	got := make(chan struct{}, 1)
	_, err := b.Subscribe(ctx, "silent", func(*bus.Incoming) { got <- struct{}{} })
	require.NoError(t, err)
	result := make(chan error, 1)
	go func() {
		_, err := b.Request(ctx, bus.Message{Subject: "silent"})
		result <- err
	}()
	await(t, ctx, got)
	s.Stop()
	require.ErrorIs(t, await(t, ctx, result), bus.ErrNotConnected)
	await(t, ctx, changed)

	require.ErrorIs(t, b.Publish(bus.Message{Subject: "x"}), bus.ErrNotConnected)
	_, err = b.Request(ctx, bus.Message{Subject: "x"})
	require.ErrorIs(t, err, bus.ErrNotConnected)
	_, err = b.PublishStream(bus.Message{Subject: "x"})
	require.ErrorIs(t, err, bus.ErrNotConnected)
	require.ErrorIs(t, b.Flush(ctx), bus.ErrNotConnected)

	s.Start()
	require.NoError(t, b.AwaitConnected(ctx))
	// The subscription is there again.
	require.NoError(t, b.Flush(ctx))
	require.NoError(t, b.Publish(bus.Message{Subject: "silent"}))
	await(t, ctx, got)
}

func TestConnectBeforeTheServerIsThere(t *testing.T) {
	ctx := testContext(t)
	s := bustest.Listen(t)
	s.Stop()
	b := s.Connect(logStream())
	up, _ := b.Connected()
	require.False(t, up)
	got := make(chan bus.StreamMessage, 1)
	c := b.Consume(bus.ConsumerConfig{Stream: "LOG", Handle: func(m bus.StreamMessage) { got <- m }})
	defer c.Stop()
	sub := make(chan struct{}, 1)
	_, err := b.Subscribe(ctx, "early", func(*bus.Incoming) { sub <- struct{}{} })
	require.NoError(t, err)

	s.Start()
	await(t, ctx, c.Ready())
	require.NoError(t, b.Publish(bus.Message{Subject: "early"}))
	await(t, ctx, sub)
	require.NoError(t, b.PublishBatch(ctx, []bus.Message{{Subject: "log.1", Data: []byte("a")}}))
	require.Equal(t, "a", string(await(t, ctx, got).Data))
}

func TestStreamInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, s *bustest.Server) {
		ctx := testContext(t)
		b := s.Connect(logStream())
		require.NoError(t, b.PublishBatch(ctx, []bus.Message{{Subject: "log.0", Data: []byte("before")}}))
		got := make(chan bus.StreamMessage, 1000)
		restarts := make(chan error, 10)
		c := b.Consume(bus.ConsumerConfig{
			Stream: "LOG", Subjects: []string{"log.>"},
			Handle:    func(m bus.StreamMessage) { got <- m },
			Restarted: func(err error) { restarts <- err },
		})
		defer c.Stop()
		await(t, ctx, c.Ready())
		require.NoError(t, await(t, ctx, restarts))
		var msgs []bus.Message
		for i := range 500 {
			msgs = append(msgs, bus.Message{Subject: fmt.Sprintf("log.%d", i%16), Data: fmt.Append(nil, i)})
		}
		require.NoError(t, b.PublishBatch(ctx, msgs))
		for i := range 500 {
			m := await(t, ctx, got)
			require.Equal(t, fmt.Sprint(i), string(m.Data))
			require.Equal(t, fmt.Sprintf("log.%d", i%16), m.Subject)
			require.EqualValues(t, i+2, m.Seq)
		}
	})
}

func TestStreamSurvivesALostServer(t *testing.T) {
	onBoth(t, func(t *testing.T, s *bustest.Server) {
		ctx := testContext(t)
		b := s.Connect(logStream())
		got := make(chan bus.StreamMessage, 100)
		restarts := make(chan error, 10)
		c := b.Consume(bus.ConsumerConfig{
			Stream: "LOG", Handle: func(m bus.StreamMessage) { got <- m },
			Restarted: func(err error) { restarts <- err },
		})
		defer c.Stop()
		await(t, ctx, c.Ready())
		require.NoError(t, await(t, ctx, restarts))
		require.NoError(t, b.PublishBatch(ctx, []bus.Message{{Subject: "log.1", Data: []byte("a")}}))
		require.Equal(t, "a", string(await(t, ctx, got).Data))

		s.Stop() // and all streams with it
		s.Start()
		publish := func(data string) {
			require.Eventually(t, func() bool {
				a, err := b.PublishStream(bus.Message{Subject: "log.1", Data: []byte(data)})
				if err != nil {
					return false
				}
				_, err = a.Wait(ctx)
				return err == nil
			}, 20*time.Second, 5*time.Millisecond)
		}
		publish("b")
		m := await(t, ctx, got)
		require.Equal(t, "b", string(m.Data))
		require.EqualValues(t, 1, m.Seq, "the numbers begin again")
		require.Error(t, await(t, ctx, restarts))
		publish("c")
		require.Equal(t, "c", string(await(t, ctx, got).Data))
	})
}

func TestStreamIsMadeAgain(t *testing.T) {
	ctx := testContext(t)
	s := bustest.New(t)
	b := s.Connect(logStream())
	other := s.Connect()
	_, err := other.Request(ctx, bus.Message{Subject: "$JS.API.STREAM.DELETE.LOG"})
	require.NoError(t, err)
	a, err := b.PublishStream(bus.Message{Subject: "log.1"})
	require.NoError(t, err)
	_, err = a.Wait(ctx)
	require.ErrorIs(t, err, bus.ErrNoStream)
	require.Eventually(t, func() bool {
		return b.PublishBatch(ctx, []bus.Message{{Subject: "log.1"}}) == nil
	}, 20*time.Second, 5*time.Millisecond)
}

func TestConsumerOfADeletedConsumerGoesOn(t *testing.T) {
	ctx := testContext(t)
	s := bustest.New(t)
	b := s.Connect(logStream())
	got := make(chan bus.StreamMessage, 100)
	restarts := make(chan error, 10)
	c := b.Consume(bus.ConsumerConfig{
		Stream: "LOG", Handle: func(m bus.StreamMessage) { got <- m },
		Restarted: func(err error) { restarts <- err },
	})
	defer c.Stop()
	require.NoError(t, await(t, ctx, restarts))
	require.NoError(t, b.PublishBatch(ctx, []bus.Message{{Subject: "log.1", Data: []byte("1")}}))
	require.EqualValues(t, 1, await(t, ctx, got).Seq)

	r, err := b.Request(ctx, bus.Message{Subject: "$JS.API.CONSUMER.NAMES.LOG"})
	require.NoError(t, err)
	name := consumerName(t, r.Data)
	_, err = b.Request(ctx, bus.Message{Subject: "$JS.API.CONSUMER.DELETE.LOG." + name})
	require.NoError(t, err)
	require.NoError(t, b.PublishBatch(ctx, []bus.Message{{Subject: "log.1", Data: []byte("2")}}))
	m := await(t, ctx, got)
	require.Equal(t, "2", string(m.Data))
	require.EqualValues(t, 2, m.Seq, "it goes on where it was")
	require.Error(t, await(t, ctx, restarts))
}

func TestAckTimesOut(t *testing.T) {
	ctx := testContext(t)
	s := bustest.New(t)
	b, err := bus.Connect(ctx, bus.Config{AckTimeout: 20 * time.Millisecond}, bus.Options{Server: s.Server})
	require.NoError(t, err)
	defer b.Close()
	// Somebody takes the message and does not acknowledge it.
	sub, err := b.Subscribe(ctx, "log.1", func(*bus.Incoming) {})
	require.NoError(t, err)
	defer sub.Stop()
	a, err := b.PublishStream(bus.Message{Subject: "log.1"})
	require.NoError(t, err)
	_, err = a.Wait(ctx)
	require.Error(t, err)
	require.NoError(t, ctx.Err())

	a, err = b.PublishStream(bus.Message{Subject: "log.1"})
	require.NoError(t, err)
	done, cancel := context.WithCancel(ctx)
	cancel()
	_, err = a.Wait(done)
	require.ErrorIs(t, err, context.Canceled)
}

func TestConfigValidate(t *testing.T) {
	for url, want := range map[string]string{
		"nats://127.0.0.1:4222":       "",
		"nats://a:4222, tls://b:4222": "",
		"":                            "url: must be set",
		"http://a":                    "scheme",
		"nats://":                     "no host",
		"nats://a:secret@%zz":         "not a URL",
	} {
		err := bus.Config{URL: url}.Validate()
		if want == "" {
			require.NoError(t, err, url)
			continue
		}
		require.ErrorContains(t, err, want, url)
		require.NotContains(t, err.Error(), "secret")
	}
}

// secured starts a NATS server that speaks TLS only and lets in who has a certificate of ca and the password.
func secured(t *testing.T, ca *certtest.Authority) string {
	t.Helper()
	c := ca.TLS("127.0.0.1")
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, JetStream: true, StoreDir: t.TempDir(), NoSystemAccount: true,
		TLSConfig: c, TLSTimeout: 5, Username: "heddle", Password: "secret",
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(10*time.Second))
	return s.Addr().String()
}

// reasons passes on the errors that are logged.
type reasons struct {
	slog.Handler
	why chan string
}

func (reasons) Enabled(context.Context, slog.Level) bool { return true }

func (r reasons) Handle(_ context.Context, rec slog.Record) error {
	rec.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" {
			r.why <- rec.Message + ": " + a.Value.String()
		}
		return true
	})
	return nil
}

func TestTLS(t *testing.T) {
	ctx := testContext(t)
	ca, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	addr := secured(t, ca)
	cert, key := ca.Certificate("worker")
	foreignCert, foreignKey := other.Certificate("worker")
	for name, c := range map[string]struct {
		cfg bus.Config
		why string // empty: it connects
	}{
		"tls://":                        {bus.Config{URL: "tls://heddle:secret@" + addr, CAFile: ca.File, CertFile: cert, KeyFile: key}, ""},
		"nats:// with an authority":     {bus.Config{URL: "nats://heddle:secret@" + addr, CAFile: ca.File, CertFile: cert, KeyFile: key}, ""},
		"another authority's server":    {bus.Config{URL: "tls://heddle:secret@" + addr, CAFile: other.File, CertFile: cert, KeyFile: key}, "unknown authority"},
		"an authority nobody knows":     {bus.Config{URL: "tls://heddle:secret@" + addr, CertFile: cert, KeyFile: key}, "unknown authority"},
		"no certificate":                {bus.Config{URL: "tls://heddle:secret@" + addr, CAFile: ca.File}, "tls"},
		"another authority's worker":    {bus.Config{URL: "tls://heddle:secret@" + addr, CAFile: ca.File, CertFile: foreignCert, KeyFile: foreignKey}, "tls"},
		"a certificate but no password": {bus.Config{URL: "tls://" + addr, CAFile: ca.File, CertFile: cert, KeyFile: key}, "Authorization"},
	} {
		t.Run(name, func(t *testing.T) {
			why := make(chan string, 100)
			b, err := bus.Connect(ctx, c.cfg, bus.Options{
				Streams: []bus.Stream{logStream()}, Logger: slog.New(reasons{slog.DiscardHandler, why}),
			})
			require.NoError(t, err, "NATS being away is no error")
			defer b.Close()
			if c.why != "" {
				reason := await(t, ctx, why)
				require.Contains(t, reason, c.why)
				require.NotContains(t, reason, "secret")
				up, _ := b.Connected()
				require.False(t, up)
				return
			}
			up, changed := b.Connected()
			for !up {
				await(t, ctx, changed)
				up, changed = b.Connected()
			}
			require.NoError(t, b.PublishBatch(ctx, []bus.Message{{Subject: "log.1", Data: []byte("a")}}))
		})
	}
	_, err := bus.Connect(ctx, bus.Config{URL: "tls://" + addr, CertFile: cert}, bus.Options{})
	require.ErrorContains(t, err, "nats.cert_file")
	_, err = bus.Connect(ctx, bus.Config{URL: "tls://" + addr, CAFile: "/nowhere"}, bus.Options{})
	require.ErrorContains(t, err, "/nowhere", "what cannot be read is a mistake of the configuration")
	_, err = bus.Connect(ctx, bus.Config{URL: "tls://" + addr, CertFile: key, KeyFile: cert}, bus.Options{})
	require.Error(t, err)
}

func TestHeaderCarriesTraceContext(t *testing.T) {
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	h := bus.Header{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), h)
	require.Equal(t, []string{"Traceparent"}, h.Keys())
	out := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), h))
	require.Equal(t, sc.TraceID(), out.TraceID())
	require.Equal(t, sc.SpanID(), out.SpanID())
}

func TestMetricsAreTakenBack(t *testing.T) {
	s := bustest.New(t)
	reg := prometheus.NewRegistry()
	for range 2 {
		b, err := bus.Connect(testContext(t), bus.Config{}, bus.Options{Server: s.Server, Registerer: reg})
		require.NoError(t, err)
		families, err := reg.Gather()
		require.NoError(t, err)
		require.NotEmpty(t, families)
		b.Close()
		b.Close()
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}

func TestServerKeepsFileStreams(t *testing.T) {
	ctx := testContext(t)
	srv := embedded.NewServer(embedded.Config{StoreDir: t.TempDir()})
	stream := bus.Stream{Name: "KEPT", Subjects: []string{"kept"}}
	for want := uint64(1); want <= 2; want++ {
		require.NoError(t, srv.Start(ctx))
		require.Error(t, srv.Start(ctx))
		b, err := bus.Connect(ctx, bus.Config{}, bus.Options{Server: srv, Streams: []bus.Stream{stream}})
		require.NoError(t, err)
		a, err := b.PublishStream(bus.Message{Subject: "kept"})
		require.NoError(t, err)
		seq, err := a.Wait(ctx)
		require.NoError(t, err)
		require.Equal(t, want, seq)
		b.Close()
		require.NoError(t, srv.Stop(ctx))
		require.NoError(t, srv.Stop(ctx))
	}
}

func consumerName(t *testing.T, reply []byte) string {
	var names struct{ Consumers []string }
	require.NoError(t, json.Unmarshal(reply, &names))
	require.Len(t, names.Consumers, 1)
	return names.Consumers[0]
}

func BenchmarkPublishBatch(b *testing.B) {
	s := bustest.New(b)
	c := s.Connect(logStream())
	msgs := make([]bus.Message, 16)
	for i := range msgs {
		msgs[i] = bus.Message{Subject: fmt.Sprintf("log.%d", i), Data: make([]byte, 1024)}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.PublishBatch(context.Background(), msgs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	s := bustest.New(b)
	server, client := s.Connect(), s.Connect()
	_, err := server.Subscribe(context.Background(), "echo", func(in *bus.Incoming) { _ = in.Respond(in.Data, nil) })
	require.NoError(b, err)
	m := bus.Message{Subject: "echo", Data: make([]byte, 512)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Request(context.Background(), m); err != nil {
			b.Fatal(err)
		}
	}
}
