package room

import (
	"context"
	"errors"
	"maps"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/relation"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// create makes a room: all its events in one proposal.
func (t *term) create(ctx context.Context, key []byte, c *CreateRoom) (work, error) {
	rules, ok := roomver.Get(c.Version)
	if !ok || c.Room == "" || c.TS == 0 {
		return work{}, mxerr.New(mxerr.UnsupportedRoomVersion, "room is not prepared")
	}
	p, err := c.decide(rules)
	if err != nil {
		return work{}, err
	}
	// Each event would ask for its own names once those before it are there.
	if err := t.atoms.load(ctx, t.host.DB, t.shard, p.names()); err != nil {
		return work{}, err
	}
	for loads := 0; loads <= maxLoads; loads++ {
		w, need, err := t.tryCreate(ctx, key, c, rules, &p)
		if need == nil {
			return w, err
		}
		if err := t.atoms.load(ctx, t.host.DB, t.shard, need.names); err != nil {
			return work{}, err
		}
	}
	return work{}, errors.New("room.create: asks for ever more")
}

func (t *term) tryCreate(ctx context.Context, key []byte, c *CreateRoom, rules *roomver.Rules, p *plan) (work, *needs, error) {
	r := t.newLive(t.nid(), c.Room, rules)
	r.used.Store(t.host.clock.Add(1))
	// Nobody else knows the room: the state that it does not have is empty.
	d := newDraft(r, nil)
	d.isNew = true
	err := d.realise(c, p)
	if d.lacks() {
		return work{}, &d.needs, nil
	}
	if err != nil {
		return work{}, nil, err
	}
	if got := d.made[0].id; rules.RoomIDIsHash && id.RoomIDFromCreate(got) != c.Room {
		return work{}, nil, mxerr.New(mxerr.InvalidParam, "room is not prepared: its create event has another id")
	}
	rows := []entry.Row{&roomdb.Room{Nid: r.nid, RoomID: string(c.Room), Version: string(rules.Version)}}
	if c.Public {
		rows = append(rows, &roomdb.PublishedRoom{Room: r.nid, RoomID: string(c.Room)})
	}
	rows = append(rows, d.rows...)
	a := Answer{Room: c.Room, Event: d.made[0].id}
	// Commands on the room wait until it is there. If somebody uses a room of this id already, the commit will say
	// whether that was this command.
	s, mine := t.reserve(c.Room)
	w := work{answer: a}
	w.ticket = t.host.Committer.Submit(&entry.Proposal{
		Shard: t.shard, Epoch: t.epoch, Chain: r.chain, Key: key, Result: encodeAnswer(a), Entries: d.entries, Rows: rows,
		Trace: trace.SpanContextFromContext(ctx),
	})
	r.mu.Lock()
	r.adopt(d, w.ticket)
	r.mu.Unlock()
	w.finish = func(ctx context.Context) (Answer, error) {
		out, err := w.ticket.Wait(context.WithoutCancel(ctx)) // it is decided
		if err != nil || out.Repeated || !mine {
			r.mu.Lock()
			r.gone = true // if it is in the database, then not as it is in memory here
			r.mu.Unlock()
		}
		if mine {
			var failed error
			if err != nil || out.Repeated {
				failed = errRedo
			}
			t.fill(c.Room, s, r, failed)
		}
		if errors.Is(err, commit.ErrConflict) {
			return Answer{}, mxerr.New(mxerr.RoomInUse, "the room id is taken")
		}
		return r.finish(ctx, w.ticket, d, a, nil)
	}
	return w, nil, nil
}

// names gives the names that the events of a plan have, each once.
func (p *plan) names() []string {
	names := make(map[string]bool, 2*len(p.events))
	for i := range p.events {
		w := &p.events[i]
		names[w.typ], names[string(w.sender)] = true, true
		if w.key != nil {
			names[*w.key] = true
		}
		if rel, ok := relation.Parse(w.content); ok && rel.Parent != "" {
			names[rel.Type] = true
		}
	}
	return slices.Collect(maps.Keys(names))
}

// decide gives the room's first events, in the order of the specification.
func (c *CreateRoom) decide(rules *roomver.Rules) (plan, error) {
	create, err := c.createEvent(rules)
	if err != nil {
		return plan{}, err
	}
	levels, err := c.powerLevels(rules)
	if err != nil {
		return plan{}, err
	}
	var p plan
	add := func(typ, key string, content []byte) {
		p.events = append(p.events, want{
			typ: typ, key: &key, content: content, sender: c.Creator.User, device: c.Creator.Device, ts: c.TS,
		})
	}
	var failed error
	put := func(typ, key string, members map[string]any) {
		content, err := merge(nil, members)
		failed = errors.Join(failed, err)
		add(typ, key, content)
	}
	given := func(typ string) bool {
		return slices.ContainsFunc(c.InitialState, func(e StateEvent) bool { return e.Type == typ && e.StateKey == "" })
	}
	preset := func(typ string, members map[string]any) {
		if !given(typ) {
			put(typ, "", members)
		}
	}
	add(event.TypeCreate, "", create.Content)
	member := map[string]any{"membership": event.Join}
	c.Profile.put(member)
	put(event.TypeMember, string(c.Creator.User), member)
	add(event.TypePowerLevels, "", levels)
	if c.Alias != "" && !given(event.TypeCanonicalAlias) {
		put(event.TypeCanonicalAlias, "", map[string]any{"alias": string(c.Alias)})
	}
	join, guests := "invite", "can_join"
	if c.Preset == PresetPublic {
		join, guests = "public", "forbidden"
	}
	preset(event.TypeJoinRules, map[string]any{"join_rule": join})
	preset(event.TypeHistoryVisibility, map[string]any{"history_visibility": "shared"})
	preset(event.TypeGuestAccess, map[string]any{"guest_access": guests})
	for _, e := range c.InitialState {
		if e.Type == event.TypePowerLevels && e.StateKey == "" {
			continue // it is the one above
		}
		add(e.Type, e.StateKey, orEmpty(e.Content))
	}
	if c.Name != "" {
		put(event.TypeName, "", map[string]any{"name": c.Name})
	}
	if c.Topic != "" {
		put(event.TypeTopic, "", map[string]any{
			"topic": c.Topic, "m.topic": map[string]any{"m.text": []any{map[string]any{"body": c.Topic}}},
		})
	}
	for _, i := range c.Invite {
		if i.User.Server() != c.Creator.User.Server() {
			continue // their servers have to be asked: see InviteDraft
		}
		invite := map[string]any{"membership": event.Invite}
		if c.IsDirect {
			invite["is_direct"] = true
		}
		i.Profile.put(invite)
		put(event.TypeMember, string(i.User), invite)
	}
	return p, failed
}

// powerLevels gives the first m.room.power_levels: the preset's, overridden by the request. Those of initial_state
// take the preset's place.
func (c *CreateRoom) powerLevels(rules *roomver.Rules) ([]byte, error) {
	creators := []string{string(c.Creator.User)}
	if rules.PrivilegedCreators {
		also, err := c.additionalCreators()
		if err != nil {
			return nil, err
		}
		creators = append(creators, also...)
	}
	base := c.presetLevels(rules)
	for _, e := range c.InitialState {
		if e.Type == event.TypePowerLevels && e.StateKey == "" {
			base = orEmpty(e.Content)
		}
	}
	override := map[string]any{}
	for k, v := range members(orEmpty(c.PowerOverride)) {
		override[k] = v
	}
	levels, err := merge(base, override)
	if err != nil || !rules.PrivilegedCreators {
		return levels, err
	}
	users, _ := canonjson.Get(levels, "users")
	for name := range members(users) {
		if slices.Contains(creators, name) {
			return nil, mxerr.New(mxerr.InvalidParam, "power levels may not name a creator of the room")
		}
	}
	return levels, nil
}

func (c *CreateRoom) presetLevels(rules *roomver.Rules) []byte {
	tombstone := 100
	users := map[string]any{}
	if rules.PrivilegedCreators {
		tombstone = 150
	} else {
		users[string(c.Creator.User)] = 100
		if c.Preset == PresetTrusted {
			for _, i := range c.Invite {
				users[string(i.User)] = 100
			}
		}
	}
	invite := 50
	if c.Preset != PresetPublic {
		invite = 0
	}
	levels, _ := merge(nil, map[string]any{
		"users": users, "users_default": 0, "events_default": 0, "state_default": 50,
		"ban": 50, "kick": 50, "redact": 50, "invite": invite,
		"events": map[string]any{
			event.TypeName: 50, event.TypeAvatar: 50, event.TypeTopic: 50, event.TypeCanonicalAlias: 50,
			event.TypePowerLevels: 100, event.TypeHistoryVisibility: 100, event.TypeServerACL: 100,
			event.TypeEncryption: 100, event.TypeTombstone: tombstone,
		},
	})
	return levels
}
