package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// Session makes the entry of devices or tokens of a local user that came, went or changed.
func Session(userID string, body *SessionBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode session entry: %w", err)
	}
	return Entry{Kind: KindSession, Subject: userID, Body: b}, nil
}

// DecodeSession gives the body of such an entry.
func DecodeSession(e *Entry) (*SessionBody, error) {
	b := new(SessionBody)
	return b, decode(e, KindSession, b)
}

// What a session entry tells of.
const (
	SessionAdded   = wire.SessionBody_CHANGE_ADDED
	SessionRemoved = wire.SessionBody_CHANGE_REMOVED
	SessionUpdated = wire.SessionBody_CHANGE_UPDATED
	// SessionDeactivated: the account was deactivated, its devices and tokens are gone, and it is to leave its rooms.
	SessionDeactivated = wire.SessionBody_CHANGE_DEACTIVATED
	// SessionPushers: a pusher of the user came, went or changed; devices and tokens did not.
	SessionPushers = wire.SessionBody_CHANGE_PUSHERS
)

// SessionChange is one of those.
type SessionChange = wire.SessionBody_Change
