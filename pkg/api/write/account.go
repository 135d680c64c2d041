package write

import (
	"maps"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/sso"
	"github.com/heddle-im/heddle/pkg/service/appservice"
)

// AccountsOptions are what Accounts needs.
type AccountsOptions struct {
	Front *account.Front
	// Delegated answers in place of the server's own login; nil: the accounts are this server's own.
	Delegated *Delegated
	// ResetPage is where users confirm the replacement of their cross-signing keys who know no password in their client (spec: "OAuth
	// authentication" stage); empty: nowhere.
	ResetPage string
	// Letters confirm addresses; nil: there is no e-mail.
	Letters Letters
	// Contacts bind addresses at identity servers.
	Contacts Contacts
	// SSO are the outside providers at which people can log in.
	SSO []sso.Choice
	// Services are the application services; nil: none.
	Services *appservice.Registry
}

// Accounts answers the endpoints of registration, login, devices, profiles, account data and filters.
type Accounts struct {
	o         AccountsOptions
	front     *account.Front
	delegated *Delegated
}

// NewAccounts makes the handlers.
func NewAccounts(o AccountsOptions) *Accounts {
	return &Accounts{o: o, front: o.Front, delegated: o.Delegated}
}

// Handlers gives the handlers by the names of their rows.
func (a *Accounts) Handlers() httpx.Handlers {
	h := httpx.Handlers{
		"getLoginFlows":             a.loginFlows,
		"login":                     a.login,
		"generateLoginToken":        a.generateLoginToken,
		"refresh":                   a.refresh,
		"deactivateAccount":         a.deactivate,
		"requestOpenIdToken":        a.openIDToken,
		"getAdminLockUser":          a.getStanding(lockedStanding()),
		"setAdminLockUser":          a.setStanding(lockedStanding()),
		"getAdminSuspendUser":       a.getStanding(suspendedStanding()),
		"setAdminSuspendUser":       a.setStanding(suspendedStanding()),
		"register":                  a.register,
		"checkUsernameAvailability": a.available,
		"registrationTokenValidity": a.tokenValidity,
		"adminSharedSecretRegister": a.registerShared,
		"logout":                    a.logout,
		"logout_all":                a.logoutAll,
		"changePassword":            a.changePassword,
		"updateDevice":              a.updateDevice,
		"deleteDevice":              a.deleteDevice,
		"deleteDevices":             a.deleteDevices,
		"setProfileField":           a.setProfileField,
		"deleteProfileField":        a.deleteProfileField,
		"postPusher":                a.setPusher,
		"setPushRule":               a.putPushRule,
		"deletePushRule":            a.deletePushRule,
		"setPushRuleEnabled":        a.setPushRuleEnabled,
		"setPushRuleActions":        a.setPushRuleActions,
		"setAccountData":            a.setAccountData,
		"setAccountDataPerRoom":     a.setAccountData,
		"defineFilter":              a.defineFilter,

		"requestTokenToRegisterEmail":       a.requestLetter(account.PurposeRegister),
		"requestTokenToResetPasswordEmail":  a.requestLetter(account.PurposeReset),
		"requestTokenTo3PIDEmail":           a.requestLetter(account.PurposeAdd),
		"requestTokenToRegisterMSISDN":      noPhones,
		"requestTokenToResetPasswordMSISDN": noPhones,
		"requestTokenTo3PIDMSISDN":          noPhones,
		"getAccount3PIDs":                   a.threepids,
		"add3PID":                           a.addThreepid,
		"post3PIDs":                         a.postThreepids,
		"bind3PID":                          a.bindThreepid,
		"unbind3pidFromAccount":             a.unbindThreepid,
		"delete3pidFromAccount":             a.deleteThreepid,
	}
	if a.delegated != nil {
		own := maps.Clone(h)
		maps.Copy(h, a.delegated.Handlers())
		h["login"], h["register"] = a.delegatedLogin, a.delegatedRegister
		for _, name := range []string{"deleteDevice", "deleteDevices", "deactivateAccount"} {
			h[name] = forServices(own[name], h[name])
		}
	}
	return h
}

