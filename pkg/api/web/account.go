package web

import (
	"context"
	"net/http"
	"net/url"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/oauth"
)

// question is what is asked before an action, and the button under it.
func question(action string) (ask, button string) {
	switch action {
	case oauth.ActionDeactivate:
		return "Deactivating ends the account for good: nobody can have its name again, and you leave all rooms.", "Deactivate the account for good"
	case oauth.ActionReset:
		return "For ten minutes an app may then make your identity for encryption anew. Others will be told that it changed.", "Let an app make it anew"
	case oauth.ActionDelete:
		return "The device is logged out and cannot read new messages any more.", "Log the device out"
	}
	return "Log in to see your devices and your profile.", "Log in"
}

// account is where people look after their account (spec: "Account management").
func (h *Handlers) account(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return h.manage(w, r)
	}
	q, err := query(r)
	if err != nil {
		return h.failed(w, r, err)
	}
	return h.login(w, http.StatusOK, q, "")
}

// login asks who it is, for an action.
func (h *Handlers) login(w http.ResponseWriter, status int, v url.Values, problem string) error {
	p := page{
		Title: "Your account", Problem: problem, Path: oauth.PathAccount, Action: v.Get("action"), DeviceID: v.Get("device_id"), Username: v.Get("username"),
	}
	p.Ask, p.Button = question(p.Action)
	return h.show(w, status, accountPage, p)
}

// manage does what a form asks for, after who sent it has logged in.
func (h *Handlers) manage(w http.ResponseWriter, r *http.Request) error {
	v, err := form(r)
	if err != nil {
		return h.failed(w, r, err)
	}
	action := v.Get("action")
	u, err := h.who(r, v)
	if err != nil {
		status, why := reason(err)
		if status >= http.StatusInternalServerError || !wantsPage(r) {
			return h.refused(w, err)
		}
		return h.login(w, status, v, why)
	}
	said := ""
	switch action {
	case oauth.ActionDelete:
		_, err = h.o.Front.Do(r.Context(), &account.Logout{UserID: string(u), Devices: []string{v.Get("device_id")}})
		said = "The device is logged out."
	case oauth.ActionReset:
		err = h.o.Front.AllowReset(r.Context(), u)
		said = "Go back to the app within ten minutes to make your identity anew."
	case oauth.ActionProfile:
		if v.Has("displayname") {
			err = h.rename(r.Context(), u, v.Get("displayname"))
			said = "Your name is changed."
		}
	case oauth.ActionDeactivate:
		if v.Get("ticket") != "" { // this takes the password itself
			return h.login(w, http.StatusOK, v, "")
		}
		if _, err = h.o.Contacts.Deactivate(r.Context(), u, "", false); err == nil {
			return h.show(w, http.StatusOK, messagePage, page{Title: "Your account", Said: "The account is deactivated."})
		}
	}
	if err != nil {
		return h.failed(w, r, err)
	}
	return h.overview(w, r, u, said)
}

// rename changes the name that others see.
func (h *Handlers) rename(ctx context.Context, u id.UserID, name string) error {
	_, suspended, err := h.o.Front.Account(ctx, u)
	if err != nil {
		return err
	}
	if suspended {
		return mxerr.New(mxerr.UserSuspended, "The account is suspended")
	}
	value, err := json.Marshal(name)
	if err != nil {
		return mxerr.Internal(err)
	}
	if err := account.CheckProfileField("displayname", value); err != nil {
		return err
	}
	_, err = h.o.Front.Do(ctx, &account.SetProfile{UserID: string(u), Field: "displayname", Value: value})
	return err
}

// who tells who sent a form: by the password, or by the ticket of a page that one with the password got.
func (h *Handlers) who(r *http.Request, v url.Values) (id.UserID, error) {
	if t := v.Get("ticket"); t != "" {
		u, err := h.o.Provider.Holder(t)
		if err != nil {
			return "", err
		}
		locked, _, err := h.o.Front.Account(r.Context(), u) // it may be an old one
		if err == nil && locked {
			err = mxerr.New(mxerr.UserLocked, "This account has been locked")
		}
		return u, err
	}
	return h.o.Front.Authenticate(r.Context(), v.Get("username"), v.Get("password"))
}

func (h *Handlers) overview(w http.ResponseWriter, r *http.Request, u id.UserID, said string) error {
	devices, err := h.o.Accounts.Devices(r.Context(), u)
	if err != nil {
		return err
	}
	name, _, err := h.o.Accounts.Shown(r.Context(), u)
	if err != nil {
		return err
	}
	ticket, err := h.o.Provider.Ticket(u)
	if err != nil {
		return mxerr.Internal(err)
	}
	return h.show(w, http.StatusOK, devicesPage, page{
		Title: "Your account", Said: said, Path: oauth.PathAccount, Request: ticket, Username: string(u), Devices: devices, DisplayName: name,
	})
}
