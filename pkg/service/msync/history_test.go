package msync_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// history makes things happen: one deed after another, by users who may or may not be allowed to.
type history struct {
	*people
	rnd     *rand.Rand
	users   []id.UserID // the first makes the rooms, and stays in them
	watcher id.UserID
	devices []string // the watcher's
	places  []*setting
	n       int
	sent    map[string][]int // messages to the watcher's devices
	keeps   bool             // nobody forgets rooms
}

// setting is a room in which things happen.
type setting struct {
	id     id.RoomID
	events []id.EventID
	// far is another server in it, by which it has forks.
	far *roomtest.Far
	// closed: who was not in the room does not see what happened.
	closed bool
}

// newHistory begins with a few rooms.
func newHistory(t *testing.T, seed uint64, devices ...string) *history {
	p := newPeople(t)
	h := &history{people: p, rnd: rand.New(rand.NewPCG(seed, 7)), sent: map[string][]int{}, devices: devices}
	h.watcher = p.user("bob", devices...)
	h.users = []id.UserID{p.user("alice", "A"), h.watcher, p.user("carol", "C"), p.user("dave", "D")}
	alice := h.users[0]
	var others []id.UserID // by whom rooms are named, so that not everybody who does something is a hero
	for i := range 5 {
		others = append(others, p.user(fmt.Sprint("other", i)))
	}
	for i, v := range []roomver.Version{"12", "11", "11"} {
		c := room.CreateRoom{Creator: roomtest.As(alice), Version: v, Preset: room.PresetPublic}
		s := &setting{closed: i == 1}
		if s.closed {
			c.InitialState = []room.StateEvent{{Type: "m.room.history_visibility", Content: []byte(`{"history_visibility":"joined"}`)}}
		}
		s.id = p.Create(c)
		p.Join(s.id, others...)
		if i == 2 {
			erin := id.UserID("@erin:" + roomtest.FarServer)
			s.far = roomtest.NewFar(p.World, s.id, v)
			s.far.Join(erin)
			p.State(s.id, alice, "m.room.power_levels", "", fmt.Sprintf(`{"users":{%q:100,%q:50}}`, alice, erin))
		}
		h.places = append(h.places, s)
	}
	return h
}

// restart has another master go on.
func (h *history) restart() {
	h.Restart()
	h.accounts = h.Accounts(account.Config{})
	h.front, _ = h.E2EE()
}

func (h *history) pick() *setting { return h.places[h.rnd.IntN(len(h.places))] }

// try has a command done that the rules may refuse.
func (h *history) try(s *setting, cmd room.Command) {
	a, err := h.Host.Do(h.Ctx(), nil, cmd)
	if err != nil && mxerr.From(err).HTTPStatus >= 500 {
		require.NoError(h.T, err)
	}
	if err == nil && a.Event != "" && !a.Unchanged {
		s.events = append(s.events, a.Event)
	}
}

func (h *history) account(cmd account.Command) {
	_, err := h.accounts.Do(h.Ctx(), cmd)
	require.NoError(h.T, err)
}

