package roomrpc

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// encode gives a command's message.
func encode(cmd room.Command) (proto.Message, error) {
	switch c := cmd.(type) {
	case *room.CreateRoom:
		return encodeCreate(c), nil
	case *room.Send:
		return &wire.RoomSend{Room: string(c.Room), By: origin(&c.By), Type: c.Type, Content: c.Content}, nil
	case *room.SendState:
		return &wire.RoomSendState{
			Room: string(c.Room), By: origin(&c.By), Type: c.Type, StateKey: c.StateKey, Content: c.Content,
		}, nil
	case *room.Redact:
		return &wire.RoomRedact{
			Room: string(c.Room), By: origin(&c.By), Target: string(c.Target), Reason: c.Reason, Content: c.Content,
		}, nil
	case *room.SetMembership:
		return encodeMembership(c), nil
	case *room.SetProfile:
		return &wire.RoomSetProfile{Room: string(c.Room), User: string(c.User), Profile: profile(&c.Profile)}, nil
	case *room.Forget:
		return &wire.RoomForget{Room: string(c.Room), User: string(c.User)}, nil
	case *room.Receipt:
		return &wire.RoomReceipt{
			Room: string(c.Room), User: string(c.User), Kind: c.Kind, Thread: c.Thread, Event: string(c.Event), Ts: c.TS,
		}, nil
	case *room.Typing:
		return &wire.RoomTyping{
			Room: string(c.Room), User: string(c.User), Typing: c.Typing, TimeoutMs: c.Timeout.Milliseconds(),
		}, nil
	case *room.Accept:
		return &wire.RoomAccept{Room: string(c.Room), Events: c.Events, Staged: c.Staged, Relay: c.Relay, Asked: c.Asked, Device: string(c.Device), Txn: c.Txn}, nil
	case *room.Outline:
		return &wire.RoomOutline{Room: string(c.Room), Version: string(c.Version)}, nil
	case *room.Outliers:
		return &wire.RoomOutliers{Room: string(c.Room), Set: c.Set, From: int64(c.From), Count: int64(c.Count)}, nil
	case *room.Enter:
		return &wire.RoomEnter{Room: string(c.Room), Set: c.Set, Event: c.Event, Join: c.Join, Staged: c.Staged, Asked: c.Asked}, nil
	case *room.Backfill:
		m := &wire.RoomBackfill{Room: string(c.Room), Gap: c.Gap, Set: c.Set}
		for _, s := range c.States {
			m.States = append(m.States, &wire.RoomBackfillState{Event: string(s.Event), Set: s.Set})
		}
		return m, nil
	case *room.OutOfBand:
		return &wire.RoomOutOfBand{Room: string(c.Room), Event: c.Event, Stripped: c.Stripped, Rescinds: c.Rescinds}, nil
	case *room.Template:
		return &wire.RoomTemplate{Room: string(c.Room), User: string(c.User), Action: string(c.Action)}, nil
	case *room.InviteDraft:
		return &wire.RoomInviteDraft{Invite: encodeMembership(&c.Invite)}, nil
	case *room.SetAlias:
		return &wire.RoomSetAlias{Alias: string(c.Alias), Room: string(c.Room), By: string(c.By), From: string(c.From)}, nil
	case *room.DeleteAlias:
		return &wire.RoomDeleteAlias{Alias: string(c.Alias), By: string(c.By), Force: c.Force}, nil
	case *room.SetVisibility:
		return &wire.RoomSetVisibility{Room: string(c.Room), By: string(c.By), Public: c.Public, Force: c.Force}, nil
	}
	return nil, fmt.Errorf("command %s has no form on the wire", cmd.Method())
}

func encodeMembership(c *room.SetMembership) *wire.RoomSetMembership {
	return &wire.RoomSetMembership{
		Room: string(c.Room), By: origin(&c.By), Target: string(c.Target), Action: string(c.Action), Reason: c.Reason,
		Profile: profile(&c.Profile), IsDirect: c.IsDirect, Content: c.Content,
	}
}

func decodeMembership(m *wire.RoomSetMembership) *room.SetMembership {
	return &room.SetMembership{
		Room: id.RoomID(m.GetRoom()), By: originOf(m.GetBy()), Target: id.UserID(m.GetTarget()), Action: room.Action(m.GetAction()),
		Reason: m.GetReason(), Profile: profileOf(m.GetProfile()), IsDirect: m.GetIsDirect(), Content: m.GetContent(),
	}
}

