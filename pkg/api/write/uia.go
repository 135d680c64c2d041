package write

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/sso"
)

// The stages of user-interactive authentication that are offered beside those of package account.
const (
	stageOAuth = "m.oauth"

	unstableStageOAuth = "org.matrix.cross_signing_reset"
)

// What is confirmed: that cross-signing keys are replaced, devices deleted, the account closed.
const (
	resetKeys     = "crossSigning"
	deleteDevices = "deleteDevices"
	deactivate    = "deactivate"
)

// errOtherUser is the refusal of a stage that names another user than the one who is logged in: no further attempt will help.
var errOtherUser = errors.New("stage names another user")

// authDict is the member auth of a request, of whatever stage.
type authDict struct {
	Type       string               `json:"type"`
	Session    string               `json:"session"`
	Token      string               `json:"token"`
	Password   string               `json:"password"`
	User       string               `json:"user"`
	Identifier identifier           `json:"identifier"`
	Creds      *account.Credentials `json:"threepid_creds"`
	OldCreds   *account.Credentials `json:"threepidCreds"` // as clients once spelt it
}

// proven passes the stage of an address.
func (a *Accounts) proven(ctx context.Context, d *authDict, p account.Purpose, s *account.UIASession) error {
	c := d.Creds
	if c == nil {
		c = d.OldCreds
	}
	if c == nil || c.Session == "" || c.Secret == "" {
		return mxerr.New(mxerr.MissingParam, "The stage needs threepid_creds with sid and client_secret")
	}
	if _, err := a.front.Proven(ctx, *c, p); err != nil {
		return err
	}
	s.Address = c
	return nil
}

// interactive is one request's passage through user-interactive authentication.
type interactive struct {
	flows  [][]string
	params map[string]any // of the stages; nil: none
	bind   []byte
	// user is who is logged in, "" for nobody: a stage that was passed on a page must have been passed by this user.
	user id.UserID
	// name is the user name of a registration: the first that is said in a session counts.
	name string
	// pass does a stage, or refuses with an *mxerr.Error.
	pass func(d *authDict, s *account.UIASession) error
}

// run tells whether the request has passed; if not, it has been answered with what is missing.
func (a *Accounts) run(ctx context.Context, w http.ResponseWriter, d *authDict, u interactive) (*account.UIASession, error) {
	uia := a.front.UIA()
	s := uia.Begin(u.bind)
	s.Name = u.name
	if d == nil {
		return nil, a.challenge(w, s, &u, nil)
	}
	if d.Session != "" {
		var err error
		if s, err = uia.Resume(d.Session, u.bind); err != nil {
			return nil, mxerr.New(mxerr.Unknown, "Unknown or expired authentication session").WithStatus(http.StatusBadRequest).
				WithCause(err)
		}
	}
	if s.Name == "" {
		s.Name = u.name
	}
	if d.Session != "" && (d.Type == "" || d.Type == sso.Stage) {
		if err := a.passed(ctx, s, &u); err != nil {
			return nil, err
		}
	}
	if d.Type != "" && !slices.Contains(s.Completed, d.Type) {
		if !slices.ContainsFunc(u.flows, func(f []string) bool { return slices.Contains(f, d.Type) }) {
			return nil, mxerr.New(mxerr.Unrecognized, "Unknown authentication type").WithStatus(http.StatusBadRequest)
		}
		if err := u.pass(d, s); errors.Is(err, errOtherUser) {
			return nil, mxerr.New(mxerr.Forbidden, "Somebody else's password confirms nothing here")
		} else if err != nil {
			return nil, a.challenge(w, s, &u, mxerr.From(err))
		}
		s.Complete(d.Type)
	}
	if !s.Satisfies(u.flows) {
		return nil, a.challenge(w, s, &u, nil)
	}
	return s, nil
}

