package app

import (
	"errors"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/testkit/smtptest"
)

// mailing is a homeserver that sends mail.
type mailing struct {
	*browser
	*fleet
	post *smtptest.Server
}

func newMailing(t *testing.T, change func(*config.Config)) *mailing {
	t.Helper()
	f := newFleet(t)
	post := smtptest.New(t, smtptest.Options{Username: "heddle", Password: "secret"})
	f.cfg.PublicBaseurl = "https://matrix.example.org/"
	f.cfg.Email.SMTP.Host, f.cfg.Email.SMTP.Port, f.cfg.Email.SMTP.CAFile = post.Host, post.Port, post.CAFile
	f.cfg.Email.SMTP.Username, f.cfg.Email.SMTP.Password = "heddle", "secret"
	f.cfg.Email.From = "Example <noreply@example.org>"
	f.cfg.Email.NextLinks = []string{"https://app.example.org/back"}
	f.cfg.RateLimits.Enabled = false
	if change != nil {
		change(&f.cfg)
	}
	m := &mailing{&browser{t, f.start(t, AllInOne, "one")}, f, post}
	f.owns(t, "one")
	return m
}

func (m *mailing) do(method, path, token, body string) (int, map[string]any) {
	m.t.Helper()
	status, out, _ := m.at.call(m.t, method, "/_matrix/client/v3"+path, token, body)
	return status, out
}

func (m *mailing) ok(method, path, token, body string) map[string]any {
	m.t.Helper()
	status, out := m.do(method, path, token, body)
	require.Equal(m.t, http.StatusOK, status, out)
	return out
}

func (m *mailing) refused(status int, code, method, path, token, body string) map[string]any {
	m.t.Helper()
	got, out := m.do(method, path, token, body)
	require.Equal(m.t, code, out["errcode"], out)
	require.Equal(m.t, status, got, out)
	return out
}

// letter asks for a letter and gives the session; there is a new letter iff sent.
func (m *mailing) letter(path, address, secret, attempt, more string, sent bool) string {
	m.t.Helper()
	before := len(m.post.Letters())
	out := m.ok("POST", path+"/email/requestToken", "", `{"client_secret":"`+secret+`","email":"`+address+`","send_attempt":`+attempt+more+`}`)
	sid := out["sid"].(string)
	require.Regexp(m.t, `^[0-9a-zA-Z.=_-]{1,255}$`, sid)
	after := before
	if sent {
		after++
	}
	require.Len(m.t, m.post.Letters(), after)
	return sid
}

var linkInLetter = regexp.MustCompile(`https://matrix\.example\.org(/_matrix/email/confirm\?\S+)`)

// link gives the path of the link in the last letter to an address, which is the same in both of its forms.
func (m *mailing) link(address string) string {
	m.t.Helper()
	l := m.post.Last(address)
	text := linkInLetter.FindStringSubmatch(l.Text)
	require.NotNil(m.t, text, l.Text)
	require.Contains(m.t, html.UnescapeString(l.HTML), text[0])
	return text[1]
}

// open opens a link, looks at it, and presses the button.
func (m *mailing) open(link string) (status int, page, location string) {
	m.t.Helper()
	status, page, _ = m.visit(link, nil)
	require.Equal(m.t, http.StatusOK, status, page)
	require.Contains(m.t, page, "<button>Confirm</button>")
	u, err := url.Parse(link)
	require.NoError(m.t, err)
	return m.visit(u.Path, u.Query())
}

func (m *mailing) confirm(address string) {
	m.t.Helper()
	status, page, _ := m.open(m.link(address))
	require.Equal(m.t, http.StatusOK, status, page)
	require.Contains(m.t, page, "is confirmed")
}

func creds(sid, secret string) string {
	return `{"sid":"` + sid + `","client_secret":"` + secret + `"}`
}

func emailStage(session, sid, secret string) string {
	return `"auth":{"type":"m.login.email.identity","session":"` + session + `","threepid_creds":` + creds(sid, secret) + `}`
}

func stages(t *testing.T, out map[string]any) (flows [][]string) {
	t.Helper()
	for _, f := range out["flows"].([]any) {
		var s []string
		for _, stage := range f.(map[string]any)["stages"].([]any) {
			s = append(s, stage.(string))
		}
		flows = append(flows, s)
	}
	return flows
}

