// Package sso lets people log in at outside providers (spec: "SSO client login/authentication").
//
// Guarantees: an attempt belongs to the browser that began it, by a cookie that nobody can read or make; whom a provider vouches for is known by
// the provider's subject and by nothing else, unless the configuration says that names are the same on both sides; a login token is made
// at the moment when it is handed over, and goes where the person agreed to, or to an app that the configuration trusts. A [Logins] keeps
// nothing, so that any master goes on with what another began. It is safe for concurrent use.
//
// It is imported by api/ and the composition root.
package sso

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// Stage is the stage of an authentication that is passed at a provider.
const Stage = "m.login.sso"

// lifetime is how long somebody may take to log in at a provider and to answer what is asked after it.
const lifetime = 15 * time.Minute

// Identity is whom a provider vouches for. What it does not say is empty.
type Identity struct {
	Subject, Localpart, DisplayName string
	// Email is one that the provider says it has verified.
	Email string
}

// Provider is an outside provider.
type Provider interface {
	// AuthURL is where a browser goes; fresh has the person prove anew who it is.
	AuthURL(ctx context.Context, state, nonce, verifier string, fresh bool) (string, error)
	// Exchange tells whom the provider vouches for.
	Exchange(ctx context.Context, code, nonce, verifier string) (Identity, error)
}

// Choice is a provider as people and apps see it.
type Choice struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Icon  string `json:"icon,omitempty"`
	Brand string `json:"brand,omitempty"`
	// LinkExisting lets whoever has an account's name at the provider into that account; ExistingOnly makes no new ones.
	LinkExisting bool     `json:"-"`
	ExistingOnly bool     `json:"-"`
	Provider     Provider `json:"-"`
}

// Options are what Logins needs.
type Options struct {
	Server    id.ServerName
	Secret    []byte
	Front     *account.Front
	Providers []Choice
	// Redirects are beginnings of addresses of trusted apps.
	Redirects []string
	Now       func() time.Time
}

// Logins are the logins at providers.
type Logins struct {
	o   Options
	box *account.Box
}

// New makes Logins.
func New(o Options) *Logins { return &Logins{o, account.NewBox(o.Secret, "sso")} }

// Providers gives those that can be chosen from.
func (l *Logins) Providers() []Choice { return l.o.Providers }

func (l *Logins) choice(providerID string) (*Choice, error) {
	for i := range l.o.Providers {
		if l.o.Providers[i].ID == providerID {
			return &l.o.Providers[i], nil
		}
	}
	return nil, mxerr.New(mxerr.NotFound, "There is no such provider")
}

// attempt is what the browser's cookie holds.
type attempt struct {
	Provider string `json:"p"`
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"`
	// Redirect is the app's address, or UIA the session of the authentication whose stage is to be passed.
	Redirect string `json:"r,omitempty"`
	UIA      string `json:"u,omitempty"`
	Ends     int64  `json:"e"` // ms
}

// pending is what the page after a login holds: of the same attempt as the cookie.
type pending struct {
	State    string   `json:"s"`
	Identity Identity `json:"i"`
	User     string   `json:"u,omitempty"` // empty: there is no account yet
	Ends     int64    `json:"e"`           // ms
}

const (
	kindAttempt = "attempt"
	kindPending = "pending"
)

// Cookie gives the name of an attempt's cookie. Each attempt has its own, so that several go on beside each other in one browser.
func Cookie(state string) string {
	sum := sha256.Sum256([]byte(state))
	return "heddle_sso_" + hex.EncodeToString(sum[:8])
}

// Begun is an attempt that has begun: where the browser goes, and the cookie that it takes along.
type Begun struct{ URL, Cookie, Value string }

// Redirectable refuses an app's address to which no browser can be sent, with M_INVALID_PARAM.
func Redirectable(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	bad := mxerr.New(mxerr.InvalidParam, "redirectUrl is no address of an app")
	switch {
	case err != nil:
		return nil, bad.WithCause(err)
	case len(s) > 2048 || u.Scheme == "" || u.User != nil || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }):
		return nil, bad
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host == "":
		return nil, bad
	case slices.Contains([]string{"javascript", "data", "vbscript", "blob", "file", "about", "filesystem", "view-source"}, u.Scheme):
		return nil, bad
	}
	return u, nil
}

// Begin begins a login for an app.
func (l *Logins) Begin(ctx context.Context, providerID, redirect string) (Begun, error) {
	if _, err := Redirectable(redirect); err != nil {
		return Begun{}, err
	}
	return l.begin(ctx, attempt{Provider: providerID, Redirect: redirect}, false)
}

// BeginStage begins to pass a stage of an authentication. The person proves anew who it is: that is what the stage is for.
func (l *Logins) BeginStage(ctx context.Context, providerID, session string) (Begun, error) {
	if _, err := l.o.Front.UIA().Look(session); err != nil {
		return Begun{}, mxerr.New(mxerr.InvalidParam, "Unknown or expired authentication session").WithCause(err)
	}
	return l.begin(ctx, attempt{Provider: providerID, UIA: session}, true)
}

