package write

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// AuthMetadata is what an outside authentication service says of itself.
type AuthMetadata struct {
	JSON                 []byte
	Issuer               string
	AccountManagementURI string
}

// DelegatedOptions are what Delegated needs.
type DelegatedOptions struct {
	// Secret is what the service shows when it calls.
	Secret   string
	Front    *account.Front
	Contacts Contacts
	Profiles *account.Reader
	Metadata func(ctx context.Context) (AuthMetadata, error)
}

// Delegated answers for a deployment whose accounts an outside OAuth 2.0 service keeps: it points clients to the service, and does what the
// service asks for (the provisioning API under /_synapse/mas). Its handlers replace those of the login that is the server's own.
type Delegated struct {
	o      DelegatedOptions
	secret [sha256.Size]byte
}

// NewDelegated makes the handlers.
func NewDelegated(o DelegatedOptions) *Delegated {
	return &Delegated{o: o, secret: sha256.Sum256([]byte(o.Secret))}
}

// Handlers gives the handlers by the names of their rows.
func (d *Delegated) Handlers() httpx.Handlers {
	h := httpx.Handlers{
		"getAuthMetadata":           d.metadata,
		"getAuthIssuer":             d.issuer,
		"provisionQueryUser":        d.trusted(d.queryUser),
		"provisionUser":             d.trusted(d.provision),
		"provisionAvailable":        d.trusted(d.available),
		"provisionDeleteUser":       d.trusted(d.deleteUser),
		"provisionReactivateUser":   d.trusted(d.reactivate),
		"provisionSetDisplayName":   d.trusted(d.setDisplayName),
		"provisionUnsetDisplayName": d.trusted(d.unsetDisplayName),
		"provisionAllowReset":       d.trusted(d.allowReset),
		"provisionUpsertDevice":     d.trusted(d.upsertDevice),
		"provisionDeleteDevice":     d.trusted(d.deleteDevice),
		"provisionRenameDevice":     d.trusted(d.renameDevice),
		"provisionSyncDevices":      d.trusted(d.syncDevices),
	}
	// What belongs to the login that is the server's own. A proxy may send these to the service, which can answer old clients.
	for _, name := range []string{
		"getLoginFlows", "login", "generateLoginToken", "refresh", "logout", "logout_all", "register", "checkUsernameAvailability",
		"registrationTokenValidity", "changePassword", "deactivateAccount", "deleteDevice", "deleteDevices", "adminSharedSecretRegister",
		"requestTokenToRegisterEmail", "requestTokenToRegisterMSISDN", "requestTokenToResetPasswordEmail", "requestTokenToResetPasswordMSISDN",
		"requestTokenTo3PIDEmail", "requestTokenTo3PIDMSISDN", "add3PID",
	} {
		h[name] = elsewhere
	}
	return h
}

func elsewhere(http.ResponseWriter, *http.Request) error {
	return mxerr.New(mxerr.Unrecognized, "Accounts of this server are kept by its OAuth 2.0 service, which /auth_metadata names")
}

func (d *Delegated) metadata(w http.ResponseWriter, r *http.Request) error {
	m, err := d.known(r.Context())
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, jsontext.Value(m.JSON))
}

func (d *Delegated) issuer(w http.ResponseWriter, r *http.Request) error {
	m, err := d.known(r.Context())
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"issuer": m.Issuer})
}

func (d *Delegated) known(ctx context.Context) (AuthMetadata, error) {
	m, err := d.o.Metadata(ctx)
	if err != nil {
		return m, mxerr.New(mxerr.Unknown, "The authentication service cannot be reached now").WithStatus(http.StatusServiceUnavailable).WithCause(err)
	}
	return m, nil
}