// deed does something.
func (h *history) deed() {
	h.n++
	rnd, s, alice := h.rnd, h.pick(), h.users[0]
	u := h.users[rnd.IntN(len(h.users))]
	if rnd.IntN(3) == 0 {
		u = h.watcher
	}
	some := func(list ...string) string { return list[rnd.IntN(len(list))] }
	switch rnd.IntN(26) {
	case 0, 1:
		h.try(s, &room.SetMembership{Room: s.id, By: roomtest.As(u), Target: u, Action: room.ActionJoin})
	case 2:
		if u != alice {
			h.try(s, &room.SetMembership{Room: s.id, By: roomtest.As(u), Target: u, Action: room.ActionLeave})
		}
	case 3:
		if u != alice {
			h.try(s, &room.SetMembership{Room: s.id, By: roomtest.As(alice), Target: u, Action: []room.Action{
				room.ActionKick, room.ActionBan, room.ActionUnban, room.ActionInvite,
			}[rnd.IntN(4)]})
		}
	case 4:
		h.try(s, &room.SetMembership{Room: s.id, By: roomtest.As(u), Target: u, Action: room.ActionKnock})
	case 5:
		h.try(s, &room.SendState{Room: s.id, By: roomtest.As(alice), Type: "m.room.join_rules", Content: fmt.Appendf(nil, `{"join_rule":%q}`, some("public", "public", "knock"))})
	case 6:
		h.try(s, &room.SendState{Room: s.id, By: roomtest.As(alice), Type: some("m.room.topic", "m.room.name"), Content: fmt.Appendf(nil, `{"name":"%d","topic":"%d"}`, h.n, h.n)})
	case 7:
		h.try(s, &room.SendState{Room: s.id, By: roomtest.As(alice), Type: "m.test", StateKey: some("", "a", "b"), Content: fmt.Appendf(nil, `{"n":%d}`, h.n)})
	case 8:
		h.try(s, &room.SetProfile{Room: s.id, User: u, Profile: room.Profile{DisplayName: fmt.Sprintf("%s the %dth", u.Localpart(), h.n)}})
	case 9:
		if len(s.events) > 0 {
			h.try(s, &room.Redact{Room: s.id, By: roomtest.As(alice), Target: s.events[rnd.IntN(len(s.events))]})
		}
	case 10, 11:
		if len(s.events) > 0 {
			h.try(s, &room.Receipt{
				Room: s.id, User: u, Kind: some(room.ReceiptRead, room.ReceiptRead, room.ReceiptReadPrivate), Thread: some("", "", "main"),
				Event: s.events[max(0, len(s.events)-1-rnd.IntN(5))],
			})
		}
	case 12:
		h.account(&account.SetAccountData{UserID: string(u), Type: some("m.a", "m.b"), Content: fmt.Appendf(nil, `{"n":%d}`, h.n)})
	case 13:
		h.account(&account.SetAccountData{UserID: string(u), RoomID: string(s.id), Type: some("m.a", "m.tag"), Content: fmt.Appendf(nil, `{"n":%d}`, h.n)})
	case 14:
		device := h.devices[rnd.IntN(len(h.devices))]
		to := []string{device}
		if rnd.IntN(3) == 0 {
			device, to = "*", h.devices
		}
		h.send(h.users[2], h.watcher, device, h.n)
		for _, d := range to {
			h.sent[d] = append(h.sent[d], h.n)
		}
	case 15:
		h.deviceDeed()
	case 20:
		h.account(&account.SetAccountData{UserID: string(u), Type: "m.direct", Content: fmt.Appendf(nil, `{%q:[%q]}`, alice, s.id)})
	case 21:
		h.account(&account.SetAccountData{UserID: string(u), RoomID: string(s.id), Type: "m.tag", Content: fmt.Appendf(nil, `{"tags":{%q:{}}}`, some("m.a", "m.b"))})
	case 16:
		h.newRoom()
	case 17:
		if h.keeps {
			return
		}
		_, err := h.Host.Do(h.Ctx(), nil, &room.Forget{Room: s.id, User: u})
		if err != nil && mxerr.From(err).HTTPStatus >= 500 {
			require.NoError(h.T, err)
		}
	case 18:
		h.farDeed()
	case 19:
		if len(s.events) > 0 {
			h.try(s, &room.Send{Room: s.id, By: roomtest.As(u), Type: "m.room.message", Content: roomtest.Relating("m.thread", s.events[rnd.IntN(len(s.events))], "thread")})
		}
	default:
		content := roomtest.Message(fmt.Sprint(h.n))
		if rnd.IntN(4) == 0 {
			content = fmt.Appendf(nil, `{"msgtype":"m.text","body":"you","m.mentions":{"user_ids":[%q]}}`, h.watcher)
		}
		h.try(s, &room.Send{Room: s.id, By: room.Origin{User: u, Device: "DEVICE", Txn: fmt.Sprint(h.n)}, Type: "m.room.message", Content: content})
	}
}

