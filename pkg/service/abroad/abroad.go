// Package abroad is what users of this server do in rooms that this server is not in: join them, knock on them, be invited to them, and
// leave what they were invited to; and how users of other servers are invited to rooms that it is in.
//
// What another server proposes (templates) or sends (state, invitations) is checked before anything is signed or believed: a template
// must be the event that was asked for, and every event passes the same gate as those of transactions. A joined room's state goes to
// the room's writer by way of the database. The package may be imported by api/ and the composition root. An [Abroad] is safe for
// concurrent use.
package abroad

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"
)

// Rooms knows which rooms this server is in. It is *resident.Rooms.
type Rooms interface {
	Here(ctx context.Context, room id.RoomID) (bool, error)
	Elsewhere(ctx context.Context, room id.RoomID) (elsewhere, known bool, err error)
	Version(ctx context.Context, room id.RoomID) (v roomver.Version, ok bool, err error)
	Membership(ctx context.Context, room id.RoomID, user id.UserID) (membership string, sender id.UserID, err error)
	Hosts(ctx context.Context, room id.RoomID) ([]string, error)
}

// Users knows the users of this server.
type Users interface {
	Exists(ctx context.Context, user id.UserID) (bool, error)
	// Invites says whether the user takes an invitation by another.
	Invites(ctx context.Context, user, by id.UserID) (invitation.Verdict, error)
}

// Options are what an Abroad needs. Log may be nil.
type Options struct {
	Server     id.ServerName
	Shards     shard.Map
	Key        signing.Key
	Rooms      Rooms
	Users      Users
	ThirdParty ThirdParty
	// Told gives the servers whose users are named in what a user was told of a room that is not known here.
	Told func(ctx context.Context, room id.RoomID, user id.UserID) ([]id.ServerName, error)
	// Inviters gives servers whose users may invite to a room that this server is in.
	Inviters func(ctx context.Context, room id.RoomID) ([]id.ServerName, error)
	Writer   room.Writer
	Remote   inbound.Remote
	Keys     inbound.KeySource
	DB       *feddb.DB
	Cache    Cache
	Now      func() time.Time
	Log      *slog.Logger
}

// Abroad acts in rooms elsewhere.
type Abroad struct{ o Options }

// New makes an Abroad.
func New(o Options) *Abroad {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Abroad{o}
}

const (
	smallLimit = 1 << 20
	joinLimit  = 512 << 20
	makeWait   = 30 * time.Second
	joinWait   = 3 * time.Minute
	// maxCandidates bounds the servers that are tried.
	maxCandidates = 10
)

// Act is what a user does to the own membership of a room elsewhere.
type Act struct {
	User   id.UserID
	Room   id.RoomID
	Action room.Action // join, knock or leave
	// Via are servers that may be in the room.
	Via     []id.ServerName
	Reason  string
	Profile room.Profile
	Content []byte
}

// Elsewhere tells whether a membership has to be changed by way of another server, because this one is not in the room; and that the room is
// known, if only by an invitation.
func (a *Abroad) Elsewhere(ctx context.Context, r id.RoomID) (elsewhere, known bool, err error) {
	return a.o.Rooms.Elsewhere(ctx, r)
}

// candidates gives the servers to try, the most promising first.
func (a *Abroad) candidates(ctx context.Context, act *Act) ([]id.ServerName, error) {
	var list []id.ServerName
	add := func(s id.ServerName) {
		if s.Valid() && s != a.o.Server && !slices.Contains(list, s) && len(list) < maxCandidates {
			list = append(list, s)
		}
	}
	membership, sender, err := a.o.Rooms.Membership(ctx, act.Room, act.User)
	if err != nil {
		return nil, err
	}
	if membership == event.Invite || membership == event.Leave || membership == event.Ban {
		add(sender.Server())
	}
	for _, s := range act.Via {
		add(s)
	}
	if err := a.residents(ctx, act.Room, add); err != nil {
		return nil, err
	}
	if membership == event.Invite || membership == event.Knock {
		told, err := a.o.Told(ctx, act.Room, act.User)
		if err != nil {
			return nil, err
		}
		for _, s := range told {
			add(s)
		}
	}
	if len(act.Via) == 0 { // a guess that an id allows before room version 12, and that a client which knows better need not bear
		add(act.Room.Server())
	}
	return list, nil
}

