package read

import (
	"maps"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/appservice"
	"github.com/heddle-im/heddle/pkg/service/delay"
)

// AccountsOptions are what the handlers of accounts answer from.
type AccountsOptions struct {
	Server   id.ServerName
	Accounts *account.Reader
	// BaseURL is where clients reach the homeserver; empty: it is not announced.
	BaseURL string
	// Delegated tells that an outside service keeps the accounts, so that clients can change little of them here.
	Delegated bool
	// Email tells that people can change their e-mail addresses here.
	Email bool
	// OAuth tells that the server gives tokens by OAuth 2.0 itself.
	OAuth bool
	// Meets tells that devices can meet for a login by QR code.
	Meets bool
	// Delays are the bounds of delayed events.
	Delays delay.Config
	// Calls are the servers over which calls go.
	Calls Calls
	// Previews tells that there are previews of URLs.
	Previews bool
	// Remote asks other servers for their users' profiles.
	Remote Remote
	// Asker asks application services; nil: nobody is asked.
	Asker *appservice.Asker
}

// Accounts answers what is read of accounts, and what the server says of itself.
type Accounts struct{ o AccountsOptions }

// NewAccounts makes the handlers.
func NewAccounts(o AccountsOptions) *Accounts { return &Accounts{o} }

// Handlers gives the handlers by the names of their rows.
func (a *Accounts) Handlers() httpx.Handlers {
	handlers := httpx.Handlers{
		"getVersions":           a.versions,
		"getCapabilities":       a.capabilities,
		"getWellknown":          a.wellKnown,
		"getTokenOwner":         a.whoami,
		"getWhoIs":              a.whoIs,
		"getDevices":            a.devices,
		"getDevice":             a.device,
		"getUserProfile":        a.profile,
		"getProfileField":       a.profileField,
		"getAccountData":        a.accountData,
		"getAccountDataPerRoom": a.accountData,
		"getRoomTags":           a.tags,

		"getThreadSubscription":  a.threadSubscription,
		"getThreadSubscriptions": a.threadSubscriptions,

		"getFilter":          a.filter,
		"getPushers":         a.pushers,
		"getPushRules":       a.pushRules,
		"getPushRulesGlobal": a.pushRulesGlobal,
		"getPushRule":        a.pushRule,
		"isPushRuleEnabled":  a.pushRuleEnabled,
		"getPushRuleActions": a.pushRuleActions,
		"getTurnServer":      a.o.Calls.turn,
		"getRtcTransports":   a.o.Calls.transports,
	}
	maps.Copy(handlers, thirdParties{a.o.Asker}.handlers())
	return handlers
}

// self gives the caller, after refusing a path that names another user.
func self(r *http.Request) (*auth.Caller, error) {
	c := auth.Must(r.Context())
	if u := httpx.Var(r, "userId"); u != string(c.UserID) {
		return nil, mxerr.New(mxerr.Forbidden, "You cannot read another user's data")
	}
	return c, nil
}

func (a *Accounts) wellKnown(w http.ResponseWriter, _ *http.Request) error {
	if a.o.BaseURL == "" {
		return mxerr.New(mxerr.NotFound, "This server does not announce where it is")
	}
	known := map[string]any{"m.homeserver": map[string]string{"base_url": a.o.BaseURL}}
	if foci := a.o.Calls.foci(); len(foci) > 0 { // of clients that do not ask for transports
		known["org.matrix.msc4143.rtc_foci"] = foci
	}
	if a.o.OAuth { // of older clients; today's ask /auth_metadata
		known["org.matrix.msc2965.authentication"] = map[string]string{"issuer": a.o.BaseURL + "/", "account": a.o.BaseURL + "/_matrix/oauth2/account"}
	}
	return httpx.WriteJSON(w, http.StatusOK, known)
}

func (a *Accounts) whoami(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	return httpx.WriteJSON(w, http.StatusOK, struct {
		UserID   id.UserID   `json:"user_id"`
		DeviceID id.DeviceID `json:"device_id,omitempty"`
		IsGuest  bool        `json:"is_guest"`
	}{c.UserID, c.DeviceID, c.Guest()})
}

type deviceAnswer struct {
	DeviceID    string `json:"device_id"`
	DisplayName string `json:"display_name,omitempty"`
	LastSeenIP  string `json:"last_seen_ip,omitempty"`
	LastSeenTS  int64  `json:"last_seen_ts,omitempty"`
}

func asDevice(d account.Device) deviceAnswer {
	return deviceAnswer{DeviceID: d.DeviceID, DisplayName: d.DisplayName, LastSeenIP: d.LastSeenIP, LastSeenTS: d.LastSeen}
}

func (a *Accounts) devices(w http.ResponseWriter, r *http.Request) error {
	list, err := a.o.Accounts.Devices(r.Context(), auth.Must(r.Context()).UserID)
	if err != nil {
		return err
	}
	out := make([]deviceAnswer, len(list))
	for i, d := range list {
		out[i] = asDevice(d)
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string][]deviceAnswer{"devices": out})
}