func encodeCreate(c *room.CreateRoom) *wire.RoomCreate {
	m := &wire.RoomCreate{
		Room: string(c.Room), Ts: c.TS, Nonce: c.Nonce, Creator: origin(&c.Creator), Profile: profile(&c.Profile),
		Version: string(c.Version), Preset: string(c.Preset), Public: c.Public, Name: c.Name, Topic: c.Topic,
		Alias: string(c.Alias), IsDirect: c.IsDirect, CreationContent: c.CreationContent, PowerOverride: c.PowerOverride,
	}
	for i := range c.Invite {
		m.Invite = append(m.Invite, &wire.RoomInvitation{User: string(c.Invite[i].User), Profile: profile(&c.Invite[i].Profile)})
	}
	for _, e := range c.InitialState {
		m.InitialState = append(m.InitialState, &wire.RoomStateEvent{Type: e.Type, StateKey: e.StateKey, Content: e.Content})
	}
	return m
}

func decodeCreate(m *wire.RoomCreate) room.Command {
	c := &room.CreateRoom{
		Room: id.RoomID(m.Room), TS: m.Ts, Nonce: m.Nonce, Creator: originOf(m.Creator), Profile: profileOf(m.Profile),
		Version: roomver.Version(m.Version), Preset: room.Preset(m.Preset), Public: m.Public, Name: m.Name, Topic: m.Topic,
		Alias: id.RoomAlias(m.Alias), IsDirect: m.IsDirect, CreationContent: m.CreationContent, PowerOverride: m.PowerOverride,
	}
	for _, i := range m.Invite {
		c.Invite = append(c.Invite, room.Invitation{User: id.UserID(i.User), Profile: profileOf(i.Profile)})
	}
	for _, e := range m.InitialState {
		c.InitialState = append(c.InitialState, room.StateEvent{Type: e.Type, StateKey: e.StateKey, Content: e.Content})
	}
	return c
}

