package eventauth_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

const (
	createID = "$createcreatecreatecreatecreatecreatecreatec:a"
	oldRoom  = "!room:a"
	message  = "\x00" // as a state key: not a state event
)

func roomOf(rules *roomver.Rules) id.RoomID {
	if rules.RoomIDIsHash {
		return id.RoomIDFromCreate(createID)
	}
	return oldRoom
}

// ev is an event of a test; its zero fields are filled in.
type ev struct {
	id, room, typ, sender string
	sk                    string
	content               string
	prev                  []string // default: one that is not the create event
	redacts               string
	signers               []string // default: every server
	hasRoomID             bool     // of a create event in room version 12
}

func reduce(t require.TestingT, rules *roomver.Rules, e ev) *eventauth.Reduced {
	if e.content == "" {
		e.content = "{}"
	}
	content, err := canonjson.Canonical([]byte(e.content), canonjson.Options{Mode: canonjson.Lax})
	require.NoError(t, err, e.content)
	f := eventauth.Fields{
		ID: id.EventID(e.id), RoomID: id.RoomID(e.room), Type: e.typ, Sender: id.UserID(e.sender), Content: content,
		Redacts: id.EventID(e.redacts), HasRoomID: e.typ != "m.room.create" || !rules.RoomIDIsHash || e.hasRoomID,
		SignedBy: func(s id.ServerName) bool {
			for _, x := range e.signers {
				if x == string(s) {
					return true
				}
			}
			return e.signers == nil
		},
	}
	if f.ID == "" {
		f.ID = id.EventID("$" + e.typ + "|" + e.sk + ":a")
	}
	if f.RoomID == "" {
		f.RoomID = roomOf(rules)
	}
	if e.sk != message {
		f.StateKey = &e.sk
	}
	if e.prev == nil && e.typ != "m.room.create" {
		e.prev = []string{"$latest:a"}
	}
	for _, p := range e.prev {
		f.PrevEvents = append(f.PrevEvents, id.EventID(p))
	}
	return eventauth.ReduceFields(rules, &f)
}

// room is the state of a test: @alice is the creator, @mod and @eq have 50, @bob and @far (of another server) nothing; @carol
// is invited, @dan banned, @eve has left, @kim knocks, @zed was never there.
type room struct {
	create string // members of content besides creator and version
	pl     string // content, "none" for no event; PL stands for the entry of the creator where it may have one
	jr     string // join rule, "" for no event
	more   []ev
}

const defaultPower = `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75}}`

func expand(rules *roomver.Rules, content string) string {
	if rules.PrivilegedCreators {
		return strings.ReplaceAll(content, "PL ", "")
	}
	return strings.ReplaceAll(content, "PL ", `"@alice:a":100,`)
}

func (r room) state(t require.TestingT, rules *roomver.Rules) map[eventauth.TypeKey]*eventauth.Reduced {
	state := map[eventauth.TypeKey]*eventauth.Reduced{}
	put := func(e ev) {
		if e.id == "" {
			e.id = "$state|" + e.typ + "|" + e.sk + ":a"
		}
		x := reduce(t, rules, e)
		state[eventauth.TypeKey{Type: x.Type, StateKey: x.StateKey}] = x
	}
	create := `"room_version":"` + string(rules.Version) + `"`
	if rules.Creator == roomver.CreatorInContent && !strings.Contains(r.create, "creator") {
		create += `,"creator":"@alice:a"`
	}
	if r.create != "" {
		create += "," + r.create
	}
	put(ev{id: createID, typ: "m.room.create", sender: "@alice:a", content: "{" + create + "}"})
	for user, membership := range map[string]string{
		"@alice:a": "join", "@mod:a": "join", "@eq:a": "join", "@bob:a": "join", "@far:b": "join",
		"@carol:a": "invite", "@dan:a": "ban", "@eve:a": "leave", "@kim:a": "knock",
	} {
		put(ev{typ: "m.room.member", sender: user, sk: user, content: `{"membership":"` + membership + `"}`})
	}
	if r.pl == "" {
		r.pl = defaultPower
	}
	if r.pl != "none" {
		put(ev{typ: "m.room.power_levels", sender: "@alice:a", content: expand(rules, r.pl)})
	}
	if r.jr != "" {
		put(ev{typ: "m.room.join_rules", sender: "@alice:a", content: `{"join_rule":"` + r.jr + `"}`})
	}
	for _, e := range r.more {
		if e.content == "gone" {
			delete(state, eventauth.TypeKey{Type: e.typ, StateKey: e.sk})
			continue
		}
		put(e)
	}
	return state
}

func lookup(state map[eventauth.TypeKey]*eventauth.Reduced) func(eventauth.TypeKey) *eventauth.Reduced {
	return func(k eventauth.TypeKey) *eventauth.Reduced { return state[k] }
}

// Third-party invitations: the identity server's key and what it signs.
var idKey = ed25519.NewKeyFromSeed([]byte("identity server key of the tests"))

func b64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

func idPublic() string { return b64(idKey.Public().(ed25519.PublicKey)) }

func signedPart(mxid, token string) string {
	body := `{"mxid":"` + mxid + `","token":"` + token + `"`
	sig := b64(ed25519.Sign(idKey, []byte(body+"}")))
	return body + `,"signatures":{"id.example":{"ed25519:0":"` + sig + `"}}}`
}
