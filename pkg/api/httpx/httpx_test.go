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
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type forwarded struct{ rows []string }

func (f *forwarded) Forward(w http.ResponseWriter, _ *http.Request, row *route.Row) error {
	f.rows = append(f.rows, row.Name)
	return WriteEmpty(w)
}

func newRouter(t testing.TB, o Options) *Router {
	t.Helper()
	if o.Kinds == nil {
		o.Kinds = route.Kinds()
	}
	rt, err := New(o)
	require.NoError(t, err)
	return rt
}

func do(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, rd))
	return w
}

func requireError(t *testing.T, w *httptest.ResponseRecorder, status int, code mxerr.Code) {
	t.Helper()
	require.Equal(t, status, w.Code, w.Body.String())
	var e struct {
		Errcode string `json:"errcode"`
		Error   string `json:"error"`
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e))
	require.Equal(t, string(code), e.Errcode)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	require.NotEmpty(t, w.Header().Get("X-Request-Id"))
}

func ok(w http.ResponseWriter, _ *http.Request) error { return WriteEmpty(w) }

func TestEveryRowReachesItsHandler(t *testing.T) {
	got := ""
	hs := Handlers{}
	for _, r := range route.Table() {
		hs[r.Name] = func(w http.ResponseWriter, _ *http.Request) error {
			got = r.Name
			return WriteEmpty(w)
		}
	}
	rt := newRouter(t, Options{Handlers: hs})
	require.Empty(t, rt.Unimplemented())
	for _, r := range route.Table() {
		for _, p := range r.Paths {
			path := route.Fill(p, func(string) string { return "x%2Fy" })
			for _, m := range r.Methods {
				got = ""
				require.Equal(t, 200, do(rt, m, path, "").Code)
				require.Equal(t, r.Name, got, "%s %s", m, path)
			}
			requireError(t, do(rt, "PATCH", path, ""), 405, mxerr.Unrecognized)
		}
	}
}

// TestMuxAgrees: the index finds what mux's own matching of the same table finds.
func TestMuxAgrees(t *testing.T) {
	m := mux.NewRouter().UseEncodedPath().SkipClean(true)
	rows := route.Table()
	// mux takes the first match: literal before variable.
	slices.SortStableFunc(rows, func(a, b route.Row) int {
		return strings.Count(a.Paths[0], "{")*10 + strings.Count(a.Paths[0], "...") - strings.Count(b.Paths[0], "{")*10 - strings.Count(b.Paths[0], "...")
	})
	for _, r := range rows {
		for _, p := range r.Paths {
			m.NewRoute().Path(strings.ReplaceAll(p, "...}", ":.*}")).Methods(r.Methods...).Name(r.Name + " " + p).Handler(http.NotFoundHandler())
		}
	}
	rt := newRouter(t, Options{Handlers: Handlers{}})
	for _, r := range rows {
		for _, p := range r.Paths {
			req := httptest.NewRequest(r.Methods[0], route.Fill(p, func(n string) string { return "a%2F" + n }), nil)
			var theirs, ours mux.RouteMatch
			require.True(t, m.Match(req, &theirs))
			require.True(t, rt.mux.Match(req, &ours))
			a, err := theirs.Route.GetPathTemplate()
			require.NoError(t, err)
			b := rt.index.Lookup(req.Method, req.URL.EscapedPath()).Pattern
			require.Equal(t, a, strings.ReplaceAll(b, "...}", ":.*}"))
			require.Equal(t, theirs.Route.GetName(), r.Name+" "+p)
			for k := range theirs.Vars { // theirs are still encoded
				require.Equal(t, "a/"+k, ours.Vars[k])
			}
			require.Len(t, ours.Vars, len(theirs.Vars))
		}
	}
}

