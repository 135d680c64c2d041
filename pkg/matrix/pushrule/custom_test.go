package pushrule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
)

func notify() []jsontext.Value { return []jsontext.Value{jsontext.Value(`"notify"`)} }

func ids(rules []pushrule.Rule) (out []string) {
	for _, r := range rules {
		out = append(out, r.ID)
	}
	return out
}

func TestOwnRulesAreOrdered(t *testing.T) {
	c, err := pushrule.ParseCustom(nil)
	require.NoError(t, err)
	put := func(id, before, after string) error {
		return c.Put("override", pushrule.Rule{ID: id, Actions: notify()}, before, after)
	}
	for _, step := range []struct {
		id, before, after string
		want              string
	}{
		{"a", "", "", "a"},
		{"b", "", "", "b a"},
		{"c", "", "b", "b c a"},
		{"d", "b", "", "d b c a"},
		{"c", "", "", "d b c a"}, // stays
		{"c", "d", "", "c d b a"},
		{"c", "", "a", "d b a c"},
		{"c", "b", "d", "d c b a"}, // next to the one that it is to come before
		{"c", "", "a", "d b a c"},
	} {
		require.NoError(t, put(step.id, step.before, step.after))
		rules := ids(c.Rules("@a:b").Override)
		require.Equal(t, ".m.rule.master", rules[0], "nothing comes before it")
		require.Equal(t, step.want, strings.Join(rules[1:1+len(strings.Fields(step.want))], " "))
		require.Equal(t, ".org.matrix.msc4028.encrypted_event", rules[1+len(strings.Fields(step.want))])
	}
	for _, anchor := range []string{"nobody", "e", ".m.rule.master"} {
		require.ErrorContains(t, put("e", anchor, ""), "before/after rule not found: "+anchor)
		require.ErrorContains(t, put("e", "", anchor), "before/after rule not found: "+anchor)
	}
	require.Error(t, put("e", "nobody", "a"))
	require.ErrorContains(t, put("a", "a", ""), "not found", "relative to itself")
	require.Equal(t, []string{"d", "b", "a", "c"}, ids(c.Own.Override), "a refusal changes nothing")
	require.NoError(t, c.Delete("override", "b"))
	require.Equal(t, []string{"d", "a", "c"}, ids(c.Own.Override))
	require.ErrorIs(t, c.Delete("override", "b"), pushrule.ErrUnknownRule)
	require.ErrorIs(t, c.Delete("override", ".m.rule.master"), pushrule.ErrUnknownRule)
	require.ErrorIs(t, c.Delete("x", "a"), pushrule.ErrUnknownRule)
}

func TestRulesThatCannotBe(t *testing.T) {
	pattern, none := "x", ""
	for name, r := range map[string]struct {
		kind string
		rule pushrule.Rule
	}{
		"unknown kind":            {"x", pushrule.Rule{ID: "a", Actions: notify()}},
		"no id":                   {"room", pushrule.Rule{Actions: notify()}},
		"a predefined id":         {"room", pushrule.Rule{ID: ".m.rule.x", Actions: notify()}},
		"a slash":                 {"room", pushrule.Rule{ID: "a/b", Actions: notify()}},
		"a backslash":             {"room", pushrule.Rule{ID: `a\b`, Actions: notify()}},
		"a long id":               {"room", pushrule.Rule{ID: strings.Repeat("a", 2000), Actions: notify()}},
		"no actions":              {"room", pushrule.Rule{ID: "a"}},
		"a number for an action":  {"room", pushrule.Rule{ID: "a", Actions: []jsontext.Value{jsontext.Value("1")}}},
		"an object for an action": {"room", pushrule.Rule{ID: "a", Actions: []jsontext.Value{jsontext.Value("{}")}}},
		"too many actions":        {"room", pushrule.Rule{ID: "a", Actions: slices.Repeat(notify(), 100)}},
		"no pattern":              {"content", pushrule.Rule{ID: "a", Actions: notify()}},
		"a long pattern":          {"content", pushrule.Rule{ID: "a", Pattern: strings.Repeat("a", 2000), Actions: notify()}},
		"a condition of no kind":  {"override", pushrule.Rule{ID: "a", Actions: notify(), Conditions: []pushrule.Condition{{}}}},
		"match without a key":     {"override", pushrule.Rule{ID: "a", Actions: notify(), Conditions: []pushrule.Condition{{Kind: "event_match", Pattern: &pattern}}}},
		"match without a pattern": {"override", pushrule.Rule{ID: "a", Actions: notify(), Conditions: []pushrule.Condition{{Kind: "event_match", Key: "x"}}}},
		"is without a value":      {"override", pushrule.Rule{ID: "a", Actions: notify(), Conditions: []pushrule.Condition{{Kind: "event_property_is", Key: "x"}}}},
		"a count of words":        {"override", pushrule.Rule{ID: "a", Actions: notify(), Conditions: []pushrule.Condition{{Kind: "room_member_count", Is: "two"}}}},
		"too many conditions": {"override", pushrule.Rule{
			ID: "a", Actions: notify(), Conditions: slices.Repeat([]pushrule.Condition{{Kind: "event_match", Key: "x", Pattern: &none}}, 100),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := new(pushrule.Custom)
			var bad *pushrule.InvalidError
			require.ErrorAs(t, c.Put(r.kind, r.rule, "", ""), &bad)
			require.NotEmpty(t, bad.Error())
			require.Equal(t, new(pushrule.Custom), c)
		})
	}
	c := new(pushrule.Custom)
	require.NoError(t, c.Put("underride", pushrule.Rule{ID: "a", Actions: []jsontext.Value{}, Conditions: []pushrule.Condition{{Kind: "org.example.new"}}}, "", ""),
		"what is unknown may be known to a client")
}