// passed completes the stage that was passed on a page, if one was, by whose session it is: nobody's, where an account is made.
func (a *Accounts) passed(ctx context.Context, s *account.UIASession, u *interactive) error {
	p, err := a.front.PassedStage(ctx, s)
	if err != nil || p.Stage == "" || p.User != u.user || (p.Stage == account.StageEmail) != (p.Address != nil) {
		return err
	}
	if p.Address != nil {
		s.Address = p.Address
	}
	s.Complete(p.Stage)
	if p.Note != "" {
		s.Note = p.Note
	}
	return nil
}

// challenge answers 401 with the flows, and why a stage was refused if one was.
func (a *Accounts) challenge(w http.ResponseWriter, s *account.UIASession, u *interactive, refused *mxerr.Error) error {
	if refused != nil && refused.HTTPStatus >= http.StatusInternalServerError {
		return refused
	}
	sid, err := a.front.UIA().ID(s)
	if err != nil {
		return mxerr.Internal(err)
	}
	type flow struct {
		Stages []string `json:"stages"`
	}
	body := struct {
		Errcode   string         `json:"errcode,omitempty"`
		Error     string         `json:"error,omitempty"`
		Completed []string       `json:"completed,omitempty"`
		Flows     []flow         `json:"flows"`
		Params    map[string]any `json:"params"`
		Session   string         `json:"session"`
	}{Completed: s.Completed, Params: u.params, Session: sid}
	if body.Params == nil {
		body.Params = map[string]any{}
	}
	for _, f := range u.flows {
		body.Flows = append(body.Flows, flow{f})
	}
	if refused != nil {
		body.Errcode, body.Error = string(refused.Code), refused.Message
	}
	return httpx.WriteJSON(w, http.StatusUnauthorized, body)
}

type registerRequest struct {
	Auth         *authDict `json:"auth"`
	Username     string    `json:"username"`
	Password     string    `json:"password"`
	DeviceID     string    `json:"device_id"`
	DisplayName  string    `json:"initial_device_display_name"`
	InhibitLogin bool      `json:"inhibit_login"`
	Refresh      bool      `json:"refresh_token"`
	Type         string    `json:"type"`
	GuestToken   string    `json:"guest_access_token"`
}

// begun gives the user name that a registration began with. A later request of the same session may leave it out, and cannot name another: what
// was shown for one account makes no other.
func (a *Accounts) begun(q *registerRequest) (string, error) {
	if q.Auth == nil || q.Auth.Session == "" {
		return q.Username, nil
	}
	s, err := a.front.UIA().Look(q.Auth.Session)
	if err != nil {
		return q.Username, nil //nolint:nilerr // whether it is a session at all is said where it is resumed
	}
	switch {
	case s.Name == "":
		return q.Username, nil
	case q.Username != "" && !strings.EqualFold(q.Username, s.Name):
		return "", mxerr.New(mxerr.InvalidParam, "The authentication session was begun for another user name")
	}
	return s.Name, nil
}

// mayBe refuses a user name that cannot become that of the account, before the client walks through the stages.
func (a *Accounts) mayBe(ctx context.Context, q *registerRequest) error {
	switch {
	case q.GuestToken != "" && q.Username == "":
		return mxerr.New(mxerr.MissingParam, "A guest who becomes a user has the username of the guest")
	case q.GuestToken != "":
		return a.front.Guest(ctx, q.GuestToken, q.Username)
	case q.Username != "":
		return a.front.Available(ctx, q.Username)
	}
	return nil
}

