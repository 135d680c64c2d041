package eventauth_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// The forms of power levels, by the specification's sections on them: refused, or the value.
func TestLevelForms(t *testing.T) {
	const no, top = math.MinInt64 + 1, math.MaxInt64 - 1
	for _, c := range []struct {
		text              string
		lax, stringy, int eventauth.Level // versions 1 to 5, 6 to 9, 10 and later
	}{
		{`100`, 100, 100, 100},
		{`-100`, -100, -100, -100},
		{`9007199254740991`, 9007199254740991, 9007199254740991, 9007199254740991},
		{`"100"`, 100, 100, no},
		{`"000100"`, 100, 100, no},
		{`"+100"`, 100, 100, no},
		{`"-100"`, -100, -100, no},
		{`" 100 "`, 100, 100, no},
		{`" 00100 "`, 100, 100, no},
		{`"\t +100 \n"`, 100, 100, no},
		{`""`, no, no, no},
		{`"+"`, no, no, no},
		{`"+-1"`, no, no, no},
		{`"1 0"`, no, no, no},
		{`"1_000"`, no, no, no},
		{`"1.0"`, no, no, no},
		{`"1e2"`, no, no, no},
		{`"0x10"`, no, no, no},
		{`"١"`, no, no, no},
		{`51146.98`, 51146, no, no},
		{`5.114698E4`, 51146, no, no},
		{`50.57`, 50, no, no},
		{`-50.57`, -50, no, no},
		{`-0.9`, 0, no, no},
		{`1e2`, 100, no, no},
		{`1e-400`, 0, no, no},
		{`1e308`, top, no, no},
		{`-1e308`, math.MinInt64, no, no},
		{`1e309`, no, no, no},
		{`-1e309`, no, no, no},
		{`9223372036854775807`, top, top, top}, // never in canonical JSON from version 6 on
		{`99999999999999999999999`, top, no, no},
		{`"99999999999999999999999"`, top, top, no},
		{`"-99999999999999999999999"`, math.MinInt64, math.MinInt64, no},
		{`true`, no, no, no},
		{`null`, no, no, no},
		{`[]`, no, no, no},
		{`{}`, no, no, no},
	} {
		for _, rules := range roomver.All() {
			want := c.int
			switch rules.PowerLevels {
			case roomver.PowerLax:
				want = c.lax
			case roomver.PowerIntOrString:
				want = c.stringy
			default:
			}
			r := room{pl: "none"}
			e := reduce(t, rules, power("@alice:a", `{"users":{"@bob:a":`+c.text+`}}`))
			st, _ := eventauth.Select(rules, e, lookup(r.state(t, rules)))
			err := eventauth.Check(rules, e, &st)
			if want == no {
				require.Error(t, err, "%s in version %s", c.text, rules.Version)
				continue
			}
			require.NoError(t, err, "%s in version %s", c.text, rules.Version)
			require.Equal(t, want, eventauth.PowerOf(nil, e.PowerLevels(), "@bob:a"), "%s in version %s", c.text, rules.Version)
		}
	}
}

// What no rule reads is there for push rules, in every version.
func TestNotificationLevel(t *testing.T) {
	for _, rules := range roomver.All() {
		e := reduce(t, rules, power("@alice:a", `{"notifications":{"room":20}}`))
		st := eventauth.AuthState{Power: e.PowerLevels()}
		require.Equal(t, eventauth.Level(20), st.NotificationLevel("room"))
		require.Equal(t, eventauth.Level(50), st.NotificationLevel("other"))
		require.Equal(t, eventauth.Level(50), (&eventauth.AuthState{}).NotificationLevel("room"))
	}
}

// Users whose level is beyond int64 do not become creators, and cannot act on one another.
func TestAbsurdLevels(t *testing.T) {
	r := room{pl: `{"users":{"@mod:a":1e300,"@eq:a":1e301,"@bob:a":9223372036854775807}}`}
	for _, rules := range roomver.All() {
		if rules.PowerLevels != roomver.PowerLax {
			continue
		}
		for _, target := range []string{"@mod:a", "@bob:a"} {
			e := reduce(t, rules, member("@eq:a", target, "ban"))
			st, _ := eventauth.Select(rules, e, lookup(r.state(t, rules)))
			require.Less(t, st.PowerOf("@eq:a"), eventauth.Infinite)
			requireRule(t, "5.5.3", eventauth.Check(rules, e, &st), "ban %s", target)
		}
		e := reduce(t, rules, power("@eq:a", `{"users":{"@mod:a":1,"@eq:a":1e301,"@bob:a":1}}`))
		st, _ := eventauth.Select(rules, e, lookup(r.state(t, rules)))
		requireRule(t, "10.6.1", eventauth.Check(rules, e, &st), "lower an equal")
	}
}