func TestChangesSurviveStorage(t *testing.T) {
	c := new(pushrule.Custom)
	require.NoError(t, c.SetEnabled("override", ".m.rule.master", true))
	require.NoError(t, c.SetActions("underride", ".m.rule.message", []jsontext.Value{}))
	require.NoError(t, c.Put("content", pushrule.Rule{ID: "cake", Pattern: "cake*lie", Actions: notify()}, "", ""))
	require.NoError(t, c.SetEnabled("content", "cake", false))
	require.NoError(t, c.Put("content", pushrule.Rule{ID: "cake", Pattern: "pie", Actions: []jsontext.Value{}}, "", ""))
	require.NoError(t, c.SetActions("content", "cake", notify()))
	require.ErrorIs(t, c.SetEnabled("override", "nobody", true), pushrule.ErrUnknownRule)
	require.ErrorIs(t, c.SetEnabled("x", "cake", true), pushrule.ErrUnknownRule)
	require.ErrorIs(t, c.SetActions("content", "nobody", notify()), pushrule.ErrUnknownRule)
	require.Error(t, c.SetActions("content", "cake", nil))

	stored, err := json.Marshal(c)
	require.NoError(t, err)
	content, err := pushrule.Content("@alice:b", stored)
	require.NoError(t, err)
	var seen struct {
		Global pushrule.Ruleset `json:"global"`
	}
	require.NoError(t, json.Unmarshal(content, &seen))
	master, _ := seen.Global.Find("override", ".m.rule.master")
	require.True(t, master.Enabled)
	message, _ := seen.Global.Find("underride", ".m.rule.message")
	require.Empty(t, message.Actions)
	require.NotNil(t, message.Actions)
	require.True(t, message.Default && message.Enabled)
	cake, _ := seen.Global.Find("content", "cake")
	require.Equal(t, pushrule.Rule{ID: "cake", Pattern: "pie", Actions: notify()}, cake, "still disabled")

	plain, err := pushrule.Content("@alice:b", nil)
	require.NoError(t, err)
	want, err := json.Marshal(map[string]*pushrule.Ruleset{"global": pushrule.Defaults("@alice:b")})
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(plain))
	_, err = pushrule.Content("@alice:b", []byte("{"))
	require.Error(t, err)
}

// A condition is given back as it was put, and means the same: null and the empty text are values, and members that are unknown are a client's.
func TestConditionsSurviveStorage(t *testing.T) {
	for condition, holds := range map[string]bool{
		`{"kind":"event_property_is","key":"content.null","value":null}`:                true,
		`{"kind":"event_property_is","key":"content.empty","value":""}`:                 true,
		`{"kind":"event_property_is","key":"content.no","value":false}`:                 true,
		`{"kind":"event_property_is","key":"content.n","value":0}`:                      true,
		`{"kind":"event_property_contains","key":"content.list","value":null}`:          true,
		`{"kind":"event_match","key":"content.empty","pattern":""}`:                     true,
		`{"kind":"org.example.new","feature":"x","values":[1,{"a":null}],"pattern":""}`: false,
	} {
		var r pushrule.Rule
		require.NoError(t, json.Unmarshal([]byte(`{"rule_id":"a","conditions":[`+condition+`],"actions":["notify"]}`), &r))
		c := new(pushrule.Custom)
		require.NoError(t, c.Put("override", r, "", ""), condition)
		stored, err := json.Marshal(c)
		require.NoError(t, err)
		c, err = pushrule.ParseCustom(stored)
		require.NoError(t, err)
		a, _ := c.Rules("@a:b").Find("override", "a")
		shown, err := json.Marshal(a.Conditions)
		require.NoError(t, err)
		require.JSONEq(t, `[`+condition+`]`, string(shown))
		e := read(t, `{"type":"org.example","content":{"null":null,"empty":"","no":false,"n":0,"list":[null]}}`)
		require.Equal(t, holds, pushrule.Compile(c.Rules("@a:b")).Evaluate(e, here()).Notify, condition)
	}
}

func TestOwnRulesAreBounded(t *testing.T) {
	c := new(pushrule.Custom)
	for i := range 5000 {
		c.Own.Room = append(c.Own.Room, pushrule.Rule{ID: fmt.Sprint(i)})
	}
	require.Error(t, c.Put("room", pushrule.Rule{ID: "x", Actions: notify()}, "", ""))
	require.NoError(t, c.Put("room", pushrule.Rule{ID: "7", Actions: notify()}, "", ""), "an old one can be replaced")
}

func FuzzCustom(f *testing.F) {
	f.Add([]byte(`{"own":{"override":[{"rule_id":"a","conditions":[{"kind":"x"}],"actions":["notify"]}]},"defaults":{"override/.m.rule.master":{"enabled":true}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := pushrule.ParseCustom(b)
		if err != nil {
			return
		}
		rules := c.Rules("@a:b")
		require.Equal(t, ".m.rule.master", rules.Override[0].ID)
		pushrule.Compile(rules)
	})
}