func TestRegisterWithEmailAndTerms(t *testing.T) {
	m := newMailing(t, func(c *config.Config) {
		c.Registration.RequireEmail = true
		c.Registration.Terms = []config.Policy{{ID: "privacy", Version: "1.2", Documents: []config.Document{
			{Lang: "en", Name: "Privacy", URL: "https://example.org/privacy"}, {Lang: "de", Name: "Datenschutz", URL: "https://example.org/ds"},
		}}}
	})
	const alice = `"username":"alice","password":"secret-1",`
	status, out := m.do("POST", "/register", "", `{`+strings.TrimSuffix(alice, ",")+`}`)
	require.Equal(t, http.StatusUnauthorized, status)
	require.Equal(t, [][]string{{"m.login.terms", "m.login.email.identity"}}, stages(t, out))
	require.Equal(t, map[string]any{"m.login.terms": map[string]any{"policies": map[string]any{"privacy": map[string]any{
		"version": "1.2", "en": map[string]any{"name": "Privacy", "url": "https://example.org/privacy"},
		"de": map[string]any{"name": "Datenschutz", "url": "https://example.org/ds"},
	}}}}, out["params"])
	session := out["session"].(string)

	sid := m.letter("/register", "Alice@Example.ORG", "s3cret", "1", "", true)
	require.Equal(t, sid, m.letter("/register", "alice@example.org", "s3cret", "1", "", false), "the same attempt sends nothing")
	first := m.link("alice@example.org")
	require.Equal(t, sid, m.letter("/register", "alice@example.org", "s3cret", "2", "", true))
	require.NotEqual(t, first, m.link("alice@example.org"))
	require.NotEqual(t, sid, m.letter("/register", "alice@example.org", "other", "1", "", true), "another client's")

	// Nobody gets in before the link is opened, and looking at it is not opening it.
	out = m.refused(http.StatusUnauthorized, "M_THREEPID_AUTH_FAILED", "POST", "/register", "", `{`+alice+emailStage(session, sid, "s3cret")+`}`)
	require.Empty(t, out["completed"])
	status, _, _ = m.visit(first, nil)
	require.Equal(t, http.StatusOK, status)
	m.refused(http.StatusUnauthorized, "M_THREEPID_AUTH_FAILED", "POST", "/register", "", `{`+alice+emailStage(session, sid, "s3cret")+`}`)

	status, page, _ := m.open(first) // of the letters of one session each is good
	require.Equal(t, http.StatusOK, status, page)
	status, page, _ = m.open(first)
	require.Equal(t, http.StatusForbidden, status, page)
	require.Contains(t, page, "used already")
	for name, c := range map[string]string{"another secret": creds(sid, "wrong"), "no session": creds("x", "s3cret"), "nothing": `{}`} {
		status, out = m.do("POST", "/register", "", `{`+alice+`"auth":{"type":"m.login.email.identity","session":"`+session+`","threepid_creds":`+c+`}}`)
		require.Equal(t, http.StatusUnauthorized, status, "%s: %v", name, out)
	}
	status, out = m.do("POST", "/register", "", `{`+alice+emailStage(session, sid, "s3cret")+`}`)
	require.Equal(t, http.StatusUnauthorized, status, "the terms are still to be agreed to")
	require.Equal(t, []any{"m.login.email.identity"}, out["completed"])
	in := m.ok("POST", "/register", "", `{`+alice+`"auth":{"type":"m.login.terms","session":"`+out["session"].(string)+`"}}`)
	token := in["access_token"].(string)

	list := m.ok("GET", "/account/3pid", token, "")["threepids"].([]any)
	require.Len(t, list, 1)
	require.Equal(t, "alice@example.org", list[0].(map[string]any)["address"])
	require.Positive(t, list[0].(map[string]any)["validated_at"])
	require.Positive(t, list[0].(map[string]any)["added_at"])
	var version string
	require.NoError(t, m.db.Pool.QueryRow(t.Context(), `SELECT version FROM consent WHERE user_id = '@alice:example.org' AND policy = 'privacy'`).Scan(&version))
	require.Equal(t, "1.2", version)

	// The proof is used up, and the address is taken. Who asks is told nothing of that; who reads the letter is.
	const bob = `"username":"bob","password":"secret-1",`
	m.refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", "/register", "", `{`+bob+emailStage(session, sid, "s3cret")+`}`) // begun for alice
	_, out = m.do("POST", "/register", "", `{`+strings.TrimSuffix(bob, ",")+`}`)
	m.refused(http.StatusUnauthorized, "M_THREEPID_AUTH_FAILED", "POST", "/register", "", `{`+bob+emailStage(out["session"].(string), sid, "s3cret")+`}`)
	m.letter("/register", "alice@example.org", "again", "1", "", true)
	require.Contains(t, m.post.Last("alice@example.org").Subject, "already")
	require.NotRegexp(t, linkInLetter, m.post.Last("alice@example.org").Text)

	// Logging in by the address.
	login := func(address, password string) (int, map[string]any) {
		return m.do("POST", "/login", "", `{"type":"m.login.password","identifier":{"type":"m.id.thirdparty","medium":"email","address":"`+address+`"},"password":"`+password+`"}`)
	}
	status, out = login("ALICE@example.org", "secret-1")
	require.Equal(t, http.StatusOK, status, out)
	require.Equal(t, "@alice:example.org", out["user_id"])
	_, wrong := login("alice@example.org", "wrong")
	_, nobody := login("nobody@example.org", "secret-1")
	require.Equal(t, "M_FORBIDDEN", wrong["errcode"])
	require.Equal(t, wrong, nobody, "nothing tells whether somebody has an address")
}