// residents adds servers of a room that this one is in: those whose users may invite, and others.
func (a *Abroad) residents(ctx context.Context, r id.RoomID, add func(id.ServerName)) error {
	here, err := a.o.Rooms.Here(ctx, r)
	if err != nil || !here {
		return err
	}
	inviters, err := a.o.Inviters(ctx, r)
	if err != nil {
		return err
	}
	hosts, err := a.o.Rooms.Hosts(ctx, r)
	if err != nil {
		return err
	}
	for _, s := range inviters {
		if slices.Contains(hosts, string(s)) {
			add(s)
		}
	}
	for _, s := range hosts {
		add(id.ServerName(s))
	}
	return nil
}

// Do has the act done by way of one of the servers that are in the room. The refusal of a server that knows the room is the answer; that a server
// cannot be reached, or does not know the room, is not.
func (a *Abroad) Do(ctx context.Context, act *Act) error {
	if act.Action == room.ActionLeave {
		membership, _, err := a.o.Rooms.Membership(ctx, act.Room, act.User)
		switch {
		case err != nil:
			return err
		case membership == event.Leave:
			return nil
		case membership == event.Ban:
			return mxerr.New(mxerr.Forbidden, "You are banned from the room")
		}
	}
	servers, err := a.candidates(ctx, act)
	if err != nil {
		return err
	}
	var last error
	for _, s := range servers {
		if err = a.via(ctx, act, s); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.o.Log.Info("a server did not let a user act in a room", "server", string(s), "room", string(act.Room), "action", string(act.Action), "error", err)
		last = better(last, err)
	}
	if last == nil {
		last = mxerr.New(mxerr.NotFound, "No server is known that is in the room")
	}
	if act.Action == room.ActionLeave { // whoever wants to be rid of an invitation is, whatever its server says
		return a.leaveAlone(ctx, act, last)
	}
	return answer(last, unreached)
}

// better gives the error that says more: a refusal says more than silence.
func better(old, now error) error {
	var refused *mxerr.Error
	if old == nil || errors.As(now, &refused) && refused.Code != mxerr.NotFound {
		return now
	}
	return old
}

// unreached is what a client is told if no server said why it refused.
const unreached = "No server that is in the room could be reached"

// answer gives what a client is told of the failure of every server: why one refused, or else a text.
func answer(err error, otherwise string) error {
	var refused *mxerr.Error
	if errors.As(err, &refused) {
		return refused
	}
	return (&mxerr.Error{Code: mxerr.Unknown, HTTPStatus: 502, Message: otherwise}).WithCause(err)
}

// template is the answer to make_join and its like.
type template struct {
	Version roomver.Version `json:"room_version"`
	Event   json.RawMessage `json:"event"`
}

func fedPath(version, endpoint string, segments ...string) string {
	p := "/_matrix/federation/" + version + "/" + endpoint
	for _, s := range segments {
		p += "/" + url.PathEscape(s)
	}
	return p
}

