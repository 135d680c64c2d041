package write

import (
	"context"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/appservice"
)

// loginAppservice is the way for application services to log in, and to register.
const loginAppservice = "m.login.application_service"

// knownService gives the application service that asks, on an endpoint that others may call without a token.
func knownService(r *http.Request) (*appservice.Service, error) {
	if c := auth.From(r.Context()); c != nil && c.Service != nil {
		return c.Service, nil
	}
	_, ok, err := auth.Token(r)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, mxerr.New(mxerr.MissingToken, "Missing access token")
	}
	return nil, mxerr.New(mxerr.UnknownToken, "Unrecognised access token").With("soft_logout", false)
}

// loginUnsupported is the refusal to make access tokens where an outside service makes them.
func loginUnsupported() error {
	return mxerr.New(mxerr.AppserviceLoginUnsupported, "This server has no logins by the older endpoints: set inhibit_login, and act as users with the as_token").
		WithStatus(http.StatusBadRequest)
}

// registerAsService makes an account that an application service acts as.
func (a *Accounts) registerAsService(w http.ResponseWriter, r *http.Request, q *registerRequest) error {
	s, err := knownService(r)
	if err != nil {
		return err
	}
	if a.delegated != nil && !q.InhibitLogin {
		return loginUnsupported()
	}
	if q.Username == "" {
		return mxerr.New(mxerr.MissingParam, "The request has no username")
	}
	u, err := a.front.CheckLocalpart(q.Username)
	if err != nil {
		return err
	}
	if !s.ActsFor(u) {
		return mxerr.New(mxerr.Exclusive, "The user is not in the application service's namespace").WithStatus(http.StatusBadRequest)
	}
	if err := reserved(a.o.Services, u, s); err != nil {
		return err
	}
	d := device(r, q.DeviceID, q.DisplayName)
	d.Refresh = q.Refresh
	in, err := a.front.Register(r.Context(), account.NewUser{
		Localpart: q.Username, Kind: account.KindAppservice, InhibitLogin: q.InhibitLogin, Device: d,
	})
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, answer(in))
}

// reserved refuses a user who belongs to another application service alone.
func reserved(all *appservice.Registry, u id.UserID, by *appservice.Service) error {
	if all.UserReserved(u, by) {
		return mxerr.New(mxerr.Exclusive, "The user ID is reserved for another application service").WithStatus(http.StatusBadRequest)
	}
	return nil
}

// loginAsService logs an application service in as one of its users.
func (a *Accounts) loginAsService(w http.ResponseWriter, r *http.Request, q *loginRequest) error {
	if a.delegated != nil {
		return loginUnsupported()
	}
	s, err := knownService(r)
	if err != nil {
		return err
	}
	who, err := q.who()
	if err != nil {
		return err
	}
	if who.Type != identifierUser {
		return mxerr.New(mxerr.Unknown, "Unsupported kind of identifier").WithStatus(http.StatusBadRequest)
	}
	u, err := a.front.LocalUser(who.User)
	if err != nil {
		return err
	}
	if !s.ActsFor(u) {
		return mxerr.New(mxerr.Exclusive, "The user is not in the application service's namespace")
	}
	d := device(r, q.DeviceID, q.DisplayName)
	d.Refresh = q.Refresh
	in, err := a.front.LoginAs(r.Context(), u, d)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, answer(in))
}

// forServices lets application services do what an outside service of accounts does for everybody else (spec: "Device management").
func forServices(theirs, others httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if c := auth.From(r.Context()); c != nil && c.Service != nil {
			return theirs(w, r)
		}
		return others(w, r)
	}
}

// delegatedLogin answers a login where an outside service keeps the accounts.
func (a *Accounts) delegatedLogin(w http.ResponseWriter, r *http.Request) error {
	var q loginRequest
	if err := httpx.Decode(r, &q); err == nil && q.Type == loginAppservice {
		return loginUnsupported()
	}
	return elsewhere(w, r)
}

// delegatedRegister answers a registration where an outside service keeps the accounts: application services may make theirs.
func (a *Accounts) delegatedRegister(w http.ResponseWriter, r *http.Request) error {
	var q registerRequest
	if err := httpx.Decode(r, &q); err == nil && q.Type == loginAppservice {
		return a.registerAsService(w, r, &q)
	}
	return elsewhere(w, r)
}

// confirmedByService tells whether an application service may do something that people must confirm. What a person proves with a password
// it cannot.
func confirmedByService(what string) (bool, error) {
	switch what {
	case resetKeys, deleteDevices, deactivate:
		return true, nil
	}
	return false, mxerr.New(mxerr.Forbidden, "An application service cannot do this: no user could confirm it")
}

// ask has an application service make a user of its namespace who is to be invited and is not there. Its own requests it makes knowing that.
func (h *Rooms) ask(ctx context.Context, c *auth.Caller, user id.UserID) {
	if c.Service == nil || !c.Service.ActsFor(user) {
		h.o.Asker.Missing(ctx, user)
	}
}

// setNetworkVisibility lists a room for a network of the application service that asks, or takes it off that list.
func (h *Rooms) setNetworkVisibility(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		Visibility *string `json:"visibility"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	network := httpx.Var(r, "networkId")
	switch {
	case q.Visibility == nil:
		return mxerr.New(mxerr.MissingParam, "The request has no visibility")
	case *q.Visibility != "public" && *q.Visibility != "private":
		return mxerr.New(mxerr.BadJSON, "visibility is neither public nor private")
	case len(network) > maxNetwork || !utf8.ValidString(network) || strings.ContainsAny(network, "|\x00"):
		return mxerr.New(mxerr.InvalidParam, "Invalid network id")
	}
	public := *q.Visibility == "public"
	if public {
		if known, err := h.o.Reported.Room(r.Context(), target); err != nil {
			return err
		} else if !known {
			return mxerr.New(mxerr.NotFound, "Unknown room")
		}
	}
	if err := h.o.Networks.Publish(r.Context(), c.Service.ID, network, target, public); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// maxNetwork bounds the name of a network, in bytes.
const maxNetwork = 255

// Services answers what application services alone may ask.
type Services struct {
	asker *appservice.Asker
	// back is told of one that has shown that it is there.
	back func(service string)
}

// NewServices makes the handlers.
func NewServices(asker *appservice.Asker, back func(service string)) *Services {
	return &Services{asker, back}
}

// Handlers gives the handlers by the names of their rows.
func (s *Services) Handlers() httpx.Handlers { return httpx.Handlers{"pingAppservice": s.ping} }

func (s *Services) ping(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		Transaction string `json:"transaction_id"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if httpx.Var(r, "appserviceId") != c.Service.ID {
		return mxerr.New(mxerr.Forbidden, "The access token is that of another application service")
	}
	took, err := s.asker.Ping(r.Context(), c.Service, q.Transaction)
	if err != nil {
		return err
	}
	s.back(c.Service.ID)
	return httpx.WriteJSON(w, http.StatusOK, map[string]int64{"duration_ms": took.Milliseconds()})
}

// mayName refuses an alias to who may not make or delete it.
func (h *Rooms) mayName(c *auth.Caller, alias id.RoomAlias) error {
	switch {
	case c.Service != nil && !c.Service.HasAlias(alias):
		return mxerr.New(mxerr.Exclusive, "The alias is not in the application service's namespace").WithStatus(http.StatusBadRequest)
	case h.o.Services.AliasReserved(alias, c.Service):
		return mxerr.New(mxerr.Exclusive, "The alias is reserved for an application service").WithStatus(http.StatusBadRequest)
	}
	return nil
}
