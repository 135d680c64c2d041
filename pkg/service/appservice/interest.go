package appservice

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/appservicedb"
)

// room is which users of the application service are in a room, at the place in the log up to which it was taken in.
type room struct {
	id    string
	users map[string]struct{}
}

// move notes that a user has come, or gone.
func (r *room) move(user string, in bool) {
	if in {
		r.users[user] = struct{}{}
	} else {
		delete(r.users, user)
	}
}

// seen is what has to be known of the entries of a chunk to judge them.
type seen struct {
	bodies map[shard.Pos]*entry.EventBody
	// named are the rooms, by their ids, that have an alias in the application service's namespace.
	named map[string]bool
	// shared are the users of device lists that share a room with a user of the application service.
	shared map[string]bool
}

// look reads what has to be known of a chunk's entries before they are taken in. It can be repeated.
func (p *post) look(ctx context.Context, c *chunk) (*seen, error) {
	out := &seen{bodies: map[shard.Pos]*entry.EventBody{}}
	var rooms []shard.Nid
	var named []string
	for i := range c.entries {
		e := &c.entries[i]
		switch e.Kind {
		case entry.KindEvent:
			body, err := entry.DecodeEvent(&e.Entry)
			if err != nil {
				p.log.Error("an event in the log cannot be read; an application service is not told of it",
					"shard", int(e.Shard), "position", int64(e.Pos), "error", err)
				continue
			}
			out.bodies[e.Pos] = body
			rooms, named = append(rooms, e.Room), append(named, body.RoomId)
		case entry.KindReceipt:
			body, err := entry.DecodeReceipt(&e.Entry)
			if err == nil {
				rooms, named = append(rooms, e.Room), append(named, body.RoomId)
			}
		}
	}
	var err error
	if out.shared, err = p.sharing(ctx, c); err != nil {
		return nil, err
	}
	if err := p.know(ctx, c.shard, rooms, named); err != nil { // the last, so that these are remembered when they are asked for
		return nil, err
	}
	if len(p.service.Aliases) > 0 && len(named) > 0 {
		// Aliases are not in the log, so they are read each time.
		if out.named, err = p.aliased(ctx, named); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// know sees to it that it is known who is in rooms of one shard; ids are those of the rooms.
func (p *post) know(ctx context.Context, s shard.ID, rooms []shard.Nid, ids []string) error {
	var missing []shard.Nid
	names := map[shard.Nid]string{}
	for i, n := range rooms {
		if _, asked := names[n]; p.rooms[n] == nil && !asked {
			missing, names[n] = append(missing, n), ids[i]
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if len(p.rooms)+len(missing) > p.cfg.MaxRooms {
		clear(p.rooms)
		missing = missing[:0]
		for i, n := range rooms {
			names[n] = ids[i]
		}
		for n := range names {
			missing = append(missing, n)
		}
	}
	since := make([]shard.Pos, len(missing))
	for i := range since {
		since[i] = p.at[s]
	}
	members, err := p.o.DB.Members(ctx, missing, since)
	if err != nil {
		return err
	}
	for _, n := range missing {
		r := &room{id: names[n], users: map[string]struct{}{}}
		for _, m := range members[n] {
			if p.service.ActsFor(id.UserID(m.User)) && (!m.Changed || joined(m.Before)) {
				r.users[m.User] = struct{}{}
			}
		}
		p.rooms[n] = r
	}
	return nil
}

// joined tells whether an event of a member says that the user is in the room.
func joined(member []byte) bool {
	var e struct {
		Content struct {
			Membership string `json:"membership"`
		} `json:"content"`
	}
	return member != nil && json.Unmarshal(member, &e) == nil && e.Content.Membership == event.Join
}

// aliased tells which rooms have an alias in the namespace.
func (p *post) aliased(ctx context.Context, rooms []string) (map[string]bool, error) {
	all, err := p.o.DB.Aliases(ctx, rooms)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for r, list := range all {
		for _, a := range list {
			if p.service.HasAlias(id.RoomAlias(a)) {
				out[r] = true
				break
			}
		}
	}
	return out, nil
}

// sharing tells whose changed device lists concern the application service: those of its users, and of who shares a room with them.
func (p *post) sharing(ctx context.Context, c *chunk) (map[string]bool, error) {
	var users []string
	out := map[string]bool{}
	for i := range c.entries {
		if e := &c.entries[i]; e.Kind == entry.KindDeviceList && !out[e.Subject] {
			if out[e.Subject] = p.service.ActsFor(id.UserID(e.Subject)); !out[e.Subject] {
				users = append(users, e.Subject)
			}
		}
	}
	if len(users) == 0 {
		return out, nil
	}
	places, err := p.o.DB.RoomsOf(ctx, users)
	if err != nil {
		return nil, err
	}
	byShard := map[shard.ID][]appservicedb.Place{}
	for _, x := range places {
		s := p.o.Shards.Of(x.RoomID)
		byShard[s] = append(byShard[s], x)
	}
	for s, list := range byShard {
		for part := range slices.Chunk(list, 1000) { // so that all that is asked for is remembered together
			rooms, ids := make([]shard.Nid, len(part)), make([]string, len(part))
			for i, x := range part {
				rooms[i], ids[i] = x.Room, x.RoomID
			}
			if err := p.know(ctx, s, rooms, ids); err != nil {
				return nil, err
			}
			for _, x := range part {
				out[x.User] = out[x.User] || len(p.rooms[x.Room].users) > 0
			}
		}
	}
	return out, p.shareByNow(ctx, places, out)
}

// shareByNow adds those who share a room by what has happened in other shards beyond the places up to which they were taken in: a user of the
// application service may have come into a room before the devices of somebody there changed, and be heard of later.
func (p *post) shareByNow(ctx context.Context, places []appservicedb.Place, shared map[string]bool) error {
	places = slices.DeleteFunc(places, func(x appservicedb.Place) bool { return shared[x.User] })
	if len(places) == 0 {
		return nil
	}
	heads, err := p.o.Source.Heads(ctx)
	if err != nil {
		return err
	}
	places = slices.DeleteFunc(places, func(x appservicedb.Place) bool {
		s := x.Room.Shard()
		return heads.Positions[s] <= p.at[s]
	})
	for part := range slices.Chunk(places, 1000) {
		rooms, since := make([]shard.Nid, len(part)), make([]shard.Pos, len(part))
		for i, x := range part {
			rooms[i], since[i] = x.Room, p.at[x.Room.Shard()]
		}
		members, err := p.o.DB.Members(ctx, rooms, since)
		if err != nil {
			return err
		}
		for _, x := range part {
			shared[x.User] = shared[x.User] || slices.ContainsFunc(members[x.Room], func(m appservicedb.Member) bool {
				return p.service.ActsFor(id.UserID(m.User))
			})
		}
	}
	return nil
}

// interested tells whether a room concerns the application service, whatever happens in it.
func (p *post) interested(r *room, named map[string]bool) bool {
	return len(r.users) > 0 || named[r.id] || p.service.HasRoom(id.RoomID(r.id))
}

// concerns tells whether an event concerns the application service, and takes in who comes and goes by it.
func (p *post) concerns(e *entry.At, body *entry.EventBody, s *seen) bool {
	r := p.rooms[e.Room]
	yes := p.interested(r, s.named) || p.service.ActsFor(id.UserID(body.Sender))
	if body.Type == event.TypeMember && body.StateKey != nil && p.service.ActsFor(id.UserID(*body.StateKey)) {
		yes = true
		if body.Flags&entry.FlagNoEffect == 0 {
			r.move(*body.StateKey, body.Membership == event.Join)
		}
	}
	for _, c := range body.StateChanges {
		if c.Type == event.TypeMember && p.service.ActsFor(id.UserID(c.StateKey)) {
			r.move(c.StateKey, c.Membership == event.Join)
		}
	}
	return yes && body.Type != event.TypeDummy
}