// via does the act by way of one server.
func (a *Abroad) via(ctx context.Context, act *Act, s id.ServerName) error {
	name := map[room.Action]string{room.ActionJoin: "join", room.ActionKnock: "knock", room.ActionLeave: "leave"}[act.Action]
	if name == "" {
		return mxerr.New(mxerr.InvalidParam, "action is unknown")
	}
	query := url.Values{}
	if act.Action != room.ActionLeave {
		for _, v := range roomver.All() {
			query.Add("ver", string(v.Version))
		}
	}
	raw, err := a.o.Remote.Ask(ctx, s, "GET", fedPath("v1", "make_"+name, string(act.Room), string(act.User)), query, nil, smallLimit, makeWait, true)
	if err != nil {
		return err
	}
	var t template
	if err := json.Unmarshal(raw, &t); err != nil {
		return fmt.Errorf("template of %s: %w", s, err)
	}
	if t.Version == "" {
		t.Version = roomver.V1
	}
	rules, ok := roomver.Get(t.Version)
	if !ok {
		return mxerr.Newf(mxerr.UnsupportedRoomVersion, "Room version %s is not supported", t.Version)
	}
	e, err := a.build(act, rules, t.Event)
	if err != nil {
		return fmt.Errorf("template of %s: %w", s, err)
	}
	switch act.Action {
	case room.ActionJoin:
		return a.join(ctx, act, s, rules, e)
	case room.ActionKnock:
		return a.knock(ctx, act, s, rules, e)
	default:
		return a.leave(ctx, act, s, rules, e)
	}
}

// build makes the event of a template. Of the template only the place in the room is taken, what the event says is ours.
func (a *Abroad) build(act *Act, rules *roomver.Rules, raw []byte) (*event.Event, error) {
	canonical, err := canonjson.Canonical(raw, canonjson.Options{Mode: canonjson.Lax, MaxSize: event.MaxSize * 2})
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	p, err := event.ParseTemplate(rules, canonical)
	if err != nil {
		return nil, fmt.Errorf("template: %w", err)
	}
	membership := map[room.Action]string{room.ActionJoin: event.Join, room.ActionKnock: event.Knock, room.ActionLeave: event.Leave}[act.Action]
	said, _ := canonjson.GetString(p.Content, "membership")
	switch {
	case p.Type != event.TypeMember, p.RoomID != act.Room, p.Sender != act.User, p.StateKey == nil || *p.StateKey != string(act.User), said != membership:
		return nil, errors.New("template is not the event that was asked for")
	}
	content := map[string]any{}
	if len(act.Content) > 0 {
		if err := json.Unmarshal(act.Content, &content); err != nil {
			return nil, mxerr.New(mxerr.BadJSON, "content is no object")
		}
	}
	content["membership"] = membership
	if via, ok := canonjson.GetString(p.Content, "join_authorised_via_users_server"); ok && act.Action == room.ActionJoin {
		content["join_authorised_via_users_server"] = via
	}
	if act.Reason != "" {
		content["reason"] = act.Reason
	}
	if act.Action != room.ActionLeave {
		if act.Profile.DisplayName != "" {
			content["displayname"] = act.Profile.DisplayName
		}
		if act.Profile.AvatarURL != "" {
			content["avatar_url"] = act.Profile.AvatarURL
		}
	}
	if p.Content, err = canonjson.Marshal(content); err != nil {
		return nil, mxerr.New(mxerr.BadJSON, "content is no canonical JSON").WithCause(err)
	}
	p.OriginServerTS = a.o.Now().UnixMilli()
	if rules.EventIDs == roomver.EventIDGiven {
		p.EventID = id.EventID("$" + randomText() + ":" + string(a.o.Server))
	}
	return event.Build(rules, p, a.o.Server, a.o.Key)
}

// sendJoinAnswer is the answer to send_join.
type sendJoinAnswer struct {
	State []json.RawMessage `json:"state"`
	Chain []json.RawMessage `json:"auth_chain"`
	Event json.RawMessage   `json:"event"`
}

