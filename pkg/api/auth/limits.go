package auth

import (
	"context"
	"maps"
	"net/netip"

	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
)

// Rates are the figures of the rate limits by class.
type Rates map[route.RateClass]soft.Rate

// LimitsConfig says how much one client may ask for. A class that has no figure has no limit.
type LimitsConfig struct {
	// Enabled is rate_limits.enabled.
	Enabled bool
	// Client are the allowances of one user, or of one address where nobody is logged in.
	Client Rates
	// Room are the allowances of one room, all users of this server together.
	Room Rates
}

// Limits keeps the rate limits in the soft store, where all workers count together; without Redis each worker counts for itself.
// It is a [Limiter]. It is safe for concurrent use.
type Limits struct {
	cfg   LimitsConfig
	store *soft.Store
}

// NewLimits makes Limits.
func NewLimits(cfg LimitsConfig, store *soft.Store) *Limits {
	cfg.Client, cfg.Room = maps.Clone(cfg.Client), maps.Clone(cfg.Room)
	return &Limits{cfg: cfg, store: store}
}

// Take implements [Limiter]. Application services that are not to be limited are not: they speak for many.
func (l *Limits) Take(ctx context.Context, class route.RateClass, c *Caller) error {
	if c.Unlimited {
		return nil
	}
	return l.take(ctx, l.cfg.Client, class, client(c))
}

// TakeRoom takes one from a room's allowance, for endpoints of which all in the room bear the cost.
func (l *Limits) TakeRoom(ctx context.Context, class route.RateClass, room id.RoomID) error {
	return l.take(ctx, l.cfg.Room, class, "r:"+string(room))
}

// MayGuess implements [account.Guesses]: of wrong passwords, an account has the allowance that a client has of logins.
func (l *Limits) MayGuess(ctx context.Context, u id.UserID) error {
	rate, ok := l.cfg.Client[route.RateLogin]
	if !l.cfg.Enabled || !ok {
		return nil
	}
	a := l.store.Take(ctx, guessKey(u), rate, 0)
	if a.OK && a.Remaining > 0 {
		return nil
	}
	return mxerr.Limited(max(a.RetryAfter.Milliseconds(), 1000) + 1)
}

// Guessed implements [account.Guesses].
func (l *Limits) Guessed(ctx context.Context, u id.UserID) {
	if rate, ok := l.cfg.Client[route.RateLogin]; ok && l.cfg.Enabled {
		l.store.Take(ctx, guessKey(u), rate, 1)
	}
}

func guessKey(u id.UserID) string { return "ratelimit:guess:" + string(u) }

func (l *Limits) take(ctx context.Context, rates Rates, class route.RateClass, who string) error {
	rate, ok := rates[class]
	if !l.cfg.Enabled || !ok {
		return nil
	}
	a := l.store.Take(ctx, "ratelimit:"+string(class)+":"+who, rate, 1)
	if a.OK {
		return nil
	}
	// A whole millisecond more, so that whoever waits exactly as long as told is let in.
	return mxerr.Limited(a.RetryAfter.Milliseconds() + 1)
}

// client names who is counted. One subscriber of IPv6 has a network of 64 bits to choose addresses from.
func client(c *Caller) string {
	if c.UserID != "" {
		return "u:" + string(c.UserID)
	}
	addr := c.Addr
	if addr.Is6() {
		addr = netip.PrefixFrom(addr.WithZone(""), 64).Masked().Addr()
	}
	return "a:" + addr.String()
}