func TestPathVariablesAreDecoded(t *testing.T) {
	var room, typ string
	rt := newRouter(t, Options{Handlers: Handlers{"sendMessage": func(w http.ResponseWriter, r *http.Request) error {
		room, typ = Var(r, "roomId"), Var(r, "eventType")
		return WriteEmpty(w)
	}}})
	require.Equal(t, 200, do(rt, "PUT", "/_matrix/client/v3/rooms/%21a%2Fb:c/send/m%20x/1", "").Code)
	require.Equal(t, "!a/b:c", room)
	require.Equal(t, "m x", typ)
	requireError(t, do(rt, "PUT", "/_matrix/client/v3/rooms/!a%ff:c/send/m/1", ""), 400, mxerr.InvalidParam)
}

func TestUnknownAndUnimplemented(t *testing.T) {
	rt := newRouter(t, Options{Handlers: Handlers{"sync": ok}})
	requireError(t, do(rt, "GET", "/", ""), 404, mxerr.Unrecognized)
	requireError(t, do(rt, "GET", "/_matrix/client/v3/rooms//state", ""), 404, mxerr.Unrecognized)
	requireError(t, do(rt, "GET", "/_matrix/client/v3/joined_rooms", ""), 404, mxerr.Unrecognized)
	w := do(rt, "DELETE", "/_matrix/client/v3/sync", "")
	requireError(t, w, 405, mxerr.Unrecognized)
	require.Equal(t, "GET, OPTIONS", w.Header().Get("Allow"))
	un := rt.Unimplemented()
	require.Contains(t, un, "getJoinedRooms")
	require.NotContains(t, un, "sync")
	require.Len(t, un, len(route.Table())-1)
}

func TestOptionsReachesNoHandler(t *testing.T) {
	rt := newRouter(t, Options{Handlers: Handlers{"sync": func(http.ResponseWriter, *http.Request) error { panic("called") }}})
	for _, p := range []string{"/_matrix/client/v3/sync", "/other"} {
		w := do(rt, "OPTIONS", p, "")
		require.Equal(t, 204, w.Code)
		require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
		require.Contains(t, w.Header().Get("Access-Control-Allow-Methods"), "DELETE")
		require.Contains(t, w.Header().Get("Access-Control-Allow-Headers"), "Authorization")
	}
}

func TestOtherKindsAreForwarded(t *testing.T) {
	f := &forwarded{}
	rt := newRouter(t, Options{Kinds: []route.Kind{route.Synchrotron}, Handlers: Handlers{"sync": ok}, Forwarder: f})
	do(rt, "GET", "/_matrix/client/v3/sync", "")
	do(rt, "PUT", "/_matrix/client/v3/rooms/!a:b/send/m/1", "{}")
	do(rt, "PUT", "/_matrix/federation/v1/send/1", "{}")
	require.Equal(t, []string{"sendMessage", "federation.sendTransaction"}, f.rows)
	require.NotContains(t, rt.Unimplemented(), "sendMessage")
	requireError(t, do(rt, "DELETE", "/_matrix/client/v3/rooms/!a:b/send/m/1", ""), 405, mxerr.Unrecognized)
}

func TestNewRefusesHandlersThatFitNowhere(t *testing.T) {
	_, err := New(Options{Kinds: route.Kinds(), Handlers: Handlers{"nonsense": ok}})
	require.ErrorContains(t, err, "nonsense")
	_, err = New(Options{Kinds: []route.Kind{route.Master}, Handlers: Handlers{"sync": ok}, Forwarder: &forwarded{}})
	require.ErrorContains(t, err, "synchrotron")
	_, err = New(Options{Kinds: []route.Kind{route.Master}})
	require.ErrorContains(t, err, "forwarder")
}

