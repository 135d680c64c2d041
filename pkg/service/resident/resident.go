// Package resident tells other servers of the rooms that this one is in: state, events and auth chains.
//
// It holds to the rules on who may be told: the room's server ACL, whether the asking server is in the room, and at each event the history
// visibility as that server stands to it; an event that it may know of and not read is told redacted. Answers are bounded in events,
// and are read from the primary. The package keeps nothing and is safe for concurrent use. It is imported by api/ and the composition
// root.
package resident

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/serveracl"
	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/matrix/visibility"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Rooms answers what other servers ask.
type Rooms struct {
	db  *readdb.Reader
	fed *feddb.DB
}

// New makes a Rooms.
func New(db *readdb.Reader, fed *feddb.DB) *Rooms { return &Rooms{db: db, fed: fed} }

// Ref is a room that another server asks for.
type Ref struct {
	roomdb.RoomRef
	Rules *roomver.Rules
}

// notHere is the refusal for a room that this server is not in.
func notHere() error { return mxerr.New(mxerr.NotFound, "This server is not in the room") }

// Room finds a room that this server is in, refusing servers that the room's ACL denies.
func (r *Rooms) Room(ctx context.Context, room id.RoomID, origin id.ServerName) (*Ref, error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, notHere()
	}
	if here, err := r.here(ctx, ref.Nid); err != nil || !here {
		if err == nil {
			err = notHere()
		}
		return nil, err
	}
	rules, ok := roomver.Get(roomver.Version(ref.Version))
	if !ok {
		return nil, fmt.Errorf("room %s: unknown version %q", room, ref.Version)
	}
	allowed, err := r.allows(ctx, ref, rules, origin)
	if err != nil {
		return nil, err
	}
	if !allowed {
		return nil, mxerr.New(mxerr.Forbidden, "Server is banned from room")
	}
	return &Ref{RoomRef: ref, Rules: rules}, nil
}

// here tells whether a user of this server is in a room.
func (r *Rooms) here(ctx context.Context, room shard.Nid) (bool, error) {
	users, err := r.db.LocalMembers(ctx, room, roomdb.MembershipJoin, 1)
	return len(users) > 0, err
}

// Here tells whether a user of this server is in a room, so that nobody else need be asked for it.
func (r *Rooms) Here(ctx context.Context, room id.RoomID) (bool, error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil || !ok {
		return false, err
	}
	return r.here(ctx, ref.Nid)
}

// Version gives the version of a room that is known here, if only by an invitation; ok is false if it is not.
func (r *Rooms) Version(ctx context.Context, room id.RoomID) (v roomver.Version, ok bool, err error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	return roomver.Version(ref.Version), ok, err
}

// Membership gives a user's membership and who sent the event, of a room that may be known by an invitation only.
func (r *Rooms) Membership(ctx context.Context, room id.RoomID, user id.UserID) (membership string, sender id.UserID, err error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil || !ok {
		return "", "", err
	}
	m, ok, err := r.db.Member(ctx, ref.Nid, string(user))
	if err != nil || !ok {
		return "", "", err
	}
	rows, err := r.db.EventsByNid(ctx, []shard.Nid{m.Event})
	if err != nil || len(rows) == 0 {
		return m.Membership.String(), "", err
	}
	names, err := r.db.AtomNames(ctx, []shard.Nid{rows[0].Sender})
	return m.Membership.String(), id.UserID(names[rows[0].Sender]), err
}

// Inviter tells who invited a user to a room that this server is not in, and the rules of the room's version; nil if nobody did.
func (r *Rooms) Inviter(ctx context.Context, room id.RoomID, user id.UserID) (id.UserID, *roomver.Rules, error) {
	membership, sender, err := r.Membership(ctx, room, user)
	if err != nil || membership != event.Invite {
		return "", nil, err
	}
	version, _, err := r.Version(ctx, room)
	if err != nil {
		return "", nil, err
	}
	rules, ok := roomver.Get(version)
	if !ok {
		return "", nil, fmt.Errorf("room %s: unknown version %q", room, version)
	}
	return sender, rules, nil
}

