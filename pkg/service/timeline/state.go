package timeline

import (
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// State gives the room's state as the reader sees it, as a list of events.
func (r *Rooms) State(ctx context.Context, v Viewer, room id.RoomID) ([]byte, error) {
	a, err := r.access(ctx, room, v)
	if err != nil {
		return nil, err
	}
	at, err := r.snapshot(ctx, a, roomdb.End-1)
	if err != nil {
		return nil, err
	}
	items, err := r.stateAt(ctx, a, at, false, nil)
	if err != nil {
		return nil, err
	}
	return r.appendChunk(nil, v, items), nil
}

// StateEvent gives the content of one entry of the room's state, or the whole event.
func (r *Rooms) StateEvent(ctx context.Context, v Viewer, room id.RoomID, typ, key string, whole bool) ([]byte, error) {
	a, err := r.access(ctx, room, v)
	if err != nil {
		return nil, err
	}
	missing := mxerr.New(mxerr.NotFound, "The room has no such state")
	var it *readdb.Item
	if a.Joined() || a.Peek {
		name := roomdb.StateName{Type: typ, StateKey: key}
		found, err := r.db.CurrentStateAt(ctx, a.Ref.Nid, []roomdb.StateName{name})
		if err != nil {
			return nil, err
		}
		e, ok := found[name]
		if !ok {
			return nil, missing
		}
		if whole {
			items, err := r.load(ctx, a, []shard.Nid{e.Nid})
			if err != nil || len(items) == 0 {
				return nil, err
			}
			it = items[0]
		} else if it, err = r.stateItem(a, e); err != nil {
			return nil, err
		}
	} else {
		at, err := r.snapshot(ctx, a, roomdb.End-1)
		if err != nil {
			return nil, err
		}
		state, err := r.db.State(ctx, at)
		if err != nil {
			return nil, err
		}
		atoms, err := r.db.AtomsByName(ctx, a.Ref.Nid.Shard(), []string{typ, key})
		if err != nil {
			return nil, err
		}
		nid, ok := state.Get(stateres.Key{Type: int64(atoms[typ]), StateKey: int64(atoms[key])})
		if !ok {
			return nil, missing
		}
		items, err := r.load(ctx, a, []shard.Nid{shard.Nid(nid)})
		if err != nil || len(items) == 0 {
			return nil, err
		}
		it = items[0]
	}
	if whole {
		return it.Append(nil, r.viewer(v), false), nil
	}
	return slices.Clone(it.Event.Content()), nil
}

// MembersQuery asks for member events.
type MembersQuery struct {
	Room id.RoomID
	At   string // a token; empty: now
	// Membership and Not choose by membership; empty: all, or none left out.
	Membership, Not string
}

// Members gives the room's member events.
func (r *Rooms) Members(ctx context.Context, v Viewer, q MembersQuery) ([]byte, error) {
	a, err := r.access(ctx, q.Room, v)
	if err != nil {
		return nil, err
	}
	if !a.Was() {
		return nil, mxerr.New(mxerr.Forbidden, "You are not a member of this room")
	}
	at, err := r.membersAt(ctx, v, a, q.At)
	if err != nil {
		return nil, err
	}
	atoms, err := r.db.AtomsByName(ctx, a.Ref.Nid.Shard(), []string{typeMember})
	if err != nil {
		return nil, err
	}
	var items []*readdb.Item
	if at != 0 {
		state, err := r.db.State(ctx, at)
		if err != nil {
			return nil, err
		}
		var nids []shard.Nid
		for _, n := range state.OfType(int64(atoms[typeMember])) {
			nids = append(nids, shard.Nid(n))
		}
		if items, err = r.load(ctx, a, nids); err != nil {
			return nil, err
		}
	}
	items = slices.DeleteFunc(items, func(it *readdb.Item) bool {
		m, _ := canonjson.GetString(it.Event.Content(), "membership")
		return (q.Membership != "" && m != q.Membership) || (q.Not != "" && m == q.Not)
	})
	return append(r.appendChunk([]byte(`{"chunk":`), v, items), '}'), nil
}

// membersAt gives the state (snapshot nid) whose members are asked for: that after the last event at or before a place, which must be one
// that the reader may see. Before the room's first event there is none: the prev_batch of a timeline that goes back to the beginning
// stands for the beginning itself, the room as its creator came into it.
func (r *Rooms) membersAt(ctx context.Context, v Viewer, a *readdb.Access, place string) (shard.Nid, error) {
	upto, err := r.place(place, a, false)
	if err != nil {
		return 0, err
	}
	last, err := r.db.TimelineBackward(ctx, a.Ref.Nid, min(upto, a.Until, roomdb.End-1)+1, roomdb.Beginning, 1)
	if err == nil && len(last) == 0 {
		if last, err = r.db.TimelineForward(ctx, a.Ref.Nid, roomdb.Beginning, min(a.Until, roomdb.End-1)+1, 2); len(last) > 1 {
			last = last[1:]
		}
	}
	if err != nil || len(last) == 0 {
		return 0, err
	}
	if place != "" {
		items, err := r.db.Items(ctx, a.Ref.Version, last)
		if err != nil {
			return 0, err
		}
		switch seen, err := r.db.Visible(ctx, a, v.User, items); {
		case err != nil:
			return 0, err
		case !seen[0]:
			return 0, mxerr.New(mxerr.Forbidden, "You may not see the room as it was then")
		}
	}
	return r.db.RoomState(ctx, &last[0])
}

// JoinedMembers gives who is in the room, with names and avatars. Only who is in it may ask.
func (r *Rooms) JoinedMembers(ctx context.Context, v Viewer, room id.RoomID) ([]byte, error) {
	a, err := r.access(ctx, room, v)
	if err != nil {
		return nil, err
	}
	if !a.Joined() {
		return nil, mxerr.New(mxerr.Forbidden, "You are not in this room")
	}
	b := []byte(`{"joined":{`)
	err = r.db.EachJoined(ctx, a.Ref.Nid, func(event []byte, redacted bool) {
		if b[len(b)-1] == '}' {
			b = append(b, ',')
		}
		b = append(appendText(b, event, "state_key"), `:{"display_name":`...)
		var content []byte
		if !redacted {
			content, _ = canonjson.Get(event, "content")
		}
		b = appendText(b, content, "displayname")
		b = append(b, `,"avatar_url":`...)
		b = append(appendText(b, content, "avatar_url"), '}')
	})
	if err != nil {
		return nil, err
	}
	return append(b, `}}`...), nil
}

// appendText appends a member of an object as it stands there if it is a text, and else null.
func appendText(b, object []byte, key string) []byte {
	if v, ok := canonjson.Get(object, key); ok && v[0] == '"' {
		return append(b, v...)
	}
	return append(b, `null`...)
}

// JoinedRooms gives the rooms that the reader is in.
func (r *Rooms) JoinedRooms(ctx context.Context, v Viewer) ([]string, error) {
	rows, err := r.db.Memberships(ctx, string(v.User))
	if err != nil {
		return nil, err
	}
	out := []string{}
	for i := range rows {
		if rows[i].Membership == roomdb.MembershipJoin {
			out = append(out, rows[i].RoomID)
		}
	}
	return out, nil
}

// Alias gives the room that an alias of this server names.
func (r *Rooms) Alias(ctx context.Context, alias id.RoomAlias) (string, bool, error) {
	a, ok, err := r.db.Alias(ctx, r.db.Shards.Of(string(alias)), string(alias))
	return a.RoomID, ok, err
}

// Aliases gives a room's aliases on this server. Only who is in it, or anybody if it is world readable, may ask.
func (r *Rooms) Aliases(ctx context.Context, v Viewer, room id.RoomID) ([]string, error) {
	a, err := r.access(ctx, room, v)
	if err != nil {
		return nil, err
	}
	if !a.Joined() && !a.Peek {
		return nil, mxerr.New(mxerr.Forbidden, "You are not in this room")
	}
	rows, err := r.db.Aliases(ctx, a.Ref.RoomID)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for i := range rows {
		out = append(out, rows[i].Alias)
	}
	return out, nil
}

// Published tells whether the public directory lists a room; ok is false if the room is not known.
func (r *Rooms) Published(ctx context.Context, room id.RoomID) (public, ok bool, err error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil || !ok {
		return false, false, err
	}
	public, err = r.db.Published(ctx, ref.Nid)
	return public, true, err
}
