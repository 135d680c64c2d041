package write_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/service/account"
)

func TestPushRules(t *testing.T) {
	s := newStack(t)
	s.users("alice", "bob")
	const global = "/pushrules/global/"
	put := func(path, body string) reply { return s.call("alice", http.MethodPut, global+path, body) }
	rules := func(user string) *pushrule.Ruleset {
		r, err := account.NewReader(s.Shards, s.accounts).PushRules(s.Ctx(), "@"+user+":heddle.test")
		require.NoError(t, err)
		return r
	}
	rule := func(kind, id string) pushrule.Rule {
		r, ok := rules("alice").Find(kind, id)
		require.True(t, ok)
		return r
	}

	put("content/cake", `{"pattern":"cake*lie","actions":["notify"]}`).ok("")
	put("override/one", `{"conditions":[{"kind":"event_match","key":"type","pattern":"x","org.example.extra":1}],"actions":[]}`).ok("")
	put("override/two?before=one", `{"conditions":[],"actions":["notify",{"set_tweak":"sound","value":"x"}]}`).ok("")
	put("override/three?after=one", `{"actions":["notify"]}`).ok("")
	put("room/!r:x", `{"actions":["notify"]}`).ok("")
	put("sender/@bob:x", `{"actions":["dont_notify"]}`).ok("")
	got := rules("alice")
	require.Equal(t, []string{".m.rule.master", "two", "one", "three", ".org.matrix.msc4028.encrypted_event"}, func() (ids []string) {
		for _, r := range got.Override[:5] {
			ids = append(ids, r.ID)
		}
		return ids
	}())
	require.Equal(t, "cake*lie", rule("content", "cake").Pattern)
	require.Len(t, rules("bob").Override, len(pushrule.Defaults("@bob:heddle.test").Override), "they are one user's")

	put("content/cake/enabled", `{"enabled":false}`).ok("")
	require.False(t, rule("content", "cake").Enabled)
	put("override/.m.rule.master/enabled", `{"enabled":true}`).ok("")
	require.True(t, rule("override", ".m.rule.master").Enabled)
	put("underride/.m.rule.message/actions", `{"actions":[]}`).ok("")
	require.Empty(t, rule("underride", ".m.rule.message").Actions)
	s.call("alice", http.MethodDelete, global+"content/cake", "").ok("")
	_, ok := rules("alice").Find("content", "cake")
	require.False(t, ok)

	s.World.Restart()
	s2 := rules("alice")
	require.Equal(t, "two", s2.Override[1].ID, "it is stored")

	t.Run("refusals", func(t *testing.T) {
		s := s.in(t)
		for _, c := range []struct {
			method, path, body string
			status             int
			code               string
		}{
			{"PUT", "override/x?before=nobody", `{"actions":[]}`, 400, "M_UNKNOWN"},
			{"PUT", "override/x?after=.m.rule.master", `{"actions":[]}`, 400, "M_UNKNOWN"},
			{"PUT", "override/.m.rule.master", `{"actions":[]}`, 400, "M_UNKNOWN"},
			{"PUT", "override/.x", `{"actions":[]}`, 400, "M_UNKNOWN"},
			{"PUT", "override/a%5Cb", `{"actions":[]}`, 400, "M_UNKNOWN"},
			{"PUT", "nonsense/x", `{"actions":[]}`, 400, "M_UNKNOWN"},
			{"PUT", "content/x", `{"actions":[]}`, 400, "M_UNKNOWN"},
			{"PUT", "room/x", `{"actions":[1]}`, 400, "M_UNKNOWN"},
			{"PUT", "room/x", `{}`, 400, "M_MISSING_PARAM"},
			{"PUT", "room/x", `{"actions":"notify"}`, 400, "M_BAD_JSON"},
			{"PUT", "room/x", `[]`, 400, "M_BAD_JSON"},
			{"PUT", "room/x/enabled", `{"enabled":true}`, 404, "M_NOT_FOUND"},
			{"PUT", "override/one/enabled", `{}`, 400, "M_MISSING_PARAM"},
			{"PUT", "override/one/enabled", `{"enabled":"yes"}`, 400, "M_BAD_JSON"},
			{"PUT", "room/x/actions", `{"actions":[]}`, 404, "M_NOT_FOUND"},
			{"PUT", "override/one/actions", `{}`, 400, "M_MISSING_PARAM"},
			{"PUT", "override/one/actions", `{"actions":[{}]}`, 400, "M_UNKNOWN"},
			{"DELETE", "room/x", ``, 404, "M_NOT_FOUND"},
			{"DELETE", "override/.m.rule.master", ``, 404, "M_NOT_FOUND"},
			{"DELETE", "nonsense/x", ``, 404, "M_NOT_FOUND"},
		} {
			s.call("alice", c.method, global+c.path, c.body).refused(c.status, c.code)
		}
		s.call("", "PUT", global+"room/x", `{"actions":[]}`).refused(401, "M_MISSING_TOKEN")
		s.call("alice", "PUT", "/user/@alice:heddle.test/account_data/m.push_rules", `{}`).refused(405, "M_BAD_JSON")
		require.Equal(t, s2, rules("alice"), "a refusal changes nothing")
	})
	t.Run("bounded", func(t *testing.T) {
		s := s.in(t)
		long := strings.Repeat("x", 600)
		s.call("alice", "PUT", global+"content/long", `{"pattern":"`+long+`","actions":[]}`).refused(400, "M_UNKNOWN")
	})
}
