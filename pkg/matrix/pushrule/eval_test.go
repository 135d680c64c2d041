package pushrule_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
)

func read(t require.TestingT, event string) *pushrule.Event {
	e, ok := readEvent([]byte(event))
	require.True(t, ok, event)
	return e
}

// readEvent reads an event as clients see it.
func readEvent(event []byte) (*pushrule.Event, bool) {
	c, err := canonjson.Canonical(event, canonjson.Options{Mode: canonjson.Lax, MaxDepth: 2000})
	if err != nil || !canonjson.IsObject(c) {
		return nil, false
	}
	var p pushrule.Parts
	p.EventID, _ = canonjson.GetString(c, "event_id")
	p.RoomID, _ = canonjson.GetString(c, "room_id")
	p.Sender, _ = canonjson.GetString(c, "sender")
	p.Type, _ = canonjson.GetString(c, "type")
	if key, ok := canonjson.GetString(c, "state_key"); ok {
		p.StateKey = &key
	}
	p.Content, _ = canonjson.Get(c, "content")
	return pushrule.FromParts(p), true
}

func here() *pushrule.Circumstances {
	return &pushrule.Circumstances{
		Members: 3, SenderLevel: 50, DisplayName: "Alice *",
		NotificationLevel: func(kind string) int64 { return map[string]int64{"room": 50, "hard": 51}[kind] },
	}
}

