package msync_test

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// rulesIn gives the push rules that an answer tells, nil if it tells none.
func rulesIn(t *testing.T, a answer) *pushrule.Ruleset {
	t.Helper()
	var found *pushrule.Ruleset
	for _, e := range a.AccountData.Events {
		if e.Type == "m.push_rules" {
			require.Nil(t, found, "told twice")
			var content struct {
				Global *pushrule.Ruleset `json:"global"`
			}
			require.NoError(t, json.Unmarshal(e.Content, &content))
			found = content.Global
		}
	}
	return found
}

// A client is told all push rules at first and whenever they change, from memory and from PostgreSQL, and a change wakes it.
func TestPushRulesAreTold(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice := roomtest.User("alice")
	front := w.Accounts(account.Config{})
	w.Register(front, alice)
	first := s.sync(t, msync.Request{User: alice})
	require.Equal(t, pushrule.Defaults(string(alice)), rulesIn(t, first))
	require.Nil(t, rulesIn(t, s.sync(t, msync.Request{User: alice, Since: first.Next})), "nothing new")

	woken := make(chan answer, 1)
	go func() { woken <- s.sync(t, msync.Request{User: alice, Since: first.Next, Timeout: 20 * time.Second}) }()
	_, err := front.Do(w.Ctx(), &account.ChangePushRule{
		UserID: string(alice), Op: account.EnableRule, Kind: "override", Rule: []byte(`{"rule_id":".m.rule.master","enabled":true,"default":true,"actions":[]}`),
	})
	require.NoError(t, err)
	for name, a := range map[string]answer{
		"a waiting client":        <-woken,
		"one that comes later":    s.sync(t, msync.Request{User: alice, Since: first.Next}),
		"a new one":               s.sync(t, msync.Request{User: alice}),
		"one of another worker":   start(t, w, 256<<20).sync(t, msync.Request{User: alice, Since: first.Next}),
		"a new one there as well": start(t, w, 256<<20).sync(t, msync.Request{User: alice}),
	} {
		rules := rulesIn(t, a)
		require.NotNil(t, rules, name)
		require.True(t, rules.Override[0].Enabled, name)
		require.Len(t, rules.Underride, len(pushrule.Defaults("").Underride), name)
	}
}
