package stateres

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// world is a room of a test: a store of its events, and the numbers of its types and keys.
type world struct {
	t       require.TestingT
	rules   *roomver.Rules
	room    id.RoomID
	entries map[int64]Entry
	types   map[string]int64
	keys    map[string]int64
	next    int64
	clock   int64
	loads   int // calls of Load
	chains  bool
}

const worldCreate = "$0000000000000000000000000000000000000000000"

func newWorld(t require.TestingT, v roomver.Version) *world {
	w := &world{
		t: t, rules: roomver.MustGet(v), room: "!room:a",
		entries: map[int64]Entry{}, types: map[string]int64{}, keys: map[string]int64{}, next: 1000, clock: 1,
	}
	if w.rules.RoomIDIsHash {
		w.room = id.RoomIDFromCreate(worldCreate)
	}
	return w
}

// Load implements Source; with chains it returns the whole auth chain, as one recursive query would.
func (w *world) Load(nids []int64) ([]Entry, error) {
	w.loads++
	var out []Entry
	seen := map[int64]bool{}
	for len(nids) > 0 {
		n := nids[len(nids)-1]
		nids = nids[:len(nids)-1]
		if e, ok := w.entries[n]; ok && !seen[n] {
			seen[n] = true
			out = append(out, e)
			if w.chains {
				nids = append(nids, e.Auth...)
			}
		}
	}
	return out, nil
}

func number(m map[string]int64, s string) int64 {
	if m[s] == 0 {
		m[s] = int64(len(m) + 1)
	}
	return m[s]
}

func (w *world) key(typ, key string) Key {
	return Key{number(w.types, typ), number(w.keys, key)}
}

type spec struct {
	typ, sender, key, content string
	prev                      []id.EventID
	at                        int64 // origin_server_ts, 0 for the next
	id                        id.EventID
	room                      id.RoomID
	auth                      []int64 // in place of what the selection picks
	rejected                  bool
	message                   bool
}

func (w *world) lookup(s State) func(eventauth.TypeKey) *eventauth.Reduced {
	return func(k eventauth.TypeKey) *eventauth.Reduced {
		if n, ok := s.Get(w.key(k.Type, k.StateKey)); ok {
			return w.entries[n].Event
		}
		return nil
	}
}

// event makes an event on a state, whether it is allowed there or not, and says whether it is.
func (w *world) event(s State, x spec) (nid int64, allowed bool) {
	if x.content == "" {
		x.content = "{}"
	}
	content, err := canonjson.Canonical([]byte(x.content), canonjson.Options{Mode: canonjson.Lax})
	require.NoError(w.t, err)
	w.next++
	w.clock++
	nid = w.next
	f := eventauth.Fields{
		ID: x.id, RoomID: x.room, Type: x.typ, Sender: id.UserID(x.sender), Content: content, PrevEvents: x.prev,
		HasRoomID: x.typ != "m.room.create" || !w.rules.RoomIDIsHash,
	}
	if !x.message {
		f.StateKey = &x.key
	}
	if f.ID == "" {
		f.ID = id.EventID(fmt.Sprintf("$%05d:a", nid*7919%100_000)) // in no order
	}
	if f.RoomID == "" {
		f.RoomID = w.room
	}
	if x.prev == nil && x.typ != "m.room.create" {
		f.PrevEvents = []id.EventID{"$something"}
	}
	e := eventauth.ReduceFields(w.rules, &f)
	st, auth := eventauth.Select(w.rules, e, w.lookup(s))
	entry := Entry{NID: nid, Key: w.key(x.typ, x.key), Event: e, Time: x.at, Depth: nid, Rejected: x.rejected}
	if entry.Time == 0 {
		entry.Time = w.clock
	}
	for _, a := range auth {
		n, _ := s.Get(w.key(a.Type, a.StateKey))
		entry.Auth = append(entry.Auth, n)
	}
	if x.auth != nil {
		entry.Auth = x.auth
	}
	w.entries[nid] = entry
	return nid, eventauth.Decide(w.rules, e, &st) == eventauth.Allowed
}

// send makes an event that must be allowed and returns the state after it.
func (w *world) send(s State, x spec) State {
	nid, ok := w.event(s, x)
	require.True(w.t, ok, "%+v", x)
	return s.Set(w.key(x.typ, x.key), nid)
}

func (w *world) join(s State, user string) State {
	return w.send(s, spec{typ: "m.room.member", sender: user, key: user, content: `{"membership":"join"}`})
}

func (w *world) membership(s State, sender, user, membership string) State {
	return w.send(s, spec{typ: "m.room.member", sender: sender, key: user, content: `{"membership":"` + membership + `"}`})
}

func (w *world) power(s State, sender, content string) State {
	if !w.rules.PrivilegedCreators {
		content = `"@alice:a":100` + map[bool]string{true: ",", false: ""}[content != ""] + content
	}
	return w.send(s, spec{typ: "m.room.power_levels", sender: sender, content: `{"users":{` + content + `}}`})
}

func (w *world) joinRule(s State, sender, rule string) State {
	return w.send(s, spec{typ: "m.room.join_rules", sender: sender, content: `{"join_rule":"` + rule + `"}`})
}

func (w *world) topic(s State, sender string) State {
	return w.send(s, spec{typ: "m.room.topic", sender: sender})
}

// found makes a public room of @alice:a, in which @bob:a has power 50.
func (w *world) found() State {
	content := `{"room_version":"` + string(w.rules.Version) + `","creator":"@alice:a"}`
	s := w.send(State{}, spec{typ: "m.room.create", sender: "@alice:a", content: content, id: worldCreate})
	s = w.send(s, spec{typ: "m.room.member", sender: "@alice:a", key: "@alice:a", content: `{"membership":"join"}`, prev: []id.EventID{worldCreate}})
	s = w.power(s, "@alice:a", `"@bob:a":50`)
	s = w.joinRule(s, "@alice:a", "public")
	return w.join(s, "@bob:a")
}

func (w *world) graph() *Graph { return NewGraph(w.rules, w.room, 0) }

func (w *world) resolve(states ...State) Result {
	r, err := w.graph().Resolve(w, states)
	require.NoError(w.t, err)
	return r
}

func (w *world) at(s State, typ, key string) int64 {
	n, _ := s.Get(w.key(typ, key))
	return n
}

func (w *world) memberOf(s State, user string) eventauth.Membership {
	n := w.at(s, "m.room.member", user)
	if n == 0 {
		return eventauth.MembershipNone
	}
	return w.entries[n].Event.Membership
}

func same(a, b State) bool {
	equal := true
	Diff(a, b, func(Key, int64, int64) { equal = false })
	return equal
}