func device(r *http.Request, deviceID, name string) account.NewDevice {
	d := account.NewDevice{DeviceID: deviceID, DisplayName: name, UserAgent: r.UserAgent()}
	if c := auth.From(r.Context()); c != nil && c.Addr.IsValid() {
		d.IP = c.Addr.String()
	}
	return d
}

func (a *Accounts) loginFlows(w http.ResponseWriter, _ *http.Request) error {
	type flow struct {
		Type          string       `json:"type"`
		GetLoginToken bool         `json:"get_login_token,omitzero"`
		Providers     []sso.Choice `json:"identity_providers,omitempty"`
	}
	flows := []flow{{Type: loginPassword}, {Type: loginToken, GetLoginToken: true}}
	if a.o.Services.Any() {
		flows = append(flows, flow{Type: loginAppservice})
	}
	if len(a.o.SSO) > 0 {
		flows = append(flows, flow{Type: sso.Stage, Providers: a.o.SSO})
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string][]flow{"flows": flows})
}

// The ways to log in.
const (
	loginPassword = "m.login.password"
	loginToken    = "m.login.token"
)

// loginRequest has the members user, medium and address of old clients beside the identifier of today.
type loginRequest struct {
	Type        string     `json:"type"`
	Identifier  identifier `json:"identifier"`
	User        string     `json:"user"`
	Medium      string     `json:"medium"`
	Address     string     `json:"address"`
	Password    string     `json:"password"`
	Token       string     `json:"token"`
	DeviceID    string     `json:"device_id"`
	DisplayName string     `json:"initial_device_display_name"`
	Refresh     bool       `json:"refresh_token"`
}

// identifier is whom a client means (spec: "Identifier types").
type identifier struct {
	Type    string `json:"type"`
	User    string `json:"user"`
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

const (
	identifierUser     = "m.id.user"
	identifierThreepid = "m.id.thirdparty"
)

func (q *loginRequest) who() (identifier, error) {
	i := q.Identifier
	if i.Type == "" && q.User != "" {
		i = identifier{Type: identifierUser, User: q.User}
	} else if i.Type == "" && q.Address != "" {
		i = identifier{Type: identifierThreepid, Medium: q.Medium, Address: q.Address}
	}
	switch {
	case i.Type == identifierUser && i.User != "", i.Type == identifierThreepid && i.Medium != "" && i.Address != "":
		return i, nil
	case i.Type == "", i.Type == identifierUser, i.Type == identifierThreepid:
		return i, mxerr.New(mxerr.MissingParam, "The request names no user")
	}
	return i, mxerr.New(mxerr.Unknown, "Unsupported kind of identifier").WithStatus(http.StatusBadRequest)
}

type sessionAnswer struct {
	UserID      string `json:"user_id"`
	AccessToken string `json:"access_token,omitempty"`
	DeviceID    string `json:"device_id,omitempty"`
	HomeServer  string `json:"home_server,omitempty"`
	// ExpiresIn is in ms.
	RefreshToken string `json:"refresh_token,omitempty"`
	ExpiresIn    int64  `json:"expires_in_ms,omitzero"`
}

func answer(s account.LoggedIn) sessionAnswer {
	return sessionAnswer{
		UserID: s.UserID, AccessToken: s.AccessToken, DeviceID: s.DeviceID, HomeServer: string(id.UserID(s.UserID).Server()),
		RefreshToken: s.RefreshToken, ExpiresIn: s.ExpiresIn.Milliseconds(),
	}
}

func (a *Accounts) login(w http.ResponseWriter, r *http.Request) error {
	var q loginRequest
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	d := device(r, q.DeviceID, q.DisplayName)
	d.Refresh = q.Refresh
	var s account.LoggedIn
	switch q.Type {
	case loginPassword:
		who, err := q.who()
		if err != nil {
			return err
		}
		if who.Type == identifierThreepid {
			s, err = a.front.LoginAddress(r.Context(), who.Medium, who.Address, q.Password, d)
		} else {
			s, err = a.front.LoginPassword(r.Context(), who.User, q.Password, d)
		}
		if err != nil {
			return err
		}
	case loginToken:
		if q.Token == "" {
			return mxerr.New(mxerr.MissingParam, "The request has no token")
		}
		var err error
		if s, err = a.front.LoginByToken(r.Context(), q.Token, d); err != nil {
			return err
		}
	case loginAppservice:
		return a.loginAsService(w, r, &q)
	default:
		return mxerr.New(mxerr.Unknown, "Unknown login type").WithStatus(http.StatusBadRequest)
	}
	return httpx.WriteJSON(w, http.StatusOK, answer(s))
}

func (a *Accounts) available(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	name, err := p.Required("username")
	if err != nil {
		return err
	}
	if err := a.front.Available(r.Context(), name); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]bool{"available": true})
}

