package appservice

import (
	"context"
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// maxSoft bounds the rooms and users of which typing and presence wait to be told.
const maxSoft = 1000

// soft is what is not in the log and waits to be told: of each room and user the latest. Guarded by post.mu.
type soft struct {
	typing   map[shard.Nid]*entry.Typing
	presence map[string]presence
}

// presence is a user's, with the rooms that the user is in.
type presence struct {
	*entry.PresenceState
	rooms []shard.Nid
	known bool // which they are
}

func (p *post) hearTyping(t *entry.Typing) {
	nid := shard.Nid(t.RoomNid)
	p.mu.Lock()
	if p.soft.typing == nil {
		p.soft.typing = map[shard.Nid]*entry.Typing{}
	}
	known, ok := p.soft.typing[nid]
	newer := !ok || t.Epoch > known.Epoch || t.Epoch == known.Epoch && t.N > known.N
	if newer && (ok || len(p.soft.typing) < maxSoft) {
		p.soft.typing[nid] = t
	}
	p.mu.Unlock()
	knock(p.wake)
}

func (p *post) hearPresence(b *entry.PresenceBatch) {
	p.mu.Lock()
	if p.soft.presence == nil {
		p.soft.presence = map[string]presence{}
	}
	for _, s := range b.States {
		known, ok := p.soft.presence[s.UserId]
		if s.Again || ok && known.At > s.At || !ok && len(p.soft.presence) >= maxSoft {
			continue
		}
		x := presence{PresenceState: s, known: s.WithRooms, rooms: make([]shard.Nid, len(s.Rooms))}
		for i, n := range s.Rooms {
			x.rooms[i] = shard.Nid(n)
		}
		if ok && !s.WithRooms {
			x.rooms, x.known = known.rooms, known.known
		}
		p.soft.presence[s.UserId] = x
	}
	p.mu.Unlock()
	knock(p.wake)
}

// addSoft takes in typing and presence as they are now.
func (t *transaction) addSoft(ctx context.Context) {
	p := t.p
	p.mu.Lock()
	typing, online := p.soft.typing, p.soft.presence
	p.soft.typing, p.soft.presence = nil, nil
	p.mu.Unlock()
	if len(typing)+len(online) == 0 {
		return
	}
	named, err := p.knowSoft(ctx, typing, online)
	if err != nil {
		p.log.Debug("typing and presence were not told", "error", err) // they may be lost
		return
	}
	for _, nid := range slices.Sorted(maps.Keys(typing)) {
		r := p.rooms[nid]
		if r == nil || !p.interested(r, named) {
			continue
		}
		b := canonjson.AppendString([]byte(`{"type":"m.typing","room_id":`), r.id)
		b = append(b, `,"content":{"user_ids":[`...)
		for i, u := range typing[nid].UserIds {
			if i > 0 {
				b = append(b, ',')
			}
			b = canonjson.AppendString(b, u)
		}
		t.add(&t.soft, append(b, `]}}`...))
	}
	for _, user := range slices.Sorted(maps.Keys(online)) {
		s := online[user]
		if !p.service.ActsFor(id.UserID(user)) && !slices.ContainsFunc(s.rooms, func(n shard.Nid) bool {
			r := p.rooms[n]
			return r != nil && p.interested(r, nil)
		}) {
			continue
		}
		if b := p.appendPresence(s.PresenceState); b != nil {
			t.add(&t.soft, b)
		}
	}
}

// knowSoft sees to it that it is known who is in the rooms that are told of, and gives those that have an alias in the namespace.
func (p *post) knowSoft(ctx context.Context, typing map[shard.Nid]*entry.Typing, online map[string]presence) (map[string]bool, error) {
	names := map[shard.Nid]string{}
	var named []string
	for nid, t := range typing {
		names[nid], named = t.RoomId, append(named, t.RoomId)
	}
	var unknown []shard.Nid
	var where []string
	for user, s := range online {
		switch {
		case p.service.ActsFor(id.UserID(user)):
		case !s.known:
			where = append(where, user)
		default:
			for _, nid := range s.rooms {
				if p.rooms[nid] == nil && names[nid] == "" && len(unknown) < maxSoft {
					unknown = append(unknown, nid)
				}
			}
		}
	}
	if len(where) > 0 {
		places, err := p.o.DB.RoomsOf(ctx, where)
		if err != nil {
			return nil, err
		}
		for _, x := range places {
			s := online[x.User]
			s.rooms, s.known = append(s.rooms, x.Room), true
			online[x.User] = s
			if len(names) < maxSoft {
				names[x.Room] = x.RoomID
			}
		}
	}
	if len(unknown) > 0 {
		found, err := p.o.DB.RoomIDs(ctx, unknown)
		if err != nil {
			return nil, err
		}
		maps.Copy(names, found)
	}
	byShard := map[shard.ID][]shard.Nid{}
	for nid, name := range names {
		s := p.o.Shards.Of(name)
		byShard[s] = append(byShard[s], nid)
	}
	for s, list := range byShard {
		ids := make([]string, len(list))
		for i, nid := range list {
			ids[i] = names[nid]
		}
		if err := p.know(ctx, s, list, ids); err != nil {
			return nil, err
		}
	}
	if len(p.service.Aliases) == 0 || len(named) == 0 {
		return nil, nil
	}
	return p.aliased(ctx, named)
}

func (p *post) appendPresence(s *entry.PresenceState) []byte {
	var what string
	switch s.Presence {
	case entry.PresenceOnline:
		what = "online"
	case entry.PresenceUnavailable:
		what = "unavailable"
	case entry.PresenceOffline:
		what = "offline"
	default:
		return nil
	}
	b := canonjson.AppendString([]byte(`{"type":"m.presence","sender":`), s.UserId)
	b = canonjson.AppendString(append(b, `,"content":{"presence":`...), what)
	if s.Presence == entry.PresenceOnline {
		b = append(b, `,"currently_active":true`...)
	}
	if s.LastActive > 0 {
		b = canonjson.AppendInt(append(b, `,"last_active_ago":`...), max(0, p.o.Now().UnixMilli()-s.LastActive))
	}
	if s.StatusMsg != "" {
		b = canonjson.AppendString(append(b, `,"status_msg":`...), s.StatusMsg)
	}
	return append(b, `}}`...)
}