// Each condition of the specification, against events for which it holds and for which it does not.
func TestConditions(t *testing.T) {
	const event = `{"type":"m.room.message","sender":"@bob:x","room_id":"!r:x","state_key":"","content":{
		"body":"Hello alice *, LunaTIC's moon_cake! naïve","msgtype":"m.text","n":12,"big":9007199254740991,"float":1.5,"yes":true,"no":false,"null":null,
		"list":["a",1,true,null,"\u00e9",["x"]],"m.mentions":{"user_ids":["@alice:x"],"room":true},"a":{"b":{"c":"deep"}},"back\\slash":"1","dotted.key":"v",
		"empty":"","lines":"one\ntwo"}}`
	for condition, want := range map[string]bool{
		`{"kind":"event_match","key":"type","pattern":"m.room.message"}`:                              true,
		`{"kind":"event_match","key":"type","pattern":"M.ROOM.*"}`:                                    true,
		`{"kind":"event_match","key":"type","pattern":"room"}`:                                        false, // all of it, unless it is the body
		`{"kind":"event_match","key":"type","pattern":"m?room?message"}`:                              true,
		`{"kind":"event_match","key":"type","pattern":"m.room.message?"}`:                             false,
		`{"kind":"event_match","key":"type","pattern":"*"}`:                                           true,
		`{"kind":"event_match","key":"type","pattern":"**e"}`:                                         true,
		`{"kind":"event_match","key":"type","pattern":""}`:                                            false,
		`{"kind":"event_match","key":"state_key","pattern":""}`:                                       true,
		`{"kind":"event_match","key":"content.empty","pattern":"*"}`:                                  true,
		`{"kind":"event_match","key":"content.lines","pattern":"one*two"}`:                            true,
		`{"kind":"event_match","key":"content.n","pattern":"12"}`:                                     false, // no text
		`{"kind":"event_match","key":"content.nothing","pattern":"*"}`:                                false,
		`{"kind":"event_match","key":"content","pattern":"*"}`:                                        false,
		`{"kind":"event_match","key":"content.a.b.c","pattern":"deep"}`:                               true,
		`{"kind":"event_match","key":"content.dotted\\.key","pattern":"v"}`:                           true,
		`{"kind":"event_match","key":"content.dotted.key","pattern":"v"}`:                             false,
		`{"kind":"event_match","key":"content.back\\\\slash","pattern":"1"}`:                          true,
		`{"kind":"event_match","key":"content.back\\slash","pattern":"1"}`:                            true, // an escape of nothing stays as it is
		`{"kind":"event_match","key":"content.body","pattern":"hello"}`:                               true,
		`{"kind":"event_match","key":"content.body","pattern":"hell"}`:                                false,
		`{"kind":"event_match","key":"content.body","pattern":"hell?"}`:                               true,
		`{"kind":"event_match","key":"content.body","pattern":"luna*"}`:                               true,
		`{"kind":"event_match","key":"content.body","pattern":"lunatic"}`:                             true, // ' ends a word
		`{"kind":"event_match","key":"content.body","pattern":"moon"}`:                                false,
		`{"kind":"event_match","key":"content.body","pattern":"moon_cake"}`:                           true,
		`{"kind":"event_match","key":"content.body","pattern":"alice ?, luna*"}`:                      true,
		`{"kind":"event_match","key":"content.body","pattern":"na"}`:                                  true, // ï is no character of a word there
		`{"kind":"event_match","key":"content.body","pattern":"NAÏVE"}`:                               true,
		`{"kind":"event_match","key":"content.body","pattern":"*cake"}`:                               true,
		`{"kind":"event_match","key":"content.body","pattern":""}`:                                    false,
		`{"kind":"event_match","key":"room_id","pattern":"!r:x"}`:                                     true,
		`{"kind":"event_property_is","key":"content.n","value":12}`:                                   true,
		`{"kind":"event_property_is","key":"content.n","value":13}`:                                   false,
		`{"kind":"event_property_is","key":"content.n","value":"12"}`:                                 false,
		`{"kind":"event_property_is","key":"content.big","value":9007199254740991}`:                   true,
		`{"kind":"event_property_is","key":"content.float","value":1.5}`:                              false, // whole numbers only
		`{"kind":"event_property_is","key":"content.yes","value":true}`:                               true,
		`{"kind":"event_property_is","key":"content.no","value":true}`:                                false,
		`{"kind":"event_property_is","key":"content.null","value":null}`:                              true,
		`{"kind":"event_property_is","key":"content.nothing","value":null}`:                           false,
		`{"kind":"event_property_is","key":"content.msgtype","value":"m.text"}`:                       true,
		`{"kind":"event_property_is","key":"content.msgtype","value":"M.TEXT"}`:                       false,
		`{"kind":"event_property_is","key":"content.msgtype","value":"m\u002etext"}`:                  true,
		`{"kind":"event_property_is","key":"content.list","value":["a"]}`:                             false,
		`{"kind":"event_property_is","key":"content.m\\.mentions.room","value":true}`:                 true,
		`{"kind":"event_property_contains","key":"content.list","value":"a"}`:                         true,
		`{"kind":"event_property_contains","key":"content.list","value":"é"}`:                         true,
		`{"kind":"event_property_contains","key":"content.list","value":1}`:                           true,
		`{"kind":"event_property_contains","key":"content.list","value":null}`:                        true,
		`{"kind":"event_property_contains","key":"content.list","value":"x"}`:                         false,
		`{"kind":"event_property_contains","key":"content.body","value":"Hello"}`:                     false,
		`{"kind":"event_property_contains","key":"content.m\\.mentions.user_ids","value":"@alice:x"}`: true,
		`{"kind":"room_member_count","is":"3"}`:                                                       true,
		`{"kind":"room_member_count","is":"==3"}`:                                                     true,
		`{"kind":"room_member_count","is":"2"}`:                                                       false,
		`{"kind":"room_member_count","is":">2"}`:                                                      true,
		`{"kind":"room_member_count","is":"<3"}`:                                                      false,
		`{"kind":"room_member_count","is":"<=3"}`:                                                     true,
		`{"kind":"room_member_count","is":">=4"}`:                                                     false,
		`{"kind":"room_member_count","is":"=>3"}`:                                                     false,
		`{"kind":"room_member_count","is":""}`:                                                        false,
		`{"kind":"room_member_count"}`:                                                                false,
		`{"kind":"contains_display_name"}`:                                                            true,
		`{"kind":"sender_notification_permission","key":"room"}`:                                      true,
		`{"kind":"sender_notification_permission","key":"hard"}`:                                      false,
		`{"kind":"org.example.unknown"}`:                                                              false,
	} {
		t.Run(condition, func(t *testing.T) {
			var c pushrule.Condition
			require.NoError(t, json.Unmarshal([]byte(condition), &c))
			rules := pushrule.Compile(&pushrule.Ruleset{Override: []pushrule.Rule{{ID: "it", Enabled: true, Conditions: []pushrule.Condition{c}, Actions: notify()}}})
			require.Equal(t, want, rules.Evaluate(read(t, event), here()).Notify)
		})
	}
	t.Run("no display name is in no message", func(t *testing.T) {
		rules := pushrule.Compile(&pushrule.Ruleset{Override: []pushrule.Rule{{
			ID: "it", Enabled: true, Conditions: []pushrule.Condition{{Kind: "contains_display_name"}}, Actions: notify(),
		}}})
		require.False(t, rules.Evaluate(read(t, event), &pushrule.Circumstances{}).Notify)
		require.False(t, rules.Evaluate(read(t, event), &pushrule.Circumstances{DisplayName: "Alic"}).Notify)
	})
}

