package auth_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/testkit/redistest"
)

// slow lets two of a thing through, and then none for as long as a test can take.
var slow = soft.Rate{PerSecond: 0.001, Burst: 2}

func limits(t *testing.T, url string, cfg auth.LimitsConfig) *auth.Limits {
	t.Helper()
	s, err := soft.New(soft.Config{URL: url}, soft.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return auth.NewLimits(cfg, s)
}

func user(name string) *auth.Caller {
	return &auth.Caller{UserID: id.UserID("@" + name + ":a.example")}
}

func from(addr string) *auth.Caller { return &auth.Caller{Addr: netip.MustParseAddr(addr)} }

func limited(t *testing.T, err error) {
	t.Helper()
	var e *mxerr.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, mxerr.LimitExceeded, e.Code)
	require.Positive(t, e.RetryAfterMs)
	w := httptest.NewRecorder()
	httpx.WriteError(w, err)
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, int64(seconds)*1000, e.RetryAfterMs)
	require.Contains(t, w.Body.String(), `"retry_after_ms":`)
}

// inBoth runs a test with limits in memory, and with limits in Redis.
func inBoth(t *testing.T, f func(t *testing.T, url string)) {
	t.Run("memory", func(t *testing.T) { f(t, "") })
	t.Run("redis", func(t *testing.T) { f(t, redistest.New(t).URL) })
}

func TestLimitsAreByClientAndClass(t *testing.T) { inBoth(t, limitsAreByClientAndClass) }

func limitsAreByClientAndClass(t *testing.T, url string) {
	ctx := t.Context()
	l := limits(t, url, auth.LimitsConfig{Enabled: true, Client: auth.Rates{route.RateLogin: slow, route.RateWrite: slow}})
	spend := func(class route.RateClass, c *auth.Caller) {
		t.Helper()
		require.NoError(t, l.Take(ctx, class, c))
		require.NoError(t, l.Take(ctx, class, c))
		limited(t, l.Take(ctx, class, c))
	}
	spend(route.RateLogin, user("alice"))
	spend(route.RateLogin, user("bob"))
	spend(route.RateWrite, user("alice"))
	spend(route.RateLogin, from("192.0.2.1"))
	spend(route.RateLogin, from("192.0.2.2"))
	spend(route.RateLogin, from("2001:db8::1"))
	limited(t, l.Take(ctx, route.RateLogin, from("2001:db8::ffff:2")))
	spend(route.RateLogin, from("2001:db8:0:1::1"))
	spend(route.RateLogin, &auth.Caller{})

	t.Run("a user is the same from everywhere", func(t *testing.T) {
		c := user("alice")
		c.Addr = netip.MustParseAddr("198.51.100.1")
		limited(t, l.Take(ctx, route.RateLogin, c))
	})
	t.Run("classes without a figure are free", func(t *testing.T) {
		for range 10 {
			require.NoError(t, l.Take(ctx, route.RateRead, user("alice")))
		}
	})
	t.Run("application services are free", func(t *testing.T) {
		c := user("bot")
		c.Unlimited = true
		for range 10 {
			require.NoError(t, l.Take(ctx, route.RateLogin, c))
		}
	})
}

func TestLimitsByRoom(t *testing.T) { inBoth(t, limitsByRoom) }

func limitsByRoom(t *testing.T, url string) {
	ctx := t.Context()
	l := limits(t, url, auth.LimitsConfig{Enabled: true, Room: auth.Rates{route.RateMessage: slow}})
	require.NoError(t, l.TakeRoom(ctx, route.RateMessage, "!a:x"))
	require.NoError(t, l.TakeRoom(ctx, route.RateMessage, "!a:x"))
	limited(t, l.TakeRoom(ctx, route.RateMessage, "!a:x"))
	require.NoError(t, l.TakeRoom(ctx, route.RateMessage, "!b:x"))
	require.NoError(t, l.Take(ctx, route.RateMessage, user("alice")), "a room's figure is not a client's")
}

func TestLimitsSwitchedOff(t *testing.T) {
	l := limits(t, "", auth.LimitsConfig{Client: auth.Rates{route.RateLogin: slow}, Room: auth.Rates{route.RateMessage: slow}})
	for range 10 {
		require.NoError(t, l.Take(t.Context(), route.RateLogin, user("alice")))
		require.NoError(t, l.TakeRoom(t.Context(), route.RateMessage, "!a:x"))
	}
}

func TestLimitsAreSharedAndOutliveRedis(t *testing.T) {
	ctx := t.Context()
	redis := redistest.New(t)
	cfg := auth.LimitsConfig{Enabled: true, Client: auth.Rates{route.RateLogin: slow}}
	one, two := limits(t, redis.URL, cfg), limits(t, redis.URL, cfg)
	require.NoError(t, one.Take(ctx, route.RateLogin, user("alice")))
	require.NoError(t, two.Take(ctx, route.RateLogin, user("alice")))
	limited(t, one.Take(ctx, route.RateLogin, user("alice")))
	limited(t, two.Take(ctx, route.RateLogin, user("alice")))

	redis.Stop()
	for _, l := range []*auth.Limits{one, two} {
		require.NoError(t, l.Take(ctx, route.RateLogin, user("bob")))
		require.NoError(t, l.Take(ctx, route.RateLogin, user("bob")))
		limited(t, l.Take(ctx, route.RateLogin, user("bob")))
	}
}