func (l *Logins) begin(ctx context.Context, a attempt, fresh bool) (Begun, error) {
	c, err := l.choice(a.Provider)
	if err != nil {
		return Begun{}, err
	}
	a.State, a.Nonce, a.Verifier, a.Ends = rand.Text(), rand.Text(), rand.Text()+rand.Text(), l.o.Now().Add(lifetime).UnixMilli()
	to, err := c.Provider.AuthURL(ctx, a.State, a.Nonce, a.Verifier, fresh)
	if err != nil {
		return Begun{}, down(err)
	}
	value, err := l.box.Seal(kindAttempt, &a)
	return Begun{to, Cookie(a.State), value}, err
}

func down(err error) error {
	return mxerr.New(mxerr.Unknown, "The provider cannot be reached now; try again later").WithStatus(503).WithCause(err)
}

// lookUp reads an attempt from its cookie. Refused with M_FORBIDDEN if the browser has none, or another.
func (l *Logins) lookUp(state, cookie string) (attempt, error) {
	var a attempt
	if state == "" || !l.box.Open(kindAttempt, cookie, &a) || a.State != state || a.Ends < l.o.Now().UnixMilli() {
		return a, mxerr.New(mxerr.Forbidden, "This login was not begun in this browser, or too long ago; begin again in the app")
	}
	return a, nil
}

// Step is what comes next in a login.
type Step struct {
	// Leave is where the browser goes now; else one of the following is shown.
	Leave string
	// Done says that a stage was passed.
	Done bool
	// Choose asks for the name of a new account; Suggested may be one, and Terms are what is to be agreed to.
	Choose    bool
	Suggested string
	// Ask asks whether to go on to the app at Host as User.
	Ask        bool
	Host, User string
	// State and Pending go with the answer.
	State, Pending string
}

// Returned takes up a login when the provider has sent the browser back.
func (l *Logins) Returned(ctx context.Context, state, cookie, code string) (Step, error) {
	a, err := l.lookUp(state, cookie)
	if err != nil {
		return Step{}, err
	}
	c, err := l.choice(a.Provider)
	if err != nil {
		return Step{}, err
	}
	who, err := c.Provider.Exchange(ctx, code, a.Nonce, a.Verifier)
	if err != nil {
		return Step{}, mxerr.New(mxerr.Forbidden, "The provider does not vouch for this login; begin again in the app").WithCause(err)
	}
	u, ok, err := l.o.Front.External(ctx, account.External{Provider: c.ID, Subject: who.Subject})
	if err != nil {
		return Step{}, err
	}
	if a.UIA != "" {
		return l.stage(ctx, &a, u, ok)
	}
	if !ok {
		if u, ok, err = l.welcome(ctx, c, &who); err != nil {
			return Step{}, err
		}
	}
	if !ok {
		return l.pend(&a, Step{Choose: true, Suggested: localpart(who.Localpart)}, pending{Identity: who})
	}
	return l.arrive(ctx, &a, u)
}

// stage passes a stage, for whoever it was that logged in: whose session it is, is compared when it is used.
func (l *Logins) stage(ctx context.Context, a *attempt, u id.UserID, known bool) (Step, error) {
	if !known {
		return Step{}, mxerr.New(mxerr.Forbidden, "No account here belongs to this login at the provider")
	}
	s, err := l.o.Front.UIA().Look(a.UIA)
	if err != nil {
		return Step{}, mxerr.New(mxerr.Forbidden, "This took too long; begin again in the app").WithCause(err)
	}
	return Step{Done: true, State: a.State}, l.o.Front.PassStage(ctx, s, account.Passed{Stage: Stage, User: u})
}

// welcome finds or makes the account of somebody who comes for the first time, as far as nothing has to be asked.
func (l *Logins) welcome(ctx context.Context, c *Choice, who *Identity) (u id.UserID, ok bool, err error) {
	name := localpart(who.Localpart)
	if c.LinkExisting && name != "" {
		u, err = l.o.Front.CheckLocalpart(name)
		if err != nil {
			return "", false, err
		}
		_, _, err = l.o.Front.Account(ctx, u)
		switch {
		case err == nil:
			return u, true, l.o.Front.LinkExternal(ctx, u, account.External{Provider: c.ID, Subject: who.Subject})
		case !mxerr.Is(err, mxerr.NotFound):
			return "", false, err
		}
	}
	if c.ExistingOnly {
		return "", false, mxerr.New(mxerr.Forbidden, "No account here belongs to this login at the provider")
	}
	if name == "" || len(l.o.Front.Config().Terms) > 0 {
		return "", false, nil
	}
	u, err = l.register(ctx, c, who, name)
	if mxerr.Is(err, mxerr.UserInUse) || mxerr.Is(err, mxerr.InvalidUsername) {
		return "", false, nil
	}
	return u, err == nil, err
}