func message(more string) string {
	return `{"type":"m.room.message","sender":"@bob:x","room_id":"!r:x","content":{"msgtype":"m.text","body":"hello there"` + more + `}}`
}

// The predefined rules, and what a user puts over them.
func TestOutcomes(t *testing.T) {
	const me = "@alice:x"
	own := func(change func(c *pushrule.Custom) error) *pushrule.Custom {
		c := new(pushrule.Custom)
		require.NoError(t, change(c))
		return c
	}
	mute := own(func(c *pushrule.Custom) error {
		return c.Put("override", pushrule.Rule{ID: "!r:x", Actions: []jsontext.Value{}, Conditions: []pushrule.Condition{{Kind: "event_match", Key: "room_id", Pattern: new("!r:x")}}}, "", "")
	})
	for name, c := range map[string]struct {
		custom  *pushrule.Custom
		event   string
		members int
		rule    string
		notify  bool
		high    bool
		sound   string
	}{
		"a message":             {nil, message(""), 3, ".m.rule.message", true, false, ""},
		"in a room of two":      {nil, message(""), 2, ".m.rule.room_one_to_one", true, false, "default"},
		"encrypted":             {nil, strings.Replace(message(""), "m.room.message", "m.room.encrypted", 1), 3, ".m.rule.encrypted", true, false, ""},
		"a notice":              {nil, strings.Replace(message(""), "m.text", "m.notice", 1), 2, ".m.rule.suppress_notices", false, false, ""},
		"a mention":             {nil, message(`,"m.mentions":{"user_ids":["@x:x","@alice:x"]}`), 3, ".m.rule.is_user_mention", true, true, "default"},
		"somebody else's":       {nil, message(`,"m.mentions":{"user_ids":["@x:x"]}`), 3, ".m.rule.message", true, false, ""},
		"the room's":            {nil, message(`,"m.mentions":{"room":true}`), 3, ".m.rule.is_room_mention", true, true, ""},
		"an edit":               {nil, message(`,"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}`), 3, ".m.rule.suppress_edits", false, false, ""},
		"an edit that mentions": {nil, message(`,"m.mentions":{"user_ids":["@alice:x"]},"m.relates_to":{"rel_type":"m.replace","event_id":"$x"}`), 3, ".m.rule.is_user_mention", true, true, "default"},
		"a reaction":            {nil, `{"type":"m.reaction","content":{"m.relates_to":{"rel_type":"m.annotation"}}}`, 2, ".m.rule.reaction", false, false, ""},
		"an invitation":         {nil, `{"type":"m.room.member","state_key":"@alice:x","content":{"membership":"invite"}}`, 2, ".m.rule.invite_for_me", true, false, "default"},
		"another's":             {nil, `{"type":"m.room.member","state_key":"@x:x","content":{"membership":"invite"}}`, 2, ".m.rule.member_event", false, false, ""},
		"a tombstone":           {nil, `{"type":"m.room.tombstone","state_key":"","content":{}}`, 3, ".m.rule.tombstone", true, true, ""},
		"a call":                {nil, `{"type":"m.call.invite","content":{}}`, 3, ".m.rule.call", true, false, "ring"},
		"nothing says anything": {nil, `{"type":"org.example","content":{}}`, 3, "", false, false, ""},
		"the room is muted":     {mute, message(`,"m.mentions":{"user_ids":["@alice:x"]}`), 3, "!r:x", false, false, ""},
		"everything is muted":   {own(func(c *pushrule.Custom) error { return c.SetEnabled("override", ".m.rule.master", true) }), message(""), 3, ".m.rule.master", false, false, ""},
		"a word": {own(func(c *pushrule.Custom) error {
			return c.Put("content", pushrule.Rule{ID: "w", Pattern: "THERE", Actions: []jsontext.Value{jsontext.Value(`"notify"`), jsontext.Value(`{"set_tweak":"highlight"}`)}}, "", "")
		}), message(""), 3, "w", true, true, ""},
		"a rule of the room": {own(func(c *pushrule.Custom) error {
			return c.Put("room", pushrule.Rule{ID: "!r:x", Actions: []jsontext.Value{}}, "", "")
		}), message(""), 3, "!r:x", false, false, ""},
		"a rule of the sender": {own(func(c *pushrule.Custom) error {
			return c.Put("sender", pushrule.Rule{ID: "@bob:x", Actions: []jsontext.Value{jsontext.Value(`"notify"`), jsontext.Value(`{"set_tweak":"highlight","value":false}`), jsontext.Value(`{"set_tweak":"sound","value":1}`)}}, "", "")
		}), message(""), 3, "@bob:x", true, false, ""},
		"actions of older versions say nothing": {own(func(c *pushrule.Custom) error {
			return c.SetActions("underride", ".m.rule.message", []jsontext.Value{jsontext.Value(`"dont_notify"`), jsontext.Value(`"coalesce"`)})
		}), message(""), 3, ".m.rule.message", false, false, ""},
		"a disabled rule is none": {own(func(c *pushrule.Custom) error { return c.SetEnabled("underride", ".m.rule.message", false) }), message(""), 3, "", false, false, ""},
		"no highlight without a notification": {own(func(c *pushrule.Custom) error {
			return c.SetActions("underride", ".m.rule.message", []jsontext.Value{jsontext.Value(`{"set_tweak":"highlight"}`)})
		}), message(""), 3, ".m.rule.message", false, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.custom == nil {
				c.custom = new(pushrule.Custom)
			}
			a := here()
			a.Members = c.members
			o := pushrule.Compile(c.custom.Rules(me)).Evaluate(read(t, c.event), a)
			require.Equal(t, c.rule, o.Rule)
			require.Equal(t, []any{c.notify, c.high, c.sound}, []any{o.Notify, o.Highlight, o.Sound})
		})
	}
}

