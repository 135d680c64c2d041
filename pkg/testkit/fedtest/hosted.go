package fedtest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Host makes a public room of the Remote's own, in which a user of its is, and has it let others in as a good server does, until Handle says
// otherwise.
func (r *Remote) Host(t testing.TB, version roomver.Version, creator string) *Place {
	t.Helper()
	p := &Place{Remote: r, User: id.UserID("@" + creator + ":" + string(r.Name)), Rules: roomver.MustGet(version), hashes: map[id.EventID]event.Hash{}}
	if !p.Rules.RoomIDIsHash {
		p.Room = id.RoomID("!hosted" + string(version) + creator + ":" + string(r.Name))
	}
	create := p.StateEvent(t, event.TypeCreate, "", `{"room_version":"`+string(version)+`","creator":"`+string(p.User)+`"}`)
	p.Room = create.RoomID()
	p.Join = p.StateEvent(t, event.TypeMember, string(p.User), `{"membership":"join"}`)
	users := `{"users":{"` + string(p.User) + `":100}}`
	if p.Rules.RoomIDIsHash {
		users = `{"users":{}}`
	}
	p.StateEvent(t, event.TypePowerLevels, "", users)
	p.StateEvent(t, event.TypeJoinRules, "", `{"join_rule":"public"}`)
	p.Welcome(t)
	return p
}

// StateEvent builds a state event of the user at the end of the state that is known of the room, and takes it into the state.
func (p *Place) StateEvent(t testing.TB, typ, key, content string) *event.Event {
	t.Helper()
	proto := &event.Proto{
		RoomID: p.Room, Type: typ, StateKey: &key, Sender: p.User, Content: []byte(content), Depth: int64(len(p.State) + 1),
		OriginServerTS: time.Now().UnixMilli(),
	}
	for i, e := range p.State {
		if i == len(p.State)-1 {
			proto.PrevEvents = []id.EventID{e.EventID()}
		}
		switch {
		case e.Type() == event.TypeCreate && p.Rules.RoomIDIsHash: // is not named
		case e.Type() == event.TypeCreate, e.Type() == event.TypePowerLevels, e.Is(event.TypeMember, string(p.User)):
			proto.AuthEvents = append(proto.AuthEvents, e.EventID())
		}
	}
	e := p.Build(t, proto)
	p.State = append(p.State, e)
	return e
}

// Template is what the Remote proposes to somebody who wants to do something with the own membership.
func (p *Place) Template(t testing.TB, user, membership string) map[string]any {
	t.Helper()
	last := p.State[len(p.State)-1]
	auth := []id.EventID{p.Find(t, event.TypePowerLevels, "").EventID(), p.Find(t, event.TypeJoinRules, "").EventID()}
	if !p.Rules.RoomIDIsHash {
		auth = append(auth, p.Find(t, event.TypeCreate, "").EventID())
	}
	return map[string]any{
		"type": event.TypeMember, "room_id": p.Room, "sender": user, "state_key": user, "content": map[string]any{"membership": membership},
		"prev_events": []id.EventID{last.EventID()}, "auth_events": auth, "depth": last.Depth() + 1, "origin": p.Remote.Name,
		"origin_server_ts": time.Now().UnixMilli(),
	}
}

const (
	makeJoin = "/_matrix/federation/v1/make_join/"
	sendJoin = "/_matrix/federation/v2/send_join/"
)

// Welcome has the Remote let users join the room.
func (p *Place) Welcome(t testing.TB) {
	t.Helper()
	p.Propose(t, nil)
	p.Tell(t, nil)
}

// Propose has the Remote answer make_join with what change makes of a good answer.
func (p *Place) Propose(t testing.TB, change func(answer, proposed map[string]any)) {
	t.Helper()
	p.Remote.Handle(makeJoin, func(w http.ResponseWriter, q *http.Request) {
		parts := strings.Split(q.URL.EscapedPath(), "/")
		user, _ := url.PathUnescape(parts[len(parts)-1])
		proposed := p.Template(t, user, event.Join)
		answer := map[string]any{"room_version": p.Rules.Version, "event": proposed}
		if change != nil {
			change(answer, proposed)
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

// Tell has the Remote answer send_join with what change makes of a good answer.
func (p *Place) Tell(t testing.TB, change func(answer map[string]any)) {
	t.Helper()
	p.Remote.Handle(sendJoin, func(w http.ResponseWriter, q *http.Request) {
		var sent json.RawMessage
		_ = json.NewDecoder(q.Body).Decode(&sent)
		answer := map[string]any{"origin": p.Remote.Name, "state": p.PDUs(p.State...), "auth_chain": p.PDUs(p.State...), "event": sent, "members_omitted": false}
		if change != nil {
			change(answer)
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

// PDUs gives events as they are sent.
func (p *Place) PDUs(events ...*event.Event) []json.RawMessage {
	out := make([]json.RawMessage, len(events))
	for i, e := range events {
		out[i] = e.JSON()
	}
	return out
}

// JoinVia is the path by which clients join a room by way of a Remote.
func (p *Place) JoinVia() string {
	q := url.Values{"via": {string(p.Remote.Name)}, "server_name": {string(p.Remote.Name)}}
	return "/join/" + url.PathEscape(string(p.Room)) + "?" + q.Encode()
}

// Known tells whether a homeserver has a room in which somebody of its is.
func (h *Homeserver) Known(t testing.TB, room id.RoomID) bool {
	t.Helper()
	var n int
	require.NoError(t, h.DB.Pool.QueryRow(t.Context(),
		"SELECT count(*) FROM member m JOIN room r ON r.nid = m.room_nid WHERE r.room_id = $1 AND m.membership = 4", string(room)).Scan(&n))
	return n > 0
}

// Crowd has users of the Remote join the room, one after the other.
func (p *Place) Crowd(t testing.TB, users int) {
	t.Helper()
	auth := []id.EventID{p.Find(t, event.TypePowerLevels, "").EventID(), p.Find(t, event.TypeJoinRules, "").EventID()}
	if !p.Rules.RoomIDIsHash {
		auth = append(auth, p.Find(t, event.TypeCreate, "").EventID())
	}
	last := p.State[len(p.State)-1]
	for i := range users {
		user := "@guest" + strconv.Itoa(i) + ":" + string(p.Remote.Name)
		last = p.Build(t, &event.Proto{
			RoomID: p.Room, Type: event.TypeMember, StateKey: &user, Sender: id.UserID(user), AuthEvents: auth, PrevEvents: []id.EventID{last.EventID()},
			Content: []byte(`{"displayname":"guest ` + strconv.Itoa(i) + `","membership":"join"}`), Depth: last.Depth() + 1, OriginServerTS: time.Now().UnixMilli(),
		})
		p.State = append(p.State, last)
	}
}
