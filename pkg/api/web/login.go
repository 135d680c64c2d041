package web

import (
	"net/http"
	"net/url"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/oauth"
)

// What the buttons of the login page say.
const (
	doLogin    = "login"
	doRegister = "register"
	doDeny     = "deny"
	doCreate   = "create"
	doHave     = "have"
	doLetter   = "letter"
)

// query reads the request's query as OAuth 2.0 has it: no name twice.
func query(r *http.Request) (url.Values, error) {
	p, err := httpx.Query(r)
	if err != nil {
		return nil, err
	}
	v := url.Values{}
	for _, name := range []string{
		"client_id", "response_type", "response_mode", "redirect_uri", "scope", "state", "code_challenge", "code_challenge_method", "prompt",
		"code", "action", "device_id",
	} {
		if p.Has(name) {
			v.Set(name, p.Get(name))
		}
	}
	return v, nil
}

// authorize is the authorisation endpoint: it shows what a client asks for, and takes the person's answer.
func (h *Handlers) authorize(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return h.answer(w, r, oauth.PathAuthorize)
	}
	q, err := query(r)
	if err != nil {
		return h.failed(w, r, err)
	}
	c, request, redirect, err := h.o.Provider.Authorize(q)
	if redirect != "" {
		return leave(w, redirect)
	}
	if err != nil {
		return h.failed(w, r, err)
	}
	return h.ask(w, http.StatusOK, oauth.PathAuthorize, &c, &request, page{Creating: request.Create && h.o.Front.Config().Enabled})
}

// leave sends the browser to a client.
func leave(w http.ResponseWriter, to string) error {
	w.Header().Set("Location", to)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// ask shows a request with the fields for who answers it.
func (h *Handlers) ask(w http.ResponseWriter, status int, path string, c *oauth.Client, r *oauth.Request, p page) error {
	sealed, err := h.o.Provider.Seal(r)
	if err != nil {
		return mxerr.Internal(err)
	}
	cfg := h.o.Front.Config()
	p.Title = "Log in"
	if p.Creating {
		p.Title = "Create an account"
	}
	p.Path, p.Client, p.Request, p.Registers, p.NeedsToken = path, c, sealed, cfg.Enabled, cfg.RequireToken
	p.Terms = documents(&cfg)
	if p.Creating && cfg.RequireEmail && p.Letter == "" {
		return h.show(w, status, emailPage, p)
	}
	return h.show(w, status, loginPage, p)
}

// answer takes a person's answer to a request.
func (h *Handlers) answer(w http.ResponseWriter, r *http.Request, path string) error {
	v, err := form(r)
	if err != nil {
		return h.failed(w, r, err)
	}
	c, request, err := h.o.Provider.Open(v.Get("request"))
	if err != nil {
		return h.failed(w, r, err)
	}
	p := page{Username: v.Get("username"), Letter: v.Get("letter"), Email: v.Get("email")}
	var u id.UserID
	switch v.Get("do") {
	case doDeny:
		return h.done(w, r, &request, "")
	case doCreate:
		p.Creating = h.o.Front.Config().Enabled
		return h.ask(w, http.StatusOK, path, &c, &request, p)
	case doHave:
		return h.ask(w, http.StatusOK, path, &c, &request, p)
	case doLetter:
		p.Creating = true
		if p.Letter, err = h.letter(r, v.Get("email")); err == nil {
			return h.ask(w, http.StatusOK, path, &c, &request, p)
		}
	case doRegister:
		p.Creating = true
		u, err = h.create(r, v)
	default:
		u, err = h.o.Front.Authenticate(r.Context(), v.Get("username"), v.Get("password"))
	}
	if err != nil {
		status, why := reason(err)
		if status >= http.StatusInternalServerError || !wantsPage(r) {
			return h.refused(w, err)
		}
		p.Problem = why
		return h.ask(w, status, path, &c, &request, p)
	}
	return h.done(w, r, &request, u)
}

// create makes an account, as far as anybody may.
func (h *Handlers) create(r *http.Request, v url.Values) (id.UserID, error) {
	cfg := h.o.Front.Config()
	if !cfg.Enabled {
		return "", mxerr.New(mxerr.Forbidden, "Registration has been disabled")
	}
	if v.Get("username") == "" || v.Get("password") == "" {
		return "", mxerr.New(mxerr.MissingParam, "A user name and a password are needed")
	}
	if err := h.o.Front.Available(r.Context(), v.Get("username")); err != nil {
		return "", err
	}
	n := account.NewUser{Localpart: v.Get("username"), Password: v.Get("password"), InhibitLogin: true}
	if cfg.RequireToken {
		n.Token = v.Get("token")
		ok, err := h.o.Front.TokenValid(r.Context(), n.Token)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", mxerr.New(mxerr.Unauthorized, "Invalid registration token")
		}
	}
	if n.Consents = cfg.Consents(); len(n.Consents) > 0 && v.Get("agree") != "yes" {
		return "", mxerr.New(mxerr.TermsNotSigned, "An account is for those who agree to the terms")
	}
	if cfg.RequireEmail {
		n.Address = answered(v.Get("letter"))
	}
	in, err := h.o.Front.Register(r.Context(), n)
	return id.UserID(in.UserID), err
}

// letter has a letter sent to who makes an account, and gives what the page shows when its link was opened.
func (h *Handlers) letter(r *http.Request, email string) (string, error) {
	cfg := h.o.Front.Config()
	if !cfg.Enabled || h.o.Letters == nil {
		return "", mxerr.New(mxerr.Forbidden, "Registration has been disabled")
	}
	return ask(r, h.o.Letters, account.PurposeRegister, email)
}

// documents are what somebody agrees to who makes an account.
func documents(cfg *account.Config) (out []account.Document) {
	for i := range cfg.Terms {
		out = append(out, cfg.Terms[i].Title())
	}
	return out
}

// done carries a person's answer to the client: u allows, and nobody refuses.
func (h *Handlers) done(w http.ResponseWriter, r *http.Request, request *oauth.Request, u id.UserID) error {
	if request.User != "" {
		if err := h.o.Provider.Answer(r.Context(), request, u); err != nil {
			return h.failed(w, r, err)
		}
		said := "Your device is logged in. You can close this page."
		if u == "" {
			said = "The device was refused. You can close this page."
		}
		return h.show(w, http.StatusOK, messagePage, page{Title: "Done", Said: said})
	}
	if u == "" {
		return leave(w, request.Deny())
	}
	to, err := h.o.Provider.Grant(r.Context(), request, u)
	if err != nil {
		return h.failed(w, r, err)
	}
	return leave(w, to)
}

// link is where the code is entered that a device without a browser shows.
func (h *Handlers) link(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return h.answer(w, r, oauth.PathLink)
	}
	q, err := query(r)
	if err != nil {
		return h.failed(w, r, err)
	}
	if q.Get("code") == "" {
		return h.show(w, http.StatusOK, linkPage, page{Title: "Log in a device", Path: oauth.PathLink})
	}
	c, request, err := h.o.Provider.Waiting(r.Context(), q.Get("code"))
	if err != nil {
		status, why := reason(err)
		if status >= http.StatusInternalServerError || !wantsPage(r) {
			return h.refused(w, err)
		}
		return h.show(w, status, linkPage, page{Title: "Log in a device", Path: oauth.PathLink, Username: q.Get("code"), Problem: why})
	}
	return h.ask(w, http.StatusOK, oauth.PathLink, &c, &request, page{})
}
