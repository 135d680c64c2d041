package write_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

const v1 = "/_matrix/client/v1"

// accounts is a stack whose sessions are looked up anew for each request, as if every change had been heard of.
type accounts struct{ *stack }

func newAccounts(t *testing.T, cfg account.Config) *accounts {
	cfg.Enabled = true
	a := &accounts{newStackOf(t, cfg)}
	a.sessions.OnFirstUse(func(ctx context.Context, cmd *account.ConfirmRefresh) error {
		_, err := a.front.Do(ctx, cmd)
		return err
	})
	return a
}

// as makes a request with a token.
func (a *accounts) as(token, method, path, body string) reply {
	a.T.Helper()
	a.sessions.Forget()
	a.tokens["bearer"] = token
	if token == "" {
		return a.raw("", method, path, body)
	}
	return a.raw("bearer", method, path, body)
}

// good tells whether an access token is taken.
func (a *accounts) good(token string) bool {
	a.T.Helper()
	return a.as(token, "PUT", "/_matrix/client/v3/devices/NONE", `{"display_name":"x"}`).status == http.StatusNotFound
}

func (a *accounts) admin(name string) (token string) {
	a.T.Helper()
	in, err := a.front.Register(a.Ctx(), account.NewUser{Localpart: name, Password: "secret", Admin: true})
	require.NoError(a.T, err)
	return in.AccessToken
}

// confirmed makes a request that needs the password, in two steps.
func (a *accounts) confirmed(token, method, path, body, user string) reply {
	a.T.Helper()
	first := a.as(token, method, path, "{"+body+"}")
	require.Equal(a.T, http.StatusUnauthorized, first.status, "%v", first.body)
	session, ok := first.body["session"].(string)
	require.True(a.T, ok)
	if body != "" {
		body += ","
	}
	return a.as(token, method, path, fmt.Sprintf(
		`{%s"auth":{"type":"m.login.password","session":%q,"identifier":{"type":"m.id.user","user":%q},"password":"secret"}}`, body, session, user))
}

const (
	loginPath   = "/_matrix/client/v3/login"
	refreshPath = "/_matrix/client/v3/refresh"
)

func (a *accounts) login(more string) reply {
	a.T.Helper()
	return a.as("", "POST", loginPath, `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"secret"`+more+`}`)
}

func (a *accounts) refresh(token string) reply {
	a.T.Helper()
	return a.as("", "POST", refreshPath, fmt.Sprintf(`{"refresh_token":%q}`, token))
}

func TestRefresh(t *testing.T) {
	a := newAccounts(t, account.Config{Lifetimes: account.Lifetimes{Refreshable: time.Hour}})
	a.users("alice")

	t.Run("a client that does not ask gets none", func(t *testing.T) {
		in := a.login("")
		require.NotContains(t, in.body, "refresh_token")
		require.NotContains(t, in.body, "expires_in_ms")
	})
	in := a.login(`,"refresh_token":true,"device_id":"PHONE"`)
	a1, r1 := in.ok("access_token"), in.ok("refresh_token")
	require.EqualValues(t, time.Hour.Milliseconds(), in.body["expires_in_ms"])
	require.True(t, a.good(a1))

	next := a.refresh(r1)
	a2, r2 := next.ok("access_token"), next.ok("refresh_token")
	require.EqualValues(t, time.Hour.Milliseconds(), next.body["expires_in_ms"])
	require.True(t, a.good(a1), "until the new token is used")

	t.Run("the answer was lost: asking again is fine, and voids the lost pair", func(t *testing.T) {
		again := a.refresh(r1)
		lost := a2
		a2, r2 = again.ok("access_token"), again.ok("refresh_token")
		require.False(t, a.good(lost))
		require.True(t, a.good(a1))
	})
	t.Run("the first use of the new access token revokes the old pair", func(t *testing.T) {
		require.True(t, a.good(a2))
		require.False(t, a.good(a1))
	})
	t.Run("the use of the new refresh token does too", func(t *testing.T) {
		third := a.refresh(r2)
		r3 := third.ok("refresh_token")
		fourth := a.refresh(r3)
		require.False(t, a.good(a2))
		a2, r2 = fourth.ok("access_token"), fourth.ok("refresh_token")
		require.True(t, a.good(a2))
	})
	t.Run("logout voids it", func(*testing.T) {
		a.as(a2, "POST", "/_matrix/client/v3/logout", "{}").ok("")
		a.refresh(r2).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	})
	t.Run("bad input", func(*testing.T) {
		a.as("", "POST", refreshPath, `{}`).refused(http.StatusBadRequest, "M_MISSING_PARAM")
		for _, bad := range []string{"x", a1, "her_..", r1 + "x"} {
			a.refresh(bad).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
		}
	})
}

