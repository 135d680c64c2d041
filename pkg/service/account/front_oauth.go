package account

import (
	"context"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Guesses bounds how often the password of one account may be guessed, from wherever.
type Guesses interface {
	// MayGuess refuses with M_LIMIT_EXCEEDED after too many wrong ones.
	MayGuess(ctx context.Context, u id.UserID) error
	// Guessed tells of a wrong one.
	Guessed(ctx context.Context, u id.UserID)
}

// LimitGuesses sets who counts wrong passwords. It must be called before the Front is used.
func (f *Front) LimitGuesses(g Guesses) { f.guesses = g }

// named gives the account that somebody means who logs in. A name that nobody has as it was written is looked for in small letters.
func (f *Front) named(ctx context.Context, user string) (id.UserID, error) {
	u, err := f.localUser(user)
	if err != nil {
		return "", err
	}
	if lower := id.UserID(strings.ToLower(string(u))); lower != u {
		if exists, err := f.db.AccountExists(ctx, f.shards.OfUser(string(u)), string(u)); err != nil {
			return "", err
		} else if !exists {
			return lower, nil
		}
	}
	return u, nil
}

// Authenticate tells whose name and password these are, for a page that goes on from there. The refusal does not tell whether the
// account exists.
func (f *Front) Authenticate(ctx context.Context, user, password string) (id.UserID, error) {
	u, err := f.named(ctx, user)
	if err != nil {
		return "", err
	}
	a, err := f.verify(ctx, u, password)
	if err != nil {
		return "", err
	}
	return u, mayEnter(&a.Account, true)
}

// LogoutToken ends the session of an access or refresh token, with its device. Refused with M_UNKNOWN_TOKEN if it has none.
func (f *Front) LogoutToken(ctx context.Context, token string) error {
	unknown := mxerr.New(mxerr.UnknownToken, "Unrecognised token")
	hash := HashToken(token)
	if localpart, err := localpartOf(accessPrefix, token); err == nil {
		u := "@" + localpart + ":" + string(f.server)
		s, ok, err := f.db.SessionByToken(ctx, f.shards.OfUser(u), hash)
		if err != nil || !ok || s.UserID != u {
			return orElse(err, unknown)
		}
		cmd := Logout{UserID: u, Devices: []string{s.DeviceID}}
		if s.DeviceID == "" {
			cmd = Logout{UserID: u, TokenHash: &hash}
		}
		_, err = f.Do(ctx, &cmd)
		return err
	}
	localpart, err := localpartOf(refreshPrefix, token)
	if err != nil {
		return unknown.WithCause(err)
	}
	u := "@" + localpart + ":" + string(f.server)
	t, ok, err := f.db.RefreshTokenByHash(ctx, f.shards.OfUser(u), hash)
	if err != nil || !ok || t.UserID != u {
		return orElse(err, unknown)
	}
	_, err = f.Do(ctx, &Logout{UserID: u, Devices: []string{t.DeviceID}})
	return err
}

func orElse(err error, otherwise *mxerr.Error) error {
	if err != nil {
		return err
	}
	return otherwise
}