// decoders gives what reads the messages of commands, by method.
func decoders() map[string]func([]byte) (room.Command, error) {
	return map[string]func([]byte) (room.Command, error){
		(*room.CreateRoom)(nil).Method(): decoder(decodeCreate),
		(*room.Send)(nil).Method(): decoder(func(m *wire.RoomSend) room.Command {
			return &room.Send{Room: id.RoomID(m.Room), By: originOf(m.By), Type: m.Type, Content: m.Content}
		}),
		(*room.SendState)(nil).Method(): decoder(func(m *wire.RoomSendState) room.Command {
			return &room.SendState{Room: id.RoomID(m.Room), By: originOf(m.By), Type: m.Type, StateKey: m.StateKey, Content: m.Content}
		}),
		(*room.Redact)(nil).Method(): decoder(func(m *wire.RoomRedact) room.Command {
			return &room.Redact{
				Room: id.RoomID(m.Room), By: originOf(m.By), Target: id.EventID(m.Target), Reason: m.Reason, Content: m.Content,
			}
		}),
		(*room.SetMembership)(nil).Method(): decoder(func(m *wire.RoomSetMembership) room.Command { return decodeMembership(m) }),
		(*room.SetProfile)(nil).Method(): decoder(func(m *wire.RoomSetProfile) room.Command {
			return &room.SetProfile{Room: id.RoomID(m.Room), User: id.UserID(m.User), Profile: profileOf(m.Profile)}
		}),
		(*room.Forget)(nil).Method(): decoder(func(m *wire.RoomForget) room.Command {
			return &room.Forget{Room: id.RoomID(m.Room), User: id.UserID(m.User)}
		}),
		(*room.Receipt)(nil).Method(): decoder(func(m *wire.RoomReceipt) room.Command {
			return &room.Receipt{
				Room: id.RoomID(m.Room), User: id.UserID(m.User), Kind: m.Kind, Thread: m.Thread, Event: id.EventID(m.Event), TS: m.Ts,
			}
		}),
		(*room.Typing)(nil).Method(): decoder(func(m *wire.RoomTyping) room.Command {
			return &room.Typing{
				Room: id.RoomID(m.Room), User: id.UserID(m.User), Typing: m.Typing, Timeout: time.Duration(m.TimeoutMs) * time.Millisecond,
			}
		}),
		(*room.Accept)(nil).Method(): decoder(func(m *wire.RoomAccept) room.Command {
			return &room.Accept{Room: id.RoomID(m.Room), Events: m.Events, Staged: m.Staged, Relay: m.Relay, Asked: m.Asked, Device: id.DeviceID(m.Device), Txn: m.Txn}
		}),
		(*room.Outline)(nil).Method(): decoder(func(m *wire.RoomOutline) room.Command {
			return &room.Outline{Room: id.RoomID(m.Room), Version: roomver.Version(m.Version)}
		}),
		(*room.Outliers)(nil).Method(): decoder(func(m *wire.RoomOutliers) room.Command {
			return &room.Outliers{Room: id.RoomID(m.Room), Set: m.Set, From: int(m.From), Count: int(m.Count)}
		}),
		(*room.Enter)(nil).Method(): decoder(func(m *wire.RoomEnter) room.Command {
			return &room.Enter{Room: id.RoomID(m.Room), Set: m.Set, Event: m.Event, Join: m.Join, Staged: m.Staged, Asked: m.Asked}
		}),
		(*room.Backfill)(nil).Method(): decoder(func(m *wire.RoomBackfill) room.Command {
			c := &room.Backfill{Room: id.RoomID(m.Room), Gap: m.Gap, Set: m.Set}
			for _, s := range m.States {
				c.States = append(c.States, room.BackfillState{Event: id.EventID(s.GetEvent()), Set: s.GetSet()})
			}
			return c
		}),
		(*room.OutOfBand)(nil).Method(): decoder(func(m *wire.RoomOutOfBand) room.Command {
			return &room.OutOfBand{Room: id.RoomID(m.Room), Event: m.Event, Stripped: m.Stripped, Rescinds: m.Rescinds}
		}),
		(*room.Template)(nil).Method(): decoder(func(m *wire.RoomTemplate) room.Command {
			return &room.Template{Room: id.RoomID(m.Room), User: id.UserID(m.User), Action: room.Action(m.Action)}
		}),
		(*room.InviteDraft)(nil).Method(): decoder(func(m *wire.RoomInviteDraft) room.Command {
			return &room.InviteDraft{Invite: *decodeMembership(m.GetInvite())}
		}),
		(*room.SetAlias)(nil).Method(): decoder(func(m *wire.RoomSetAlias) room.Command {
			return &room.SetAlias{
				Alias: id.RoomAlias(m.Alias), Room: id.RoomID(m.Room), By: id.UserID(m.By), From: id.RoomID(m.From),
			}
		}),
		(*room.DeleteAlias)(nil).Method(): decoder(func(m *wire.RoomDeleteAlias) room.Command {
			return &room.DeleteAlias{Alias: id.RoomAlias(m.Alias), By: id.UserID(m.By), Force: m.Force}
		}),
		(*room.SetVisibility)(nil).Method(): decoder(func(m *wire.RoomSetVisibility) room.Command {
			return &room.SetVisibility{Room: id.RoomID(m.Room), By: id.UserID(m.By), Public: m.Public, Force: m.Force}
		}),
	}
}

// decoder reads a message and makes a command of it.
func decoder[M any, P interface {
	*M
	proto.Message
}](f func(P) room.Command) func([]byte) (room.Command, error) {
	return func(b []byte) (room.Command, error) {
		m := P(new(M))
		if err := proto.Unmarshal(b, m); err != nil {
			return nil, err
		}
		return f(m), nil
	}
}

func origin(o *room.Origin) *wire.RoomOrigin {
	return &wire.RoomOrigin{User: string(o.User), Device: string(o.Device), Txn: o.Txn, Ts: o.TS, Guest: o.Guest}
}

func originOf(m *wire.RoomOrigin) room.Origin {
	return room.Origin{User: id.UserID(m.GetUser()), Device: id.DeviceID(m.GetDevice()), Txn: m.GetTxn(), TS: m.GetTs(), Guest: m.GetGuest()}
}

func profile(p *room.Profile) *wire.RoomProfile {
	return &wire.RoomProfile{DisplayName: p.DisplayName, AvatarUrl: p.AvatarURL}
}

func profileOf(m *wire.RoomProfile) room.Profile {
	return room.Profile{DisplayName: m.GetDisplayName(), AvatarURL: m.GetAvatarUrl()}
}
