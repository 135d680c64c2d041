package web

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/sso"
)

// Where logins at providers come by, below the base URL. SSOCallback must be registered at each provider.
const (
	SSOCallback = "/_matrix/sso/callback"
	ssoContinue = "/_matrix/sso/continue"
	ssoCookies  = "/_matrix/sso/"
)

// SSO answers the endpoints by which people log in at outside providers.
type SSO struct {
	*shower
	logins *sso.Logins
	front  *account.Front
	secure bool
}

// NewSSO makes the handlers. baseURL is where people reach the server.
func NewSSO(server id.ServerName, logins *sso.Logins, front *account.Front, baseURL string) *SSO {
	return &SSO{newShower(server), logins, front, strings.HasPrefix(baseURL, "https:")}
}

// Handlers gives the handlers by the names of their rows.
func (s *SSO) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"redirectToSSO": s.redirect, "redirectToIdP": s.redirect, "ssoCallback": s.callback, "ssoContinue": s.goOn, "authFallback": s.fallback,
	}
}

// redirect sends a browser to a provider, or lets the person choose one.
func (s *SSO) redirect(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return s.failed(w, r, err)
	}
	to, err := p.Required("redirectUrl")
	if err != nil {
		return s.failed(w, r, err)
	}
	provider := httpx.Var(r, "idpId")
	all := s.logins.Providers()
	if provider == "" && len(all) == 1 {
		provider = all[0].ID
	}
	if provider == "" {
		if _, err := sso.Redirectable(to); err != nil {
			return s.failed(w, r, err)
		}
		return s.choose(w, all, "/_matrix/client/v3/login/sso/redirect", url.Values{"redirectUrl": {to}})
	}
	b, err := s.logins.Begin(r.Context(), provider, to)
	if err != nil {
		return s.failed(w, r, err)
	}
	return s.off(w, &b)
}

// choose lets the person choose a provider.
func (s *SSO) choose(w http.ResponseWriter, all []sso.Choice, path string, q url.Values) error {
	p := page{Title: "Log in"}
	for _, c := range all {
		p.Links = append(p.Links, account.Document{Name: c.Name, URL: path + "/" + url.PathEscape(c.ID) + "?" + q.Encode()})
	}
	return s.show(w, http.StatusOK, choicePage, p)
}

// off sends the browser to a provider with the cookie of the attempt.
func (s *SSO) off(w http.ResponseWriter, b *sso.Begun) error {
	http.SetCookie(w, &http.Cookie{
		Name: b.Cookie, Value: b.Value, Path: ssoCookies, HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode, MaxAge: 900,
	})
	return leave(w, b.URL)
}

// forget removes the cookie of an attempt that has come to its end.
func (s *SSO) forget(w http.ResponseWriter, state string) {
	http.SetCookie(w, &http.Cookie{
		Name: sso.Cookie(state), Path: ssoCookies, HttpOnly: true, Secure: s.secure, SameSite: http.SameSiteLaxMode, MaxAge: -1,
	})
}

func cookieOf(r *http.Request, state string) string {
	c, err := r.Cookie(sso.Cookie(state))
	if err != nil {
		return ""
	}
	return c.Value
}

// callback is where providers send browsers back.
func (s *SSO) callback(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return s.failed(w, r, err)
	}
	state := p.Get("state")
	if p.Has("error") {
		s.forget(w, state)
		return s.failed(w, r, mxerr.New(mxerr.Forbidden, "The provider did not let you in; begin again in the app"))
	}
	step, err := s.logins.Returned(r.Context(), state, cookieOf(r, state), p.Get("code"))
	if err != nil {
		return s.failed(w, r, err)
	}
	return s.step(w, http.StatusOK, &step, "")
}

// step shows what comes next.
func (s *SSO) step(w http.ResponseWriter, status int, step *sso.Step, problem string) error {
	if step.Leave != "" || step.Done {
		s.forget(w, step.State)
	}
	switch {
	case step.Leave != "":
		return leave(w, step.Leave)
	case step.Done:
		return s.showDone(w)
	}
	cfg := s.front.Config()
	p := page{
		Title: "Log in", Problem: problem, Path: ssoContinue, Request: step.Pending, Session: step.State, NextHost: step.Host, Username: step.User,
	}
	if step.Choose {
		p.Title, p.Username, p.Terms = "Create an account", step.Suggested, documents(&cfg)
		return s.show(w, status, namePage, p)
	}
	return s.show(w, status, handOverPage, p)
}

// goOn takes the person's answer.
func (s *SSO) goOn(w http.ResponseWriter, r *http.Request) error {
	v, err := form(r)
	if err != nil {
		return s.failed(w, r, err)
	}
	state, sealed := v.Get("state"), v.Get("request")
	cookie := cookieOf(r, state)
	var step sso.Step
	if v.Get("do") == doCreate {
		step, err = s.logins.Chosen(r.Context(), state, cookie, sealed, v.Get("username"), v.Get("agree") == "yes")
	} else {
		step, err = s.logins.Agreed(r.Context(), state, cookie, sealed)
	}
	again := mxerr.Is(err, mxerr.UserInUse) || mxerr.Is(err, mxerr.InvalidUsername) || mxerr.Is(err, mxerr.TermsNotSigned)
	if again && wantsPage(r) {
		status, why := reason(err)
		return s.step(w, status, &sso.Step{Choose: true, Suggested: v.Get("username"), State: state, Pending: sealed}, why)
	}
	if err != nil {
		return s.failed(w, r, err)
	}
	return s.step(w, http.StatusOK, &step, "")
}

// fallback is the page on which a stage of an authentication is passed that an app does not know (spec: "Fallback"): at a provider, after the
// person was asked, so that nobody's login elsewhere confirms something that they did not begin.
func (s *SSO) fallback(w http.ResponseWriter, r *http.Request) error {
	if httpx.Var(r, "stage") != sso.Stage {
		return s.failed(w, r, mxerr.New(mxerr.NotFound, "There is no page for this"))
	}
	session := ""
	if r.Method == http.MethodGet {
		p, err := httpx.Query(r)
		if err == nil {
			session, err = p.Required("session")
		}
		if err != nil {
			return s.failed(w, r, err)
		}
		if _, err := s.front.UIA().Look(session); err != nil {
			return s.failed(w, r, mxerr.New(mxerr.InvalidParam, "Unknown or expired authentication session").WithCause(err))
		}
		pg := page{Title: "Confirm", Path: r.URL.Path, Session: session}
		for _, c := range s.logins.Providers() {
			pg.Links = append(pg.Links, account.Document{Name: c.Name, URL: c.ID})
		}
		return s.show(w, http.StatusOK, stagePage, pg)
	}
	v, err := form(r)
	if err != nil {
		return s.failed(w, r, err)
	}
	b, err := s.logins.BeginStage(r.Context(), v.Get("provider"), v.Get("session"))
	if err != nil {
		return s.failed(w, r, err)
	}
	return s.off(w, &b)
}
