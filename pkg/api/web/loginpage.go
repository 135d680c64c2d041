package web

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"

	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// LoginPage is the page on which people log in whose app knows none of the ways (spec: "Login fallback"): the app shows it in a view of its own, and
// is handed the session by a script.
type LoginPage struct {
	*shower
	front   *account.Front
	baseURL string // empty: there are no providers
}

const loginPagePath = "/_matrix/static/client/login/"

// NewLoginPage makes the handlers. baseURL is where providers send browsers back to; empty: there are none.
func NewLoginPage(server id.ServerName, front *account.Front, baseURL string) *LoginPage {
	return &LoginPage{newShower(server), front, baseURL}
}

// Handlers gives the handlers by the names of their rows.
func (l *LoginPage) Handlers() httpx.Handlers { return httpx.Handlers{"loginFallback": l.login} }

func (l *LoginPage) login(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		q, err := httpx.Query(r)
		if err != nil {
			return l.failed(w, r, err)
		}
		return l.ask(w, http.StatusOK, &page{
			Token: q.Get("loginToken"), DeviceID: q.Get("device_id"), DisplayName: q.Get("initial_device_display_name"),
		})
	}
	v, err := form(r)
	if err != nil {
		return l.failed(w, r, err)
	}
	p := &page{Token: v.Get("loginToken"), DeviceID: v.Get("device_id"), DisplayName: v.Get("initial_device_display_name"), Username: v.Get("username")}
	d := account.NewDevice{DeviceID: p.DeviceID, DisplayName: p.DisplayName, UserAgent: r.UserAgent()}
	if c := auth.From(r.Context()); c != nil && c.Addr.IsValid() {
		d.IP = c.Addr.String()
	}
	var in account.LoggedIn
	if p.Token != "" {
		in, err = l.front.LoginByToken(r.Context(), p.Token, d)
	} else {
		in, err = l.front.LoginPassword(r.Context(), p.Username, v.Get("password"), d)
	}
	if err != nil {
		status, why := reason(err)
		if status >= http.StatusInternalServerError || !wantsPage(r) {
			return l.refused(w, err)
		}
		p.Token, p.Problem = "", why // a token is good once
		return l.ask(w, status, p)
	}
	return l.handOver(w, &in)
}

func (l *LoginPage) ask(w http.ResponseWriter, status int, p *page) error {
	p.Title, p.Path = "Log in", loginPagePath
	if l.baseURL != "" && p.Token == "" {
		back := l.baseURL + loginPagePath + "?" + url.Values{"device_id": {p.DeviceID}, "initial_device_display_name": {p.DisplayName}}.Encode()
		p.Next = "/_matrix/client/v3/login/sso/redirect?" + url.Values{"redirectUrl": {back}}.Encode()
	}
	return l.show(w, status, enterPage, *p)
}

// handOver gives the session to the app. What stands in the script is JSON in which nothing can end it, and the policy lets this script run and no other.
func (l *LoginPage) handOver(w http.ResponseWriter, in *account.LoggedIn) error {
	session := map[string]any{
		"user_id": in.UserID, "access_token": in.AccessToken, "device_id": in.DeviceID, "home_server": id.UserID(in.UserID).Server(),
	}
	if in.ExpiresIn > 0 {
		session["expires_in_ms"] = in.ExpiresIn.Milliseconds()
	}
	raw, err := json.Marshal(session) // escapes <, > and &
	if err != nil {
		return mxerr.Internal(err)
	}
	script := "if(window.onLogin){window.onLogin(" + string(raw) + ")}else if(window.matrixLogin&&window.matrixLogin.onLogin){window.matrixLogin.onLogin(" + string(raw) + ")}"
	sum := sha256.Sum256([]byte(script))
	csp := l.csp + "; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	return l.showBy(w, http.StatusOK, csp, func(p *page) g.Node {
		return frame(p, h.P(g.Text("You are logged in. Go back to the app.")), h.Script(g.Raw(script)))
	}, page{Title: "Thank you"})
}

// enterPage asks who somebody is, or goes on with what a provider has said.
func enterPage(p *page) g.Node {
	return frame(p,
		h.Form(
			h.Method("post"), h.Action(p.Path),
			hidden("device_id", p.DeviceID), hidden("initial_device_display_name", p.DisplayName),
			g.If(p.Token != "", hidden("loginToken", p.Token)),
			g.If(p.Token == "", credentials(p)),
			h.Button(g.Text("Log in")),
		),
		g.If(p.Next != "", h.P(h.A(h.Href(p.Next), g.Text("Log in at another provider")))),
	)
}
