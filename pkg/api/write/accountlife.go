package write

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// generateLoginToken gives a token for one login on another device, once the user has confirmed it with the password.
func (a *Accounts) generateLoginToken(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Auth *authDict `json:"auth"`
	}
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	ok, err := a.confirm(w, r, q.Auth, "generateLoginToken")
	if err != nil || !ok {
		return err
	}
	token, expiresIn, err := a.front.LoginToken(r.Context(), auth.Must(r.Context()).UserID)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"login_token": token, "expires_in_ms": expiresIn.Milliseconds()})
}

func (a *Accounts) refresh(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Token string `json:"refresh_token"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Token == "" {
		return mxerr.New(mxerr.MissingParam, "The request has no refresh_token")
	}
	in, err := a.front.Refresh(r.Context(), q.Token)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		AccessToken  string `json:"access_token"`
		RefreshToken string `json:"refresh_token"`
		ExpiresIn    int64  `json:"expires_in_ms,omitzero"`
	}{in.AccessToken, in.RefreshToken, in.ExpiresIn.Milliseconds()})
}

func (a *Accounts) deactivate(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Auth     *authDict `json:"auth"`
		Erase    bool      `json:"erase"`
		IDServer string    `json:"id_server"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	c := auth.From(r.Context())
	if c == nil || c.UserID == "" {
		return mxerr.New(mxerr.MissingToken, "Missing access token")
	}
	ok, err := a.confirm(w, r, q.Auth, deactivate, strconv.FormatBool(q.Erase))
	if err != nil || !ok {
		return err
	}
	done, err := a.o.Contacts.Deactivate(r.Context(), c.UserID, q.IDServer, q.Erase)
	if err != nil {
		return err
	}
	return unbound(w, done)
}

func (a *Accounts) openIDToken(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	var q map[string]jsontext.Value
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{
		"access_token": a.front.OpenIDToken(c.UserID), "token_type": "Bearer", "matrix_server_name": c.UserID.Server(),
		"expires_in": int(account.OpenIDLifetime.Seconds()),
	})
}

// standing is one of the two things that an administrator can impose on an account.
type standing struct {
	field string
	of    func(locked, suspended bool) bool
	set   func(cmd *account.SetStanding, v bool)
}

func lockedStanding() standing {
	return standing{
		"locked",
		func(locked, _ bool) bool { return locked },
		func(cmd *account.SetStanding, v bool) { cmd.Locked = &v },
	}
}

func suspendedStanding() standing {
	return standing{
		"suspended",
		func(_, suspended bool) bool { return suspended },
		func(cmd *account.SetStanding, v bool) { cmd.Suspended = &v },
	}
}

func (a *Accounts) getStanding(what standing) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		u, err := id.ParseUserID(httpx.Var(r, "userId"))
		if err != nil {
			return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		locked, suspended, err := a.front.Account(r.Context(), u)
		if err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, map[string]bool{what.field: what.of(locked, suspended)})
	}
}

func (a *Accounts) setStanding(what standing) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		u, err := id.ParseUserID(httpx.Var(r, "userId"))
		if err != nil {
			return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		var q map[string]jsontext.Value
		if err := httpx.Decode(r, &q); err != nil {
			return err
		}
		v := string(q[what.field])
		if v != "true" && v != "false" {
			return mxerr.Newf(mxerr.BadJSON, "%s must be true or false", what.field)
		}
		if _, _, err := a.front.Account(r.Context(), u); err != nil {
			return err
		}
		cmd := &account.SetStanding{UserID: string(u)}
		what.set(cmd, v == "true")
		if _, err := a.front.Do(r.Context(), cmd); err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, map[string]bool{what.field: v == "true"})
	}
}