func (a *Accounts) register(w http.ResponseWriter, r *http.Request) error {
	var q registerRequest
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	if q.Type == loginAppservice {
		return a.registerAsService(w, r, &q)
	}
	cfg := a.front.Config()
	switch kind := p.Get("kind"); {
	case kind == "guest":
		d := device(r, "", q.DisplayName)
		d.Refresh = q.Refresh
		in, err := a.front.RegisterGuest(r.Context(), d)
		if err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, answer(in))
	case kind != "" && kind != "user":
		return mxerr.New(mxerr.Unknown, "Unknown kind of account").WithStatus(http.StatusBadRequest)
	case !cfg.Enabled:
		return mxerr.New(mxerr.Forbidden, "Registration has been disabled")
	}
	if q.Username, err = a.begun(&q); err != nil {
		return err
	}
	if err := a.mayBe(r.Context(), &q); err != nil {
		return err
	}
	flows, params := registrationFlows(&cfg)
	s, err := a.run(r.Context(), w, q.Auth, interactive{
		flows: flows, params: params,
		bind: account.UIABind("register", digestOf(q.GuestToken)), name: q.Username,
		pass: func(d *authDict, s *account.UIASession) error {
			switch d.Type {
			case account.StageEmail:
				return a.proven(r.Context(), d, account.PurposeRegister, s)
			case account.StageToken:
				ok, err := a.front.TokenValid(r.Context(), d.Token)
				if err == nil && !ok {
					err = mxerr.New(mxerr.Unauthorized, "Invalid registration token")
				}
				s.Note = d.Token
				return err
			}
			return nil
		},
	})
	if err != nil || s == nil {
		return err
	}
	if q.Password == "" {
		return mxerr.New(mxerr.MissingParam, "The request has no password")
	}
	d := device(r, q.DeviceID, q.DisplayName)
	d.Refresh = q.Refresh
	in, err := a.front.Register(r.Context(), account.NewUser{
		Localpart: q.Username, Password: q.Password, InhibitLogin: q.InhibitLogin, Token: s.Note, Device: d, Address: s.Address,
		Consents: cfg.Consents(), Guest: q.GuestToken,
	})
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, answer(in))
}

// registrationFlows are the ways to an account.
func registrationFlows(cfg *account.Config) (flows [][]string, params map[string]any) {
	var base []string
	params = map[string]any{}
	if cfg.RequireToken {
		base = append(base, account.StageToken)
	}
	if len(cfg.Terms) > 0 {
		base = append(base, account.StageTerms)
		policies := map[string]map[string]any{}
		for _, p := range cfg.Terms {
			policies[p.ID] = map[string]any{"version": p.Version}
			for _, d := range p.Documents {
				policies[p.ID][d.Lang] = map[string]string{"name": d.Name, "url": d.URL}
			}
		}
		params[account.StageTerms] = map[string]any{"policies": policies}
	}
	if cfg.RequireEmail {
		return [][]string{append(base, account.StageEmail)}, params
	}
	without := slices.Clone(base)
	if len(without) == 0 {
		without = []string{account.StageDummy}
	}
	flows = [][]string{without}
	if cfg.Email {
		flows = append(flows, append(base, account.StageEmail))
	}
	return flows, params
}

// confirm has a user confirm with the password what the parts stand for.
func (a *Accounts) confirm(w http.ResponseWriter, r *http.Request, d *authDict, parts ...string) (bool, error) {
	c := auth.Must(r.Context())
	if c.Service != nil {
		return confirmedByService(parts[0])
	}
	if a.delegated != nil {
		return a.delegated.Confirm(w, r)
	}
	flows, err := a.proofs(r.Context(), c.UserID)
	if err != nil {
		return false, err
	}
	params := map[string]any{}
	if a.o.ResetPage != "" && parts[0] == resetKeys {
		may, err := a.front.MayReset(r.Context(), c.UserID)
		if err != nil || may {
			return may, err
		}
		for _, stage := range []string{stageOAuth, unstableStageOAuth} {
			flows = append(flows, []string{stage})
			params[stage] = map[string]string{"url": a.o.ResetPage}
		}
	}
	s, err := a.run(r.Context(), w, d, interactive{
		flows: flows, params: params, user: c.UserID,
		bind: account.UIABind(append(parts, string(c.UserID))...),
		pass: func(d *authDict, _ *account.UIASession) error {
			if d.Type == sso.Stage {
				return mxerr.New(mxerr.Forbidden, "You have not logged in at the provider yet")
			}
			if d.Type != account.StagePassword {
				return mxerr.New(mxerr.Forbidden, "Nobody has confirmed this on the page yet")
			}
			if err := a.names(r.Context(), d, c.UserID); err != nil {
				return err
			}
			return a.front.VerifyPassword(r.Context(), c.UserID, d.Password)
		},
	})
	return s != nil && err == nil, err
}

