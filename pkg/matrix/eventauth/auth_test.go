package eventauth_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// The rules on an event's own auth_events. auth names state entries: "create", "pl", "jr", a user, or with a prefix "rejected "
// or "elsewhere ". The create event of version 12 is given beside, unless create says otherwise.
type authCase struct {
	name, want string
	ev         ev
	auth       []string
	create     string // "", "none", "rejected", "elsewhere"
}

const (
	authOK     = "ok ok ok ok ok ok ok ok"
	duplicate  = "2.1 2.1 2.1 2.1 2.1 2.1 2.1 3.1"
	unselected = "2.2 2.2 2.2 2.2 2.2 2.2 2.2 3.2"
	rejected   = "2.3 2.3 2.3 2.3 2.3 2.3 2.3 3.3"
	noCreate   = "2.4 2.4 2.4 2.4 2.4 2.4 2.4 ok"
	otherRoom  = "2.5 2.5 2.5 2.5 2.5 2.5 2.5 3.4"
	roomID     = "ok ok ok ok ok ok ok 2"
)

var authCases = []authCase{
	{"message", authOK, msg("@bob:a", "m.room.message"), []string{"create", "pl", "@bob:a"}, ""},
	{"message with less", authOK, msg("@bob:a", "m.room.message"), []string{"create"}, ""},
	{"two of the same", duplicate, msg("@bob:a", "m.room.message"), []string{"create", "pl", "pl", "@bob:a"}, ""},
	{"two with the same key", duplicate, msg("@bob:a", "m.room.message"), []string{"create", "@bob:a", "again @bob:a"}, ""},
	{"join rules for a message", unselected, msg("@bob:a", "m.room.message"), []string{"create", "pl", "jr", "@bob:a"}, ""},
	{"another member for a message", unselected, msg("@bob:a", "m.room.message"), []string{"create", "pl", "@mod:a", "@bob:a"}, ""},
	{"another type", unselected, msg("@bob:a", "m.room.message"), []string{"create", "topic"}, ""},
	{"create in version 12", "ok ok ok ok ok ok ok 3.2", msg("@bob:a", "m.room.message"), []string{"CREATE"}, ""},
	{"rejected auth event", rejected, msg("@bob:a", "m.room.message"), []string{"create", "rejected pl"}, ""},
	{"event that cites itself", rejected, func() ev { e := member("@bob:a", "@bob:a", "join"); e.id = "$self:a"; return e }(), []string{"create", "self"}, ""},
	{"no create", noCreate, msg("@bob:a", "m.room.message"), []string{"pl", "@bob:a"}, ""},
	{"no auth events", noCreate, msg("@bob:a", "m.room.message"), nil, ""},
	{"auth event of another room", otherRoom, msg("@bob:a", "m.room.message"), []string{"create", "elsewhere pl"}, ""},
	{"no create event by that room id", roomID, msg("@bob:a", "m.room.message"), []string{"create", "pl"}, "none"},
	{"rejected create event", roomID, msg("@bob:a", "m.room.message"), []string{"create", "pl"}, "rejected"},
	{"create event of another room", roomID, msg("@bob:a", "m.room.message"), []string{"create", "pl"}, "elsewhere"},
	{"join", authOK, member("@zed:a", "@zed:a", "join"), []string{"create", "pl", "jr"}, ""},
	{"invite", authOK, member("@bob:a", "@carol:a", "invite"), []string{"create", "pl", "jr", "@bob:a", "@carol:a"}, ""},
	{"knock", authOK, member("@kim:a", "@kim:a", "knock"), []string{"create", "pl", "jr", "@kim:a"}, ""},
	{"leave does not read join rules", unselected, member("@bob:a", "@bob:a", "leave"), []string{"create", "pl", "jr", "@bob:a"}, ""},
	{"ban does not read join rules", unselected, member("@mod:a", "@bob:a", "ban"), []string{"create", "pl", "jr", "@mod:a"}, ""},
	{"third-party invitation", authOK, invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "tok")+`}`), []string{"create", "pl", "@bob:a", "tok"}, ""},
	{"third-party invitation by another token", unselected, invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "nok")+`}`), []string{"create", "pl", "@bob:a", "tok"}, ""},
	{"authoriser", "2.2 2.2 2.2 2.2 ok ok ok ok", via("@zed:a", `"@mod:a"`), []string{"create", "pl", "jr", "@mod:a"}, ""},
	{"authoriser of an invite", unselected, func() ev {
		e := via("@bob:a", `"@mod:a"`)
		e.sk, e.content = "@zed:a", strings.Replace(e.content, "join", "invite", 1)
		return e
	}(), []string{"create", "pl", "jr", "@bob:a", "@mod:a"}, ""},
}