// Confirm is how users confirm what they do where the service has their proofs: only the replacement of cross-signing keys can be confirmed,
// on the service's own pages (spec: "OAuth authentication" stage). It tells whether the request has passed; if not, it has been
// answered.
func (d *Delegated) Confirm(w http.ResponseWriter, r *http.Request) (bool, error) {
	u := auth.Must(r.Context()).UserID
	may, err := d.o.Front.MayReset(r.Context(), u)
	if err != nil || may {
		return may, err
	}
	m, err := d.known(r.Context())
	if err != nil {
		return false, err
	}
	page, err := url.Parse(m.AccountManagementURI)
	if err != nil || m.AccountManagementURI == "" {
		return false, mxerr.New(mxerr.Forbidden, "The authentication service has no page on which this could be confirmed")
	}
	q := page.Query()
	q.Set("action", "org.matrix.cross_signing_reset")
	page.RawQuery = q.Encode()
	sid, err := d.o.Front.UIA().ID(d.o.Front.UIA().Begin(account.UIABind(string(u))))
	if err != nil {
		return false, mxerr.Internal(err)
	}
	const stage, unstableStage = "m.oauth", "org.matrix.cross_signing_reset"
	where := map[string]string{"url": page.String()}
	return false, httpx.WriteJSON(w, http.StatusUnauthorized, map[string]any{
		"session": sid,
		"flows":   []map[string][]string{{"stages": {stage}}, {"stages": {unstableStage}}},
		"params":  map[string]any{stage: where, unstableStage: where},
	})
}

// provisioned is the body of all requests of the service.
type provisioned struct {
	Localpart        string   `json:"localpart"`
	SetDisplayName   *string  `json:"set_displayname"`
	UnsetDisplayName bool     `json:"unset_displayname"`
	SetAvatarURL     *string  `json:"set_avatar_url"`
	UnsetAvatarURL   bool     `json:"unset_avatar_url"`
	Locked           *bool    `json:"locked"`
	Erase            bool     `json:"erase"`
	DisplayName      *string  `json:"displayname"`
	DeviceID         string   `json:"device_id"`
	DeviceName       string   `json:"display_name"`
	Devices          []string `json:"devices"`
}

type provisioning func(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error

// trusted lets only the service through, and finds out of whom it speaks.
func (d *Delegated) trusted(h provisioning) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		token, ok, err := auth.Token(r)
		if err != nil {
			return err
		}
		shown := sha256.Sum256([]byte(token))
		if !ok || subtle.ConstantTimeCompare(shown[:], d.secret[:]) != 1 {
			return mxerr.New(mxerr.Forbidden, "Only the authentication service may do that")
		}
		var q provisioned
		if r.Method == http.MethodGet {
			p, err := httpx.Query(r)
			if err != nil {
				return err
			}
			q.Localpart = p.Get("localpart")
		} else if err := httpx.Decode(r, &q); err != nil {
			return err
		}
		if q.Localpart == "" {
			return mxerr.New(mxerr.MissingParam, "The request has no localpart")
		}
		u, err := d.o.Front.CheckLocalpart(q.Localpart)
		if err != nil {
			return err
		}
		if u.Localpart() != q.Localpart {
			return mxerr.New(mxerr.InvalidUsername, "The localpart has capital letters")
		}
		return h(w, r, u, &q)
	}
}

// do has a command done and answers with an empty object.
func (d *Delegated) do(w http.ResponseWriter, r *http.Request, cmd account.Command) error {
	if _, err := d.o.Front.Do(r.Context(), cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (d *Delegated) queryUser(w http.ResponseWriter, r *http.Request, u id.UserID, _ *provisioned) error {
	s, ok, err := d.o.Front.Standing(r.Context(), u)
	switch {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.NotFound, "Unknown user")
	}
	name, avatar, err := d.o.Profiles.Shown(r.Context(), u)
	if err != nil {
		return err
	}
	orNull := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		UserID      id.UserID `json:"user_id"`
		DisplayName *string   `json:"display_name"`
		AvatarURL   *string   `json:"avatar_url"`
		Suspended   bool      `json:"is_suspended"`
		Deactivated bool      `json:"is_deactivated"`
		Locked      bool      `json:"is_locked"`
	}{u, orNull(name), orNull(avatar), s.Suspended, s.Deactivated, s.Locked})
}