// A refresh token that was spent is in two hands: the session ends, whoever shows it, and its device stays.
func TestSpentRefreshTokenEndsTheSession(t *testing.T) {
	a := newAccounts(t, account.Config{Lifetimes: account.Lifetimes{Refreshable: time.Hour}})
	a.users("alice")
	other := a.login(`,"refresh_token":true,"device_id":"OTHER"`)
	for name, use := range map[string]func(t *testing.T, access, refresh string){
		"its successor's access token was used": func(t *testing.T, access, _ string) { require.True(t, a.good(access)) },
		"its successor was exchanged":           func(_ *testing.T, _, refresh string) { a.refresh(refresh).ok("refresh_token") },
		"long ago": func(t *testing.T, _, refresh string) {
			for range 5 {
				in := a.refresh(refresh)
				require.True(t, a.good(in.ok("access_token")))
				refresh = in.ok("refresh_token")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := a.login(`,"refresh_token":true,"device_id":"PHONE"`)
			spent := in.ok("refresh_token")
			next := a.refresh(spent)
			use(t, next.ok("access_token"), next.ok("refresh_token"))
			line := a.stored("PHONE")
			require.NotZero(t, line)
			out := a.refresh(spent)
			out.refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
			require.Equal(t, true, out.body["soft_logout"], "the device is there to be logged in on again")
			require.False(t, a.good(next.ok("access_token")))
			require.Zero(t, a.stored("PHONE"))
			a.refresh(next.ok("refresh_token")).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
			var devices int
			require.NoError(t, a.DB.Pool.QueryRow(a.Ctx(), `SELECT count(*) FROM device WHERE device_id = 'PHONE'`).Scan(&devices))
			require.Equal(t, 1, devices)
		})
	}
	require.True(t, a.good(other.ok("access_token")), "another session has nothing to do with it")

	t.Run("what nobody gave out ends nothing", func(t *testing.T) {
		in := a.login(`,"refresh_token":true,"device_id":"PHONE"`)
		a.refresh(in.ok("refresh_token")).ok("access_token")
		// With the line of a good token, and another place in it, but not signed.
		forged := strings.Split(in.ok("refresh_token"), ".")
		body, err := base64.RawURLEncoding.DecodeString(forged[1])
		require.NoError(t, err)
		body[40+3] = 0 // the number
		forged[1] = base64.RawURLEncoding.EncodeToString(body)
		sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(forged[0]+"."+forged[1])))
		a.refresh(forged[0]+"."+forged[1]+"."+base64.RawURLEncoding.EncodeToString(sum)).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
		require.True(t, a.good(in.ok("access_token")))
	})
	t.Run("two at once: one of the answers is good, and who has the other asks again", func(t *testing.T) {
		in := a.login(`,"refresh_token":true,"device_id":"PHONE"`)
		got := make([]account.LoggedIn, 8)
		var wg sync.WaitGroup
		for i := range got {
			wg.Go(func() {
				var err error
				got[i], err = a.front.Refresh(a.Ctx(), in.ok("refresh_token"))
				assert.NoError(t, err) // nobody is refused
			})
		}
		wg.Wait()
		good := slices.IndexFunc(got, func(l account.LoggedIn) bool {
			var n int
			hash := account.HashToken(l.AccessToken)
			require.NoError(t, a.DB.Pool.QueryRow(a.Ctx(), `SELECT count(*) FROM access_token WHERE hash = $1`, hash[:]).Scan(&n))
			return n == 1
		})
		require.GreaterOrEqual(t, good, 0)
		for i, l := range got {
			if i != good {
				require.False(t, a.good(l.AccessToken))
				a.refresh(l.RefreshToken).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN") // and ends nothing
			}
		}
		again := a.refresh(in.ok("refresh_token"))
		require.True(t, a.good(again.ok("access_token")))
		require.False(t, a.good(got[good].AccessToken))
		a.refresh(got[good].RefreshToken).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
		require.True(t, a.good(again.ok("access_token")), "who lost a race is no thief")
	})
}

// stored counts what is stored of a device's tokens.
func (a *accounts) stored(device string) (n int) {
	a.T.Helper()
	require.NoError(a.T, a.DB.Pool.QueryRow(a.Ctx(), `SELECT (SELECT count(*) FROM access_token WHERE device_id = $1) +
		(SELECT count(*) FROM refresh_token WHERE device_id = $1)`, device).Scan(&n))
	return n
}

func TestTokensExpire(t *testing.T) {
	a := newAccounts(t, account.Config{Lifetimes: account.Lifetimes{Refreshable: time.Millisecond, Refresh: time.Nanosecond}})
	a.users("alice")
	in := a.login(`,"refresh_token":true`)
	token := in.ok("access_token")
	require.Eventually(t, func() bool { return !a.good(token) }, 10*time.Second, time.Millisecond)
	out := a.as(token, "PUT", "/_matrix/client/v3/devices/NONE", `{}`)
	out.refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	require.Equal(t, true, out.body["soft_logout"], "the device is still there")
	a.refresh(in.ok("refresh_token")).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
}