func allAuthCases() []authCase { return append(authSituations(), authCases...) }

func TestAuthEvents(t *testing.T) {
	for _, c := range allAuthCases() {
		wants := strings.Fields(c.want)
		for i, versions := range columns {
			for _, v := range versions {
				rules := roomver.MustGet(v)
				r := withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`)
				r.jr = "public"
				state := r.state(t, rules)
				e := reduce(t, rules, c.ev)
				var list []eventauth.AuthEvent
				for _, name := range c.auth {
					if name == "create" && rules.RoomIDIsHash {
						continue
					}
					list = append(list, authEvent(t, rules, state, e, name))
				}
				create := eventauth.AuthEvent{Event: state[eventauth.TypeKey{Type: "m.room.create"}]}
				switch c.create {
				case "none":
					create.Event = nil
				case "rejected":
					create.Rejected = true
				case "elsewhere":
					create.Event = reduce(t, rules, ev{id: "$anothercreate", typ: "m.room.create", sender: "@alice:a"})
				}
				_, err := eventauth.CheckAuthEvents(rules, e, list, create)
				requireRule(t, wants[i], err, "%s in version %s", c.name, v)
			}
		}
	}
}

func authEvent(
	t require.TestingT, rules *roomver.Rules, state map[eventauth.TypeKey]*eventauth.Reduced, e *eventauth.Reduced, name string,
) eventauth.AuthEvent {
	if rest, ok := strings.CutPrefix(name, "rejected "); ok {
		a := authEvent(t, rules, state, e, rest)
		a.Rejected = true
		return a
	}
	if rest, ok := strings.CutPrefix(name, "elsewhere "); ok {
		return elsewhere(authEvent(t, rules, state, e, rest))
	}
	var key eventauth.TypeKey
	switch name {
	case "self":
		return eventauth.AuthEvent{Event: e}
	case "again @bob:a":
		x := member("@bob:a", "@bob:a", "leave")
		x.id = "$again:a"
		return eventauth.AuthEvent{Event: reduce(t, rules, x)}
	case "topic":
		return eventauth.AuthEvent{Event: reduce(t, rules, ev{typ: "m.room.topic", sender: "@alice:a"})}
	case "create", "CREATE":
		key.Type = "m.room.create"
	case "pl":
		key.Type = "m.room.power_levels"
	case "jr":
		key.Type = "m.room.join_rules"
	case "tok":
		key = eventauth.TypeKey{Type: "m.room.third_party_invite", StateKey: "tok"}
	default:
		key = eventauth.TypeKey{Type: "m.room.member", StateKey: name}
	}
	require.NotNil(t, state[key], name)
	return eventauth.AuthEvent{Event: state[key]}
}

func TestSelection(t *testing.T) {
	for _, c := range []struct {
		name string
		ev   ev
		want string // without the create event
		from int    // the first column in which the extra entry is selected
		also string
	}{
		{"create", create(`{}`), "", 0, ""},
		{"message", msg("@bob:a", "m.room.message"), "m.room.power_levels| m.room.member|@bob:a", 0, ""},
		{"join", member("@bob:a", "@bob:a", "join"), "m.room.power_levels| m.room.member|@bob:a m.room.join_rules|", 0, ""},
		{"invite", member("@bob:a", "@zed:a", "invite"), "m.room.power_levels| m.room.member|@bob:a m.room.member|@zed:a m.room.join_rules|", 0, ""},
		{"knock", member("@zed:a", "@zed:a", "knock"), "m.room.power_levels| m.room.member|@zed:a m.room.join_rules|", 0, ""},
		{"kick", member("@mod:a", "@bob:a", "leave"), "m.room.power_levels| m.room.member|@mod:a m.room.member|@bob:a", 0, ""},
		{"ban", member("@mod:a", "@bob:a", "ban"), "m.room.power_levels| m.room.member|@mod:a m.room.member|@bob:a", 0, ""},
		{"3pid", invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "t")+`}`), "m.room.power_levels| m.room.member|@bob:a m.room.member|@zed:a m.room.join_rules| m.room.third_party_invite|t", 0, ""},
		{"restricted", via("@zed:a", `"@mod:a"`), "m.room.power_levels| m.room.member|@zed:a m.room.join_rules|", 4, " m.room.member|@mod:a"},
		{"authorised by oneself", via("@zed:a", `"@zed:a"`), "m.room.power_levels| m.room.member|@zed:a m.room.join_rules|", 0, ""},
	} {
		for i, versions := range columns {
			for _, v := range versions {
				rules := roomver.MustGet(v)
				var got []string
				types := eventauth.AuthTypes(rules, reduce(t, rules, c.ev), nil)
				require.LessOrEqual(t, len(types), eventauth.MaxAuthEvents)
				for _, k := range types {
					got = append(got, k.Type+"|"+k.StateKey)
				}
				want := c.want
				if i >= c.from {
					want += c.also
				}
				wantList := strings.Fields(want)
				if want != "" && !rules.RoomIDIsHash {
					wantList = append([]string{"m.room.create|"}, wantList...)
				}
				require.Equal(t, wantList, append([]string{}, got...), "%s in version %s", c.name, v)
				types = eventauth.StateTypes(rules, reduce(t, rules, c.ev), nil)
				require.Equal(t, want != "", slices.Contains(types, eventauth.TypeKey{Type: "m.room.create"}))
			}
		}
	}
}

// However many auth events an event names, deciding about them stays short, and more than can be selected are never accepted.
func TestOversizedAuthEvents(t *testing.T) {
	for _, rules := range roomver.All() {
		state := room{}.state(t, rules)
		e := reduce(t, rules, msg("@bob:a", "m.room.message"))
		for _, n := range []int{9, 11, 100_000} {
			var list []eventauth.AuthEvent
			for range n {
				list = append(list, eventauth.AuthEvent{Event: state[eventauth.TypeKey{Type: "m.room.power_levels"}]})
			}
			create := eventauth.AuthEvent{Event: state[eventauth.TypeKey{Type: "m.room.create"}]}
			_, err := eventauth.CheckAuthEvents(rules, e, list, create)
			require.Error(t, err)
			_, err = eventauth.CheckAuthEvents(rules, e, make([]eventauth.AuthEvent, n), create) // unknown events
			require.Error(t, err)
		}
	}
}

// A third-party invitation with hundreds of keys and signatures costs a bounded number of verifications.
func TestOversizedThirdPartyInvite(t *testing.T) {
	var keys, sigs []string
	for i := range 700 {
		k := make([]byte, 32)
		k[0], k[1] = byte(i), byte(i>>8)
		keys = append(keys, `{"public_key":"`+b64(k)+`"}`)
		sigs = append(sigs, fmt.Sprintf(`"ed25519:%d":"%s"`, i, b64(make([]byte, 64))))
	}
	rules := roomver.MustGet(roomver.V11)
	r := withThirdParty("@bob:a", `{"public_keys":[`+strings.Join(keys, ",")+`]}`)
	e := reduce(t, rules, invite3("@zed:a", `{"signed":{"mxid":"@zed:a","token":"tok","signatures":{"x":{`+strings.Join(sigs, ",")+`}}}}`))
	st, _ := eventauth.Select(rules, e, lookup(r.state(t, rules)))
	calls := 0
	st.VerifyThirdParty = func(invite *eventauth.Reduced, with *eventauth.ThirdPartyInvite) bool {
		calls++
		require.LessOrEqual(t, eventauth.ThirdPartyWork(invite, with), 32)
		return eventauth.VerifyThirdParty(invite, with)
	}
	requireRule(t, "4.4.1.8", eventauth.Check(rules, e, &st), "too many keys")
	require.Equal(t, 1, calls)
}
