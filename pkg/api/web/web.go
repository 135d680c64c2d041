package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	g "maragu.dev/gomponents"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/contact"
	"github.com/heddle-im/heddle/pkg/service/account/letter"
	"github.com/heddle-im/heddle/pkg/service/account/oauth"
)

// Options are what the pages need.
type Options struct {
	// Server is the server's name, which the pages show.
	Server   id.ServerName
	Provider *oauth.Provider
	Front    *account.Front
	Accounts *account.Reader
	// Letters confirm the addresses of new accounts; nil: there is no e-mail.
	Letters *letter.Office
	// Contacts unbind the addresses of an account that ends.
	Contacts *contact.Desk
}

// Handlers answers the endpoints of OAuth 2.0 and the pages beside them.
type Handlers struct {
	*shower
	o Options
}

// New makes the handlers.
func New(o Options) *Handlers { return &Handlers{newShower(o.Server), o} }

// shower shows pages.
type shower struct {
	server id.ServerName
	csp    string
}

func newShower(server id.ServerName) *shower {
	sum := sha256.Sum256([]byte(style))
	return &shower{
		server: server,
		csp:    "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; frame-ancestors 'none'",
	}
}

// Handlers gives the handlers by the names of their rows.
func (h *Handlers) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"getAuthMetadata": h.metadata,
		"getAuthIssuer":   h.issuer,
		"oauthRegister":   h.register,
		"oauthToken":      h.token,
		"oauthRevoke":     h.revoke,
		"oauthDevice":     h.device,
		"oauthAuthorize":  h.authorize,
		"oauthLink":       h.link,
		"oauthAccount":    h.account,
	}
}

// show answers with a page.
func (h *shower) show(w http.ResponseWriter, status int, as func(*page) g.Node, p page) error {
	return h.showBy(w, status, h.csp, as, p)
}

// showDone shows the one page that has a script.
func (h *shower) showDone(w http.ResponseWriter) error {
	sum := sha256.Sum256([]byte(doneScript))
	csp := h.csp + "; script-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	return h.showBy(w, http.StatusOK, csp, donePage, page{Title: "Thank you"})
}

func (h *shower) showBy(w http.ResponseWriter, status int, csp string, as func(*page) g.Node, p page) error {
	p.Server = string(h.server)
	var b bytes.Buffer
	if err := as(&p).Render(&b); err != nil {
		return mxerr.Internal(err)
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", csp)
	header.Set("X-Frame-Options", "DENY")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // whoever left misses nothing
	return nil
}

// failed answers a person with what went wrong; what is the server's fault is left to the router.
func (h *shower) failed(w http.ResponseWriter, r *http.Request, err error) error {
	status, why := reason(err)
	if status >= http.StatusInternalServerError || !wantsPage(r) {
		return h.refused(w, err)
	}
	return h.show(w, status, messagePage, page{Title: "This cannot go on", Said: why})
}

// reason words an error for a person.
func reason(err error) (status int, why string) {
	var o *oauth.Error
	if errors.As(err, &o) {
		return statusOf(o), sentence(o.Description)
	}
	m := mxerr.From(err)
	return m.HTTPStatus, sentence(m.Message)
}

func sentence(s string) string {
	if s == "" {
		return "Something went wrong."
	}
	r, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(string(r)) + s[n:] + "."
}

func statusOf(e *oauth.Error) int {
	switch e.Code {
	case oauth.InvalidClient:
		return http.StatusUnauthorized
	case oauth.TemporarilyDown:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// wantsPage tells a browser from a client.
func wantsPage(r *http.Request) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept"), ",") {
		if t, _, err := mime.ParseMediaType(strings.TrimSpace(part)); err == nil && t == "text/html" {
			return true
		}
	}
	return false
}

// refused answers a client of OAuth 2.0 (RFC 6749, section 5.2), with an errcode for those that look for one.
func (h *shower) refused(w http.ResponseWriter, err error) error {
	var o *oauth.Error
	if !errors.As(err, &o) {
		return err
	}
	code := mxerr.InvalidParam
	switch o.Code {
	case oauth.InvalidClient, oauth.InvalidGrant, oauth.AccessDenied:
		code = mxerr.Forbidden
	case oauth.TemporarilyDown:
		code = mxerr.Unknown
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpx.WriteJSON(w, statusOf(o), map[string]string{
		"error": string(o.Code), "error_description": o.Description, "errcode": string(code),
	})
}

// form reads a form in the body.
func form(r *http.Request) (url.Values, error) {
	b, err := httpx.ReadBody(r)
	if err != nil {
		return nil, err
	}
	v, err := url.ParseQuery(string(b))
	if err != nil || !utf8.Valid(b) {
		return nil, &oauth.Error{Code: oauth.InvalidRequest, Description: "the body is no form"}
	}
	for name, values := range v {
		if len(values) > 1 || strings.ContainsRune(values[0], 0) || !utf8.ValidString(values[0]) {
			return nil, &oauth.Error{Code: oauth.InvalidRequest, Description: "bad value of " + clip(name)}
		}
	}
	return v, nil
}

// clip shortens what somebody sent for a message.
func clip(s string) string {
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, s[:min(len(s), 64)]), "")
}

func seen(r *http.Request) oauth.Seen {
	s := oauth.Seen{UserAgent: r.UserAgent()}
	if c := auth.From(r.Context()); c != nil && c.Addr.IsValid() {
		s.IP = c.Addr.String()
	}
	return s
}

func (h *Handlers) metadata(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Cache-Control", "max-age=3600")
	return httpx.WriteJSON(w, http.StatusOK, h.o.Provider.Metadata(h.o.Front.Config().Enabled))
}

func (h *Handlers) issuer(w http.ResponseWriter, _ *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"issuer": h.o.Provider.Issuer()})
}

func (h *Handlers) register(w http.ResponseWriter, r *http.Request) error {
	var c oauth.Client
	if err := httpx.Decode(r, &c); err != nil {
		return err
	}
	registered, err := h.o.Provider.Register(c)
	if err != nil {
		return h.refused(w, err)
	}
	return httpx.WriteJSON(w, http.StatusCreated, registered)
}

func (h *Handlers) token(w http.ResponseWriter, r *http.Request) error {
	v, err := form(r)
	if err != nil {
		return h.refused(w, err)
	}
	t, err := h.o.Provider.Token(r.Context(), v, seen(r))
	if err != nil {
		return h.refused(w, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpx.WriteJSON(w, http.StatusOK, t)
}

func (h *Handlers) revoke(w http.ResponseWriter, r *http.Request) error {
	v, err := form(r)
	if err != nil {
		return h.refused(w, err)
	}
	if v.Get("token") == "" {
		return h.refused(w, &oauth.Error{Code: oauth.InvalidRequest, Description: "token is missing"})
	}
	if err := h.o.Provider.Revoke(r.Context(), v.Get("token")); err != nil {
		return err
	}
	return httpx.WriteEmpty(w)
}

func (h *Handlers) device(w http.ResponseWriter, r *http.Request) error {
	v, err := form(r)
	if err != nil {
		return h.refused(w, err)
	}
	d, err := h.o.Provider.Device(r.Context(), v)
	if err != nil {
		return h.refused(w, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	return httpx.WriteJSON(w, http.StatusOK, d)
}
