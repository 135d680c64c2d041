package e2ee

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

const (
	maxAuthData    = 64 << 10
	maxSessionData = 64 << 10
)

// PutBackup makes a version of the user's key backup, and gives its number; if version is set, it changes that version's auth data.
func (f *Front) PutBackup(ctx context.Context, user id.UserID, version int64, algorithm string, auth json.RawMessage) (int64, error) {
	var m map[string]json.RawMessage
	switch {
	case algorithm == "":
		return 0, mxerr.New(mxerr.MissingParam, "The backup needs an algorithm")
	case !storable(algorithm):
		return 0, invalid("The algorithm's name is too long, or not a name")
	case len(auth) == 0:
		return 0, mxerr.New(mxerr.MissingParam, "The backup needs auth_data")
	case len(auth) > maxAuthData:
		return 0, mxerr.New(mxerr.TooLarge, "auth_data is too large")
	case json.Unmarshal(auth, &m) != nil || m == nil:
		return 0, badJSON("auth_data is not an object")
	}
	a, err := f.do(ctx, &PutBackup{UserID: string(user), Version: version, Algorithm: algorithm, AuthData: auth})
	return a.Version, err
}

// DeleteBackup deletes a version with its keys.
func (f *Front) DeleteBackup(ctx context.Context, user id.UserID, version int64) error {
	for {
		a, err := f.do(ctx, &DeleteBackup{UserID: string(user), Version: version})
		if err != nil || !a.More {
			return err
		}
	}
}

// SessionKey is a session's key in a backup.
type SessionKey struct {
	FirstIndex *int64          `json:"first_message_index"`
	Forwarded  *int64          `json:"forwarded_count"`
	Verified   *bool           `json:"is_verified"`
	Data       json.RawMessage `json:"session_data"`
}

// Stored is how many keys a backup has, and the tag of its state.
type Stored struct{ ETag, Count int64 }

// BackUp stores keys by room and session in a version, which must be the current one.
func (f *Front) BackUp(ctx context.Context, user id.UserID, version int64, keys map[string]map[string]SessionKey) (Stored, error) {
	var pieces []*BackUp
	size := pieceBytes + 1 // begins a piece
	for _, room := range slices.Sorted(maps.Keys(keys)) {
		for _, session := range slices.Sorted(maps.Keys(keys[room])) {
			k := keys[room][session]
			var m map[string]json.RawMessage
			switch {
			case k.FirstIndex == nil || k.Forwarded == nil || k.Verified == nil || len(k.Data) == 0:
				return Stored{}, badJSON("A key lacks a member")
			case *k.FirstIndex < 0 || *k.Forwarded < 0:
				return Stored{}, invalid("An index of a key is negative")
			case len(k.Data) > maxSessionData:
				return Stored{}, mxerr.New(mxerr.TooLarge, "A key is too large")
			case !storable(room) || !storable(session):
				return Stored{}, invalid("The id of a room or session is too long, or not an id")
			case json.Unmarshal(k.Data, &m) != nil || m == nil:
				return Stored{}, badJSON("session_data is not an object")
			}
			if size > pieceBytes {
				pieces, size = append(pieces, &BackUp{UserID: string(user), Version: version}), 0
			}
			size += len(k.Data) + len(room) + len(session) + 64
			p := pieces[len(pieces)-1]
			p.Keys = append(p.Keys, BackedUp{
				RoomID: room, SessionID: session, FirstIndex: *k.FirstIndex, Forwarded: *k.Forwarded, Verified: *k.Verified, Data: k.Data,
			})
		}
	}
	if len(pieces) == 0 { // the version is looked at all the same
		pieces = append(pieces, &BackUp{UserID: string(user), Version: version})
	}
	var a Answer
	for _, p := range pieces {
		var err error
		if a, err = f.do(ctx, p); err != nil {
			return Stored{}, err
		}
	}
	return Stored{a.ETag, a.Count}, nil
}

// Drop removes keys of a version, of a room or session if these are set.
func (f *Front) Drop(ctx context.Context, user id.UserID, version int64, room, session string) (Stored, error) {
	for {
		a, err := f.do(ctx, &DropBackedUp{UserID: string(user), Version: version, RoomID: room, SessionID: session})
		if err != nil || !a.More {
			return Stored{a.ETag, a.Count}, err
		}
	}
}

// ParseVersion reads the number of a version as clients give it. Whatever is not one is a version that there is not.
func ParseVersion(s string) (int64, error) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v <= 0 {
		return 0, noBackup()
	}
	return v, nil
}