// join sends the join, and has this server enter the room by the state that it is told.
func (a *Abroad) join(ctx context.Context, act *Act, s id.ServerName, rules *roomver.Rules, e *event.Event) error {
	raw, err := a.o.Remote.Ask(ctx, s, "PUT", fedPath("v2", "send_join", string(act.Room), string(e.EventID())), nil, e.JSON(), joinLimit, joinWait, true)
	if err != nil {
		return err
	}
	var t sendJoinAnswer
	if err := json.Unmarshal(raw, &t); err != nil {
		return fmt.Errorf("answer of %s: %w", s, err)
	}
	if len(t.Event) > 0 && rules.Restricted { // with the signature of the server that vouches for the user
		signed, err := event.Parse(rules, t.Event)
		if err != nil || signed.EventID() != e.EventID() {
			return fmt.Errorf("%s gave back another event", s)
		}
		e = signed
	}
	if err := inbound.Verify(ctx, a.o.Keys, []*event.Event{e})[0]; err != nil {
		return mxerr.New(mxerr.Forbidden, "the join is not vouched for").WithCause(err)
	}
	here, err := a.o.Rooms.Here(ctx, act.Room)
	if err != nil {
		return err
	}
	if here {
		return a.joinHere(ctx, act.Room, rules, e, t.State, t.Chain)
	}
	return a.enter(ctx, act.Room, rules, e, t.State, t.Chain, true)
}

// joinHere takes a join that another server vouches for into a room that this one is in: as an event like others if what it follows is
// known here, and else by the state that the server told.
func (a *Abroad) joinHere(ctx context.Context, r id.RoomID, rules *roomver.Rules, e *event.Event, state, chain []json.RawMessage) error {
	done, err := a.o.Writer.Do(ctx, nil, &room.Accept{Room: r, Events: [][]byte{e.JSON()}})
	if err != nil {
		return err
	}
	v, err := verdict(done)
	if err != nil {
		return err
	}
	if v.Fate == room.FateMissing {
		return a.enter(ctx, r, rules, e, state, chain, false)
	}
	return taken(v)
}

// verdict reads what a writer made of one event.
func verdict(done room.Answer) (room.Verdict, error) {
	var verdicts []room.Verdict
	if err := json.Unmarshal(done.Data, &verdicts); err != nil || len(verdicts) != 1 {
		return room.Verdict{}, fmt.Errorf("read verdict: %w", err)
	}
	return verdicts[0], nil
}

// taken says why a join is not in its room.
func taken(v room.Verdict) error {
	switch v.Fate {
	case room.FateAccepted, room.FateKnown:
		return nil
	case room.FateMissing:
		return mxerr.New(mxerr.BadState, "what allows the join is missing from the state that was given").WithCause(fmt.Errorf("no %v", v.Missing))
	default:
		return mxerr.New(mxerr.Forbidden, "the join is not allowed by the room's state: "+v.Reason)
	}
}

// enter verifies the state of a room and has the room's writer take it, with the join. anew: the state becomes the room's, in which nobody of
// this server was.
func (a *Abroad) enter(ctx context.Context, r id.RoomID, rules *roomver.Rules, e *event.Event, state, chain []json.RawMessage, anew bool) error {
	all, names := parse(rules, r, state, chain)
	errs := inbound.Verify(ctx, a.o.Keys, all)
	kept := make([]*event.Event, 0, len(all))
	create := false
	for i, ev := range all {
		if errs[i] != nil {
			a.o.Log.Info("an event of a joined room's state does not verify", "room", string(r), "event", string(ev.EventID()), "error", errs[i])
			continue
		}
		create = create || ev.Type() == event.TypeCreate
		kept = append(kept, ev)
	}
	if !create {
		return mxerr.New(mxerr.BadState, "the room's state has no valid m.room.create")
	}
	if _, err := a.o.Writer.Do(ctx, nil, &room.Outline{Room: r, Version: rules.Version}); err != nil {
		return err
	}
	set, err := inbound.StageSet(ctx, a.o.DB, kept, names, nil)
	if err != nil {
		return err
	}
	defer func() {
		if err := a.o.DB.DropSet(context.WithoutCancel(ctx), set.ID); err != nil {
			a.o.Log.Warn("a staged set was not deleted", "error", err)
		}
	}()
	if err := set.Store(ctx, a.o.Writer, r); err != nil {
		return err
	}
	done, err := a.o.Writer.Do(ctx, nil, &room.Enter{Room: r, Set: set.ID, Event: e.JSON(), Join: anew})
	if err != nil {
		return err
	}
	v, err := verdict(done)
	if err != nil {
		return err
	}
	return taken(v)
}