func TestBodyLimits(t *testing.T) {
	read := func(w http.ResponseWriter, r *http.Request) error {
		b, err := ReadBody(r)
		if err != nil {
			return err
		}
		return WriteJSON(w, 200, map[string]int{"n": len(b)})
	}
	reg := prometheus.NewRegistry()
	rt := newRouter(t, Options{Handlers: Handlers{"sendMessage": read, "uploadContent": read}, MaxUpload: 1000, Registerer: reg})
	send := "/_matrix/client/v3/rooms/!a:b/send/m/1"
	body := strings.Repeat("x", int(route.BodyEvent))
	require.Equal(t, 200, do(rt, "PUT", send, body).Code)
	requireError(t, do(rt, "PUT", send, body+"x"), 413, mxerr.TooLarge)
	requireError(t, do(rt, "POST", "/_matrix/media/v3/upload", strings.Repeat("x", 1001)), 413, mxerr.TooLarge)
	// without a length that says so beforehand
	req := httptest.NewRequest(http.MethodPut, send, io.MultiReader(strings.NewReader(body), strings.NewReader("x")))
	req.ContentLength = -1
	w := httptest.NewRecorder()
	rt.ServeHTTP(w, req)
	requireError(t, w, 413, mxerr.TooLarge)
	require.Equal(t, map[string]float64{
		"heddle_http_requests_total sendMessage 200":         1,
		"heddle_http_requests_total sendMessage 413":         2,
		"heddle_http_requests_total uploadContent 200":       0,
		"heddle_http_requests_total uploadContent 413":       1,
		"heddle_http_requests_in_flight sendMessage":         0,
		"heddle_http_requests_in_flight uploadContent":       0,
		"heddle_http_received_bytes_total sendMessage":       float64(2 * route.BodyEvent),
		"heddle_http_received_bytes_total uploadContent":     0,
		"heddle_http_request_duration_seconds sendMessage":   3,
		"heddle_http_request_duration_seconds uploadContent": 1,
	}, gather(t, reg, "heddle_http_sent_bytes_total"))
}