// An app that does not know the stage of an address has it passed on a page, and goes on with the session alone: for an account, and for a forgotten
// password. What was proven for one is no proof for the other.
func TestAddressOnAPage(t *testing.T) {
	m := newMailing(t, func(c *config.Config) { c.Registration.RequireEmail = true })
	const page = "/_matrix/client/v3/auth/m.login.email.identity/fallback/web"
	shown := regexp.MustCompile(`name="letter" value="([^"]+)"`)
	press := func(want int, session, email, letter string) string {
		t.Helper()
		status, text, _ := m.visit(page, url.Values{"session": {session}, "email": {email}, "letter": {letter}})
		require.Equal(t, want, status, text)
		return text
	}
	send := func(session, email string) string {
		t.Helper()
		status, text, _ := m.visit(page+"?session="+url.QueryEscape(session), nil)
		require.Equal(t, http.StatusOK, status, text)
		require.Contains(t, text, `name="email"`)
		text = press(http.StatusOK, session, email, "")
		require.Contains(t, text, "on its way to "+email)
		require.NotContains(t, text, "onAuthDone")
		return html.UnescapeString(shown.FindStringSubmatch(text)[1])
	}
	begin := func(path, body string) string {
		t.Helper()
		status, out := m.do("POST", path, "", body)
		require.Equal(t, http.StatusUnauthorized, status, out)
		return out["session"].(string)
	}
	pass := func(session, email string) (letter string) {
		t.Helper()
		letter = send(session, email)
		require.Contains(t, press(http.StatusBadRequest, session, email, letter), "has not been confirmed")
		m.confirm(email)
		require.Contains(t, press(http.StatusOK, session, email, letter), "onAuthDone")
		return letter
	}
	const alice = `"username":"alice","password":"secret-1"`
	session := begin("/register", `{`+alice+`}`)
	press(http.StatusBadRequest, session, "no address", "")
	press(http.StatusBadRequest, session, "alice@example.org", "made.up")
	_, out := m.do("POST", "/register", "", `{`+alice+`,"auth":{"session":"`+session+`"}}`)
	require.Empty(t, out["completed"])
	registered := pass(session, "alice@example.org")
	token := m.ok("POST", "/register", "", `{`+alice+`,"auth":{"session":"`+session+`"}}`)["access_token"].(string)
	list := m.ok("GET", "/account/3pid", token, "")["threepids"].([]any)
	require.Len(t, list, 1)
	require.Equal(t, "alice@example.org", list[0].(map[string]any)["address"])

	session = begin("/account/password", `{"new_password":"secret-2"}`)
	press(http.StatusBadRequest, session, "alice@example.org", registered)
	pass(session, "alice@example.org")
	other := begin("/register", `{"username":"bob","password":"secret-1"}`)
	_, out = m.do("POST", "/register", "", `{"username":"bob","password":"secret-1","auth":{"session":"`+other+`"}}`)
	require.Empty(t, out["completed"], "another session")
	m.ok("POST", "/account/password", "", `{"new_password":"secret-2","auth":{"session":"`+session+`"}}`)
	m.ok("POST", "/login", "", `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"secret-2"}`)
}