func (d *Delegated) available(w http.ResponseWriter, r *http.Request, u id.UserID, _ *provisioned) error {
	if err := d.o.Front.Available(r.Context(), u.Localpart()); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (d *Delegated) provision(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error {
	made, err := d.o.Front.Provision(r.Context(), u)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name  string
		value *string
		unset bool
	}{{"displayname", q.SetDisplayName, q.UnsetDisplayName}, {"avatar_url", q.SetAvatarURL, q.UnsetAvatarURL}} {
		if f.value == nil && !f.unset {
			continue
		}
		if err := d.setField(r.Context(), u, f.name, f.value); err != nil {
			return err
		}
	}
	if q.Locked != nil {
		if _, err := d.o.Front.Do(r.Context(), &account.SetStanding{UserID: string(u), Locked: q.Locked}); err != nil {
			return err
		}
	}
	status := http.StatusOK
	if made {
		status = http.StatusCreated
	}
	return httpx.WriteJSON(w, status, empty)
}

// setField sets a field of the profile to a text, or removes it.
func (d *Delegated) setField(ctx context.Context, u id.UserID, field string, value *string) error {
	cmd := &account.SetProfile{UserID: string(u), Field: field}
	if value != nil {
		v, err := json.Marshal(*value)
		if err != nil {
			return mxerr.New(mxerr.BadJSON, "The value is no text").WithCause(err)
		}
		if err := account.CheckProfileField(field, v); err != nil {
			return err
		}
		cmd.Value = v
	}
	_, err := d.o.Front.Do(ctx, cmd)
	return err
}

func (d *Delegated) deleteUser(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error {
	if _, err := d.o.Contacts.Deactivate(r.Context(), u, "", q.Erase); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (d *Delegated) reactivate(w http.ResponseWriter, r *http.Request, u id.UserID, _ *provisioned) error {
	return d.do(w, r, &account.Reactivate{UserID: string(u)})
}

func (d *Delegated) setDisplayName(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error {
	if q.DisplayName == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no displayname")
	}
	return d.profile(w, r, u, q.DisplayName)
}

func (d *Delegated) unsetDisplayName(w http.ResponseWriter, r *http.Request, u id.UserID, _ *provisioned) error {
	return d.profile(w, r, u, nil)
}

func (d *Delegated) profile(w http.ResponseWriter, r *http.Request, u id.UserID, name *string) error {
	if err := d.open(r.Context(), u); err != nil {
		return err
	}
	if err := d.setField(r.Context(), u, "displayname", name); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// open refuses what is asked of an account that there is not.
func (d *Delegated) open(ctx context.Context, u id.UserID) error {
	s, ok, err := d.o.Front.Standing(ctx, u)
	if err == nil && (!ok || s.Deactivated) {
		return mxerr.New(mxerr.NotFound, "Unknown user")
	}
	return err
}

func (d *Delegated) allowReset(w http.ResponseWriter, r *http.Request, u id.UserID, _ *provisioned) error {
	if err := d.o.Front.AllowReset(r.Context(), u); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// maxProvisioned bounds the devices that one request may name, and maxNamed the bytes of a device's name.
const (
	maxProvisioned = 1000
	maxDeviceName  = 1 << 10
)

func checkDevice(deviceID string) error {
	switch {
	case deviceID == "":
		return mxerr.New(mxerr.MissingParam, "The request has no device_id")
	case len(deviceID) > 255:
		return mxerr.New(mxerr.InvalidParam, "The device id is longer than 255 bytes")
	}
	return nil
}

func (d *Delegated) upsertDevice(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error {
	return d.putDevice(w, r, u, q, true)
}

func (d *Delegated) renameDevice(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error {
	return d.putDevice(w, r, u, q, false)
}

func (d *Delegated) putDevice(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned, upsert bool) error {
	if err := checkDevice(q.DeviceID); err != nil {
		return err
	}
	if len(q.DeviceName) > maxDeviceName {
		return mxerr.New(mxerr.InvalidParam, "The device's name is too long")
	}
	if upsert {
		return d.do(w, r, &account.PutDevice{UserID: string(u), DeviceID: q.DeviceID, DisplayName: q.DeviceName})
	}
	return d.do(w, r, &account.SetDevice{UserID: string(u), DeviceID: q.DeviceID, DisplayName: q.DeviceName})
}

func (d *Delegated) deleteDevice(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error {
	if err := checkDevice(q.DeviceID); err != nil {
		return err
	}
	if _, err := d.o.Front.Do(r.Context(), &account.Logout{UserID: string(u), Devices: []string{q.DeviceID}}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (d *Delegated) syncDevices(w http.ResponseWriter, r *http.Request, u id.UserID, q *provisioned) error {
	if q.Devices == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no devices")
	}
	if len(q.Devices) > maxProvisioned {
		return mxerr.New(mxerr.TooLarge, "The request names too many devices")
	}
	for _, dev := range q.Devices {
		if err := checkDevice(dev); err != nil {
			return err
		}
	}
	return d.do(w, r, &account.SyncDevices{UserID: string(u), Devices: q.Devices})
}