// parse reads the events of a state and of its auth chains, each once, and names those of the state.
func parse(rules *roomver.Rules, r id.RoomID, state, chain []json.RawMessage) (all []*event.Event, names []id.EventID) {
	seen := make(map[id.EventID]bool, len(state)+len(chain))
	for i, list := range [][]json.RawMessage{state, chain} {
		for _, pdu := range list {
			e, err := event.Parse(rules, pdu)
			if err != nil || e.RoomID() != r {
				continue
			}
			if _, isState := e.StateKey(); !isState {
				continue
			}
			if i == 0 {
				names = append(names, e.EventID())
			}
			if !seen[e.EventID()] {
				seen[e.EventID()] = true
				all = append(all, e)
			}
		}
	}
	return all, names
}

func (a *Abroad) knock(ctx context.Context, act *Act, s id.ServerName, rules *roomver.Rules, e *event.Event) error {
	raw, err := a.o.Remote.Ask(ctx, s, "PUT", fedPath("v1", "send_knock", string(act.Room), string(e.EventID())), nil, e.JSON(), smallLimit, makeWait, true)
	if err != nil {
		return err
	}
	var t struct {
		Stripped json.RawMessage `json:"knock_room_state"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return fmt.Errorf("answer of %s: %w", s, err)
	}
	return a.outOfBand(ctx, rules, e, stripped(t.Stripped))
}

func (a *Abroad) leave(ctx context.Context, act *Act, s id.ServerName, rules *roomver.Rules, e *event.Event) error {
	if _, err := a.o.Remote.Ask(ctx, s, "PUT", fedPath("v2", "send_leave", string(act.Room), string(e.EventID())), nil, e.JSON(), smallLimit, makeWait, true); err != nil {
		return err
	}
	return a.outOfBand(ctx, rules, e, nil)
}

// leaveAlone has a user be rid of an invitation that no server takes back.
func (a *Abroad) leaveAlone(ctx context.Context, act *Act, why error) error {
	membership, _, err := a.o.Rooms.Membership(ctx, act.Room, act.User)
	if err != nil {
		return err
	}
	version, ok, err := a.o.Rooms.Version(ctx, act.Room)
	if err != nil {
		return err
	}
	rules, known := roomver.Get(version)
	if !ok || !known || membership != event.Invite && membership != event.Knock {
		return answer(why, unreached)
	}
	user := string(act.User)
	p := &event.Proto{
		RoomID: act.Room, Type: event.TypeMember, StateKey: &user, Sender: act.User, Content: []byte(`{"membership":"leave"}`),
		Depth: 1, OriginServerTS: a.o.Now().UnixMilli(),
	}
	if rules.EventIDs == roomver.EventIDGiven {
		p.EventID = id.EventID("$" + randomText() + ":" + string(a.o.Server))
	}
	e, err := event.Build(rules, p, a.o.Server, a.o.Key)
	if err != nil {
		return fmt.Errorf("build leave: %w", err)
	}
	return a.outOfBand(ctx, rules, e, nil)
}

func (a *Abroad) outOfBand(ctx context.Context, rules *roomver.Rules, e *event.Event, stripped []byte) error {
	if _, err := a.o.Writer.Do(ctx, nil, &room.Outline{Room: e.RoomID(), Version: rules.Version}); err != nil {
		return err
	}
	_, err := a.o.Writer.Do(ctx, nil, &room.OutOfBand{Room: e.RoomID(), Event: e.JSON(), Stripped: stripped})
	return err
}
