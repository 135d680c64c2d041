package oauth

import (
	"encoding/base64"
	"net/url"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// The scopes (spec: "Allocated scope tokens"), as they are and as clients asked for them before the specification had them.
const (
	scopeAPI            = "urn:matrix:client:api:*"
	scopeDevice         = "urn:matrix:client:device:"
	unstableScopeAPI    = "urn:matrix:org.matrix.msc2967.client:api:*"
	unstableScopeDevice = "urn:matrix:org.matrix.msc2967.client:device:"
)

const (
	promptCreate = "create"
	// requestLifetime is how long a person may look at a request.
	requestLifetime = 30 * time.Minute
	maxState        = 1024
)

// Request is what a client asks a person for.
type Request struct {
	Client    string `json:"c"` // its id
	Redirect  string `json:"r"`
	Query     bool   `json:"q,omitzero"` // the answer goes into the query and not the fragment
	State     string `json:"s,omitempty"`
	Scope     string `json:"o"`
	Device    string `json:"d"`
	Challenge string `json:"p,omitempty"`
	Ends      int64  `json:"e"` // ms
	// Create asks for a new account.
	Create bool `json:"n,omitzero"`
	// User is the code that a device shows which has no browser; the other members but Client, Scope and Device are then empty.
	User string `json:"u,omitempty"`
}

// Authorize reads a request. If it is refused and redirect is not empty, the browser is to be sent there with the refusal: the
// client is known and the address is its own.
func (p *Provider) Authorize(q url.Values) (c Client, r Request, redirect string, err error) {
	if c, err = p.Client(q.Get("client_id")); err != nil {
		return c, r, "", err
	}
	r = Request{Client: q.Get("client_id"), Redirect: q.Get("redirect_uri"), State: q.Get("state"), Create: q.Get("prompt") == promptCreate}
	if r.Redirect == "" && len(c.RedirectURIs) == 1 {
		r.Redirect = c.RedirectURIs[0]
	}
	if !c.redirects(r.Redirect) {
		return c, r, "", refuse(InvalidRequest, "redirect_uri is none that the client registered")
	}
	mode := q.Get("response_mode")
	r.Query = mode != "fragment"
	if refused := r.read(&c, mode, q); refused != nil {
		if len(r.State) > maxState {
			r.State = ""
		}
		return c, r, r.back(url.Values{"error": {string(refused.Code)}, "error_description": {refused.Description}}), refused
	}
	r.Ends = p.o.Now().Add(requestLifetime).UnixMilli()
	return c, r, "", nil
}

func (r *Request) read(c *Client, mode string, q url.Values) *Error {
	switch {
	case mode != "" && mode != "query" && mode != "fragment":
		return refuse(InvalidRequest, "response_mode must be query or fragment")
	case len(r.State) > maxState:
		return refuse(InvalidRequest, "state is too long")
	case q.Get("response_type") != "code":
		return refuse(UnsupportedResponse, "response_type must be code")
	case !c.Allows(grantCode):
		return refuse(UnauthorizedClient, "the client did not register for codes")
	case q.Get("code_challenge_method") != "S256":
		return refuse(InvalidRequest, "code_challenge_method must be S256")
	}
	r.Challenge = q.Get("code_challenge")
	if sum, err := base64.RawURLEncoding.DecodeString(r.Challenge); err != nil || len(sum) != 32 {
		return refuse(InvalidRequest, "code_challenge is no SHA-256")
	}
	var refused *Error
	r.Scope, r.Device, refused = scope(q.Get("scope"))
	return refused
}

// scope reads what is asked for: the whole of the client-server API, and one device. What is granted may be less than what was
// asked for (RFC 6749, section 3.3).
func scope(asked string) (granted, device string, refused *Error) {
	var kept []string
	api, devices := false, 0
	for s := range strings.FieldsSeq(asked) {
		if s == scopeAPI || s == unstableScopeAPI {
			api = true
			kept = append(kept, s)
			continue
		}
		d, ok := strings.CutPrefix(s, scopeDevice)
		if !ok {
			d, ok = strings.CutPrefix(s, unstableScopeDevice)
		}
		if ok {
			if d != device {
				devices++
			}
			device = d
			kept = append(kept, s)
		}
	}
	switch {
	case !api:
		return "", "", refuse(InvalidScope, "the scope must have "+scopeAPI)
	case devices != 1:
		return "", "", refuse(InvalidScope, "the scope must name one device")
	case len(kept) > 4:
		return "", "", refuse(InvalidScope, "the scope repeats itself")
	}
	if _, err := id.ParseDeviceID(device); err != nil || strings.ContainsFunc(device, func(r rune) bool {
		return r < 0x21 || r > 0x7e || r == '"' || r == '\\'
	}) {
		return "", "", refuse(InvalidScope, "the device id may not be used")
	}
	return strings.Join(kept, " "), device, nil
}

// back is where the browser goes with an answer.
func (r *Request) back(answer url.Values) string {
	if r.State != "" {
		answer.Set("state", r.State)
	}
	if !r.Query {
		return r.Redirect + "#" + answer.Encode()
	}
	if strings.Contains(r.Redirect, "?") {
		return r.Redirect + "&" + answer.Encode()
	}
	return r.Redirect + "?" + answer.Encode()
}

// Deny answers a request with the person's refusal: where the browser goes.
func (r *Request) Deny() string {
	return r.back(url.Values{"error": {string(AccessDenied)}, "error_description": {"the person refused"}})
}

// Seal writes a request into a page.
func (p *Provider) Seal(r *Request) (string, error) { return p.seal(sealRequest, r) }

// Open reads a request that a page brings back.
func (p *Provider) Open(sealed string) (Client, Request, error) {
	var r Request
	if !p.open(sealRequest, sealed, &r) || r.Ends < p.o.Now().UnixMilli() {
		return Client{}, r, refuse(InvalidRequest, "the request is over; begin again in the app")
	}
	c, err := p.Client(r.Client)
	return c, r, err
}