// A pattern made to try all ways one after the other takes no longer than the lengths' product.
func TestPatternsAreBounded(t *testing.T) {
	pattern := strings.Repeat("a*", 200) + "b"
	rules := pushrule.Compile(&pushrule.Ruleset{Content: []pushrule.Rule{{ID: "it", Enabled: true, Pattern: pattern, Actions: notify()}}})
	e := read(t, fmt.Sprintf(`{"content":{"body":%q}}`, strings.Repeat("a ", 20_000)))
	require.False(t, rules.Evaluate(e, here()).Notify) // the other way would not end
}

func TestDeepEvents(t *testing.T) {
	e := read(t, `{"content":`+strings.Repeat(`{"a":`, 1000)+`1`+strings.Repeat(`}`, 1000)+`}`)
	require.False(t, pushrule.Compile(pushrule.Defaults("@a:b")).Evaluate(e, here()).Notify)
}

func FuzzEvaluate(f *testing.F) {
	f.Add([]byte(message("")), "al?ce*", "content.body")
	f.Fuzz(func(_ *testing.T, event []byte, pattern, key string) {
		e, ok := readEvent(event)
		if !ok || len(pattern) > 512 {
			return
		}
		s := pushrule.Defaults("@a:b")
		s.Content = append(s.Content, pushrule.Rule{ID: "p", Enabled: true, Pattern: pattern})
		s.Override = append(s.Override, pushrule.Rule{ID: "k", Enabled: true, Conditions: []pushrule.Condition{{Kind: "event_match", Key: key, Pattern: &pattern}}})
		pushrule.Compile(s).Evaluate(e, here())
	})
}

func BenchmarkEvaluate(b *testing.B) {
	e, a := read(b, message("")), here()
	c := pushrule.Compile(pushrule.Defaults("@alice:x"))
	b.ReportAllocs()
	for b.Loop() {
		c.Evaluate(e, a)
	}
}

// BenchmarkFromParts is what an event costs before the first is asked about it, and BenchmarkEvaluate the predefined rules.
func BenchmarkFromParts(b *testing.B) {
	p := read(b, message(`,"m.mentions":{"user_ids":["@x:x"]}`)).Parts
	b.ReportAllocs()
	for b.Loop() {
		pushrule.FromParts(p)
	}
}