// move has somebody come into a room or go.
func (h *history) move(u id.UserID) {
	s := h.pick()
	for _, a := range []room.Action{room.ActionLeave, room.ActionJoin} {
		h.try(s, &room.SetMembership{Room: s.id, By: roomtest.As(u), Target: u, Action: a})
		if h.rnd.IntN(2) == 0 {
			return
		}
	}
}

// deviceDeed changes what devices somebody has, and what keys.
func (h *history) deviceDeed() {
	u := h.users[h.rnd.IntN(len(h.users))]
	device := fmt.Sprintf("X%d", h.rnd.IntN(3))
	switch h.rnd.IntN(3) {
	case 0:
		h.login(u, device)
	case 1:
		h.logout(u, device)
	default:
		h.login(u, device)
		_, err := h.front.UploadKeys(h.Ctx(), u, id.DeviceID(device), &e2ee.Upload{Device: fmt.Appendf(nil, `{"user_id":%q,"device_id":%q,"algorithms":["m.x%d"],
			"keys":{"ed25519:%s":"MCowBQYDK2VwAyEAxxxxxxxxxxxxxxxxxxxxxxxxxxx"},"signatures":{}}`, u, device, h.n, device)})
		if err != nil && mxerr.From(err).HTTPStatus >= 500 {
			require.NoError(h.T, err)
		}
	}
}

// newRoom has somebody make a room.
func (h *history) newRoom() {
	if len(h.places) >= 7 {
		return
	}
	c := room.CreateRoom{Creator: roomtest.As(h.users[0]), Preset: room.PresetPublic, Version: "11"}
	if h.rnd.IntN(2) == 0 {
		c.Invite = []room.Invitation{{User: h.watcher}, {User: h.users[2]}}
	}
	h.places = append(h.places, &setting{id: h.Create(c)})
}

// farDeed has the other server build on one of the latest events, perhaps not the last one.
func (h *history) farDeed() {
	s := h.places[2]
	all := h.latest(s)
	at := all[h.rnd.IntN(min(len(all), 4))]
	erin, key := id.UserID("@erin:"+roomtest.FarServer), ""
	switch h.rnd.IntN(3) {
	case 0:
		s.far.Send(s.far.Build([]roomdb.StoredEvent{at}, erin, "m.room.topic", &key, fmt.Sprintf(`{"topic":"far %d"}`, h.n)))
	case 1:
		s.far.Send(s.far.Build([]roomdb.StoredEvent{at}, erin, "m.test", &key, fmt.Sprintf(`{"n":%d}`, h.n)))
	default:
		s.far.Send(s.far.Build([]roomdb.StoredEvent{at}, erin, "m.room.message", nil, string(roomtest.Message("far"))))
	}
}

// latest reads a room's events, the last first.
func (h *history) latest(s *setting) []roomdb.StoredEvent {
	ref, _, err := h.Reader.Room(h.Ctx(), h.Shards.Of(string(s.id)), string(s.id))
	require.NoError(h.T, err)
	all, err := h.Reader.TimelineBackward(h.Ctx(), ref.Nid, roomdb.End, roomdb.Beginning, 1000)
	require.NoError(h.T, err)
	return all
}

// shown is what of a stored event matters here.
type storedShown struct {
	ID       string
	Ord      int64
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Sender   string          `json:"sender"`
	Content  json.RawMessage `json:"content"`
	Redacted bool
}

func (e *storedShown) own(u id.UserID) bool {
	return e.Type == "m.room.member" && e.StateKey != nil && *e.StateKey == string(u)
}

func (e *storedShown) membership() string {
	var c struct {
		Membership string `json:"membership"`
	}
	_ = json.Unmarshal(e.Content, &c)
	return c.Membership
}

// timeline gives a room's events, the first first.
func (h *history) timeline(s *setting) []*storedShown {
	rows := h.latest(s)
	out := make([]*storedShown, len(rows))
	for i := range rows {
		e := &storedShown{ID: rows[i].EventID, Ord: rows[i].Ord, Redacted: rows[i].RedactedBy != 0}
		require.NoError(h.T, json.Unmarshal(rows[i].JSON, e))
		out[len(rows)-1-i] = e
	}
	return out
}
