package account

import (
	"context"
	"encoding/json"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Device is a device as it is stored.
type Device = accountdb.Device

// Reader reads what belongs to users, from the primary: each answer holds what was committed before the call.
type Reader struct {
	shards shard.Map
	db     *accountdb.Reader
}

// NewReader makes a Reader.
func NewReader(shards shard.Map, db *accountdb.Reader) *Reader {
	return &Reader{shards: shards, db: db}
}

func (r *Reader) of(u id.UserID) shard.ID { return r.shards.OfUser(string(u)) }

// Exists tells whether there is an account.
func (r *Reader) Exists(ctx context.Context, u id.UserID) (bool, error) {
	return r.db.AccountExists(ctx, r.of(u), string(u))
}

// Devices gives a user's devices in the order of their ids.
func (r *Reader) Devices(ctx context.Context, u id.UserID) ([]Device, error) {
	return r.db.Devices(ctx, r.of(u), string(u))
}

// Device gives one device.
func (r *Reader) Device(ctx context.Context, u id.UserID, d id.DeviceID) (Device, bool, error) {
	return r.db.Device(ctx, r.of(u), string(u), string(d))
}

// Profile gives all fields of a profile as JSON values.
func (r *Reader) Profile(ctx context.Context, u id.UserID) (map[string][]byte, error) {
	return r.db.Profile(ctx, r.of(u), string(u))
}

// The fields of a profile that are shown in rooms.
const (
	fieldDisplayName = "displayname"
	fieldAvatarURL   = "avatar_url"
)

// Shown is what is shown of a user in rooms.
type Shown struct{ DisplayName, AvatarURL string }

// Shown gives what is shown of a user in rooms: the display name and the avatar. Of users of other servers nothing is known.
func (r *Reader) Shown(ctx context.Context, u id.UserID) (displayName, avatarURL string, err error) {
	all, err := r.ShownOf(ctx, u)
	return all[u].DisplayName, all[u].AvatarURL, err
}

// ShownOf gives the same of many users; nothing of those of whom nothing is shown.
func (r *Reader) ShownOf(ctx context.Context, users ...id.UserID) (map[id.UserID]Shown, error) {
	shards, names := r.here(users)
	if len(names) == 0 {
		return nil, nil
	}
	rows, err := r.db.ProfileFields(ctx, shards, names, fieldDisplayName, fieldAvatarURL)
	if err != nil {
		return nil, err
	}
	out := make(map[id.UserID]Shown, len(names))
	for _, row := range rows {
		var text string
		if json.Unmarshal(row.Value, &text) != nil {
			continue // no string: it is not shown
		}
		s := out[id.UserID(row.UserID)]
		if row.Field == fieldDisplayName {
			s.DisplayName = text
		} else {
			s.AvatarURL = text
		}
		out[id.UserID(row.UserID)] = s
	}
	return out, nil
}

// here gives those of some users who are of this server, and their shards.
func (r *Reader) here(users []id.UserID) (shards []shard.ID, names []string) {
	for _, u := range users {
		if r.shards.Local(string(u)) {
			shards, names = append(shards, r.of(u)), append(names, string(u))
		}
	}
	return shards, names
}

// AccountData gives account data of one type as JSON, of a room or global (room empty).
func (r *Reader) AccountData(ctx context.Context, u id.UserID, room, typ string) ([]byte, bool, error) {
	return r.db.AccountData(ctx, r.of(u), string(u), room, typ)
}

// Invitations gives whose invitations users of this server take; nothing of those who take all.
func (r *Reader) Invitations(ctx context.Context, users ...id.UserID) (map[id.UserID]invitation.Rules, error) {
	shards, names := r.here(users)
	if len(names) == 0 {
		return nil, nil
	}
	rows, err := r.db.DataOf(ctx, shards, names, invitation.TypeConfig, invitation.TypeFiltered)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	contents := make(map[string][2][]byte, len(rows))
	for _, row := range rows {
		c := contents[row.UserID]
		if row.Type == invitation.TypeConfig {
			c[0] = row.Content
		} else {
			c[1] = row.Content
		}
		contents[row.UserID] = c
	}
	out := make(map[id.UserID]invitation.Rules, len(contents))
	for u, c := range contents {
		out[id.UserID(u)] = invitation.Parse(c[0], c[1])
	}
	return out, nil
}

// Invites says whether a user takes an invitation by another.
func (r *Reader) Invites(ctx context.Context, u, by id.UserID) (invitation.Verdict, error) {
	rules, err := r.Invitations(ctx, u)
	if err != nil {
		return invitation.Blocked, err
	}
	of := rules[u]
	return of.Of(by), nil
}

// Filter gives a stored filter as JSON.
func (r *Reader) Filter(ctx context.Context, u id.UserID, filterID string) ([]byte, bool, error) {
	return r.db.Filter(ctx, r.of(u), string(u), filterID)
}
