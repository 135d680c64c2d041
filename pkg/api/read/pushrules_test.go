package read_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Push rules are read as they are: all of them, one, and whether it is enabled and what it does.
func TestPushRulesAreRead(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob)
	s.serves(read.NewAccounts(read.AccountsOptions{Accounts: account.NewReader(s.Shards, accountdb.NewReader(s.DB.Pool))}).Handlers())
	const own = `{"rule_id":"k","default":false,"enabled":true,"conditions":[{"kind":"org.example.new","feature":[1],"value":null}],
		"actions":["notify",{"set_tweak":"sound","value":"x.wav"}]}`
	_, err := s.front.Do(s.Ctx(), &account.ChangePushRule{UserID: string(alice), Op: account.PutRule, Kind: "override", Rule: []byte(own)})
	require.NoError(t, err)

	type set map[string][]map[string]any
	whole := ok[map[string]set](s, alice, "/v3/pushrules/")
	require.Len(t, whole, 1)
	global := whole["global"]
	require.Equal(t, global, ok[set](s, alice, "/v3/pushrules/global/"))
	require.Len(t, global, 5, "all kinds are there, empty or not")
	require.Equal(t, ".m.rule.master", global["override"][0]["rule_id"])
	require.NotContains(t, ok[set](s, bob, "/v3/pushrules/global/")["override"], global["override"][1], "it is alice's")
	for kind, rules := range global {
		for _, rule := range rules {
			path := "/v3/pushrules/global/" + kind + "/" + rule["rule_id"].(string)
			require.Equal(t, rule, ok[map[string]any](s, alice, path))
			require.Equal(t, map[string]any{"enabled": rule["enabled"]}, ok[map[string]any](s, alice, path+"/enabled"))
			require.Equal(t, map[string]any{"actions": rule["actions"]}, ok[map[string]any](s, alice, path+"/actions"))
		}
	}
	_, body, _ := s.get(alice, "/v3/pushrules/global/override/k")
	require.JSONEq(t, own, string(body), "as it was put")
	for _, path := range []string{"override/nobody", "content/k", "nonsense/k", "override/.m.rule.nobody"} {
		for _, of := range []string{"", "/enabled", "/actions"} {
			s.refused(alice, "/v3/pushrules/global/"+path+of, http.StatusNotFound, "M_NOT_FOUND")
		}
	}
	for _, path := range strings.Fields("/v3/pushrules/ /v3/pushrules/global/ /v3/pushrules/global/override/k") {
		s.refused("", path, http.StatusUnauthorized, "M_MISSING_TOKEN")
	}
}
