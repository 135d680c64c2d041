package msync

import (
	"bytes"
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

func (v *view) invitedRoom(ctx context.Context, x *part) ([]byte, error) {
	return v.strippedRoom(ctx, x, `{"invite_state":{"events":[`)
}

func (v *view) knockedRoom(ctx context.Context, x *part) ([]byte, error) {
	return v.strippedRoom(ctx, x, `{"knock_state":{"events":[`)
}

// strippedRoom makes the body of a room that the user is invited to or has knocked on.
func (v *view) strippedRoom(ctx context.Context, x *part, open string) ([]byte, error) {
	b, err := v.stripped(ctx, x, []byte(open))
	if b == nil || err != nil {
		return nil, err
	}
	return append(b, `]}}`...), nil
}

// strippedTypes are what somebody who is invited, or has knocked, is told of a room (spec: "Stripped state").
func strippedTypes() []string {
	return []string{
		"m.room.create", "m.room.join_rules", "m.room.name", "m.room.avatar", "m.room.topic", "m.room.canonical_alias", "m.room.encryption",
	}
}

// stripped appends what is told of a room that the user is invited to or has knocked on, with commas between: the stripped state as it was,
// and the user's own member event. It gives nil if the room is not to be told of.
func (v *view) stripped(ctx context.Context, x *part, b []byte) ([]byte, error) {
	own, err := v.e.Rooms.EventsByNid(ctx, []shard.Nid{x.event})
	if err != nil || len(own) == 0 {
		return nil, err
	}
	state, err := v.e.Rooms.State(ctx, own[0].StateBefore)
	if err != nil {
		return nil, err
	}
	items, err := v.e.Rooms.Items(ctx, x.ref.Version, own)
	if err != nil {
		return nil, err
	}
	sender := string(items[0].Event.Sender())
	if v.ignored[sender] || x.membership.membership == roomdb.MembershipInvite && !v.invites.Shows(id.UserID(sender)) {
		return nil, nil
	}
	if own[0].Flags.Has(roomdb.FlagOutlier) { // the room's state is not known here: this is what its server told
		told, err := v.e.Rooms.Stripped(ctx, x.ref.Nid, v.u.id)
		if err != nil {
			return nil, err
		}
		if told = bytes.TrimSuffix(bytes.TrimPrefix(told, []byte{'['}), []byte{']'}); len(told) > 0 {
			b = append(append(b, told...), ',')
		}
		return items[0].Event.AppendStripped(b), nil
	}
	atoms, err := v.e.Rooms.AtomsByName(ctx, x.ref.Nid.Shard(), append(strippedTypes(), "", typeMember, sender))
	if err != nil {
		return nil, err
	}
	var nids []shard.Nid
	at := func(typ, key string) {
		t, ok1 := atoms[typ]
		k, ok2 := atoms[key]
		if n, ok := state.Get(stateres.Key{Type: int64(t), StateKey: int64(k)}); ok && ok1 && ok2 {
			nids = append(nids, shard.Nid(n))
		}
	}
	for _, t := range strippedTypes() {
		at(t, "")
	}
	if sender != v.u.id {
		at(typeMember, sender)
	}
	others, err := v.itemsOf(ctx, x.ref, nids)
	if err != nil {
		return nil, err
	}
	for i, it := range append(others, items...) {
		if i > 0 {
			b = append(b, ',')
		}
		b = it.Event.AppendStripped(b)
	}
	return b, nil
}
