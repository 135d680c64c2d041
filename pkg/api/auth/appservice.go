package auth

import (
	"errors"
	"net/http"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// The spellings of the query parameter that names the device which an application service acts on.
const (
	paramDevice         = "device_id"
	paramUnstableDevice = "org.matrix.msc3202.device_id"
)

// recognise notes an application service at an endpoint that needs no token, such as registration. A token that is not one of theirs is
// for the handler to judge.
func (g *Gate) recognise(r *http.Request, c *Caller) {
	token, ok, err := Token(r)
	if err != nil || !ok {
		return
	}
	hash := account.HashToken(token)
	if c.Service = g.services.ByToken(hash); c.Service != nil {
		// It asks as itself, and its sender is not limited.
		c.TokenHash, c.Kind, c.Unlimited = hash, account.KindAppservice, true
	}
}

// act finds out whom an application service acts as (spec: "Identity assertion"), and whether that account is locked.
func (g *Gate) act(r *http.Request, c *Caller) (locked bool, err error) {
	c.Kind = account.KindAppservice
	q := r.URL.Query()
	user, device := id.UserID(q.Get("user_id")), q.Get(paramDevice)
	if device == "" {
		device = q.Get(paramUnstableDevice)
	}
	if user == "" {
		user = c.Service.Sender
	} else if !c.Service.ActsFor(user) {
		return false, mxerr.New(mxerr.Forbidden, "The application service cannot act as this user")
	}
	c.UserID, c.DeviceID = user, id.DeviceID(device)
	c.Unlimited = !c.Service.RateLimited || user == c.Service.Sender
	s, err := g.assume.Assume(r.Context(), string(user), device)
	switch {
	case errors.Is(err, account.ErrNoAccount) && user != c.Service.Sender:
		return false, mxerr.New(mxerr.Forbidden, "The application service has not registered this user")
	case errors.Is(err, account.ErrNoAccount) && device != "":
		return false, mxerr.New(mxerr.UnknownDevice, "The user has no such device")
	case errors.Is(err, account.ErrNoAccount): // a sender need not be registered
	case err != nil:
		return false, err
	}
	c.Admin, c.Suspended = s.Admin, s.Suspended
	return s.Locked, nil
}
