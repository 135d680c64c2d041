package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// ends gives when something that begins now and lasts so long ends, in ms; 0: never.
func (f *Front) ends(lasts time.Duration) int64 {
	if lasts <= 0 {
		return 0
	}
	return f.now().Add(lasts).UnixMilli()
}

// Refresh exchanges a refresh token (spec: "Refreshing access tokens"). Refused with M_UNKNOWN_TOKEN. One that was exchanged before, and whose
// successor has been used, ends the session.
func (f *Front) Refresh(ctx context.Context, token string) (LoggedIn, error) {
	localpart, err := localpartOf(refreshPrefix, token)
	if err != nil {
		return LoggedIn{}, mxerr.New(mxerr.UnknownToken, "Unrecognised refresh token").With("soft_logout", false).WithCause(err)
	}
	u := id.UserID("@" + localpart + ":" + string(f.server))
	line := f.lineOf(localpart, token)
	next := line.next()
	in := LoggedIn{
		UserID: string(u), AccessToken: newToken(accessPrefix, localpart), RefreshToken: f.newRefreshToken(localpart, next),
		ExpiresIn: f.cfg.Lifetimes.Refreshable,
	}
	a, err := f.do.Do(ctx, newKey(), &Refresh{
		UserID: in.UserID, Hash: HashToken(token), Access: HashToken(in.AccessToken), AccessExpires: f.ends(in.ExpiresIn),
		Next: HashToken(in.RefreshToken), NextExpires: f.ends(f.cfg.Lifetimes.Refresh), Line: line, NextLine: next,
	})
	if err == nil && a.Reused {
		err = errUnknownRefresh()
	}
	if err != nil {
		return LoggedIn{}, err
	}
	in.DeviceID = a.DeviceID
	return in, nil
}

// LoginToken makes a token with which the user can be logged in once, and tells how long it is good.
func (f *Front) LoginToken(ctx context.Context, u id.UserID) (token string, expiresIn time.Duration, err error) {
	token = newToken(loginPrefix, u.Localpart())
	_, err = f.do.Do(ctx, newKey(), &PutLoginToken{UserID: string(u), Hash: HashToken(token), Expires: f.ends(f.cfg.Lifetimes.Login)})
	return token, f.cfg.Lifetimes.Login, err
}

// LoginByToken makes a session for whoever has a login token, and uses it up. Refused with M_FORBIDDEN.
func (f *Front) LoginByToken(ctx context.Context, token string, d NewDevice) (LoggedIn, error) {
	localpart, err := localpartOf(loginPrefix, token)
	if err != nil {
		return LoggedIn{}, mxerr.New(mxerr.Forbidden, "Invalid login token").WithCause(err)
	}
	u := id.UserID("@" + localpart + ":" + string(f.server))
	s, in, err := f.session(u, d)
	if err != nil {
		return LoggedIn{}, err
	}
	if _, err := f.do.Do(ctx, newKey(), &LoginByToken{UserID: string(u), Hash: HashToken(token), Session: *s}); err != nil {
		return LoggedIn{}, err
	}
	return in, nil
}

// RegisterGuest makes a guest account with a session. Refused with M_GUEST_ACCESS_FORBIDDEN unless guests are let in.
func (f *Front) RegisterGuest(ctx context.Context, d NewDevice) (LoggedIn, error) {
	if !f.cfg.Guests {
		return LoggedIn{}, mxerr.New(mxerr.GuestAccessForbidden, "Guest access is disabled")
	}
	d.DeviceID = "" // a guest cannot choose one (spec: "Guest Access")
	return f.Register(ctx, NewUser{Kind: KindGuest, Device: d})
}

const (
	openIDPrefix = "heo_"
	// OpenIDLifetime is how long a service may ask whom an OpenID token names.
	OpenIDLifetime = time.Hour
)

// OpenIDToken gives a token by which a service can learn from this server who its holder is (spec: "OpenID"). It is not stored: it names
// the user and its end, signed with the cluster's secret, and nothing can be done with it but that.
func (f *Front) OpenIDToken(u id.UserID) string {
	body := binary.BigEndian.AppendUint64(nil, uint64(f.ends(OpenIDLifetime)))
	body = append(body, u.Localpart()...)
	enc := base64.RawURLEncoding
	return openIDPrefix + enc.EncodeToString(body) + "." + enc.EncodeToString(openIDSum(f.secret, body))
}

// OpenIDUser tells whom an OpenID token names. Refused with M_UNKNOWN_TOKEN.
func (f *Front) OpenIDUser(token string) (id.UserID, error) {
	return OpenIDUser(f.secret, f.server, token, f.now())
}

// OpenIDUser tells whom an OpenID token names that was made with the cluster's secret. Refused with M_UNKNOWN_TOKEN.
func OpenIDUser(secret []byte, server id.ServerName, token string, now time.Time) (id.UserID, error) {
	unknown := mxerr.New(mxerr.UnknownToken, "Access token unknown or expired")
	rest, ok := strings.CutPrefix(token, openIDPrefix)
	if !ok || len(token) > 1024 {
		return "", unknown
	}
	b, m, ok := strings.Cut(rest, ".")
	body, err1 := base64.RawURLEncoding.DecodeString(b)
	sum, err2 := base64.RawURLEncoding.DecodeString(m)
	if !ok || err1 != nil || err2 != nil || len(body) <= 8 || !hmac.Equal(sum, openIDSum(secret, body)) {
		return "", unknown
	}
	if now.UnixMilli() >= int64(binary.BigEndian.Uint64(body)) { //nolint:gosec // ours, by the signature
		return "", unknown
	}
	return id.UserID("@" + string(body[8:]) + ":" + string(server)), nil
}

func openIDSum(secret, body []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	_, _ = mac.Write([]byte("openid\x00"))
	_, _ = mac.Write(body)
	return mac.Sum(nil)
}

// Deactivate ends a user's account for good; erase also removes what the server holds of the user beside events.
func (f *Front) Deactivate(ctx context.Context, u id.UserID, erase bool) error {
	_, err := f.do.Do(ctx, newKey(), &Deactivate{UserID: string(u), Erase: erase})
	return err
}

// Account reads a local account. Refused with M_INVALID_PARAM for one of another server, and with M_NOT_FOUND for one that is not there
// or deactivated.
func (f *Front) Account(ctx context.Context, u id.UserID) (locked, suspended bool, err error) {
	if u.Server() != f.server {
		return false, false, mxerr.New(mxerr.InvalidParam, "The user is not of this server")
	}
	a, ok, err := f.db.Account(ctx, f.shards.OfUser(string(u)), string(u))
	switch {
	case err != nil:
		return false, false, err
	case !ok || a.Deactivated:
		return false, false, mxerr.New(mxerr.NotFound, "Unknown user")
	}
	return a.Locked, a.Suspended, nil
}