func TestLoginToken(t *testing.T) {
	a := newAccounts(t, account.Config{})
	a.users("alice", "bob")
	alice := a.tokens["alice"]
	flows, ok := a.as("", "GET", loginPath, "").body["flows"].([]any)
	require.True(t, ok)
	require.Contains(t, flows, map[string]any{"type": "m.login.token", "get_login_token": true})

	made := a.confirmed(alice, "POST", v1+"/login/get_token", "", "alice")
	token := made.ok("login_token")
	require.EqualValues(t, 120_000, made.body["expires_in_ms"])
	use := func(token string) reply {
		return a.as("", "POST", loginPath, fmt.Sprintf(`{"type":"m.login.token","token":%q,"device_id":"NEW"}`, token))
	}
	in := use(token)
	require.Equal(t, "@alice:"+string(roomtest.Server), in.ok("user_id"))
	require.True(t, a.good(in.ok("access_token")))
	use(token).refused(http.StatusForbidden, "M_FORBIDDEN") // once
	for _, bad := range []string{"x", alice, "hel_..", token + "x"} {
		use(bad).refused(http.StatusForbidden, "M_FORBIDDEN")
	}
	a.as("", "POST", loginPath, `{"type":"m.login.token"}`).refused(http.StatusBadRequest, "M_MISSING_PARAM")
	a.as("", "POST", v1+"/login/get_token", `{}`).refused(http.StatusUnauthorized, "M_MISSING_TOKEN")
	a.confirmed(alice, "POST", v1+"/login/get_token", "", "bob").refused(http.StatusForbidden, "M_FORBIDDEN")
}