// gather gives each series by name and label values; of a histogram, its count.
func gather(t *testing.T, reg *prometheus.Registry, except ...string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		if slices.Contains(except, f.GetName()) {
			continue
		}
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			out[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestErrorsKeepTheirCauseInTheLog(t *testing.T) {
	var log bytes.Buffer
	rt := newRouter(t, Options{Log: telemetry.NewLogger(&log, telemetry.LogConfig{}), Handlers: Handlers{
		"sync":           func(http.ResponseWriter, *http.Request) error { return errors.New("secret cause") },
		"getJoinedRooms": func(http.ResponseWriter, *http.Request) error { panic("secret panic") },
		"getDevices": func(http.ResponseWriter, *http.Request) error {
			return fmt.Errorf("list: %w", mxerr.New(mxerr.Forbidden, "No.").WithCause(errors.New("secret")))
		},
		"getPushers":      func(http.ResponseWriter, *http.Request) error { return context.DeadlineExceeded },
		"getCapabilities": func(http.ResponseWriter, *http.Request) error { return mxerr.Limited(1500) },
		"getVersions":     func(http.ResponseWriter, *http.Request) error { return mxerr.Unavailable("Later.", 0) },
	}})
	w := do(rt, "GET", "/_matrix/client/v3/sync", "")
	requireError(t, w, 500, mxerr.Unknown)
	require.NotContains(t, w.Body.String(), "secret")
	require.Contains(t, log.String(), "secret cause")
	require.Contains(t, log.String(), w.Header().Get("X-Request-Id"))

	w = do(rt, "GET", "/_matrix/client/v3/joined_rooms", "")
	requireError(t, w, 500, mxerr.Unknown)
	require.NotContains(t, w.Body.String(), "secret")
	require.Contains(t, log.String(), "secret panic")
	require.Contains(t, log.String(), "httpx_test.go", "the log has the stack")

	w = do(rt, "GET", "/_matrix/client/v3/devices", "")
	requireError(t, w, 403, mxerr.Forbidden)
	require.NotContains(t, w.Body.String(), "secret")
	requireError(t, do(rt, "GET", "/_matrix/client/v3/pushers", ""), 504, mxerr.Unknown)
	w = do(rt, "GET", "/_matrix/client/v3/capabilities", "")
	requireError(t, w, 429, mxerr.LimitExceeded)
	require.Equal(t, "2", w.Header().Get("Retry-After"))
	w = do(rt, "GET", "/_matrix/client/versions", "")
	requireError(t, w, 503, mxerr.Unknown)
	require.NotEmpty(t, w.Header().Get("Retry-After"))
}

// While memory is short, requests are turned away before their handlers run, and asked to come back at different times.
func TestRequestsAreTurnedAwayWhileMemoryIsShort(t *testing.T) {
	p := cache.NewPressure(1, nil) // no process lives on a byte
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { p.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	require.Eventually(t, func() bool { return p.Enter() != nil }, 10*time.Second, time.Millisecond)
	rt := newRouter(t, Options{Pressure: p, Handlers: Handlers{
		"sync": func(http.ResponseWriter, *http.Request) error { t.Error("called"); return nil },
	}})
	after := map[string]bool{}
	for range 50 {
		w := do(rt, "GET", "/_matrix/client/v3/sync", "")
		requireError(t, w, 503, mxerr.LimitExceeded)
		seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
		require.NoError(t, err)
		require.True(t, seconds >= 2 && seconds <= 10, seconds)
		require.Contains(t, w.Body.String(), "retry_after_ms")
		require.Equal(t, "close", w.Header().Get("Connection"))
		after[w.Header().Get("Retry-After")] = true
	}
	require.Greater(t, len(after), 2)
}

func TestFailureAfterTheAnswerBeganCutsItShort(t *testing.T) {
	begin := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
	}
	rt := newRouter(t, Options{Handlers: Handlers{
		"sync":           func(w http.ResponseWriter, _ *http.Request) error { begin(w); return errors.New("x") },
		"getJoinedRooms": func(w http.ResponseWriter, _ *http.Request) error { begin(w); panic("x") },
	}})
	s := httptest.NewServer(rt)
	defer s.Close()
	for _, p := range []string{"/_matrix/client/v3/sync", "/_matrix/client/v3/joined_rooms"} {
		resp, err := s.Client().Get(s.URL + p)
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		require.Error(t, err, "the client sees that it is cut short")
		require.NoError(t, resp.Body.Close())
	}
}

func TestRequestID(t *testing.T) {
	rt := newRouter(t, Options{})
	get := func(id string) string {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("X-Request-Id", id)
		w := httptest.NewRecorder()
		rt.ServeHTTP(w, r)
		return w.Header().Get("X-Request-Id")
	}
	require.Equal(t, "abc-1_Z", get("abc-1_Z"))
	for _, bad := range []string{"", "a b", "a\"b", strings.Repeat("a", 65)} {
		require.Regexp(t, "^[0-9a-f]{16}$", get(bad))
	}
	first := get("")
	require.NotEqual(t, first, get(""))
}

func TestWrapSeesTheRow(t *testing.T) {
	var seen []string
	rt := newRouter(t, Options{
		Kinds: []route.Kind{route.Synchrotron}, Forwarder: &forwarded{}, Handlers: Handlers{"sync": ok},
		Wrap: func(row *route.Row, h Handler) Handler {
			return func(w http.ResponseWriter, r *http.Request) error {
				seen = append(seen, row.Name+" "+string(row.Auth))
				return h(w, r)
			}
		},
	})
	do(rt, "GET", "/_matrix/client/v3/sync", "")
	do(rt, "GET", "/_matrix/client/v3/joined_rooms", "")
	do(rt, "POST", "/_matrix/client/v3/createRoom", "")
	require.Equal(t, []string{"sync guest"}, seen)
}

func TestTimeLimits(t *testing.T) {
	var has [2]bool
	at := func(i int) Handler {
		return func(w http.ResponseWriter, r *http.Request) error {
			_, has[i] = r.Context().Deadline()
			return WriteEmpty(w)
		}
	}
	rt := newRouter(t, Options{Handlers: Handlers{"sync": at(0), "getJoinedRooms": at(1)}})
	do(rt, "GET", "/_matrix/client/v3/sync", "")
	do(rt, "GET", "/_matrix/client/v3/joined_rooms", "")
	require.Equal(t, [2]bool{false, true}, has)
}

// TestSlowBody: a client that stops in its body is cut off, and a handler that works longer than a body may take is not.
func TestSlowBody(t *testing.T) {
	release := make(chan struct{})
	errs := make(chan error, 1)
	rt := newRouter(t, Options{BodyTime: 50 * time.Millisecond, Handlers: Handlers{
		"login": func(_ http.ResponseWriter, r *http.Request) error {
			_, err := ReadBody(r)
			errs <- err
			return err
		},
		"logout": func(w http.ResponseWriter, r *http.Request) error {
			if _, err := ReadBody(r); err != nil {
				return err
			}
			select {
			case <-release:
				return WriteEmpty(w)
			case <-r.Context().Done():
				return r.Context().Err()
			}
		},
	}})
	s := httptest.NewServer(rt)
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
	require.NoError(t, err)
	require.True(t, mxerr.Is(<-errs, mxerr.Unknown))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
	require.NoError(t, resp.Body.Close())

	time.AfterFunc(300*time.Millisecond, func() { close(release) }) // six times what a body may take
	resp, err = s.Client().Post(s.URL+"/_matrix/client/v3/logout", "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	require.Equal(t, 200, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
}

func TestTraces(t *testing.T) {
	rec := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
	rt := newRouter(t, Options{
		TracerProvider: tp, Propagator: propagation.TraceContext{}, Handlers: Handlers{"getRoomState": ok},
		Internal: func(r *http.Request) bool { return r.Header.Get("X-Trusted") != "" },
	})
	const parent = "4bf92f3577b34da6a3ce929d0e0e4736"
	for i, trusted := range []string{"", "1"} {
		r := httptest.NewRequest(http.MethodGet, "/_matrix/client/v3/rooms/!secret:x/state", nil)
		r.Header.Set("Traceparent", "00-"+parent+"-00f067aa0ba902b7-01")
		r.Header.Set("X-Trusted", trusted)
		rt.ServeHTTP(httptest.NewRecorder(), r)
		span := rec.Ended()[i]
		require.Equal(t, "GET getRoomState", span.Name())
		require.Equal(t, trusted != "", span.SpanContext().TraceID().String() == parent)
		found := ""
		for _, a := range span.Attributes() {
			if a.Key == "http.route" {
				found = a.Value.AsString()
			}
		}
		require.Equal(t, "/_matrix/client/v3/rooms/{roomId}/state", found)
	}
}

type sample struct {
	A string         `json:"a"`
	N int            `json:"n"`
	R jsontext.Value `json:"r"`
	S struct {
		B []string `json:"b"`
	} `json:"s"`
}

func decode(f func(*http.Request, any) error, body string) (sample, error) {
	var v sample
	err := f(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)), &v)
	return v, err
}

func TestDecode(t *testing.T) {
	v, err := decode(Decode, ` {"a":"é","n":3,"r":{"x":[1.5,null]},"unknown":{"y":1},"s":{"b":["z"]}} `)
	require.NoError(t, err)
	require.Equal(t, "é", v.A)
	require.Equal(t, 3, v.N)
	require.JSONEq(t, `{"x":[1.5,null]}`, string(v.R))
	require.Equal(t, []string{"z"}, v.S.B)

	for body, code := range map[string]mxerr.Code{
		``:                         mxerr.NotJSON,
		`{`:                        mxerr.NotJSON,
		`{"a":}`:                   mxerr.NotJSON,
		`{"a":"x"} x`:              mxerr.NotJSON,
		`{"a":"x",}`:               mxerr.NotJSON,
		`{"a":1,}`:                 mxerr.NotJSON, // also where the type is found wrong first
		`{'a':1}`:                  mxerr.NotJSON,
		"{\"a\":\"\xff\"}":         mxerr.NotJSON,
		"{\"u\":{\"\xff\":1}}":     mxerr.NotJSON,
		`{"a":"\ud800"}`:           mxerr.NotJSON,
		`{"r":NaN}`:                mxerr.NotJSON,
		`null`:                     mxerr.BadJSON,
		`[]`:                       mxerr.BadJSON,
		`"x"`:                      mxerr.BadJSON,
		`{"a":1}`:                  mxerr.BadJSON,
		`{"n":"3"}`:                mxerr.BadJSON,
		`{"n":1.5}`:                mxerr.BadJSON,
		`{"n":1e999}`:              mxerr.BadJSON,
		`{"s":{"b":[1]}}`:          mxerr.BadJSON,
		`{"a":"x","a":"y"}`:        mxerr.BadJSON,
		`{"r":{"x":1,"x":2}}`:      mxerr.BadJSON,
		`{"u":{"x":1,"\u0078":2}}`: mxerr.BadJSON,
		`{"r":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: mxerr.BadJSON,
		strings.Repeat(`{"u":`, 1e5) + "1" + strings.Repeat("}", 1e5):       mxerr.BadJSON,
	} {
		_, err := decode(Decode, body)
		require.True(t, mxerr.Is(err, code), "%.40s: %v", body, err)
		require.Equal(t, 400, mxerr.From(err).HTTPStatus)
	}
	_, err = decode(Decode, `{"r":`+strings.Repeat("[", 99)+strings.Repeat("]", 99)+`,"a":"[[[[\"{{"}`)
	require.NoError(t, err)
	_, err = decode(Decode, `{"s":{"b":["x",2]}}`)
	require.Contains(t, mxerr.From(err).Message, "/s/b/1", "the client is told where")

	_, err = decode(DecodeOptional, "")
	require.NoError(t, err)
	_, err = decode(DecodeOptional, "{")
	require.Error(t, err)
	_, err = decode(DecodeStrict, `{"unknown":1}`)
	require.True(t, mxerr.Is(err, mxerr.BadJSON))
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"a":"x","n":1,"r":[{}],"s":{"b":["y"]}}`))
	f.Add([]byte("{\"a\":\"\\\\\\\"\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v sample
		if err := Unmarshal(b, &v); err != nil {
			e := mxerr.From(err)
			require.Equal(t, 400, e.HTTPStatus)
			require.True(t, jsontext.Value(e.AppendJSON(nil)).IsValid())
			return
		}
		_, err := json.Marshal(v)
		require.NoError(t, err)
	})
}

func TestQuery(t *testing.T) {
	q := func(s string) Params {
		p, err := Query(httptest.NewRequest(http.MethodGet, "/?"+s, nil))
		require.NoError(t, err)
		return p
	}
	invalid := func(err error) {
		t.Helper()
		require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%v", err)
	}
	_, err := Query(&http.Request{URL: httptest.NewRequest(http.MethodGet, "/?a=%25", nil).URL})
	require.NoError(t, err)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL.RawQuery = "a=%zz"
	_, err = Query(r)
	invalid(err)

	for s, want := range map[string]int{"": 10, "limit=5": 5, "limit=500": 100, "limit=0": 0} {
		n, err := q(s).Limit(10, 100)
		require.NoError(t, err)
		require.Equal(t, want, n, s)
	}
	for _, s := range []string{"limit=-1", "limit=x", "limit=1.5", "limit=99999999999999999999"} {
		_, err := q(s).Limit(10, 100)
		invalid(err)
	}
	d, err := q("dir=b").Dir(Forward)
	require.NoError(t, err)
	require.Equal(t, Backward, d)
	d, err = q("").Dir(Forward)
	require.NoError(t, err)
	require.Equal(t, Forward, d)
	_, err = q("").Dir(0)
	require.True(t, mxerr.Is(err, mxerr.MissingParam))
	_, err = q("dir=x").Dir(Forward)
	invalid(err)
	ts, has, err := q("ts=17").Timestamp("ts")
	require.NoError(t, err)
	require.True(t, has)
	require.EqualValues(t, 17, ts)
	_, has, err = q("").Timestamp("ts")
	require.NoError(t, err)
	require.False(t, has)
	for _, s := range []string{"ts=-1", "ts=9007199254740992", "ts=x"} {
		_, _, err = q(s).Timestamp("ts")
		invalid(err)
	}
	for s, want := range map[string]time.Duration{"": 0, "timeout=-5": 0, "timeout=1500": 1500 * time.Millisecond, "timeout=9223372036854775807": time.Minute} {
		got, err := q(s).Milliseconds("timeout", time.Minute)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	b, err := q("full_state=true").Bool("full_state", false)
	require.NoError(t, err)
	require.True(t, b)
	_, err = q("full_state=1").Bool("full_state", false)
	invalid(err)
	_, err = q("").Required("x")
	require.True(t, mxerr.Is(err, mxerr.MissingParam))
	require.Equal(t, []string{"a", "b"}, q("via=a&via=b").All("via"))
}

func BenchmarkRouter(b *testing.B) {
	var buf discard
	hs := Handlers{}
	for _, r := range route.Table() {
		hs[r.Name] = func(http.ResponseWriter, *http.Request) error { return nil }
	}
	rt := newRouter(b, Options{Handlers: hs})
	for _, x := range []struct{ name, method, path string }{
		{"sync", "GET", "/_matrix/client/v3/sync"},
		{"send", "PUT", "/_matrix/client/v3/rooms/!abc:example.org/send/m.room.message/1"},
		{"last", "GET", "/_synapse/admin/v2/users/@a:b"},
		{"unknown", "GET", "/_matrix/client/v3/nonsense"},
	} {
		b.Run(x.name, func(b *testing.B) {
			r := httptest.NewRequest(x.method, x.path, nil)
			b.ReportAllocs()
			for b.Loop() {
				buf.header = http.Header{}
				rt.ServeHTTP(&buf, r)
			}
		})
	}
	b.Run("match", func(b *testing.B) {
		r := httptest.NewRequest(http.MethodPut, "/_matrix/client/v3/rooms/!abc:example.org/send/m.room.message/1", nil)
		b.ReportAllocs()
		for b.Loop() {
			var m mux.RouteMatch
			rt.mux.Match(r, &m)
		}
	})
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// FuzzQuery reads every sort of parameter from anything.
func FuzzQuery(f *testing.F) {
	f.Add("limit=7&dir=b&from=x&since=%00&ts=1&full_state=true&timeout=30000")
	f.Add("limit=-1&limit=%zz;")
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := Query(&http.Request{URL: &url.URL{RawQuery: raw}})
		if err != nil {
			require.True(t, mxerr.Is(err, mxerr.InvalidParam))
			return
		}
		for _, s := range []string{"limit", "dir", "from", "ts", "timeout"} {
			require.True(t, utf8.ValidString(q.Get(s)))
			require.NotContains(t, q.Get(s), "\x00")
		}
		if n, err := q.Limit(10, 100); err == nil {
			require.True(t, 0 <= n && n <= 100, n)
		}
		if d, err := q.Milliseconds("timeout", time.Minute); err == nil {
			require.True(t, 0 <= d && d <= time.Minute, d)
		}
		if ms, _, err := q.Timestamp("ts"); err == nil {
			require.True(t, 0 <= ms && ms < 1<<53, ms)
		}
		if d, err := q.Dir(Forward); err == nil {
			require.True(t, d == Forward || d == Backward)
		}
		_, _ = q.Bool("full_state", false)
	})
}
