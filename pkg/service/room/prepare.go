package room

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// Limits of one createRoom.
const (
	maxInvites      = 100
	maxInitialState = 200
)

// Create makes a room: it prepares the command, reserves the alias if there is one, and has the room made. The alias is given
// back if that is refused.
func Create(ctx context.Context, w Writer, server id.ServerName, now time.Time, random io.Reader, c *CreateRoom) (id.RoomID, error) {
	// Two equal requests of one millisecond come to the same id in room version 12; the later gives way.
	const attempts = 8
	for attempt := 0; ; attempt++ {
		p := *c
		if err := Prepare(&p, server, now.Add(time.Duration(attempt)*time.Millisecond), random); err != nil {
			return "", err
		}
		if p.Alias != "" {
			if _, err := w.Do(ctx, nil, &SetAlias{Alias: p.Alias, Room: p.Room, By: p.Creator.User}); err != nil {
				return "", err
			}
		}
		a, err := w.Do(ctx, p.Nonce, &p)
		if err == nil {
			return a.Room, nil
		}
		var refused *mxerr.Error
		if p.Alias != "" && errors.As(err, &refused) {
			// Only a refusal says for certain that there is no such room.
			if _, derr := w.Do(ctx, nil, &DeleteAlias{Alias: p.Alias, By: p.Creator.User, Force: true}); derr != nil {
				return "", errors.Join(err, fmt.Errorf("give back alias: %w", derr))
			}
		}
		if !mxerr.Is(err, mxerr.RoomInUse) || attempt+1 == attempts {
			return "", err
		}
	}
}

// Prepare checks a request for a room as far as that can be done without one, fills in what it leaves out, and gives
// the room its id.
func Prepare(c *CreateRoom, server id.ServerName, now time.Time, random io.Reader) error {
	if c.Version == "" {
		c.Version = roomver.Default
	}
	rules, ok := roomver.Get(c.Version)
	if !ok {
		return mxerr.Newf(mxerr.UnsupportedRoomVersion, "room version %q is not supported", c.Version)
	}
	switch c.Preset {
	case "":
		c.Preset = PresetPrivate
		if c.Public {
			c.Preset = PresetPublic
		}
	case PresetPrivate, PresetTrusted, PresetPublic:
	default:
		return mxerr.New(mxerr.BadJSON, "preset is unknown")
	}
	if len(c.Invite) > maxInvites {
		return mxerr.Newf(mxerr.InvalidParam, "at most %d users can be invited at once", maxInvites)
	}
	if len(c.InitialState) > maxInitialState {
		return mxerr.Newf(mxerr.InvalidParam, "initial_state has more than %d events", maxInitialState)
	}
	for _, raw := range []*[]byte{&c.CreationContent, &c.PowerOverride} {
		if err := object(raw); err != nil {
			return err
		}
	}
	for i := range c.InitialState {
		if err := object(&c.InitialState[i].Content); err != nil {
			return err
		}
		switch c.InitialState[i].Type {
		case event.TypeCreate, event.TypeMember:
			return mxerr.Newf(mxerr.BadJSON, "initial_state may not hold %s", c.InitialState[i].Type)
		}
	}
	for _, i := range c.Invite {
		if i.User == c.Creator.User {
			return mxerr.New(mxerr.InvalidParam, "the creator cannot be invited")
		}
	}
	c.TS = now.UnixMilli()
	if c.Creator.TS != 0 {
		c.TS = c.Creator.TS
	}
	c.Nonce = make([]byte, 16)
	if _, err := io.ReadFull(random, c.Nonce); err != nil {
		return fmt.Errorf("read random: %w", err)
	}
	if rules.RoomIDIsHash {
		return c.prepareHashID(rules, server)
	}
	opaque, err := randomText(random)
	if err != nil {
		return err
	}
	room, err := id.NewRoomID(opaque, server)
	if err != nil {
		return fmt.Errorf("make room id: %w", err)
	}
	c.Room = room
	p, err := c.createEvent(rules)
	if err != nil {
		return err
	}
	return p.check(rules, server)
}

// randomText gives up to 25 letters and digits that nobody guesses.
func randomText(random io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	return new(big.Int).SetBytes(b[:]).Text(36), nil
}

// prepareHashID builds the create event to learn its hash.
func (c *CreateRoom) prepareHashID(rules *roomver.Rules, server id.ServerName) error {
	p, err := c.createEvent(rules)
	if err != nil {
		return err
	}
	e, err := p.build(rules, server)
	if err != nil {
		return err
	}
	c.Room = id.RoomIDFromCreate(e.EventID())
	return nil
}

// unsigned is an event as it will be, but for the signature.
type unsigned event.Proto

// build builds the event with a key that means nothing: an event's id does not depend on its signatures.
func (p *unsigned) build(rules *roomver.Rules, server id.ServerName) (*event.Event, error) {
	key, err := signing.NewKey(id.NewKeyID(id.AlgorithmEd25519, "none"), make([]byte, 32))
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	e, err := event.Build(rules, (*event.Proto)(p), server, key)
	if err != nil {
		return nil, buildError(err)
	}
	return e, nil
}

func (p *unsigned) check(rules *roomver.Rules, server id.ServerName) error {
	if rules.EventIDs == roomver.EventIDGiven {
		p.EventID = id.EventID("$check:" + string(server))
	}
	_, err := p.build(rules, server)
	return err
}

// createEvent gives the room's m.room.create. It depends on nothing but the prepared command.
func (c *CreateRoom) createEvent(rules *roomver.Rules) (*unsigned, error) {
	content, err := c.createContent(rules)
	if err != nil {
		return nil, err
	}
	p := &unsigned{
		Type: event.TypeCreate, StateKey: new(string), Sender: c.Creator.User, Content: content, Depth: 1, OriginServerTS: c.TS,
	}
	if !rules.RoomIDIsHash {
		p.RoomID = c.Room
	}
	return p, nil
}

func (c *CreateRoom) createContent(rules *roomver.Rules) ([]byte, error) {
	members := map[string]any{"room_version": string(rules.Version)}
	given := c.CreationContent
	if rules.Creator == roomver.CreatorInContent {
		members["creator"] = string(c.Creator.User)
	} else { // the request may not name somebody else there
		var err error
		if given, err = without(orEmpty(given), "creator"); err != nil {
			return nil, err
		}
	}
	if rules.PrivilegedCreators {
		also, err := c.additionalCreators()
		if err != nil {
			return nil, err
		}
		if len(also) > 0 {
			members["additional_creators"] = also
		}
	}
	return merge(given, members)
}

// additionalCreators gives those that creation_content names and, in a trusted private chat, the invited users.
func (c *CreateRoom) additionalCreators() ([]string, error) {
	var also []string
	add := func(user id.UserID) {
		if user != c.Creator.User && !slices.Contains(also, string(user)) {
			also = append(also, string(user))
		}
	}
	if raw, ok := canonjson.Get(orEmpty(c.CreationContent), "additional_creators"); ok {
		var named []string
		if err := decodeJSON(raw, &named); err != nil {
			return nil, mxerr.New(mxerr.BadJSON, "additional_creators is no list of user ids")
		}
		for _, s := range named {
			user, err := id.ParseUserID(s)
			if err != nil {
				return nil, mxerr.Newf(mxerr.InvalidParam, "additional_creators holds %q, which is no user id", s)
			}
			add(user)
		}
	}
	if c.Preset == PresetTrusted {
		for _, i := range c.Invite {
			add(i.User)
		}
	}
	return also, nil
}
