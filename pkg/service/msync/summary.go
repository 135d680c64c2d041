package msync

import (
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// summary is who is in a room, as far as its name may be made of them.
type summary struct {
	joined, invited int
	heroes          []string // those of longest standing, one more than are told
}

const maxHeroes = 5

// change says what of a room's summary may have become different.
type change uint8

const (
	changeNone   change = iota
	changeCounts        // somebody came whom the room is not named after
	changeHeroes
)

// summary makes the summary of a room's members, as far as it may have changed, and notes the heroes that it tells.
func (v *view) summary(ctx context.Context, x *part, st *stretch) ([]byte, error) {
	news := changeHeroes
	var came []string
	if !x.fresh && !v.FullState {
		news, came = v.summaryChange(x, st)
	}
	if news == changeNone {
		return []byte(`{}`), nil
	}
	s, err := v.summaryFor(ctx, x)
	if err != nil {
		return nil, err
	}
	heroes := slices.DeleteFunc(slices.Clone(s.heroes), func(u string) bool { return u == v.u.id })
	heroes = heroes[:min(len(heroes), maxHeroes)]
	if news == changeCounts && slices.ContainsFunc(came, func(u string) bool { return slices.Contains(heroes, u) }) {
		news = changeHeroes
	}
	b := []byte{'{'}
	if news == changeHeroes {
		x.heroes = heroes
		b = append(b, `"m.heroes":[`...)
		for i, u := range heroes {
			if i > 0 {
				b = append(b, ',')
			}
			b = canonjson.AppendString(b, u)
		}
		b = append(b, `],`...)
	}
	b = append(b, `"m.invited_member_count":`...)
	b = canonjson.AppendInt(b, int64(s.invited))
	b = append(b, `,"m.joined_member_count":`...)
	b = canonjson.AppendInt(b, int64(s.joined))
	return append(b, '}'), nil
}

// summaryChange tells what of the summary may have changed since the client was told, and who came. What is held tells it exactly; else
// it may tell too much.
func (v *view) summaryChange(x *part, st *stretch) (change, []string) {
	if !x.held {
		whole := !st.limited && v.Filter.Room.Timeline.All() // all that happened is in the timeline
		if st.end == 0 || whole && !slices.ContainsFunc(st.items, isMember) {
			return changeNone, nil
		}
		return changeHeroes, nil
	}
	news := changeNone
	var came []string
	for _, it := range x.events {
		if !isMember(it) {
			continue
		}
		is, _ := canonjson.GetString(it.Event.Content(), "membership")
		was := ""
		if it.Replaced.Event != "" {
			was, _ = canonjson.GetString(it.Replaced.Content, "membership")
		}
		key, _ := it.Event.StateKey()
		switch {
		case is == was || !counts(is) && !counts(was) && was != "":
		case counts(is) && !counts(was):
			news, came = max(news, changeCounts), append(came, key)
		default: // from one count to the other, or out of both
			news = changeHeroes
		}
	}
	return news, came
}

// counts tells whether a membership is counted by the summary.
func counts(membership string) bool { return membership == "join" || membership == "invite" }

// hasRead tells whether what was read has all that was heard of a room up to there: a replica has what the answer is for, and perhaps no more.
func (v *view) hasRead(nid shard.Nid, last shard.Pos) bool {
	return v.e.Replica == nil || v.since != nil || last <= v.to(nid.Shard())
}

// summaryFor gives the summary that goes with what is told of a room.
func (v *view) summaryFor(ctx context.Context, x *part) (*summary, error) {
	if x.common != nil {
		return x.common.summary, nil
	}
	return v.summaryOf(ctx, x.ref.Nid)
}

// summaryOf gives a room's summary, remembered until a member event.
func (v *view) summaryOf(ctx context.Context, nid shard.Nid) (*summary, error) {
	v.e.mu.Lock()
	r := v.e.rooms[nid]
	var last shard.Pos
	if r != nil {
		last = r.last
		if r.summary != nil {
			s := r.summary
			v.e.mu.Unlock()
			return s, nil
		}
	}
	v.e.mu.Unlock()
	counts, err := v.e.Rooms.CountMembers(ctx, nid)
	if err != nil {
		return nil, err
	}
	s := &summary{joined: counts[roomdb.MembershipJoin], invited: counts[roomdb.MembershipInvite]}
	with := []roomdb.Membership{roomdb.MembershipJoin, roomdb.MembershipInvite}
	if s.joined+s.invited <= 1 { // the room is named after those who were there
		with = append(with, roomdb.MembershipLeave, roomdb.MembershipBan)
	}
	if s.heroes, err = v.e.Rooms.FirstMembers(ctx, nid, maxHeroes+1, with...); err != nil {
		return nil, err
	}
	v.e.mu.Lock()
	defer v.e.mu.Unlock()
	if r := v.e.rooms[nid]; r != nil && r.last == last && v.hasRead(nid, last) {
		r.summary = s
	}
	return s, nil
}
