package account

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Sessions finds whom an access token speaks for, and remembers it until the log says that the user's devices or tokens have
// changed.
type Sessions struct {
	server string
	shards shard.Map
	db     *accountdb.Reader
	cache  *sessionCache
	now    func() time.Time
	// confirm has what a refreshed token's first use revokes revoked; nil: nobody does.
	confirm func(ctx context.Context, cmd *ConfirmRefresh) error
	// outside is asked about tokens, if this server does not have them itself; put makes devices it speaks of.
	outside Introspector
	put     func(ctx context.Context, cmd *PutDevice) error
}

// NewSessions makes a Sessions whose memory is charged to the budget. Its [Sessions.Apply] must be fed with the log of all
// shards before it is asked.
func NewSessions(serverName string, shards shard.Map, db *accountdb.Reader, b *cache.Budget, now func() time.Time) *Sessions {
	return &Sessions{server: serverName, shards: shards, db: db, cache: newSessionCache(b), now: now}
}

// OnFirstUse sets who is told of the first use of a token that came with a refresh, so that the tokens it came for are revoked. It must be
// called before the first Session.
func (s *Sessions) OnFirstUse(confirm func(ctx context.Context, cmd *ConfirmRefresh) error) {
	s.confirm = confirm
}

// Session gives whom the token speaks for; hash is the token's. A token that is not good is refused with M_UNKNOWN_TOKEN.
func (s *Sessions) Session(ctx context.Context, token string, hash [32]byte) (accountdb.Session, error) {
	if s.outside != nil {
		return s.delegated(ctx, token, hash)
	}
	localpart, err := TokenLocalpart(token)
	if err != nil {
		return accountdb.Session{}, unknownToken(false).WithCause(err)
	}
	x, ok := s.cache.get(hash)
	if !ok {
		user := "@" + localpart + ":" + s.server
		loading := s.cache.begin(user)
		x, ok, err = s.db.SessionByToken(ctx, s.shards.OfUser(user), hash)
		confirmed := true
		if err == nil && ok && x.UserID == user && x.Unconfirmed && s.confirm != nil {
			// If the user's shard has no writer now, the token is good all the same, and its next use tries again.
			confirmed = s.confirm(ctx, &ConfirmRefresh{UserID: user, Access: hash}) == nil
		}
		if err == nil && ok && x.UserID == user && confirmed {
			s.cache.end(loading, hash, x)
		} else {
			s.cache.abandon(loading)
		}
		switch {
		case err != nil:
			return accountdb.Session{}, err
		case !ok || x.UserID != user:
			return accountdb.Session{}, unknownToken(false)
		}
	}
	switch {
	case x.Deactivated:
		return accountdb.Session{}, unknownToken(false)
	case x.Expires != 0 && s.now().UnixMilli() >= x.Expires:
		return accountdb.Session{}, unknownToken(true)
	}
	return x, nil
}

func unknownToken(softLogout bool) *mxerr.Error {
	return mxerr.New(mxerr.UnknownToken, "Unrecognised access token").With("soft_logout", softLogout)
}

// ErrNoAccount says that there is no account of a user.
var ErrNoAccount = errors.New("there is no account of the user")

// Assume gives the session of a user for whom somebody acts who may, on a device or on none. Its error is ErrNoAccount if there is no such
// user, and M_UNKNOWN_DEVICE if the user has no such device.
func (s *Sessions) Assume(ctx context.Context, user, device string) (accountdb.Session, error) {
	key := sha256.Sum256([]byte("assumed\x00" + user + "\x00" + device))
	if x, ok := s.cache.get(key); ok {
		return x, standsFor(&x)
	}
	x, good := accountdb.Session{UserID: user, DeviceID: device}, false
	loading := s.cache.begin(user)
	defer func() {
		if good {
			s.cache.end(loading, key, x)
		} else {
			s.cache.abandon(loading)
		}
	}()
	at := s.shards.OfUser(user)
	a, ok, err := s.db.Account(ctx, at, user)
	switch {
	case err != nil:
		return x, err
	case !ok:
		return x, ErrNoAccount
	}
	x.Kind, x.Admin, x.Locked, x.Suspended, x.Deactivated = a.Kind, a.Admin, a.Locked, a.Suspended, a.Deactivated
	if device != "" {
		switch _, ok, err := s.db.Device(ctx, at, user, device); {
		case err != nil:
			return x, err
		case !ok:
			return x, mxerr.New(mxerr.UnknownDevice, "The user has no such device")
		}
	}
	good = true
	return x, standsFor(&x)
}

func standsFor(x *accountdb.Session) error {
	if x.Deactivated {
		return mxerr.New(mxerr.UserDeactivated, "This account has been deactivated")
	}
	return nil
}

// Concerned tells, from an entry's header alone, whether [Sessions.Apply] needs to see it.
func (s *Sessions) Concerned(kind entry.Kind, subject string) bool {
	return kind == entry.KindSession && s.cache.knows(subject)
}

// Apply drops what is remembered of the user whose session entry it is given.
func (s *Sessions) Apply(e *entry.At) {
	if e.Kind == entry.KindSession {
		s.cache.drop(e.Subject)
	}
}

// Forget drops everything that is remembered.
func (s *Sessions) Forget() { s.cache.clear() }
