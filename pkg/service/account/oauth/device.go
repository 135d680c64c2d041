package oauth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

const (
	// deviceLifetime is how long a person may take to enter the code of a device without a browser.
	deviceLifetime = 15 * time.Minute
	// deviceInterval is how often the device may ask whether it was.
	deviceInterval = 5 * time.Second
	// userLetters are those of user codes: none can be taken for another, and no word comes of them.
	userLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userLength  = 8
)

// DeviceAuthorization is the answer to a device without a browser (RFC 8628, section 3.2).
type DeviceAuthorization struct {
	DeviceCode string `json:"device_code"`
	UserCode   string `json:"user_code"`
	URI        string `json:"verification_uri"`
	Complete   string `json:"verification_uri_complete"`
	ExpiresIn  int64  `json:"expires_in"` // seconds
	Interval   int64  `json:"interval"`   // seconds
}

// waiting is what the soft store has of a device that waits.
type waiting struct {
	Client string `json:"c"`
	Scope  string `json:"s"`
	Device string `json:"d"`
	// Denied and Login are the person's answer.
	Denied bool   `json:"n,omitzero"`
	Login  string `json:"l,omitempty"`
}

// deviceCode is what the device asks with, sealed.
type deviceCode struct {
	User string `json:"u"`
	Ends int64  `json:"e"` // ms
}

func waitingKey(user string) string { return "oauth:device:" + user }

// Device begins the login of a device without a browser.
func (p *Provider) Device(ctx context.Context, form url.Values) (DeviceAuthorization, error) {
	clientID := form.Get("client_id")
	c, err := p.Client(clientID)
	if err != nil {
		return DeviceAuthorization{}, err
	}
	if !c.Allows(grantDevice) {
		return DeviceAuthorization{}, refuse(UnauthorizedClient, "the client did not register for this grant")
	}
	granted, device, refused := scope(form.Get("scope"))
	if refused != nil {
		return DeviceAuthorization{}, refused
	}
	value, err := json.Marshal(&waiting{Client: clientID, Scope: granted, Device: device})
	if err != nil {
		return DeviceAuthorization{}, err
	}
	user, err := p.place(ctx, value)
	if err != nil {
		return DeviceAuthorization{}, err
	}
	sealed, err := p.seal(sealDevice, &deviceCode{user, p.o.Now().Add(deviceLifetime).UnixMilli()})
	if err != nil {
		return DeviceAuthorization{}, err
	}
	shown := user[:userLength/2] + "-" + user[userLength/2:]
	return DeviceAuthorization{
		DeviceCode: sealed, UserCode: shown, URI: p.o.BaseURL + PathLink, Complete: p.o.BaseURL + PathLink + "?code=" + shown,
		ExpiresIn: int64(deviceLifetime.Seconds()), Interval: int64(deviceInterval.Seconds()),
	}, nil
}

// place finds a user code that nobody waits under.
func (p *Provider) place(ctx context.Context, value []byte) (string, error) {
	for range 10 {
		user := newUserCode()
		free, err := p.o.Soft.CompareAndSet(ctx, waitingKey(user), nil, value, deviceLifetime)
		if err != nil {
			return "", refuse(TemporarilyDown, "logins of devices cannot be kept now")
		}
		if free {
			return user, nil
		}
	}
	return "", refuse(TemporarilyDown, "too many devices wait")
}

func newUserCode() string {
	var out [userLength]byte
	for i := range out {
		for {
			var b [1]byte
			_, _ = rand.Read(b[:]) // never fails, by its documentation
			if int(b[0]) < 256/len(userLetters)*len(userLetters) {
				out[i] = userLetters[int(b[0])%len(userLetters)]
				break
			}
		}
	}
	return string(out[:])
}

// userCode reads a code as people type it.
func userCode(typed string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			r -= 'a' - 'A'
		}
		if strings.ContainsRune(userLetters, r) {
			return r
		}
		return -1
	}, typed[:min(len(typed), 64)])
}

// Waiting gives the request of the device that shows a code. Refused with expired_token.
func (p *Provider) Waiting(ctx context.Context, typed string) (Client, Request, error) {
	user := userCode(typed)
	w, _, err := p.waiting(ctx, user)
	if err != nil {
		return Client{}, Request{}, err
	}
	c, err := p.Client(w.Client)
	return c, Request{
		Client: w.Client, Scope: w.Scope, Device: w.Device, User: user, Ends: p.o.Now().Add(deviceLifetime).UnixMilli(),
	}, err
}

func (p *Provider) waiting(ctx context.Context, user string) (w waiting, raw []byte, err error) {
	raw, ok, err := p.o.Soft.Get(ctx, waitingKey(user))
	switch {
	case err != nil:
		return w, nil, refuse(TemporarilyDown, "logins of devices cannot be looked up now")
	case !ok || len(user) != userLength || json.Unmarshal(raw, &w) != nil:
		return w, nil, refuse(ExpiredToken, "no device waits with this code")
	}
	return w, raw, nil
}

// Answer is the person's word on a device that waits: u, or nobody.
func (p *Provider) Answer(ctx context.Context, r *Request, u id.UserID) error {
	w, raw, err := p.waiting(ctx, r.User)
	if err != nil {
		return err
	}
	if w.Login != "" || w.Denied || w.Client != r.Client || w.Device != r.Device {
		return refuse(ExpiredToken, "this device has its answer")
	}
	if w.Denied = u == ""; !w.Denied {
		if w.Login, _, err = p.o.Accounts.LoginToken(ctx, u); err != nil {
			return err
		}
	}
	value, err := json.Marshal(&w)
	if err != nil {
		return err
	}
	swapped, err := p.o.Soft.CompareAndSet(ctx, waitingKey(r.User), raw, value, deviceLifetime)
	if err != nil || !swapped {
		return refuse(TemporarilyDown, "the answer could not be kept; try again")
	}
	return nil
}

// byDevice tells a device that waits how it stands.
func (p *Provider) byDevice(ctx context.Context, form url.Values, c *Client, from Seen) (Tokens, error) {
	var d deviceCode
	if !p.open(sealDevice, form.Get("device_code"), &d) {
		return Tokens{}, refuse(InvalidGrant, "the device code is not good")
	}
	if d.Ends < p.o.Now().UnixMilli() {
		return Tokens{}, refuse(ExpiredToken, "nobody entered the code in time")
	}
	// Twice as fast as it should is no harm: clocks differ.
	pace := soft.Rate{PerSecond: 2 / deviceInterval.Seconds(), Burst: 2}
	if !p.o.Soft.Take(ctx, "oauth:poll:"+d.User, pace, 1).OK {
		return Tokens{}, refuse(SlowDown, "ask less often")
	}
	w, raw, err := p.waiting(ctx, d.User)
	if err != nil {
		return Tokens{}, err
	}
	if !hmac.Equal([]byte(w.Client), []byte(form.Get("client_id"))) {
		return Tokens{}, refuse(InvalidGrant, "the device code is another client's")
	}
	if w.Login == "" && !w.Denied {
		return Tokens{}, refuse(AuthorizationPending, "nobody has answered yet")
	}
	// Of two that ask at once, one gets the answer.
	taken, err := p.o.Soft.CompareAndSet(ctx, waitingKey(d.User), raw, []byte("{}"), time.Minute)
	if err != nil || !taken {
		return Tokens{}, refuse(ExpiredToken, "the answer has been fetched")
	}
	if w.Denied {
		return Tokens{}, refuse(AccessDenied, "the person refused")
	}
	return p.login(ctx, w.Login, w.Device, w.Scope, form.Get("client_id"), c, from)
}
