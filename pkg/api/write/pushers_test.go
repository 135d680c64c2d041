package write_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

const (
	v3            = "/_matrix/client/v3"
	setPusherPath = v3 + "/pushers/set"
)

// pusherBody is a pusher, with members of it changed: pairs of what stands in it and what shall.
func pusherBody(changes ...string) string {
	return strings.NewReplacer(changes...).Replace(`{"kind":"http","app_id":"im.app","pushkey":"key","app_display_name":"App",` +
		`"device_display_name":"Phone","lang":"en","profile_tag":"tag","data":{"url":"https://push.example/_matrix/push/v1/notify","format":"event_id_only"}}`)
}

func TestPushers(t *testing.T) {
	a := newAccounts(t, account.Config{})
	a.users("alice", "bob")
	bob := a.tokens["bob"]
	reader := account.NewReader(a.Shards, a.accounts)
	pushers := func(localpart string) (out []string) {
		t.Helper()
		list, err := reader.Pushers(a.Ctx(), roomtest.User(localpart))
		require.NoError(t, err)
		for _, p := range list {
			out = append(out, p.AppID+" "+p.Pushkey+" "+p.Lang)
		}
		return out
	}
	phone, desk := a.login(`,"device_id":"PHONE"`).ok("access_token"), a.login(`,"device_id":"DESK"`).ok("access_token")
	set := func(token, body string) reply { t.Helper(); return a.as(token, http.MethodPost, setPusherPath, body) }

	t.Run("set, replaced, removed", func(t *testing.T) {
		set(phone, pusherBody()).ok("")
		set(phone, pusherBody()).ok("") // again, as clients do on every start
		require.Equal(t, []string{"im.app key en"}, pushers("alice"))
		list, err := reader.Pushers(a.Ctx(), roomtest.User("alice"))
		require.NoError(t, err)
		require.JSONEq(t, `{"url":"https://push.example/_matrix/push/v1/notify","format":"event_id_only"}`, string(list[0].Data))
		require.Equal(t, "PHONE", list[0].DeviceID)

		set(phone, pusherBody(`"en"`, `"de"`)).ok("")
		set(phone, pusherBody(`"im.app"`, `"im.other"`)).ok("")
		require.Equal(t, []string{"im.app key de", "im.other key en"}, pushers("alice"))

		set(phone, `{"kind":null,"app_id":"im.app","pushkey":"key"}`).ok("")
		set(phone, `{"kind":null,"app_id":"im.app","pushkey":"key"}`).ok("")
		set(phone, `{"kind":null,"app_id":"never","pushkey":"was"}`).ok("")
		require.Equal(t, []string{"im.other key en"}, pushers("alice"))
		set(phone, `{"kind":null,"app_id":"im.other","pushkey":"key"}`).ok("")
		require.Empty(t, pushers("alice"))
	})
	t.Run("a key has one owner unless it is appended", func(t *testing.T) {
		set(phone, pusherBody()).ok("")
		set(bob, pusherBody(`"lang"`, `"append":true,"lang"`)).ok("")
		require.Len(t, pushers("alice"), 1)
		require.Len(t, pushers("bob"), 1)
		set(bob, pusherBody()).ok("")
		require.Empty(t, pushers("alice"))
		require.Len(t, pushers("bob"), 1)
	})
	t.Run("switched off and on by another device, and still of the device that set it", func(t *testing.T) {
		one := func() account.Pusher {
			t.Helper()
			list, err := reader.Pushers(a.Ctx(), roomtest.User("alice"))
			require.NoError(t, err)
			require.Len(t, list, 1)
			return list[0]
		}
		set(phone, pusherBody()).ok("")
		made := one()
		require.False(t, made.Disabled)
		for _, enabled := range []string{"false", "false", "true"} {
			set(desk, pusherBody(`"lang"`, `"org.matrix.msc3881.enabled":`+enabled+`,"lang"`)).ok("")
			require.Equal(t, enabled == "false", one().Disabled)
		}
		now := one()
		require.Equal(t, "PHONE", now.DeviceID)
		require.GreaterOrEqual(t, now.Created, made.Created)
		set(phone, pusherBody(`"lang"`, `"org.matrix.msc3881.enabled":false,"lang"`)).ok("")
		set(phone, pusherBody()).ok("") // an app that knows nothing of it
		require.False(t, one().Disabled)
		set(desk, pusherBody(`"en"`, `"de"`)).ok("")
		require.Equal(t, "DESK", one().DeviceID, "whoever sets it anew takes it over")
		set(desk, `{"kind":null,"app_id":"im.app","pushkey":"key"}`).ok("")
	})
	t.Run("gone with its device", func(t *testing.T) {
		set(phone, pusherBody(`"key"`, `"phone"`)).ok("")
		set(desk, pusherBody(`"key"`, `"desk"`)).ok("")
		a.as(phone, http.MethodPost, v3+"/logout", `{}`).ok("")
		require.Equal(t, []string{"im.app desk en"}, pushers("alice"))
	})
	t.Run("a change of the password keeps those of the device that makes it", func(t *testing.T) {
		phone = a.login(`,"device_id":"PHONE"`).ok("access_token")
		set(phone, pusherBody(`"key"`, `"phone"`)).ok("")
		require.Len(t, pushers("alice"), 2)
		a.confirmed(phone, http.MethodPost, v3+"/account/password", `"new_password":"secret"`, "alice").ok("")
		require.Equal(t, []string{"im.app phone en"}, pushers("alice"))
	})
	t.Run("gone with the account", func(t *testing.T) {
		a.confirmed(phone, http.MethodPost, v3+"/account/deactivate", "", "alice").ok("id_server_unbind_result")
		require.Empty(t, pushers("alice"))
	})
	t.Run("refused", func(t *testing.T) {
		had := pushers("bob")
		for name, c := range map[string]struct{ body, code string }{
			"no kind":          {pusherBody(`"kind":"http",`, ``), "M_MISSING_PARAM"},
			"kind of a number": {pusherBody(`"http"`, `4`), "M_BAD_JSON"},
			"unknown kind":     {pusherBody(`"http"`, `"pigeon"`), "M_INVALID_PARAM"},
			"no app":           {pusherBody(`"app_id":"im.app",`, ``), "M_MISSING_PARAM"},
			"no key":           {pusherBody(`"pushkey":"key",`, ``), "M_MISSING_PARAM"},
			"no lang":          {pusherBody(`"lang":"en",`, ``), "M_MISSING_PARAM"},
			"long app":         {pusherBody(`im.app`, strings.Repeat("a", 65)), "M_INVALID_PARAM"},
			"long key":         {pusherBody(`"key"`, `"`+strings.Repeat("a", 513)+`"`), "M_INVALID_PARAM"},
			"long tag":         {pusherBody(`"tag"`, `"`+strings.Repeat("a", 33)+`"`), "M_INVALID_PARAM"},
			"NUL":              {pusherBody(`"Phone"`, `"a\u0000b"`), "M_INVALID_PARAM"},
			"no data":          {pusherBody(`"data"`, `"other"`), "M_MISSING_PARAM"},
			"data not object":  {pusherBody(`"data":{`, `"data":7,"other":{`), "M_BAD_JSON"},
			"enabled no flag":  {pusherBody(`"lang"`, `"org.matrix.msc3881.enabled":"no","lang"`), "M_BAD_JSON"},
			"no url":           {pusherBody(`"url"`, `"other"`), "M_MISSING_PARAM"},
			"url without TLS":  {pusherBody(`https`, `http`, `"http"`, `"http"`), "M_INVALID_PARAM"},
			"another path":     {pusherBody(`/notify`, `/other`), "M_INVALID_PARAM"},
			"big data":         {pusherBody(`"format"`, `"x":"`+strings.Repeat("a", 17<<10)+`","format"`), "M_TOO_LARGE"},
			"unnamed removal":  {`{"kind":null,"app_id":"im.app"}`, "M_MISSING_PARAM"},
		} {
			got := set(bob, c.body)
			require.Equal(t, c.code, got.body["errcode"], "%s: %v", name, got.body)
		}
		require.Equal(t, http.StatusUnauthorized, set("", pusherBody()).status)
		require.Equal(t, had, pushers("bob"))
	})
}
