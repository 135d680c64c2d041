package account

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// uiaLifetime is how long a client may take between the first and the last stage.
const uiaLifetime = 15 * time.Minute

// ErrUIASession is the error of a session that is not ours, has expired, or belongs to another request.
var ErrUIASession = errors.New("unknown or expired authentication session")

// The stages that are passed by what an account or a server has, by a word of the client or on a page of this server.
const (
	StageDummy    = "m.login.dummy"
	StagePassword = "m.login.password"
	StageToken    = "m.login.registration_token"
	StageTerms    = "m.login.terms"
	StageEmail    = "m.login.email.identity"
)

// UIAResetPassword is what a session is bound to in which somebody who has forgotten the password sets another.
const UIAResetPassword = "resetPassword"

// UIA keeps user-interactive authentication sessions (spec: client-server API, "User-Interactive Authentication API"). A
// session is not stored: its id carries what it is for and which stages it has passed, signed with the cluster's secret, so
// that any worker takes up what another began, and nothing is left behind by those who give up. It is safe for
// concurrent use.
type UIA struct {
	key []byte
	now func() time.Time
}

// NewUIA makes a UIA from the cluster's secret.
func NewUIA(secret []byte, now func() time.Time) *UIA {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("user-interactive authentication"))
	return &UIA{key: mac.Sum(nil), now: now}
}

// UIASession is what a session id carries.
type UIASession struct {
	// Bind is the hash of what the session authenticates: the operation, the user and the request's parameters.
	Bind []byte `json:"b"`
	// Completed are the stages passed so far.
	Completed []string `json:"c,omitempty"`
	Nonce     []byte   `json:"n"`
	Expires   int64    `json:"e"` // ms
	// Name is the user name that a registration began with.
	Name string `json:"u,omitempty"`
	// Note is the registration token that was shown.
	Note string `json:"t,omitempty"`
	// Address is how an address was proven: the session, and the client's secret, which the client knows anyhow.
	Address *Credentials `json:"a,omitempty"`
}

// key is what the session is known by while its id changes with each stage.
func (s *UIASession) key() string { return "uia:" + base64.RawURLEncoding.EncodeToString(s.Nonce) }

// UIABind gives the hash that ties a session to an operation.
func UIABind(parts ...string) []byte {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum(nil)
}

// Purpose is what an address is proven for in the session.
func (s *UIASession) Purpose() Purpose {
	if hmac.Equal(s.Bind, UIABind(UIAResetPassword)) {
		return PurposeReset
	}
	return PurposeRegister
}

// Begin gives a new session for what bind stands for.
func (u *UIA) Begin(bind []byte) *UIASession {
	nonce := make([]byte, 12)
	_, _ = rand.Read(nonce)
	return &UIASession{Bind: bind, Nonce: nonce, Expires: u.now().Add(uiaLifetime).UnixMilli()}
}

// ID gives the session's id as the client holds it.
func (u *UIA) ID(s *UIASession) (string, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString(body) + "." + enc.EncodeToString(u.sign(body)), nil
}

// Resume gives back the session of an id, if it is ours, lives, and is for what bind stands for.
func (u *UIA) Resume(id string, bind []byte) (*UIASession, error) {
	s, err := u.Look(id)
	if err != nil || !hmac.Equal(s.Bind, bind) {
		return nil, ErrUIASession
	}
	return s, nil
}

// Look gives back the session of an id, whatever it is for, if it is ours and lives.
func (u *UIA) Look(id string) (*UIASession, error) {
	if len(id) > 4096 {
		return nil, ErrUIASession
	}
	b, m, ok := strings.Cut(id, ".")
	if !ok {
		return nil, ErrUIASession
	}
	body, err1 := base64.RawURLEncoding.DecodeString(b)
	sum, err2 := base64.RawURLEncoding.DecodeString(m)
	if err1 != nil || err2 != nil || !hmac.Equal(sum, u.sign(body)) {
		return nil, ErrUIASession
	}
	var s UIASession
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, ErrUIASession
	}
	if u.now().UnixMilli() > s.Expires {
		return nil, ErrUIASession
	}
	return &s, nil
}

// Complete marks a stage as passed.
func (s *UIASession) Complete(stage string) {
	if !slices.Contains(s.Completed, stage) {
		s.Completed = append(s.Completed, stage)
	}
}

// Satisfies tells whether the stages of one of the flows have all been passed.
func (s *UIASession) Satisfies(flows [][]string) bool {
	return slices.ContainsFunc(flows, func(flow []string) bool {
		return !slices.ContainsFunc(flow, func(stage string) bool { return !slices.Contains(s.Completed, stage) })
	})
}

func (u *UIA) sign(body []byte) []byte {
	mac := hmac.New(sha256.New, u.key)
	_, _ = mac.Write(body)
	return mac.Sum(nil)
}
