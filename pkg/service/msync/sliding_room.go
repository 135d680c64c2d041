package msync

import (
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// tell makes what is told of a room, nothing if there is nothing to tell.
func (s *slideView) tell(ctx context.Context, r *slideRoom) (err error) {
	switch m := r.membership.membership; {
	case m == roomdb.MembershipJoin:
		err = s.tellJoined(ctx, r)
	case gone(m):
		err = s.tellGone(ctx, r)
	default:
		err = s.tellStripped(ctx, r)
	}
	return err
}

// roomNews is what is told of a room.
type roomNews struct {
	st       *stretch
	state    []*readdb.Item
	stubs    []roomdb.StateName // state that is there no more
	keys     []roomdb.StateName // of all state that changed, told or not
	counts   *summary
	heroes   []*readdb.Item // member events, in the order of the heroes
	named    bool           // tell the name, and the avatar
	pictured bool
	nameless bool // and so tell the heroes
}

// tellJoined makes what is told of a room that the user is in.
func (s *slideView) tellJoined(ctx context.Context, r *slideRoom) error {
	v, x := r.v, r.x
	v.telling = s.telling
	if r.initial {
		if err := v.share(ctx, x, r.want.choice(v.u.id)); err != nil {
			return err
		}
	}
	timed := x
	if r.expanded {
		c := *x
		c.fresh, c.held = true, false
		timed = &c
	}
	var n roomNews
	var err error
	if n.st, err = v.timeline(ctx, timed); err != nil {
		return err
	}
	if err := s.stateNews(ctx, r, &n); err != nil {
		return err
	}
	if err := s.summaryNews(ctx, r, &n); err != nil {
		return err
	}
	quiet := !n.st.counted && len(n.st.items)+len(n.state)+len(n.stubs) == 0 && !n.st.limited && n.counts == nil && !n.named && !n.pictured
	if !r.initial && quiet && !x.counted && r.dm == (r.before.flags&sentDM != 0) {
		if read, err := r.readSomething(ctx); err != nil || !read {
			return err
		}
	}
	if err := v.aggregate(ctx, timed, n.st); err != nil {
		return err
	}
	v.telling.tell(r.ref.Nid, memberKeys(n.state, n.st.items)...)
	r.body = s.appendJoined(nil, r, &n)
	return nil
}

// readSomething tells whether the user's own receipts moved, and so what there is unread.
func (r *slideRoom) readSomething(ctx context.Context) (bool, error) {
	if r.x.held {
		return r.x.readSomething(r.v.u.id), nil
	}
	moved, err := r.v.receiptsOf(ctx, r.x)
	return slices.ContainsFunc(moved, func(x roomdb.ReceiptRow) bool { return x.UserID == r.v.u.id }), err
}

// stateNews finds what is told of the room's state.
func (s *slideView) stateNews(ctx context.Context, r *slideRoom, n *roomNews) (err error) {
	v, me := r.v, r.v.u.id
	was := s.conn.config(r.before)
	// Members whom a client loads lazily are told as they change, unless there is a gap: then those that it knew are told again when they speak.
	gap := n.st.limited && (!r.expanded || n.st.before > int64(r.since))
	lazily := r.want.lazy() && !r.initial && !gap && was.lazy()
	if !lazily {
		v.telling.renew(r.ref.Nid)
	}
	wants := func(typ, key string) bool { return r.want.wants(typ, key, me) || lazily && typ == typeMember }
	switch {
	case r.initial:
		n.state, err = s.wholeState(ctx, r, n.st, config{})
	case r.x.held:
		for _, it := range v.heldState(&stretch{all: r.x.events}) {
			key, _ := it.Event.StateKey()
			n.keys = append(n.keys, roomdb.StateName{Type: it.Event.Type(), StateKey: key})
			if wants(it.Event.Type(), key) {
				n.state = append(n.state, it)
			}
		}
	case n.st.end != 0:
		err = s.changedState(ctx, r, n, wants)
	}
	if err != nil {
		return err
	}
	if r.wishful {
		more, err := s.wholeState(ctx, r, n.st, was)
		if err != nil {
			return err
		}
		for _, it := range more {
			if !slices.ContainsFunc(n.state, func(o *readdb.Item) bool { return o.Nid == it.Nid }) {
				n.state = append(n.state, it)
			}
		}
	}
	return r.lazyState(ctx, n)
}

// lazyState adds the members whom the timeline tells of, and whom the client does not know, if it loads them lazily.
func (r *slideRoom) lazyState(ctx context.Context, n *roomNews) error {
	if !r.want.lazy() {
		return nil
	}
	users := append(senders(n.st), memberKeys(n.st.items)...)
	here := memberKeys(n.state)
	users = slices.DeleteFunc(users, func(u string) bool { return slices.Contains(here, u) || r.v.telling.has(r.ref.Nid, u) })
	slices.Sort(users)
	members, err := r.v.membersOf(ctx, r.x, n.st, slices.Compact(users))
	n.state = append(n.state, members...)
	return err
}

// summaryNews finds what is told of the room's name and members.
func (s *slideView) summaryNews(ctx context.Context, r *slideRoom, n *roomNews) error {
	changed := func(typ string) bool { return slices.Contains(n.keys, roomdb.StateName{Type: typ}) }
	n.named = r.initial && r.name != "" || changed(typeName)
	n.pictured = r.initial && r.avatar != "" || changed(typeAvatar)
	news := changeHeroes
	var moved []string // heroes among them may have come, or have another name or picture now
	if !r.initial {
		if r.x.held {
			news, _ = r.v.summaryChange(r.x, n.st)
			moved = memberKeys(r.x.events)
		} else if !slices.ContainsFunc(n.keys, func(k roomdb.StateName) bool { return k.Type == typeMember }) {
			news = changeNone
		}
		if news == changeNone && !changed(typeName) && (r.name != "" || len(moved) == 0) {
			return nil
		}
	}
	sum, err := r.v.summaryFor(ctx, r.x)
	if err != nil {
		return err
	}
	if news != changeNone {
		n.counts = sum
	}
	if r.name != "" {
		return nil
	}
	heroes := slices.DeleteFunc(slices.Clone(sum.heroes), func(u string) bool { return u == r.v.u.id })
	heroes = heroes[:min(len(heroes), maxHeroes)]
	n.nameless = news == changeHeroes || changed(typeName) || slices.ContainsFunc(moved, func(u string) bool { return slices.Contains(heroes, u) })
	if !n.nameless {
		return nil
	}
	members, err := r.v.memberEvents(ctx, r.x, heroes)
	if err != nil {
		return err
	}
	for _, u := range heroes {
		i := slices.IndexFunc(members, func(it *readdb.Item) bool { key, _ := it.Event.StateKey(); return key == u })
		if i >= 0 {
			n.heroes = append(n.heroes, members[i])
		}
	}
	return nil
}

func (s *slideView) appendJoined(b []byte, r *slideRoom, n *roomNews) []byte {
	b = s.appendHead(append(b, '{'), r)
	textOrNull := func(name, text string) {
		b = append(append(append(b, ',', '"'), name...), `":`...)
		if text == "" {
			b = append(b, `null`...)
			return
		}
		b = canonjson.AppendString(b, text)
	}
	if n.named {
		textOrNull("name", r.name)
	}
	if n.pictured {
		textOrNull("avatar", r.avatar)
	}
	if n.nameless {
		b = append(b, `,"heroes":[`...)
		for i, it := range n.heroes {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendHero(b, it)
		}
		b = append(b, ']')
	}
	if r.dm || !r.initial && r.before.flags&sentDM != 0 {
		b = append(b, `,"is_dm":`...)
		b = append(b, map[bool]string{true: "true", false: "false"}[r.dm]...)
	}
	if n.counts != nil {
		b = canonjson.AppendInt(append(b, `,"joined_count":`...), int64(n.counts.joined))
		b = canonjson.AppendInt(append(b, `,"invited_count":`...), int64(n.counts.invited))
	}
	unread := pushdb.Sum(r.x.unread)
	b = canonjson.AppendInt(append(b, `,"notification_count":`...), max(0, unread.Notify))
	b = canonjson.AppendInt(append(b, `,"highlight_count":`...), max(0, unread.Highlight))
	return append(s.appendTimeline(b, r, n), '}')
}

// appendHead appends what is told of every room.
func (s *slideView) appendHead(b []byte, r *slideRoom) []byte {
	b = canonjson.AppendInt(append(b, `"bump_stamp":`...), r.bump)
	b = canonjson.AppendString(append(b, `,"membership":`...), r.membership.membership.String())
	if len(r.lists) > 0 {
		b = append(b, `,"lists":`...)
		b = appendUsers(b, r.lists)
	}
	if r.initial {
		b = append(b, `,"initial":true`...)
	}
	return b
}

func (s *slideView) appendState(b []byte, n *roomNews) []byte {
	for i, it := range n.state {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendEvent(b, it)
	}
	for i, k := range n.stubs {
		if i+len(n.state) > 0 {
			b = append(b, ',')
		}
		b = canonjson.AppendString(append(b, `{"type":`...), k.Type)
		b = append(canonjson.AppendString(append(b, `,"state_key":`...), k.StateKey), '}')
	}
	return b
}

// appendTimeline appends state and timeline of a room, and notes which events it has.
func (s *slideView) appendTimeline(b []byte, r *slideRoom, n *roomNews) []byte {
	st := n.st
	since, ok := s.from(r.ref.Nid.Shard())
	live := 0
	b = append(s.appendState(append(b, `,"required_state":[`...), n), `],"timeline":[`...)
	for i, it := range st.items {
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendEvent(b, it)
		r.events = append(r.events, string(it.Event.EventID()))
		if ok && it.Ord > int64(since) {
			live++
		}
	}
	b = append(b, `],"prev_batch":`...)
	b = canonjson.AppendString(b, token.Room{Order: st.before}.Encode())
	b = canonjson.AppendInt(append(b, `,"num_live":`...), int64(live))
	if r.expanded && len(st.items) > 0 && st.items[0].Ord <= int64(r.since) {
		b = append(b, `,"expanded_timeline":true,"unstable_expanded_timeline":true`...)
	}
	if st.limited {
		return append(b, `,"limited":true`...)
	}
	return append(b, `,"limited":false`...)
}

// appendHero appends somebody whom a room is named after.
func appendHero(b []byte, it *readdb.Item) []byte {
	key, _ := it.Event.StateKey()
	b = canonjson.AppendString(append(b, `{"user_id":`...), key)
	for _, name := range []string{"displayname", "avatar_url"} {
		if text, ok := canonjson.GetString(it.Event.Content(), name); ok {
			b = append(append(append(b, ',', '"'), name...), `":`...)
			b = canonjson.AppendString(b, text)
		}
	}
	return append(b, '}')
}

// tellStripped makes what is told of a room that the user is invited to or has knocked on.
func (s *slideView) tellStripped(ctx context.Context, r *slideRoom) error {
	state, err := r.v.stripped(ctx, r.x, nil)
	if err != nil || state == nil {
		return err
	}
	b := s.appendHead([]byte{'{'}, r)
	b = append(append(b, `,"invite_state":[`...), state...)
	if r.membership.membership == roomdb.MembershipKnock {
		b = append(append(b, `],"knock_state":[`...), state...)
	}
	b = append(append(b, `],"stripped_state":[`...), state...)
	r.body = append(b, `]}`...)
	return nil
}

// tellGone makes what is told of a room that the user is not in any more: what happened up to the leaving.
func (s *slideView) tellGone(ctx context.Context, r *slideRoom) error {
	above, outside := roomdb.Beginning, false
	if !r.initial {
		var err error
		if above, r.initial, outside, err = r.v.goneFrom(ctx, r.x, r.since); err != nil {
			return err
		}
	}
	st, was, err := r.v.leaving(ctx, r.x, above)
	if err != nil {
		return err
	}
	if st == nil { // forgotten: no more than the going itself
		st, was = &stretch{before: int64(r.pos)}, false
	}
	n := &roomNews{st: st}
	r.v.telling = s.telling
	if was && !outside && st.end != 0 {
		if r.initial {
			n.state, err = s.wholeState(ctx, r, st, config{})
		} else {
			err = s.changedState(ctx, r, n, func(typ, key string) bool { return r.want.wants(typ, key, r.v.u.id) })
		}
		if err == nil {
			err = r.lazyState(ctx, n)
		}
		if err != nil {
			return err
		}
	}
	// The client learns that the user has gone from the state, so that is told in any case.
	if !slices.ContainsFunc(n.state, func(it *readdb.Item) bool { return it.Nid == r.event }) {
		own, err := s.itemsOf(ctx, r.ref, []shard.Nid{r.event})
		if err != nil {
			return err
		}
		n.state = append(n.state, own...)
	}
	b := s.appendHead([]byte{'{'}, r)
	r.body = append(s.appendTimeline(append(b, `,"notification_count":0,"highlight_count":0`...), r, n), '}')
	return nil
}