func (l *Logins) register(ctx context.Context, c *Choice, who *Identity, name string) (id.UserID, error) {
	n := account.NewUser{
		Localpart: name, DisplayName: clip(who.DisplayName), InhibitLogin: true, Consents: l.o.Front.Config().Consents(),
		External: &account.External{Provider: c.ID, Subject: who.Subject},
	}
	if address, err := account.EmailAddress(who.Email); err == nil {
		n.Given = &account.Proven{Medium: account.MediumEmail, Address: address, ValidatedAt: l.o.Now().UnixMilli()}
	}
	in, err := l.o.Front.Register(ctx, n)
	if mxerr.Is(err, mxerr.ThreepidInUse) { // of another account; this one goes without
		n.Given = nil
		in, err = l.o.Front.Register(ctx, n)
	}
	return id.UserID(in.UserID), err
}

// Chosen goes on with the name that somebody chose for a new account. Refused with M_USER_IN_USE and the like, after which the same page can be
// shown again.
func (l *Logins) Chosen(ctx context.Context, state, cookie, sealed, name string, agreed bool) (Step, error) {
	a, p, err := l.resume(state, cookie, sealed)
	if err != nil {
		return Step{}, err
	}
	c, err := l.choice(a.Provider)
	switch {
	case err != nil:
		return Step{}, err
	case c.ExistingOnly || p.User != "":
		return Step{}, mxerr.New(mxerr.Forbidden, "There is no account to be made")
	case len(l.o.Front.Config().Terms) > 0 && !agreed:
		return Step{}, mxerr.New(mxerr.TermsNotSigned, "An account is for those who agree to the terms")
	}
	// Somebody may have answered in another window.
	u, ok, err := l.o.Front.External(ctx, account.External{Provider: c.ID, Subject: p.Identity.Subject})
	if err == nil && !ok {
		u, err = l.register(ctx, c, &p.Identity, name)
	}
	if err != nil {
		return Step{}, err
	}
	return l.arrive(ctx, &a, u)
}

// Agreed goes on to the app, as somebody wants.
func (l *Logins) Agreed(ctx context.Context, state, cookie, sealed string) (Step, error) {
	a, p, err := l.resume(state, cookie, sealed)
	if err != nil {
		return Step{}, err
	}
	if p.User == "" {
		return Step{}, mxerr.New(mxerr.Forbidden, "Nobody has logged in")
	}
	return l.hand(ctx, &a, id.UserID(p.User))
}

// resume reads what a page brings back. Refused with M_FORBIDDEN if it is not of the browser's attempt.
func (l *Logins) resume(state, cookie, sealed string) (attempt, pending, error) {
	var p pending
	a, err := l.lookUp(state, cookie)
	if err == nil && (!l.box.Open(kindPending, sealed, &p) || p.State != state || p.Ends < l.o.Now().UnixMilli()) {
		err = mxerr.New(mxerr.Forbidden, "The page is too old; begin again in the app")
	}
	return a, p, err
}

func (l *Logins) pend(a *attempt, s Step, p pending) (Step, error) {
	p.State, p.Ends = a.State, a.Ends
	var err error
	s.State = a.State
	s.Pending, err = l.box.Seal(kindPending, &p)
	return s, err
}

// arrive goes on with an account: to the app, if it is trusted, and else to the question whether to.
func (l *Logins) arrive(ctx context.Context, a *attempt, u id.UserID) (Step, error) {
	if _, _, err := l.o.Front.Account(ctx, u); err != nil {
		return Step{}, mxerr.New(mxerr.UserDeactivated, "This account has been deactivated").WithCause(err)
	}
	to, err := Redirectable(a.Redirect)
	if err != nil {
		return Step{}, err
	}
	if slices.ContainsFunc(l.o.Redirects, func(start string) bool { return account.Below(to, start) }) {
		return l.hand(ctx, a, u)
	}
	host := to.Host
	if host == "" {
		host = to.Scheme + ":"
	}
	return l.pend(a, Step{Ask: true, Host: host, User: string(u)}, pending{User: string(u)})
}

// hand makes a login token and sends the browser to the app with it.
func (l *Logins) hand(ctx context.Context, a *attempt, u id.UserID) (Step, error) {
	token, _, err := l.o.Front.LoginToken(ctx, u)
	if err != nil {
		return Step{}, err
	}
	to, err := withToken(a.Redirect, token)
	return Step{Leave: to, State: a.State}, err
}

// withToken adds the token to an app's address, in place of any that it has.
func withToken(redirect, token string) (string, error) {
	base, fragment, hasFragment := strings.Cut(redirect, "#")
	path, query, _ := strings.Cut(base, "?")
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(name); err != nil || name == "loginToken" || part == "" {
			continue
		}
		kept = append(kept, part)
	}
	out := path + "?" + strings.Join(append(kept, "loginToken="+url.QueryEscape(token)), "&")
	if hasFragment {
		out += "#" + fragment
	}
	if _, err := url.Parse(out); err != nil {
		return "", fmt.Errorf("address of the app: %w", err)
	}
	return out, nil
}

// localpart maps what a provider calls somebody to a name here (spec: "Mapping from other character sets").
func localpart(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '.', c == '/', c == '_', c == '+':
			b.WriteByte(c)
		case c >= 'A' && c <= 'Z':
			b.WriteByte(c + 'a' - 'A')
		default:
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}

// clip makes of a name one that can be shown.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return strings.ToValidUTF8(s[:min(len(s), 256)], "")
}