func TestForgottenPassword(t *testing.T) {
	m := newMailing(t, nil)
	session := func(out map[string]any) string { return out["session"].(string) }
	_, out := m.do("POST", "/register", "", `{"username":"alice","password":"secret-1"}`)
	require.Equal(t, [][]string{{"m.login.dummy"}, {"m.login.email.identity"}}, stages(t, out))
	sid := m.letter("/register", "alice@example.org", "s", "1", "", true)
	m.confirm("alice@example.org")
	token := m.ok("POST", "/register", "", `{"username":"alice","password":"secret-1",`+emailStage(session(out), sid, "s")+`}`)["access_token"].(string)

	_, out = m.do("POST", "/account/password", "", `{"new_password":"secret-2"}`)
	require.Equal(t, [][]string{{"m.login.email.identity"}}, stages(t, out))
	reset := session(out)
	sid = m.letter("/account/password", "alice@example.org", "s", "1", "", true)
	change := func(sid, secret string) (int, map[string]any) {
		return m.do("POST", "/account/password", "", `{"new_password":"secret-2",`+emailStage(reset, sid, secret)+`}`)
	}
	status, out := change(sid, "s")
	require.Equal(t, http.StatusUnauthorized, status, out)
	require.Equal(t, "M_THREEPID_AUTH_FAILED", out["errcode"])
	m.confirm("alice@example.org")
	status, _ = m.do("POST", "/account/password", "", `{"new_password":"",`+emailStage(reset, sid, "s")+`}`)
	require.Equal(t, http.StatusBadRequest, status, "a password that cannot be uses nothing up")
	status, out = change(sid, "s")
	require.Equal(t, http.StatusOK, status, out)
	status, out = change(sid, "s")
	require.Equal(t, http.StatusUnauthorized, status, out)
	m.refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "GET", "/account/3pid", token, "")
	m.refused(http.StatusForbidden, "M_FORBIDDEN", "POST", "/login", "", `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"secret-1"}`)
	token = m.ok("POST", "/login", "", `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"secret-2"}`)["access_token"].(string)

	// A proof for one thing is none for another, and devices stay if that is asked for.
	sid = m.letter("/account/3pid", "alice2@example.org", "s", "1", "", true)
	m.confirm("alice2@example.org")
	status, out = change(sid, "s")
	require.Equal(t, http.StatusUnauthorized, status, out)
	sid = m.letter("/account/password", "alice@example.org", "t", "1", "", true)
	m.confirm("alice@example.org")
	m.ok("POST", "/account/password", "", `{"new_password":"secret-3","logout_devices":false,`+emailStage(reset, sid, "t")+`}`)
	m.ok("GET", "/account/3pid", token, "")

	// Who has no account is told so by the letter alone.
	m.letter("/account/password", "nobody@example.org", "s", "1", "", true)
	require.Contains(t, m.post.Last("nobody@example.org").Subject, "No account")
	require.NotRegexp(t, linkInLetter, m.post.Last("nobody@example.org").Text)
}