func TestGuests(t *testing.T) {
	const path = "/_matrix/client/v3/register?kind=guest"
	newAccounts(t, account.Config{}).as("", "POST", path, `{}`).refused(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN")
	a := newAccounts(t, account.Config{Guests: true})
	in := a.as("", "POST", path, `{"device_id":"MINE"}`)
	require.NotEqual(t, "MINE", in.ok("device_id"))
	guest := in.ok("access_token")
	a.as(guest, "POST", "/_matrix/client/v3/createRoom", `{}`).refused(http.StatusForbidden, "M_GUEST_ACCESS_FORBIDDEN")
	require.Equal(t, http.StatusOK, a.as(guest, "PUT", "/_matrix/client/v3/devices/"+in.ok("device_id"), `{"display_name":"x"}`).status)
}

func TestDeactivate(t *testing.T) {
	const path = "/_matrix/client/v3/account/deactivate"
	a := newAccounts(t, account.Config{})
	a.users("alice", "bob")
	alice := a.tokens["alice"]
	second := a.login(`,"refresh_token":true`)
	user := id.UserID("@alice:" + string(roomtest.Server))
	data := "/_matrix/client/v3/user/" + string(user) + "/account_data/org.example"
	a.as(alice, "PUT", data, `{"a":1}`).ok("")

	a.as("", "POST", path, `{}`).refused(http.StatusUnauthorized, "M_MISSING_TOKEN")
	first := a.as(alice, "POST", path, `{}`)
	require.Equal(t, http.StatusUnauthorized, first.status)
	require.True(t, a.good(alice), "nothing has happened yet")

	done := a.confirmed(alice, "POST", path, `"erase":true`, "alice")
	require.Equal(t, "success", done.ok("id_server_unbind_result"))
	require.False(t, a.good(alice))
	require.False(t, a.good(second.ok("access_token")))
	a.refresh(second.ok("refresh_token")).refused(http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	a.login("").refused(http.StatusForbidden, "M_FORBIDDEN") // whoever knows no password is not told what became of it
	a.as("", "GET", "/_matrix/client/v3/register/available?username=alice", "").refused(http.StatusBadRequest, "M_USER_IN_USE")

	s := a.Shards.OfUser(string(user))
	acc, ok, err := a.stack.accounts.Account(a.Ctx(), s, string(user))
	require.NoError(t, err)
	require.True(t, ok)
	require.True(t, acc.Deactivated && acc.Erased)
	require.Empty(t, acc.PasswordHash)
	fields, err := a.stack.accounts.Profile(a.Ctx(), s, string(user))
	require.NoError(t, err)
	require.Empty(t, fields)
	_, ok, err = a.stack.accounts.AccountData(a.Ctx(), s, string(user), "", "org.example")
	require.NoError(t, err)
	require.False(t, ok)
	require.True(t, a.good(a.tokens["bob"]), "nobody else is touched")

	again, err := a.front.Do(a.Ctx(), &account.Deactivate{UserID: string(user)})
	require.NoError(t, err)
	require.True(t, again.Unchanged)
}

func TestLockAndSuspend(t *testing.T) {
	a := newAccounts(t, account.Config{})
	a.users("alice", "bob")
	admin, alice := a.admin("root"), a.tokens["alice"]
	user := "@alice:" + string(roomtest.Server)
	room := a.call("bob", "POST", "/createRoom", `{"preset":"public_chat"}`).ok("room_id")
	for _, field := range []string{"locked", "suspended"} {
		t.Run(field, func(t *testing.T) {
			a := &accounts{a.in(t)}
			path := v1 + "/admin/" + map[string]string{"locked": "lock/", "suspended": "suspend/"}[field]
			set := func(who string, v string) reply { return a.as(who, "PUT", path+user, `{"`+field+`":`+v+`}`) }
			require.Equal(t, map[string]any{field: false}, a.as(admin, "GET", path+user, "").body)
			require.Equal(t, map[string]any{field: true}, set(admin, "true").body)
			require.Equal(t, map[string]any{field: true}, a.as(admin, "GET", path+user, "").body)

			join := a.as(alice, "POST", "/_matrix/client/v3/join/"+room, `{}`)
			if field == "locked" {
				join.refused(http.StatusUnauthorized, "M_USER_LOCKED")
				require.Equal(t, true, join.body["soft_logout"])
				a.login("").refused(http.StatusUnauthorized, "M_USER_LOCKED")
			} else {
				join.refused(http.StatusForbidden, "M_USER_SUSPENDED")
				a.login("").ok("access_token")
			}
			require.Equal(t, map[string]any{field: false}, set(admin, "false").body)
			a.as(alice, "POST", "/_matrix/client/v3/join/"+room, `{}`).ok("room_id")
			a.as(alice, "POST", "/_matrix/client/v3/rooms/"+room+"/leave", `{}`).ok("")

			set(alice, "true").refused(http.StatusForbidden, "M_FORBIDDEN")
			a.as(alice, "GET", path+user, "").refused(http.StatusForbidden, "M_FORBIDDEN")
			set(admin, `"yes"`).refused(http.StatusBadRequest, "M_BAD_JSON")
			a.as(admin, "PUT", path+user, `{}`).refused(http.StatusBadRequest, "M_BAD_JSON")
			a.as(admin, "PUT", path+"@root:"+string(roomtest.Server), `{"`+field+`":true}`).refused(http.StatusForbidden, "M_FORBIDDEN")
			for of, want := range map[string]struct {
				status int
				code   string
			}{
				"@nobody:" + string(roomtest.Server): {http.StatusNotFound, "M_NOT_FOUND"},
				"@alice:elsewhere.test":              {http.StatusBadRequest, "M_INVALID_PARAM"},
				"alice":                              {http.StatusBadRequest, "M_INVALID_PARAM"},
			} {
				a.as(admin, "GET", path+of, "").refused(want.status, want.code)
				a.as(admin, "PUT", path+of, `{"`+field+`":true}`).refused(want.status, want.code)
			}
		})
	}
	t.Run("a locked user can log out", func(t *testing.T) {
		a := &accounts{a.in(t)}
		a.as(admin, "PUT", v1+"/admin/lock/"+user, `{"locked":true}`)
		a.as(alice, "POST", "/_matrix/client/v3/logout", `{}`).ok("")
	})
}

func TestOpenIDToken(t *testing.T) {
	a := newAccounts(t, account.Config{})
	a.users("alice", "bob")
	user := "@alice:" + string(roomtest.Server)
	path := "/_matrix/client/v3/user/" + user + "/openid/request_token"
	got := a.as(a.tokens["alice"], "POST", path, `{}`)
	require.Equal(t, "Bearer", got.ok("token_type"))
	require.Equal(t, string(roomtest.Server), got.ok("matrix_server_name"))
	require.EqualValues(t, 3600, got.body["expires_in"])
	token := got.ok("access_token")
	u, err := a.front.OpenIDUser(token)
	require.NoError(t, err)
	require.EqualValues(t, user, u)
	require.False(t, a.good(token), "it lets nobody in")
	_, err = account.OpenIDUser([]byte("secret"), roomtest.Server, token, time.Now().Add(2*time.Hour))
	require.Error(t, err, "it ends")
	_, err = account.OpenIDUser([]byte("another secret"), roomtest.Server, token, time.Now())
	require.Error(t, err)
	for _, bad := range []string{"", "heo_", "heo_.", a.tokens["alice"], token + "x", token[:len(token)-2]} {
		_, err := a.front.OpenIDUser(bad)
		require.Error(t, err, bad)
	}
	a.as(a.tokens["bob"], "POST", path, `{}`).refused(http.StatusForbidden, "M_FORBIDDEN")
	a.as(a.tokens["alice"], "POST", path, `[]`).refused(http.StatusBadRequest, "M_BAD_JSON")
}