// acl reads a room's server ACL.
func (r *Rooms) acl(ctx context.Context, ref roomdb.RoomRef, rules *roomver.Rules) (serveracl.ACL, error) {
	name := roomdb.StateName{Type: event.TypeServerACL}
	found, err := r.db.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{name})
	if err != nil {
		return serveracl.ACL{}, err
	}
	at, ok := found[name]
	if !ok {
		return serveracl.ACL{}, nil
	}
	e, err := event.ParseTrusted(rules, at.JSON, id.EventID(at.EventID))
	if err != nil {
		return serveracl.ACL{}, fmt.Errorf("read event %s: %w", at.EventID, err)
	}
	return serveracl.Parse(e.Content()), nil
}

func (r *Rooms) allows(ctx context.Context, ref roomdb.RoomRef, rules *roomver.Rules, origin id.ServerName) (bool, error) {
	acl, err := r.acl(ctx, ref, rules)
	return err == nil && acl.Allows(origin), err
}

// RoomWith is [Rooms.Room] for a server that has to be in the room.
func (r *Rooms) RoomWith(ctx context.Context, room id.RoomID, origin id.ServerName) (*Ref, error) {
	ref, err := r.Room(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	in, err := r.fed.HostInRoom(ctx, ref.Nid, string(origin))
	if err != nil {
		return nil, err
	}
	if !in {
		return nil, mxerr.New(mxerr.Forbidden, "Your server is not in the room")
	}
	return ref, nil
}

// event finds an event of a room, without those that are not part of it.
func (r *Rooms) event(ctx context.Context, ref *Ref, e id.EventID) (*roomdb.StoredEvent, error) {
	rows, err := r.db.EventsByID(ctx, ref.Nid, []string{string(e)})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 || rows[0].Flags.Has(roomdb.FlagRejected) {
		return nil, mxerr.New(mxerr.NotFound, "The event is not known")
	}
	return &rows[0], nil
}

// parse reads stored events as they are told: redacted if they were.
func parse(ref *Ref, rows []roomdb.StoredEvent) ([]*event.Event, error) {
	out := make([]*event.Event, len(rows))
	for i := range rows {
		e, err := readdb.Parse(ref.Rules, &rows[i])
		if err != nil {
			return nil, err
		}
		out[i] = e
	}
	return out, nil
}

// piece is how many events are read at once.
const piece = 500

// byNid reads events.
func (r *Rooms) byNid(ctx context.Context, nids []shard.Nid) ([]roomdb.StoredEvent, error) {
	out := make([]roomdb.StoredEvent, 0, len(nids))
	for part := range slices.Chunk(nids, piece) {
		rows, err := r.db.EventsByNid(ctx, part)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// maxChain bounds an auth chain: no room that works has as many.
const maxChain = 200_000

// chain reads the auth chain of events, without these. The create event is part of it also where events do not name it.
func (r *Rooms) chain(ctx context.Context, ref *Ref, of []roomdb.StoredEvent) ([]roomdb.StoredEvent, error) {
	seen := map[shard.Nid]bool{}
	var todo []shard.Nid
	add := func(rows []roomdb.StoredEvent) {
		for i := range rows {
			for _, n := range rows[i].Auth {
				if !seen[n] {
					seen[n] = true
					todo = append(todo, n)
				}
			}
		}
	}
	add(of)
	var out []roomdb.StoredEvent
	for len(todo) > 0 {
		if len(seen) > maxChain {
			return nil, mxerr.New(mxerr.TooLarge, "The auth chain is too long")
		}
		n := min(len(todo), piece)
		batch := todo[:n:n]
		todo = todo[n:]
		rows, err := r.db.EventsByNid(ctx, batch)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
		add(rows)
	}
	create, _ := id.RoomID(ref.RoomID).CreateEvent()
	named := func(row roomdb.StoredEvent) bool { return row.EventID == string(create) }
	if !ref.Rules.RoomIDIsHash || slices.ContainsFunc(out, named) || !slices.ContainsFunc(of, func(row roomdb.StoredEvent) bool { return !named(row) }) {
		return out, nil
	}
	rows, err := r.db.EventsByID(ctx, ref.Nid, []string{string(create)})
	return append(out, rows...), err
}

// stateOf reads a state's events.
func (r *Rooms) stateOf(ctx context.Context, at shard.Nid) ([]roomdb.StoredEvent, error) {
	state, err := r.db.State(ctx, at)
	if err != nil {
		return nil, err
	}
	nids := make([]shard.Nid, 0, state.Len())
	for _, n := range state.All() {
		nids = append(nids, shard.Nid(n))
	}
	return r.byNid(ctx, nids)
}

// stateBefore reads the state before an event for a server that is in the room, and its auth chain.
func (r *Rooms) stateBefore(ctx context.Context, room id.RoomID, e id.EventID, origin id.ServerName) (ref *Ref, state, chain []roomdb.StoredEvent, err error) {
	if ref, err = r.RoomWith(ctx, room, origin); err != nil {
		return
	}
	at, err := r.event(ctx, ref, e)
	if err != nil {
		return
	}
	if at.Flags.Has(roomdb.FlagOutlier) {
		return nil, nil, nil, mxerr.New(mxerr.NotFound, "The state at the event is not known")
	}
	if state, err = r.stateOf(ctx, at.StateBefore); err == nil {
		chain, err = r.chain(ctx, ref, state)
	}
	return
}

// State answers /state.
func (r *Rooms) State(ctx context.Context, room id.RoomID, e id.EventID, origin id.ServerName) ([]byte, error) {
	ref, state, chain, err := r.stateBefore(ctx, room, e, origin)
	if err != nil {
		return nil, err
	}
	b, err := appendPDUs([]byte(`{"auth_chain":`), ref, chain)
	if err != nil {
		return nil, err
	}
	if b, err = appendPDUs(append(b, `,"pdus":`...), ref, state); err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

// StateIDs answers /state_ids.
func (r *Rooms) StateIDs(ctx context.Context, room id.RoomID, e id.EventID, origin id.ServerName) ([]byte, error) {
	_, state, chain, err := r.stateBefore(ctx, room, e, origin)
	if err != nil {
		return nil, err
	}
	b := appendIDs([]byte(`{"auth_chain_ids":`), chain)
	return append(appendIDs(append(b, `,"pdu_ids":`...), state), '}'), nil
}

// EventAuth answers /event_auth.
func (r *Rooms) EventAuth(ctx context.Context, room id.RoomID, e id.EventID, origin id.ServerName) ([]byte, error) {
	ref, err := r.RoomWith(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	at, err := r.event(ctx, ref, e)
	if err != nil {
		return nil, err
	}
	chain, err := r.chain(ctx, ref, []roomdb.StoredEvent{*at})
	if err != nil {
		return nil, err
	}
	b, err := appendPDUs([]byte(`{"auth_chain":`), ref, chain)
	if err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

// Servers gives the other servers that are in a room.
func (r *Rooms) Servers(ctx context.Context, ref *Ref) ([]string, error) {
	return r.fed.Hosts(ctx, ref.Nid)
}

// Joined gives what a server that has just joined is told: the state before its event and the auth chains, or with partial only the
// state that is not of members, and those members that the room's name and the event's authorisation need.
func (r *Rooms) Joined(ctx context.Context, ref *Ref, e id.EventID, partial bool) (state, chain []byte, err error) {
	at, err := r.event(ctx, ref, e)
	if err != nil {
		return nil, nil, err
	}
	rows, err := r.stateOf(ctx, at.StateBefore)
	if err != nil {
		return nil, nil, err
	}
	told := rows
	if partial {
		if told, err = r.withoutMembers(ctx, ref, rows, at); err != nil {
			return nil, nil, err
		}
	}
	auth, err := r.chain(ctx, ref, append(slices.Clone(told), *at))
	if err != nil {
		return nil, nil, err
	}
	if partial { // what the state holds already is not said twice
		in := map[shard.Nid]bool{}
		for i := range told {
			in[told[i].Nid] = true
		}
		auth = slices.DeleteFunc(auth, func(row roomdb.StoredEvent) bool { return in[row.Nid] })
	}
	if state, err = appendPDUs(nil, ref, told); err == nil {
		chain, err = appendPDUs(nil, ref, auth)
	}
	return state, chain, err
}

// heroes is how many members stand for all of them.
const heroes = 5

// withoutMembers leaves out the members, but for a few if the room has no name.
func (r *Rooms) withoutMembers(ctx context.Context, ref *Ref, rows []roomdb.StoredEvent, join *roomdb.StoredEvent) ([]roomdb.StoredEvent, error) {
	atoms, err := r.db.AtomsByName(ctx, ref.Nid.Shard(), []string{event.TypeMember, event.TypeName, event.TypeCanonicalAlias})
	if err != nil {
		return nil, err
	}
	named := slices.ContainsFunc(rows, func(row roomdb.StoredEvent) bool {
		return row.Type == atoms[event.TypeName] || row.Type == atoms[event.TypeCanonicalAlias]
	})
	left := heroes
	if named {
		left = 0
	}
	needed := map[shard.Nid]bool{}
	for _, n := range join.Auth {
		needed[n] = true
	}
	out := make([]roomdb.StoredEvent, 0, 32)
	for i := range rows {
		switch {
		case rows[i].Type != atoms[event.TypeMember], needed[rows[i].Nid]:
			out = append(out, rows[i])
		case left > 0:
			left--
			out = append(out, rows[i])
		}
	}
	return out, nil
}

// Stripped gives what somebody who knocks is told of a room.
func (r *Rooms) Stripped(ctx context.Context, ref *Ref) ([]byte, error) {
	var names []roomdb.StateName
	for _, t := range []string{
		event.TypeCreate, event.TypeName, event.TypeAvatar, event.TypeTopic, event.TypeJoinRules, event.TypeCanonicalAlias, event.TypeEncryption,
	} {
		names = append(names, roomdb.StateName{Type: t})
	}
	found, err := r.db.CurrentStateAt(ctx, ref.Nid, names)
	if err != nil {
		return nil, err
	}
	b := []byte{'['}
	for _, n := range names {
		at, ok := found[n]
		if !ok {
			continue
		}
		e, err := event.ParseTrusted(ref.Rules, at.JSON, id.EventID(at.EventID))
		if err != nil {
			return nil, fmt.Errorf("read event %s: %w", at.EventID, err)
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = e.AppendStripped(b)
	}
	return append(b, ']'), nil
}

func appendPDUs(b []byte, ref *Ref, rows []roomdb.StoredEvent) ([]byte, error) {
	b = append(b, '[')
	for i := range rows {
		e, err := readdb.Parse(ref.Rules, &rows[i])
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.JSON()...)
	}
	return append(b, ']'), nil
}

func appendEvents(b []byte, events []*event.Event) []byte {
	b = append(b, '[')
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, e.JSON()...)
	}
	return append(b, ']')
}

func appendIDs(b []byte, rows []roomdb.StoredEvent) []byte {
	b = append(b, '[')
	for i := range rows {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), rows[i].EventID...), '"')
	}
	return append(b, ']')
}

// shown gives events as a server may see them: redacted where it may not. joined says that it is in the room now.
func (r *Rooms) shown(ctx context.Context, ref *Ref, rows []roomdb.StoredEvent, origin id.ServerName) ([]*event.Event, []bool, error) {
	events, err := parse(ref, rows)
	if err != nil {
		return nil, nil, err
	}
	atoms, err := r.db.AtomsByName(ctx, ref.Nid.Shard(), []string{event.TypeHistoryVisibility, event.TypeMember, ""})
	if err != nil {
		return nil, nil, err
	}
	views := map[shard.Nid]visibility.ServerView{}
	var users []shard.Nid // of the server, once they are needed
	visible := make([]bool, len(rows))
	for i := range rows {
		at := rows[i].StateBefore
		if rows[i].Flags.Has(roomdb.FlagOutlier) {
			continue // its state is not known
		}
		v, ok := views[at]
		if !ok {
			if v, err = r.view(ctx, ref, at, origin, atoms, &users); err != nil {
				return nil, nil, err
			}
			views[at] = v
		}
		visible[i] = v.Allows() || events[i].Origin() == origin
		if !visible[i] {
			events[i] = events[i].Redact()
		}
	}
	return events, visible, nil
}

// view gives a server's view of a room at a state.
func (r *Rooms) view(ctx context.Context, ref *Ref, at shard.Nid, origin id.ServerName, atoms map[string]shard.Nid, users *[]shard.Nid) (v visibility.ServerView, err error) {
	state, err := r.db.State(ctx, at)
	if err != nil {
		return v, err
	}
	key := stateres.Key{Type: int64(atoms[event.TypeHistoryVisibility]), StateKey: int64(atoms[""])}
	if n, ok := state.Get(key); ok && key.Type != 0 {
		rows, err := r.db.EventsByNid(ctx, []shard.Nid{shard.Nid(n)})
		if err != nil {
			return v, err
		}
		events, err := parse(ref, rows)
		if err != nil {
			return v, err
		}
		if len(events) > 0 {
			v.History = visibility.HistoryOf(events[0])
		}
	}
	if v.History == visibility.Shared || v.History == visibility.WorldReadable {
		return v, nil
	}
	if *users == nil {
		if *users, err = r.usersOf(ctx, ref, origin); err != nil {
			return v, err
		}
	}
	var nids []shard.Nid
	for _, u := range *users {
		if n, ok := state.Get(stateres.Key{Type: int64(atoms[event.TypeMember]), StateKey: int64(u)}); ok {
			nids = append(nids, shard.Nid(n))
		}
	}
	rows, err := r.byNid(ctx, nids)
	if err != nil {
		return v, err
	}
	events, err := parse(ref, rows)
	if err != nil {
		return v, err
	}
	for _, e := range events {
		v.Joined = v.Joined || e.Membership() == event.Join
		v.Invited = v.Invited || e.Membership() == event.Invite
	}
	return v, nil
}

// usersOf gives the atoms of a server's users who have had anything to do with a room.
func (r *Rooms) usersOf(ctx context.Context, ref *Ref, origin id.ServerName) ([]shard.Nid, error) {
	members, err := r.db.Members(ctx, ref.Nid)
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range members {
		if strings.HasSuffix(members[i].UserID, ":"+string(origin)) {
			names = append(names, members[i].UserID)
		}
	}
	atoms, err := r.db.AtomsByName(ctx, ref.Nid.Shard(), names)
	if err != nil {
		return nil, err
	}
	out := make([]shard.Nid, 0, len(atoms))
	for _, n := range atoms {
		out = append(out, n)
	}
	return out, nil
}

// Admits is [Rooms.Room] for whoever needs the rules of the room's version only.
func (r *Rooms) Admits(ctx context.Context, room id.RoomID, origin id.ServerName) (*roomver.Rules, error) {
	ref, err := r.Room(ctx, room, origin)
	if err != nil {
		return nil, err
	}
	return ref.Rules, nil
}

// Hosts gives the other servers that are in a room.
func (r *Rooms) Hosts(ctx context.Context, room id.RoomID) ([]string, error) {
	ref, ok, err := r.db.RoomByID(ctx, room)
	if err != nil || !ok {
		return nil, err
	}
	return r.fed.Hosts(ctx, ref.Nid)
}

// Elsewhere tells whether a room's members can only be changed by way of another server: nobody of this one is in it, and it is not a room of
// which nobody at all is left. known says that there is something of it here, if only an invitation.
func (r *Rooms) Elsewhere(ctx context.Context, room id.RoomID) (elsewhere, known bool, err error) {
	ref, known, err := r.db.RoomByID(ctx, room)
	if err != nil || !known {
		return true, false, err
	}
	here, err := r.here(ctx, ref.Nid)
	if err != nil || here {
		return false, true, err
	}
	create := roomdb.StateName{Type: event.TypeCreate}
	found, err := r.db.CurrentStateAt(ctx, ref.Nid, []roomdb.StateName{create})
	if err != nil {
		return false, true, err
	}
	if _, has := found[create]; !has {
		return true, true, nil
	}
	hosts, err := r.fed.Hosts(ctx, ref.Nid)
	return len(hosts) > 0, true, err
}