func (a *Accounts) tokenValidity(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	token, err := p.Required("token")
	if err != nil {
		return err
	}
	ok, err := a.front.TokenValid(r.Context(), token)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]bool{"valid": ok})
}

// registerShared answers both halves of shared-secret registration: a nonce, and the registration itself.
func (a *Accounts) registerShared(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		return httpx.WriteJSON(w, http.StatusOK, map[string]string{"nonce": a.front.Nonce()})
	}
	var q struct {
		Nonce       string `json:"nonce"`
		Username    string `json:"username"`
		DisplayName string `json:"displayname"`
		Password    string `json:"password"`
		Admin       bool   `json:"admin"`
		UserType    string `json:"user_type"`
		MAC         string `json:"mac"`
		Inhibit     bool   `json:"inhibit_login"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	for name, v := range map[string]string{"nonce": q.Nonce, "username": q.Username, "password": q.Password, "mac": q.MAC} {
		if v == "" {
			return mxerr.Newf(mxerr.BadJSON, "%s must be specified", name)
		}
		if strings.ContainsRune(v, 0) {
			return mxerr.Newf(mxerr.Unknown, "%s may not hold a NUL", name).WithStatus(http.StatusBadRequest)
		}
	}
	s, err := a.front.RegisterShared(r.Context(), q.Nonce, q.UserType, q.MAC, account.NewUser{
		Localpart: q.Username, Password: q.Password, Admin: q.Admin, InhibitLogin: q.Inhibit, Device: device(r, "", ""),
	})
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, answer(s))
}

func (a *Accounts) logout(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	if c.Service != nil && c.DeviceID == "" {
		return mxerr.New(mxerr.Forbidden, "An application service's token cannot be logged out")
	}
	cmd := account.Logout{UserID: string(c.UserID)}
	if c.DeviceID != "" {
		cmd.Devices = []string{string(c.DeviceID)}
	} else {
		cmd.TokenHash = &c.TokenHash
	}
	if _, err := a.front.Do(r.Context(), &cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (a *Accounts) logoutAll(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	if _, err := a.front.Do(r.Context(), &account.Logout{UserID: string(c.UserID), All: true}); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (a *Accounts) updateDevice(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		DisplayName *string `json:"display_name"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if c.Service != nil {
		return a.putDevice(w, r, c, q.DisplayName)
	}
	if q.DisplayName != nil {
		if err := account.CheckDisplayName(*q.DisplayName); err != nil {
			return err
		}
		cmd := account.SetDevice{UserID: string(c.UserID), DeviceID: httpx.Var(r, "deviceId"), DisplayName: *q.DisplayName}
		if _, err := a.front.Do(r.Context(), &cmd); err != nil {
			return err
		}
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// putDevice is updateDevice for application services, which make devices by it too.
func (a *Accounts) putDevice(w http.ResponseWriter, r *http.Request, c *auth.Caller, name *string) error {
	cmd := account.PutDevice{UserID: string(c.UserID), DeviceID: httpx.Var(r, "deviceId")}
	if _, err := id.ParseDeviceID(cmd.DeviceID); err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid device id").WithCause(err)
	}
	if name != nil {
		if err := account.CheckDisplayName(*name); err != nil {
			return err
		}
		cmd.DisplayName = *name
	}
	done, err := a.front.Do(r.Context(), &cmd)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if done.DeviceID != "" {
		status = http.StatusCreated
	}
	return httpx.WriteJSON(w, status, empty)
}

func (a *Accounts) setProfileField(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	if c.Suspended {
		return suspended()
	}
	field, err := profileField(r, c)
	if err != nil {
		return err
	}
	var q map[string]jsontext.Value
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	v, ok := q[field]
	if !ok {
		return mxerr.Newf(mxerr.MissingParam, "The body has no member %q", clip(field))
	}
	if err := account.CheckProfileField(field, v); err != nil {
		return err
	}
	return a.setProfile(w, r, c, field, v)
}

func (a *Accounts) deleteProfileField(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	if c.Suspended {
		return suspended()
	}
	field, err := profileField(r, c)
	if err != nil {
		return err
	}
	return a.setProfile(w, r, c, field, nil)
}

// profileField gives the field of the profile that the path names, after refusing one that the caller may not change.
func profileField(r *http.Request, c *auth.Caller) (string, error) {
	field := httpx.Var(r, "keyName")
	if c.Guest() && field != "displayname" {
		return "", mxerr.New(mxerr.GuestAccessForbidden, "Guests may change their display name only")
	}
	return field, account.CheckProfileName(field)
}

func (a *Accounts) setProfile(w http.ResponseWriter, r *http.Request, c *auth.Caller, field string, v []byte) error {
	// The user's rooms hear of it from the log (package profile).
	if _, err := a.front.Do(r.Context(), &account.SetProfile{UserID: string(c.UserID), Field: field, Value: v}); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (a *Accounts) setAccountData(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	typ, room := httpx.Var(r, "type"), httpx.Var(r, "roomId")
	if room != "" {
		if _, err := id.ParseRoomID(room); err != nil {
			return mxerr.New(mxerr.InvalidParam, "Invalid room id").WithCause(err)
		}
	}
	if err := settable(typ); err != nil {
		return err
	}
	var content map[string]jsontext.Value
	body, err := httpx.ReadBody(r)
	if err != nil {
		return err
	}
	if err := httpx.Unmarshal(body, &content); err != nil {
		return err
	}
	value := jsontext.Value(body)
	if err := value.Compact(); err != nil {
		return mxerr.New(mxerr.NotJSON, "The request's body is not JSON").WithCause(err)
	}
	if len(value) > account.MaxAccountData {
		return mxerr.Newf(mxerr.TooLarge, "Account data of one type may be %d bytes long", account.MaxAccountData)
	}
	cmd := account.SetAccountData{UserID: string(c.UserID), RoomID: room, Type: typ, Content: value}
	if _, err := a.front.Do(r.Context(), &cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (a *Accounts) defineFilter(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	body, err := httpx.ReadBody(r)
	if err != nil {
		return err
	}
	var syntax map[string]jsontext.Value
	if err := httpx.Unmarshal(body, &syntax); err != nil {
		return err
	}
	if _, err := filter.Parse(body); err != nil {
		return mxerr.New(mxerr.BadJSON, "Invalid filter").WithCause(err)
	}
	value := jsontext.Value(body)
	if err := value.Canonicalize(); err != nil {
		return mxerr.New(mxerr.NotJSON, "The request's body is not JSON").WithCause(err)
	}
	done, err := a.front.Do(r.Context(), &account.PutFilter{UserID: string(c.UserID), JSON: value})
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"filter_id": done.FilterID})
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