// What the helpers say a user can do is what the rules allow.
func TestHelpersAgreeWithRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SampledFrom(roomver.All()).Draw(t, "rules")
		level := rapid.IntRange(-1, 101)
		levels := map[string]any{"users": map[string]int{
			"@mod:a": level.Draw(t, "mod"), "@eq:a": level.Draw(t, "eq"), "@bob:a": level.Draw(t, "bob"),
		}}
		for _, k := range []string{"ban", "kick", "invite", "redact", "state_default", "events_default", "users_default"} {
			if rapid.Bool().Draw(t, k+" given") {
				levels[k] = level.Draw(t, k)
			}
		}
		content, err := json.Marshal(levels)
		if err != nil {
			t.Fatal(err)
		}
		state := room{pl: string(content)}.state(t, rules)
		user := rapid.SampledFrom([]string{"@mod:a", "@eq:a", "@bob:a", "@alice:a"}).Draw(t, "user")
		target := rapid.SampledFrom([]string{"@mod:a", "@eq:a", "@bob:a", "@alice:a"}).Filter(func(s string) bool { return s != user }).Draw(t, "target")
		allowed := func(e ev) (bool, *eventauth.AuthState) {
			x := reduce(t, rules, e)
			st, _ := eventauth.Select(rules, x, lookup(state))
			return eventauth.Decide(rules, x, &st) == eventauth.Allowed, &st
		}
		u, v := id.UserID(user), id.UserID(target)
		for _, c := range []struct {
			ev  ev
			can func(*eventauth.AuthState) bool
		}{
			{member(user, target, "leave"), func(s *eventauth.AuthState) bool { return s.CanKick(u, v) }},
			{member(user, target, "ban"), func(s *eventauth.AuthState) bool { return s.CanBan(u, v) }},
			{member(user, "@zed:a", "invite"), func(s *eventauth.AuthState) bool { return s.CanInvite(u) }},
			{msg(user, "m.x"), func(s *eventauth.AuthState) bool { return s.CanSend(u, "m.x", false) }},
			{state2(user), func(s *eventauth.AuthState) bool { return s.CanSend(u, "m.x", true) }},
		} {
			ok, st := allowed(c.ev)
			require.Equal(t, ok, c.can(st), "%s %s %s", c.ev.typ, c.ev.sender, c.ev.content)
		}
	})
}

func state2(user string) ev { return state(user, "m.x", "") }

// A change of power levels never lets its sender, or anybody it raises, do more than the sender could.
func TestPowerNeverGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SampledFrom(roomver.All()).Draw(t, "rules")
		gen := func(name string) string {
			users := map[string]int{}
			for _, u := range []string{"@mod:a", "@eq:a", "@bob:a", "@far:b"} {
				if rapid.Bool().Draw(t, name+u) {
					users[u] = rapid.SampledFrom([]int{0, 49, 50, 51, 100}).Draw(t, name+u)
				}
			}
			out := map[string]any{"users": users}
			for _, k := range []string{"ban", "state_default"} {
				if rapid.Bool().Draw(t, name+k) {
					out[k] = rapid.SampledFrom([]int{0, 50, 51}).Draw(t, name+k)
				}
			}
			b, _ := json.Marshal(out)
			return string(b)
		}
		r := room{pl: gen("now")}
		e := reduce(t, rules, power("@mod:a", gen("next")))
		st, _ := eventauth.Select(rules, e, lookup(r.state(t, rules)))
		if eventauth.Decide(rules, e, &st) != eventauth.Allowed {
			return
		}
		mine := st.PowerOf("@mod:a")
		for _, u := range []id.UserID{"@mod:a", "@eq:a", "@bob:a", "@far:b"} {
			before, ok := st.Power.Users.Get(string(u))
			after, still := e.PowerLevels().Users.Get(string(u))
			if ok == still && before == after {
				continue
			}
			if still {
				require.LessOrEqual(t, after, mine)
			}
			if ok && u != "@mod:a" {
				require.Less(t, before, mine)
			}
		}
	})
}

