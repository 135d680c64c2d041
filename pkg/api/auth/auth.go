// Package auth stands before every handler: it finds out who asks, and refuses who may not.
//
// The route table says for each endpoint who may call it; [Gate.Wrap] enforces it and hands the handler a [Caller]. A token is
// read from the Authorization header or, as the specification still has it for old clients, from the query; tokens never
// reach a log. The package is safe for concurrent use. It is imported by api/ and the composition root.
package auth

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/appservice"
)

// Caller is who asks.
type Caller struct {
	UserID    id.UserID
	DeviceID  id.DeviceID // empty: a token without a device
	TokenHash [32]byte
	Kind      account.Kind
	Admin     bool
	Suspended bool
	// Addr is the client's address, as the nearest trusted proxy saw it.
	Addr netip.Addr
	// Service is the application service that acts as the user; nil for everybody else. On an endpoint that needs no token it may be there
	// without a user.
	Service *appservice.Service
	// Unlimited says that the rate limits are not for the caller.
	Unlimited bool
}

// Guest tells whether the caller is a guest.
func (c *Caller) Guest() bool { return c.Kind == account.KindGuest }

type callerKey struct{}

// From gives the caller of a request, or nil on an endpoint that needs none.
func From(ctx context.Context) *Caller {
	c, _ := ctx.Value(callerKey{}).(*Caller)
	return c
}

// Must gives the caller of a request to an endpoint whose row demands one.
func Must(ctx context.Context) *Caller {
	c := From(ctx)
	if c == nil || c.UserID == "" {
		panic("auth: the route table lets strangers in here") //nolint:forbidigo // the router answers 500 and counts a bug
	}
	return c
}

// Sessions finds whom an access token speaks for. The error of a token that is not good is an *mxerr.Error.
type Sessions interface {
	Session(ctx context.Context, token string, hash [32]byte) (account.Session, error)
}

// Assumer gives the sessions of users for whom application services act. It is *account.Sessions.
type Assumer interface {
	Assume(ctx context.Context, user, device string) (account.Session, error)
}

// Limiter takes one from an allowance; its refusal is an *mxerr.Error with the time to wait.
type Limiter interface {
	Take(ctx context.Context, class route.RateClass, c *Caller) error
}

// Federation verifies the X-Matrix signature of a request and puts the origin into the context it returns.
type Federation interface {
	Verify(r *http.Request) (context.Context, error)
}

// Seen takes in that a device was used, and from where.
type Seen interface {
	Note(user id.UserID, device id.DeviceID, addr netip.Addr, agent string)
}

// Gate wraps handlers.
type Gate struct {
	sessions   Sessions
	limiter    Limiter
	federation Federation
	seen       Seen
	proxies    []netip.Prefix
	services   *appservice.Registry
	assume     Assumer
}

// NewGate makes a Gate. limiter may be nil (no limits), and so may federation (no endpoint that needs it is let through) and seen.
// proxies are the networks whose X-Forwarded-For is believed.
func NewGate(s Sessions, l Limiter, f Federation, seen Seen, proxies []netip.Prefix) *Gate {
	return &Gate{sessions: s, limiter: l, federation: f, seen: seen, proxies: proxies}
}

// LetIn lets application services in. It must be called before the first request.
func (g *Gate) LetIn(services *appservice.Registry, assume Assumer) {
	g.services, g.assume = services, assume
}

// Wrap puts the gate before a handler, as the row says.
func (g *Gate) Wrap(row *route.Row, h httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		ctx := r.Context()
		if row.Auth == route.AuthFederation {
			if g.federation == nil {
				return mxerr.New(mxerr.Unauthorized, "Federation is not enabled on this server")
			}
			ctx, err := g.federation.Verify(r)
			if err != nil {
				return err
			}
			return h(w, r.WithContext(ctx))
		}
		c, err := g.caller(r, row)
		if err != nil {
			return err
		}
		if g.limiter != nil && row.Rate != route.RateNone {
			if err := g.limiter.Take(ctx, row.Rate, c); err != nil {
				return err
			}
		}
		return h(w, r.WithContext(context.WithValue(ctx, callerKey{}, c)))
	}
}

func (g *Gate) caller(r *http.Request, row *route.Row) (*Caller, error) {
	need := row.Auth
	c := &Caller{Addr: g.clientAddr(r)}
	if need == route.AuthNone {
		if g.services.Any() {
			g.recognise(r, c)
		}
		return c, nil
	}
	token, ok, err := Token(r)
	if err != nil {
		return nil, err
	}
	if !ok {
		if need == route.AuthOptional {
			return c, nil
		}
		return nil, mxerr.New(mxerr.MissingToken, "Missing access token")
	}
	c.TokenHash = account.HashToken(token)
	if g.services.Any() {
		if s := g.services.ByToken(c.TokenHash); s != nil {
			c.Service = s
			locked, err := g.act(r, c)
			if err != nil {
				return nil, err
			}
			return g.admit(r, row, c, locked)
		}
	}
	s, err := g.sessions.Session(r.Context(), token, c.TokenHash)
	if err != nil {
		return nil, err
	}
	if s.Kind == account.KindAppservice {
		own := g.services.OfUser(id.UserID(s.UserID))
		c.Unlimited = own != nil && !own.RateLimited
	}
	c.UserID, c.DeviceID = id.UserID(s.UserID), id.DeviceID(s.DeviceID)
	c.Kind, c.Admin, c.Suspended = s.Kind, s.Admin, s.Suspended
	return g.admit(r, row, c, s.Locked && row.Name != "logout" && row.Name != "logout_all") // which stays possible (spec: "Account locking")
}

// admit refuses a known caller who may not ask this, and notes that the others have been seen.
func (g *Gate) admit(r *http.Request, row *route.Row, c *Caller, locked bool) (*Caller, error) {
	switch {
	case locked:
		return nil, mxerr.New(mxerr.UserLocked, "This account has been locked").With("soft_logout", true)
	case row.Auth == route.AuthAdmin && !c.Admin:
		return nil, mxerr.New(mxerr.Forbidden, "You are not a server administrator")
	case row.Auth == route.AuthAppservice && c.Service == nil:
		return nil, mxerr.New(mxerr.Forbidden, "This is for application services only")
	case row.Auth == route.AuthUser && c.Kind == account.KindGuest:
		return nil, mxerr.New(mxerr.GuestAccessForbidden, "Guests may not do that")
	}
	if g.seen != nil {
		g.seen.Note(c.UserID, c.DeviceID, c.Addr, r.UserAgent())
	}
	return c, nil
}

// Token gives the request's access token, if there is one.
func Token(r *http.Request) (token string, ok bool, err error) {
	if h := r.Header.Get("Authorization"); h != "" {
		scheme, rest, _ := strings.Cut(h, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", false, mxerr.New(mxerr.MissingToken, "The Authorization header holds no Bearer token")
		}
		return strings.TrimSpace(rest), true, nil
	}
	if strings.Contains(r.URL.RawQuery, "access_token=") {
		token = r.URL.Query().Get("access_token")
	}
	return token, token != "", nil
}

// clientAddr gives the client's address: the peer's, or what the proxies that are trusted say before it.
func (g *Gate) clientAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap()
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && g.trusted(addr); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = next.Unmap()
	}
	return addr
}

func (g *Gate) trusted(a netip.Addr) bool {
	for _, p := range g.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