func (a *Accounts) changePassword(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Auth         *authDict `json:"auth"`
		NewPassword  string    `json:"new_password"`
		LogoutOthers *bool     `json:"logout_devices"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	c := auth.From(r.Context())
	others := q.LogoutOthers == nil || *q.LogoutOthers
	if c == nil || c.UserID == "" {
		return a.resetPassword(w, r, q.Auth, q.NewPassword, others)
	}
	ok, err := a.confirm(w, r, q.Auth, "changePassword")
	if err != nil || !ok {
		return err
	}
	if err := a.front.SetPassword(r.Context(), c.UserID, q.NewPassword, others, string(c.DeviceID)); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// resetPassword sets the password of who has forgotten it, and has shown that letters to an address of the account are read.
func (a *Accounts) resetPassword(w http.ResponseWriter, r *http.Request, d *authDict, password string, others bool) error {
	if a.o.Letters == nil {
		return mxerr.New(mxerr.MissingToken, "Missing access token")
	}
	s, err := a.run(r.Context(), w, d, interactive{
		flows: [][]string{{account.StageEmail}},
		bind:  account.UIABind(account.UIAResetPassword),
		pass: func(d *authDict, s *account.UIASession) error {
			return a.proven(r.Context(), d, account.PurposeReset, s)
		},
	})
	if err != nil || s == nil {
		return err
	}
	if err := a.front.ResetPassword(r.Context(), *s.Address, password, others); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// proofs are the ways in which a user can prove who it is: the password, and the providers at which the user logs in.
func (a *Accounts) proofs(ctx context.Context, u id.UserID) ([][]string, error) {
	if len(a.o.SSO) == 0 {
		return [][]string{{account.StagePassword}}, nil
	}
	known, err := a.front.Externals(ctx, u)
	if err != nil {
		return nil, err
	}
	outside := slices.ContainsFunc(known, func(e account.External) bool {
		return slices.ContainsFunc(a.o.SSO, func(c sso.Choice) bool { return c.ID == e.Provider })
	})
	password, err := a.front.HasPassword(ctx, u)
	var flows [][]string
	if password || !outside {
		flows = append(flows, []string{account.StagePassword})
	}
	if outside {
		flows = append(flows, []string{sso.Stage})
	}
	return flows, err
}

// names refuses a stage that names another user than the one who is logged in.
func (a *Accounts) names(ctx context.Context, d *authDict, u id.UserID) error {
	if d.Identifier.Type == identifierThreepid {
		owner, err := a.front.Addressed(ctx, d.Identifier.Medium, d.Identifier.Address)
		if err == nil && owner != u {
			err = errOtherUser
		}
		return err
	}
	user := d.Identifier.User
	if user == "" {
		user = d.User
	}
	if user != "" && user != string(u) && user != u.Localpart() {
		return errOtherUser
	}
	return nil
}

func (a *Accounts) deleteDevice(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Auth *authDict `json:"auth"`
	}
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	return a.removeDevices(w, r, q.Auth, []string{httpx.Var(r, "deviceId")})
}

func (a *Accounts) deleteDevices(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Auth    *authDict `json:"auth"`
		Devices []string  `json:"devices"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Devices == nil {
		return mxerr.New(mxerr.MissingParam, "The request names no devices")
	}
	return a.removeDevices(w, r, q.Auth, q.Devices)
}

func (a *Accounts) removeDevices(w http.ResponseWriter, r *http.Request, d *authDict, devices []string) error {
	c := auth.Must(r.Context())
	ok, err := a.confirm(w, r, d, append([]string{deleteDevices}, devices...)...)
	if err != nil || !ok {
		return err
	}
	if _, err := a.front.Do(r.Context(), &account.Logout{UserID: string(c.UserID), Devices: devices}); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}