// whoIs tells where a user's devices were last seen: to the user, and to administrators.
func (a *Accounts) whoIs(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	u, err := id.ParseUserID(httpx.Var(r, "userId"))
	switch {
	case err != nil:
		return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	case u != c.UserID && !c.Admin:
		return mxerr.New(mxerr.Forbidden, "You are not a server administrator")
	case u.Server() != a.o.Server:
		return mxerr.New(mxerr.InvalidParam, "The user is not of this server")
	}
	list, err := a.o.Accounts.Devices(r.Context(), u)
	if err != nil {
		return err
	}
	type connection struct {
		IP        string `json:"ip"`
		LastSeen  int64  `json:"last_seen"`
		UserAgent string `json:"user_agent"`
	}
	type session struct {
		Connections []connection `json:"connections"`
	}
	type deviceInfo struct {
		Sessions []session `json:"sessions"`
	}
	devices := make(map[string]deviceInfo, len(list))
	for _, d := range list {
		devices[d.DeviceID] = deviceInfo{[]session{{[]connection{{d.LastSeenIP, d.LastSeen, d.UserAgent}}}}}
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"user_id": u, "devices": devices})
}

func (a *Accounts) device(w http.ResponseWriter, r *http.Request) error {
	d, ok, err := a.o.Accounts.Device(r.Context(), auth.Must(r.Context()).UserID, id.DeviceID(httpx.Var(r, "deviceId")))
	switch {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.NotFound, "Unknown device")
	}
	return httpx.WriteJSON(w, http.StatusOK, asDevice(d))
}

// profileOf gives the fields of a local user's profile; a user who is not there, or not of this server, is not found.
func (a *Accounts) profileOf(r *http.Request) (map[string]jsontext.Value, error) {
	u, err := id.ParseUserID(httpx.Var(r, "userId"))
	if err != nil {
		return nil, mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	}
	unknown := mxerr.New(mxerr.NotFound, "Profile was not found")
	if u.Server() != a.o.Server {
		fields, err := a.o.Remote.Profile(r.Context(), u, "")
		if err != nil {
			return nil, unknown.WithCause(err)
		}
		out := make(map[string]jsontext.Value, len(fields))
		for f, v := range fields {
			out[f] = jsontext.Value(v)
		}
		return out, nil
	}
	fields, err := a.o.Accounts.Profile(r.Context(), u)
	if err != nil {
		return nil, err
	}
	if len(fields) == 0 {
		exists, err := a.o.Accounts.Exists(r.Context(), u)
		if err == nil && !exists {
			if exists, err = a.o.Asker.User(r.Context(), u); exists {
				fields, err = a.o.Accounts.Profile(r.Context(), u)
			}
		}
		if err != nil {
			return nil, err
		}
		if !exists {
			return nil, unknown
		}
	}
	out := make(map[string]jsontext.Value, len(fields))
	for f, v := range fields {
		out[f] = v
	}
	return out, nil
}

func (a *Accounts) profile(w http.ResponseWriter, r *http.Request) error {
	p, err := a.profileOf(r)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, p)
}

func (a *Accounts) profileField(w http.ResponseWriter, r *http.Request) error {
	p, err := a.profileOf(r)
	if err != nil {
		return err
	}
	field := httpx.Var(r, "keyName")
	v, ok := p[field]
	if !ok {
		if field == "displayname" || field == "avatar_url" {
			return httpx.WriteEmpty(w)
		}
		return mxerr.New(mxerr.NotFound, "The profile has no such field")
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]jsontext.Value{field: v})
}

func (a *Accounts) accountData(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	typ, room := httpx.Var(r, "type"), httpx.Var(r, "roomId")
	if room != "" {
		if _, err := roomVar(r); err != nil {
			return err
		}
	}
	if room == "" && typ == account.TypePushRules {
		return a.pushRules(w, r)
	}
	v, ok, err := a.o.Accounts.AccountData(r.Context(), c.UserID, room, typ)
	switch {
	case err != nil:
		return err
	case !ok, string(v) == "{}": // what is deleted is left so (MSC3391)
		return mxerr.New(mxerr.NotFound, "No account data of this type")
	}
	httpx.WriteRaw(w, http.StatusOK, v)
	return nil
}

func (a *Accounts) tags(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	v, ok, err := a.o.Accounts.AccountData(r.Context(), c.UserID, string(room), "m.tag")
	if err != nil {
		return err
	}
	if !ok {
		v = []byte(`{"tags":{}}`)
	}
	httpx.WriteRaw(w, http.StatusOK, v)
	return nil
}

func (a *Accounts) filter(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	v, ok, err := a.o.Accounts.Filter(r.Context(), c.UserID, httpx.Var(r, "filterId"))
	switch {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.NotFound, "Unknown filter")
	}
	httpx.WriteRaw(w, http.StatusOK, v)
	return nil
}
