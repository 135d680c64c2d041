// Package notice sends server notices: messages of those who run the server to its users (spec: "Server Notices").
//
// One user, whom nobody logs in as, sends them all, and each user is told in one room of their own, which is made for the first notice.
// Nothing is stored of which room that is: it is the one that the two are in, and the room's id is made of nothing but whom it is for,
// so that two first notices at once come to the same room. That an invitation to it cannot be declined is the room's writer's to see.
//
// A [Sender] is safe for concurrent use and keeps nothing. The package is imported by api/admin and by the composition root, which fills its
// interfaces from the services of rooms and accounts; it knows no HTTP.
package notice

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Tag is the tag by which clients know the room (spec: "Server Notices").
const Tag = "m.server_notice"

// Config is who sends notices, and how it looks.
type Config struct {
	// User sends them; empty: nobody does.
	User id.UserID
	// DisplayName and AvatarURL are the user's profile.
	DisplayName, AvatarURL string
	// RoomName and RoomAvatarURL are of the rooms.
	RoomName, RoomAvatarURL string
}

// Account is what a Sender needs to know of an account.
type Account struct {
	// Created is when it was made, in ms.
	Created     int64
	Deactivated bool
}

// Accounts are the users of this server.
type Accounts interface {
	Account(ctx context.Context, u id.UserID) (a Account, ok bool, err error)
	// Make makes the account of who sends, unless it is there.
	Make(ctx context.Context, u id.UserID, displayName string) error
	Shown(ctx context.Context, u id.UserID) (displayName, avatarURL string, err error)
	// SetShown changes a profile.
	SetShown(ctx context.Context, u id.UserID, displayName, avatarURL string) error
	// Tag tags a room of a user's, unless it is tagged already.
	Tag(ctx context.Context, u id.UserID, room id.RoomID, tag string) error
}

// Room is a room that is to be made for a user.
type Room struct {
	By, For id.UserID
	// TS is the time of its first events, in ms: the room's id is made of these three.
	TS              int64
	Name, AvatarURL string
}

// Rooms are the rooms of this server.
type Rooms interface {
	// Shared gives a room in which by is and the user is, or was, and the user's membership; none: "".
	Shared(ctx context.Context, by, user id.UserID) (room id.RoomID, membership string, err error)
	// Make makes a room, in which there is nobody but who makes it. If it is there already that is as good.
	Make(ctx context.Context, r *Room) (id.RoomID, error)
	Invite(ctx context.Context, room id.RoomID, by, user id.UserID) error
	// Send sends an event; again with the same key it gives the event of the first time. An empty key is no key.
	Send(ctx context.Context, room id.RoomID, by id.UserID, key string, e *Event) (id.EventID, error)
}

// Event is what is sent.
type Event struct {
	Type string
	// StateKey is of a state event, nil for a message.
	StateKey *string
	Content  []byte
}

// Notice is an event for a user.
type Notice struct {
	To id.UserID
	// By is the administrator who has it sent, and Txn the transaction id, if there is one: the same of both is the same notice.
	By, Txn string
	Event   Event
}

// Sender sends notices.
type Sender struct {
	cfg      Config
	accounts Accounts
	rooms    Rooms
}

// New makes a Sender.
func New(cfg Config, accounts Accounts, rooms Rooms) *Sender {
	return &Sender{cfg: cfg, accounts: accounts, rooms: rooms}
}

// Send sends a notice, and gives its event. Refused if there are no notices here, and with M_NOT_FOUND if there is no such user.
func (s *Sender) Send(ctx context.Context, n *Notice) (id.EventID, error) {
	switch {
	case s.cfg.User == "":
		return "", mxerr.New(mxerr.Unknown, "Server notices are not enabled on this server").WithStatus(400)
	case n.To == s.cfg.User:
		return "", mxerr.New(mxerr.InvalidParam, "That is the user who sends the notices")
	case n.To.Server() != s.cfg.User.Server():
		return "", mxerr.New(mxerr.InvalidParam, "Server notices can only be sent to users of this server")
	}
	to, ok, err := s.accounts.Account(ctx, n.To)
	if err != nil {
		return "", fmt.Errorf("notice: %w", err)
	}
	if !ok || to.Deactivated {
		return "", mxerr.New(mxerr.NotFound, "There is no such user")
	}
	if err := s.present(ctx); err != nil {
		return "", fmt.Errorf("notice: %w", err)
	}
	room, err := s.room(ctx, n.To, to.Created)
	if err != nil {
		return "", fmt.Errorf("notice for %s: %w", n.To, err)
	}
	key := ""
	if n.Txn != "" {
		key = n.By + "\x00" + n.Txn
	}
	if n.Event.Type == "" {
		n.Event.Type = event.TypeMessage
	}
	return s.rooms.Send(ctx, room, s.cfg.User, key, &n.Event)
}

// present makes the user who sends notices as the configuration has it.
func (s *Sender) present(ctx context.Context) error {
	me := s.cfg.User
	_, ok, err := s.accounts.Account(ctx, me)
	if err == nil && !ok {
		err = s.accounts.Make(ctx, me, s.cfg.DisplayName)
	}
	if err != nil {
		return err
	}
	name, avatar, err := s.accounts.Shown(ctx, me)
	if err != nil || name == s.cfg.DisplayName && avatar == s.cfg.AvatarURL {
		return err
	}
	return s.accounts.SetShown(ctx, me, s.cfg.DisplayName, s.cfg.AvatarURL)
}

// room gives the room of a user's notices: tagged, and with the user in it or invited to it.
func (s *Sender) room(ctx context.Context, user id.UserID, created int64) (id.RoomID, error) {
	room, membership, err := s.rooms.Shared(ctx, s.cfg.User, user)
	if err != nil {
		return "", err
	}
	if membership == "" {
		room, err = s.rooms.Make(ctx, &Room{By: s.cfg.User, For: user, TS: created, Name: s.cfg.RoomName, AvatarURL: s.cfg.RoomAvatarURL})
		if err != nil {
			return "", err
		}
	}
	// Before the invitation, so that a client which sees that knows what it is.
	if err := s.accounts.Tag(ctx, user, room, Tag); err != nil {
		return "", err
	}
	if membership == event.Join || membership == event.Invite {
		return room, nil
	}
	return room, s.rooms.Invite(ctx, room, s.cfg.User, user)
}
