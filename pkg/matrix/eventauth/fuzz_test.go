package eventauth_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Whatever events hold: no panic, a decision that does not change, a refusal that has a number in the version's text, and
// nothing allowed to somebody outside of the room but what the rules name.
func FuzzDecide(f *testing.F) {
	add := func(version uint8, typ, sender, key string, content, pl, jr, create, tpi string) {
		f.Add(version, typ, sender, key, true, []byte(content), []byte(pl), []byte(jr), []byte(create), []byte(tpi))
	}
	for _, c := range ruleCases {
		for i := range roomver.All() {
			if i%4 == 0 {
				add(uint8(i), c.ev.typ, c.ev.sender, c.ev.sk, c.ev.content, defaultPower, `{"join_rule":"public"}`, `{"creator":"@alice:a"}`, `{"public_key":"`+idPublic()+`"}`)
			}
		}
	}
	add(0, "m.room.power_levels", "@alice:a", "", `{"users":{"@a:a":1e308,"@b:b":99999999999999999999,"@c:c":"-99999999999999999999"}}`, `{"users":{"@alice:a":-1e400}}`, `[]`, `{"creator":[]}`, `{}`)
	add(11, "m.room.power_levels", "@alice:a", "", `{"users":null,"users":{},"events":1}`, `{"users":9223372036854775807}`, `{"join_rule":{}}`, `{"additional_creators":[[],"@"]}`, `null`)
	f.Fuzz(func(t *testing.T, version uint8, typ, sender, key string, isState bool, content, pl, jr, create, tpi []byte) {
		all := roomver.All()
		rules := all[int(version)%len(all)]
		build := func(typ, sender, key string, isState bool, content []byte) *eventauth.Reduced {
			canonical, err := canonjson.Canonical(content, canonjson.Options{Mode: canonjson.Lax})
			if err != nil {
				canonical = []byte("{}")
			}
			fields := eventauth.Fields{
				ID: id.EventID("$" + typ + key), RoomID: roomOf(rules), Type: typ, Sender: id.UserID(sender), Content: canonical,
				PrevEvents: []id.EventID{createID}, SignedBy: func(s id.ServerName) bool { return s == "a" },
			}
			if typ == event.TypeCreate {
				fields.ID, fields.PrevEvents = createID, nil
			}
			if isState {
				fields.StateKey = &key
			}
			return eventauth.ReduceFields(rules, &fields)
		}
		e := build(typ, sender, key, isState, content)
		state := map[eventauth.TypeKey]*eventauth.Reduced{}
		for _, s := range []*eventauth.Reduced{
			build(event.TypeCreate, "@alice:a", "", true, create),
			build(event.TypePowerLevels, "@alice:a", "", true, pl),
			build(event.TypeJoinRules, "@alice:a", "", true, jr),
			build(event.TypeMember, sender, sender, true, []byte(`{"membership":"join"}`)),
			build(event.TypeMember, key, key, true, tpi),
			build(event.TypeThirdPartyInvite, "@alice:a", "tok", true, tpi),
		} {
			state[eventauth.TypeKey{Type: s.Type, StateKey: s.StateKey}] = s
		}
		require.LessOrEqual(t, len(eventauth.AuthTypes(rules, e, nil)), eventauth.MaxAuthEvents)
		st, auth := eventauth.Select(rules, e, lookup(state))
		r := eventauth.Decide(rules, e, &st)
		require.Equal(t, r, eventauth.Decide(rules, e, &st))
		if r != eventauth.Allowed {
			require.NotEmpty(t, r.Number(rules))
			require.Error(t, eventauth.Check(rules, e, &st))
		} else if e.Kind != eventauth.KindCreate && e.Kind != eventauth.KindMember && (e.Kind != eventauth.KindAliases || !rules.AliasesAuth) {
			require.Equal(t, eventauth.MembershipJoin, st.Sender)
			require.True(t, e.Kind == eventauth.KindThirdPartyInvite || st.CanSend(e.Sender, e.Type, e.IsState()))
		}
		var list []eventauth.AuthEvent
		for _, a := range auth {
			list = append(list, eventauth.AuthEvent{Event: a}, eventauth.AuthEvent{Event: e})
		}
		_, _ = eventauth.CheckAuthEvents(rules, e, list, eventauth.AuthEvent{Event: state[eventauth.TypeKey{Type: event.TypeCreate}]})
		_ = st.PowerOf(id.UserID(key))
		_ = st.CanKick(id.UserID(sender), id.UserID(key))
	})
}