func TestAddressesOfAnAccount(t *testing.T) {
	m := newMailing(t, nil)
	register := func(name string) string {
		return m.ok("POST", "/register", "", `{"username":"`+name+`","password":"secret-1","auth":{"type":"m.login.dummy"}}`)["access_token"].(string)
	}
	alice, bob := register("alice"), register("bob")
	require.Equal(t, true, m.ok("GET", "/capabilities", alice, "")["capabilities"].(map[string]any)["m.3pid_changes"].(map[string]any)["enabled"])
	add := func(token, sid, secret, name string) (int, map[string]any) {
		status, out := m.do("POST", "/account/3pid/add", token, creds(sid, secret))
		if status != http.StatusUnauthorized {
			return status, out
		}
		return m.do("POST", "/account/3pid/add", token, `{"sid":"`+sid+`","client_secret":"`+secret+`","auth":{"type":"m.login.password","session":"`+
			out["session"].(string)+`","password":"secret-1","identifier":{"type":"m.id.user","user":"`+name+`"}}}`)
	}
	one := m.letter("/account/3pid", "a@example.org", "one", "1", "", true)
	status, out := add(alice, one, "one", "alice")
	require.Equal(t, http.StatusBadRequest, status, out)
	require.Equal(t, "M_THREEPID_AUTH_FAILED", out["errcode"])
	m.confirm("a@example.org")
	two := m.letter("/account/3pid", "a@example.org", "two", "1", "", true) // before the address is alice's
	status, out = add(alice, one, "one", "alice")
	require.Equal(t, http.StatusOK, status, out)
	status, out = add(alice, one, "one", "alice")
	require.Equal(t, "M_THREEPID_AUTH_FAILED", out["errcode"], "used up: %d", status)
	m.confirm("a@example.org")
	status, out = add(bob, two, "two", "bob")
	require.Equal(t, http.StatusBadRequest, status)
	require.Equal(t, "M_THREEPID_IN_USE", out["errcode"])

	// next_link: to a known place at once, to another only over a page that names it, and not to what is no page.
	for i, c := range []struct{ next, location string }{
		{"https://app.example.org/back?x=1", "https://app.example.org/back?x=1"},
		{"https://app.example.org/backwards", ""},
		{"https://app.example.org.evil.org/back", ""},
		{"https://app.example.org/back/../out", ""},
	} {
		m.letter("/account/3pid", "n@example.org", "next"+string(rune('0'+i)), "1", `,"next_link":"`+c.next+`"`, true)
		status, page, location := m.open(m.link("n@example.org"))
		require.Equal(t, c.location, location, page)
		if location == "" {
			require.Equal(t, http.StatusOK, status)
			require.Contains(t, page, html.EscapeString(c.next))
		}
	}
	for _, next := range []string{"javascript:alert(1)", "data:text/html,x", "https://a@evil.org/", "/relative", "//evil.org/"} {
		m.refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", "/account/3pid/email/requestToken", "", `{"client_secret":"x","email":"n@example.org","send_attempt":1,"next_link":"`+next+`"}`)
	}
	for name, body := range map[string]string{
		"secret":  `{"client_secret":"a b","email":"n@example.org","send_attempt":1}`,
		"attempt": `{"client_secret":"a","email":"n@example.org","send_attempt":0}`,
		"address": `{"client_secret":"a","email":"Nobody <n@example.org>","send_attempt":1}`,
		"none":    `{"client_secret":"a","email":"n","send_attempt":1}`,
		"header":  `{"client_secret":"a","email":"n@example.org\r\nBcc: x@example.org","send_attempt":1}`,
	} {
		out := m.refused(http.StatusBadRequest, "M_INVALID_PARAM", "POST", "/account/3pid/email/requestToken", "", body)
		require.NotEmpty(t, out, name)
	}
	m.refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", "/account/3pid/email/requestToken", "", `{"client_secret":"a","email":"n@example.org"}`)
	m.refused(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", "/account/3pid/msisdn/requestToken", "", `{"client_secret":"a","country":"GB","phone_number":"1","send_attempt":1}`)

	// A letter that could not be sent is sent when it is asked for again, with the same attempt too; the link of the one before stays good.
	m.letter("/account/3pid", "late@example.org", "late", "1", "", true)
	link := m.link("late@example.org")
	m.post.Refuse(errors.New("full"))
	m.refused(http.StatusInternalServerError, "M_UNKNOWN", "POST", "/account/3pid/email/requestToken", "", `{"client_secret":"late","email":"late@example.org","send_attempt":2}`)
	m.post.Refuse(nil)
	m.letter("/account/3pid", "late@example.org", "late", "2", "", true)
	status, page, _ := m.open(link)
	require.Equal(t, http.StatusOK, status, page)

	// An address is taken away by its owner alone.
	spare := m.letter("/account/3pid", "spare@example.org", "spare", "1", "", true)
	m.confirm("spare@example.org")
	status, out = add(alice, spare, "spare", "alice")
	require.Equal(t, http.StatusOK, status, out)
	addresses := func() (list []string) {
		for _, a := range m.ok("GET", "/account/3pid", alice, "")["threepids"].([]any) {
			list = append(list, a.(map[string]any)["address"].(string))
		}
		return list
	}
	m.ok("POST", "/account/3pid/delete", bob, `{"medium":"email","address":"spare@example.org"}`)
	require.Equal(t, []string{"a@example.org", "spare@example.org"}, addresses())
	gone := m.ok("POST", "/account/3pid/delete", alice, `{"medium":"email","address":"Spare@example.org"}`)
	require.Equal(t, "no-support", gone["id_server_unbind_result"])
	require.Equal(t, []string{"a@example.org"}, addresses())
	m.refused(http.StatusBadRequest, "M_MISSING_PARAM", "POST", "/account/3pid/delete", alice, `{"medium":"email"}`)

	// Who is gone has no address.
	status, out = m.do("POST", "/account/deactivate", alice, `{}`)
	require.Equal(t, http.StatusUnauthorized, status)
	m.ok("POST", "/account/deactivate", alice, `{"auth":{"type":"m.login.password","session":"`+out["session"].(string)+`","password":"secret-1","identifier":{"type":"m.id.thirdparty","medium":"email","address":"a@example.org"}}}`)
	status, out = add(bob, two, "two", "bob")
	require.Equal(t, http.StatusOK, status, out)
}

func TestLettersToAnAddressAreBounded(t *testing.T) {
	m := newMailing(t, func(c *config.Config) {
		c.RateLimits.Enabled = true
		c.RateLimits.Threepid = config.Rate{}
		c.Email.PerAddress.Burst = 2
	})
	m.letter("/account/3pid", "a@example.org", "one", "1", "", true)
	m.letter("/account/password", "a@example.org", "two", "1", "", true)
	out := m.refused(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "POST", "/register/email/requestToken", "", `{"client_secret":"three","email":"A@example.org","send_attempt":1}`)
	require.Positive(t, out["retry_after_ms"])
	m.letter("/account/3pid", "b@example.org", "one", "1", "", true)
	status, page, _ := m.visit("/_matrix/email/confirm", url.Values{"session": {"x"}, "token": {"y"}})
	require.Equal(t, http.StatusForbidden, status, page)
}

func TestWithoutMail(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	m := &mailing{&browser{t, f.start(t, AllInOne, "one")}, f, nil}
	f.owns(t, "one")
	for _, path := range []string{"/register", "/account/password", "/account/3pid"} {
		m.refused(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", path+"/email/requestToken", "", `{"client_secret":"a","email":"n@example.org","send_attempt":1}`)
		m.refused(http.StatusBadRequest, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "POST", path+"/msisdn/requestToken", "", `{"client_secret":"a","country":"GB","phone_number":"1","send_attempt":1}`)
	}
	m.refused(http.StatusUnauthorized, "M_MISSING_TOKEN", "POST", "/account/password", "", `{"new_password":"secret-2"}`)
}

// The pages of the server's own OAuth 2.0 ask for what else an account needs.
func TestOwnOAuthRegistrationWithEmailAndTerms(t *testing.T) {
	m := newMailing(t, func(c *config.Config) {
		c.OAuth.Provide, c.Registration.RequireEmail = true, true
		c.Registration.Terms = []config.Policy{{ID: "privacy", Version: "1", Documents: []config.Document{{Lang: "en", Name: "Privacy", URL: "https://example.org/privacy"}}}}
	})
	client := m.register(appMeta)
	_, challenge := verifier()
	_, page, _ := m.visit(authorizeURL(client, challenge, deviceScope("NEW1234567"), "prompt", "create"), nil)
	require.Contains(t, page, "Send a mail")
	form := url.Values{"request": {m.hidden(page)}, "do": {"register"}, "username": {"bob"}, "password": {"battery staple"}, "agree": {"yes"}}
	status, _, location := m.visit("/_matrix/oauth2/authorize", form)
	require.Equal(t, http.StatusBadRequest, status, location)

	form.Set("do", "letter")
	form.Set("email", "bob@example.org")
	status, page, _ = m.visit("/_matrix/oauth2/authorize", form)
	require.Equal(t, http.StatusOK, status, page)
	require.Contains(t, page, "on its way to bob@example.org")
	require.Contains(t, page, "https://example.org/privacy")
	letter := regexp.MustCompile(`name="letter" value="([^"]*)"`).FindStringSubmatch(page)
	require.NotNil(t, letter)
	form.Set("letter", letter[1])
	form.Set("do", "register")
	status, page, _ = m.visit("/_matrix/oauth2/authorize", form)
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, page, "open the link")
	m.confirm("bob@example.org")
	form.Del("agree")
	status, page, _ = m.visit("/_matrix/oauth2/authorize", form)
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, page, "agree to the terms")
	form.Set("agree", "yes")
	status, page, location = m.visit("/_matrix/oauth2/authorize", form)
	require.Equal(t, http.StatusSeeOther, status, page)
	require.NotEmpty(t, m.answer(location).Get("code"))
	token := m.ok("POST", "/login", "", `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"bob"},"password":"battery staple"}`)["access_token"].(string)
	require.Len(t, m.ok("GET", "/account/3pid", token, "")["threepids"], 1)
}