// Reduce and ReduceProto see the same event alike.
func TestReduceParsedAndProto(t *testing.T) {
	key, err := signing.NewKey("ed25519:1", make([]byte, 32))
	require.NoError(t, err)
	for _, rules := range roomver.All() {
		bob := "@bob:a"
		p := event.Proto{
			RoomID: "!0123456789012345678901234567890123456789012", Type: "m.room.member", StateKey: &bob, Sender: "@bob:a",
			Content:    []byte(`{"membership":"join","join_authorised_via_users_server":"@mod:a"}`),
			PrevEvents: []id.EventID{"$x:a"}, OriginServerTS: 1, Depth: 2,
		}
		if !rules.RoomIDIsHash {
			p.RoomID = "!room:a"
			p.AuthEvents = []id.EventID{"$y:a"}
		}
		if rules.EventIDs == roomver.EventIDGiven {
			p.EventID = "$self:a"
		}
		if rules.LinksWithHashes {
			p.LinkHashes = map[id.EventID]event.Hash{"$x:a": {}, "$y:a": {}}
		}
		e, err := event.Build(rules, &p, "a", key)
		require.NoError(t, err)
		got := eventauth.Reduce(e)
		require.Equal(t, e.EventID(), got.ID)
		p.EventID = e.EventID()
		want, err := eventauth.ReduceProto(rules, &p)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// Allowing costs no allocation, and neither does refusing without an error.
func TestNoAllocations(t *testing.T) {
	for _, rules := range roomver.All() {
		for _, c := range ruleCases {
			if strings.HasPrefix(c.name, "3pid") {
				continue // ed25519 allocates
			}
			c.ev.content = expand(rules, c.ev.content)
			e := reduce(t, rules, c.ev)
			st, _ := eventauth.Select(rules, e, lookup(c.room.state(t, rules)))
			require.Zero(t, testing.AllocsPerRun(3, func() { eventauth.Decide(rules, e, &st) }), c.name)
		}
	}
}

// A room with hundreds of creators and users is decided about in time that is not their product.
func TestManyCreators(t *testing.T) {
	var creators, users []string
	for i := range 1500 {
		creators = append(creators, fmt.Sprintf(`"@c%d:a"`, i))
		users = append(users, fmt.Sprintf(`"@u%d:a":1`, i))
	}
	rules := roomver.MustGet(roomver.V12)
	r := room{create: `"additional_creators":[` + strings.Join(creators, ",") + `]`}
	e := reduce(t, rules, power("@alice:a", `{"users":{`+strings.Join(users, ",")+`}}`))
	st, _ := eventauth.Select(rules, e, lookup(r.state(t, rules)))
	require.NoError(t, eventauth.Check(rules, e, &st))
	require.True(t, st.Create.IsCreator("@c1499:a"))
	require.False(t, st.Create.IsCreator("@c1500:a"))
}

func benchmark(b *testing.B, r room, x ev) {
	for _, v := range []roomver.Version{roomver.V6, roomver.V12} {
		b.Run("v"+string(v), func(b *testing.B) {
			rules := roomver.MustGet(v)
			e := reduce(b, rules, x)
			st, _ := eventauth.Select(rules, e, lookup(r.state(b, rules)))
			require.NoError(b, eventauth.Check(rules, e, &st))
			b.ReportAllocs()
			for b.Loop() {
				if eventauth.Decide(rules, e, &st) != eventauth.Allowed {
					b.Fatal("refused")
				}
			}
		})
	}
}

func manyUsers(n int) room {
	var users []string
	for i := range n {
		users = append(users, fmt.Sprintf(`"@user%04d:server.example":50`, i))
	}
	return room{pl: `{"users":{` + strings.Join(users, ",") + `},"events":{"m.room.name":50,"m.room.avatar":50,"m.room.topic":50,"m.room.encryption":100}}`}
}

func BenchmarkMessage(b *testing.B) { benchmark(b, manyUsers(10), msg("@bob:a", "m.room.message")) }

func BenchmarkMessage1000PowerUsers(b *testing.B) {
	benchmark(b, manyUsers(1000), msg("@bob:a", "m.room.message"))
}

// BenchmarkSelectMessage fills in the state from a lookup and decides, as a room does for an event of its own.
func BenchmarkSelectMessage(b *testing.B) {
	rules := roomver.MustGet(roomver.V12)
	state := manyUsers(10).state(b, rules)
	e := reduce(b, rules, msg("@bob:a", "m.room.message"))
	b.ReportAllocs()
	for b.Loop() {
		st, _ := eventauth.Select(rules, e, lookup(state))
		if eventauth.Decide(rules, e, &st) != eventauth.Allowed {
			b.Fatal("refused")
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	benchmark(b, room{jr: "public"}, member("@zed:a", "@zed:a", "join"))
}

func BenchmarkKick(b *testing.B) { benchmark(b, room{}, member("@mod:a", "@bob:a", "leave")) }

func BenchmarkReduceMember(b *testing.B) {
	key, err := signing.NewKey("ed25519:1", make([]byte, 32))
	require.NoError(b, err)
	bob := "@bob:server.example"
	e, err := event.Build(roomver.MustGet(roomver.V11), &event.Proto{
		RoomID: "!room:server.example", Type: "m.room.member", StateKey: &bob, Sender: id.UserID(bob),
		Content:    []byte(`{"membership":"join","displayname":"Bob","avatar_url":"mxc://server.example/abcdefghijkl"}`),
		PrevEvents: []id.EventID{"$x"}, AuthEvents: []id.EventID{"$y", "$z"}, OriginServerTS: 1, Depth: 2,
	}, "server.example", key)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		eventauth.Reduce(e)
	}
}
