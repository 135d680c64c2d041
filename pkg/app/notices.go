package app

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/heddle-im/heddle/pkg/api/admin"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/notice"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// noticesUser is who sends server notices; empty: nobody does.
func (b *base) noticesUser() id.UserID {
	if b.cfg.ServerNotices.Localpart == "" {
		return ""
	}
	return id.UserID("@" + b.cfg.ServerNotices.Localpart + ":" + string(b.server))
}

// adminHandlers are the endpoints of the admin API.
func adminHandlers(s *shared, front *account.Front, writer room.Writer) httpx.Handlers {
	c := s.cfg.ServerNotices
	return admin.New(notice.New(notice.Config{
		User: s.noticesUser(), DisplayName: c.DisplayName, AvatarURL: c.AvatarURL, RoomName: c.RoomName, RoomAvatarURL: c.RoomAvatarURL,
	}, noticeAccounts{front, account.NewReader(s.shards, s.accounts), s.accounts, s.shards}, noticeRooms{s, writer})).Handlers()
}

// noticeAccounts is what server notices ask of accounts.
type noticeAccounts struct {
	front *account.Front
	*account.Reader
	db     *accountdb.Reader
	shards shard.Map
}

// Account implements notice.Accounts.
func (n noticeAccounts) Account(ctx context.Context, u id.UserID) (notice.Account, bool, error) {
	a, ok, err := n.db.Account(ctx, n.shards.OfUser(string(u)), string(u))
	return notice.Account{Created: a.Created, Deactivated: a.Deactivated}, ok, err
}

// Make implements notice.Accounts. The account has no password and no session, and nobody else can register its name.
func (n noticeAccounts) Make(ctx context.Context, u id.UserID, displayName string) error {
	_, err := n.front.Do(ctx, &account.Register{UserID: string(u), DisplayName: displayName})
	if mxerr.Is(err, mxerr.UserInUse) { // another notice was sent meanwhile
		err = nil
	}
	return err
}

// SetShown implements notice.Accounts.
func (n noticeAccounts) SetShown(ctx context.Context, u id.UserID, displayName, avatarURL string) error {
	for _, f := range [...]struct{ field, value string }{{"displayname", displayName}, {"avatar_url", avatarURL}} {
		cmd := &account.SetProfile{UserID: string(u), Field: f.field}
		if f.value != "" {
			var err error
			if cmd.Value, err = json.Marshal(f.value); err != nil {
				return err
			}
		}
		if _, err := n.front.Do(ctx, cmd); err != nil {
			return err
		}
	}
	return nil
}

// Tag implements notice.Accounts.
func (n noticeAccounts) Tag(ctx context.Context, u id.UserID, r id.RoomID, tag string) error {
	_, err := n.front.Do(ctx, &account.SetTag{UserID: string(u), RoomID: string(r), Tag: tag, Content: []byte("{}")})
	return err
}

// noticeRooms is what server notices do in rooms.
type noticeRooms struct {
	*shared
	writer room.Writer
}

// Shared implements notice.Rooms.
func (n noticeRooms) Shared(ctx context.Context, by, user id.UserID) (id.RoomID, string, error) {
	r, membership, ok, err := n.rooms.SharedWith(ctx, string(user), string(by))
	if err != nil || !ok {
		return "", "", err
	}
	return id.RoomID(r.RoomID), membership.String(), nil
}

// Make implements notice.Rooms. The room is of a version in which its id is the hash of its first event, and that depends on nothing but
// what is asked for.
func (n noticeRooms) Make(ctx context.Context, r *notice.Room) (id.RoomID, error) {
	creation, err := json.Marshal(map[string]any{"m.federate": false, "im.heddle.server_notices_for": r.For})
	if err != nil {
		return "", err
	}
	cmd := &room.CreateRoom{
		Creator: room.Origin{User: r.By}, Preset: room.PresetPrivate, Name: r.Name, CreationContent: creation,
		// Who is told listens, and invites nobody.
		PowerOverride: []byte(`{"events_default":50,"invite":50}`),
	}
	if r.AvatarURL != "" {
		content, err := json.Marshal(map[string]string{"url": r.AvatarURL})
		if err != nil {
			return "", err
		}
		cmd.InitialState = append(cmd.InitialState, room.StateEvent{Type: event.TypeAvatar, Content: content})
	}
	if cmd.Profile, err = n.profile(ctx, r.By); err != nil {
		return "", err
	}
	if err := room.Prepare(cmd, n.server, time.UnixMilli(r.TS), randomSource()); err != nil {
		return "", err
	}
	_, err = n.writer.Do(ctx, nil, cmd)
	if mxerr.Is(err, mxerr.RoomInUse) { // it was made meanwhile, or nobody came as far as to invite the user
		err = nil
	}
	return cmd.Room, err
}

func (n noticeRooms) profile(ctx context.Context, u id.UserID) (room.Profile, error) {
	name, avatar, err := account.NewReader(n.shards, n.accounts).Shown(ctx, u)
	return room.Profile{DisplayName: name, AvatarURL: avatar}, err
}

// Invite implements notice.Rooms. Whose invitations the user takes is not asked.
func (n noticeRooms) Invite(ctx context.Context, r id.RoomID, by, user id.UserID) error {
	p, err := n.profile(ctx, user)
	if err != nil {
		return err
	}
	_, err = n.writer.Do(ctx, nil, &room.SetMembership{
		Room: r, By: room.Origin{User: by}, Target: user, Action: room.ActionInvite, Profile: p,
	})
	return err
}

// Send implements notice.Rooms.
func (n noticeRooms) Send(ctx context.Context, r id.RoomID, by id.UserID, key string, e *notice.Event) (id.EventID, error) {
	var cmd room.Command = &room.Send{Room: r, By: room.Origin{User: by}, Type: e.Type, Content: e.Content}
	if e.StateKey != nil {
		cmd = &room.SendState{Room: r, By: room.Origin{User: by}, Type: e.Type, StateKey: *e.StateKey, Content: e.Content}
	}
	var k []byte
	if key != "" {
		h := sha256.Sum256([]byte("server notice\x00" + string(r) + "\x00" + key))
		k = h[:]
	}
	a, err := n.writer.Do(ctx, k, cmd)
	return a.Event, err
}
