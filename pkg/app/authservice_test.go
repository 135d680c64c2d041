package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// authServiceFake is an outside authentication service with a few tokens.
type authServiceFake struct {
	*httptest.Server
	mu     sync.Mutex
	tokens map[string]map[string]any
	asked  atomic.Int32
	down   atomic.Bool
}

const serviceSecret = "between the two of us"

func newAuthServiceFake(t *testing.T) *authServiceFake {
	s := &authServiceFake{tokens: map[string]map[string]any{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.down.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.Method == http.MethodGet && r.URL.Path == "/.well-known/openid-configuration":
			_, _ = w.Write([]byte(`{"issuer":"https://auth.example.org/","account_management_uri":"https://auth.example.org/account?a=b",` +
				`"token_endpoint":"https://auth.example.org/oauth2/token"}`))
		case r.Method == http.MethodPost && r.URL.Path == "/oauth2/introspect" && r.Header.Get("Authorization") == "Bearer "+serviceSecret:
			s.asked.Add(1)
			s.mu.Lock()
			a, ok := s.tokens[r.PostFormValue("token")]
			s.mu.Unlock()
			if !ok {
				a = map[string]any{"active": false}
			}
			_ = json.NewEncoder(w).Encode(a)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// token makes a good one. device "" leaves the device to the scope.
func (s *authServiceFake) token(name, user, device, scope string) {
	a := map[string]any{"active": true, "username": user, "scope": scope, "expires_in": 300}
	if device != "" {
		a["device_id"] = device
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[name] = a
}

func (s *authServiceFake) end(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, name)
}

const apiScope = "openid urn:matrix:client:api:*"

// Where an outside service keeps the accounts, it makes them and their devices, its tokens are good on every worker, and what it ends is
// ended at once.
func TestAccountsOfAnOutsideService(t *testing.T) {
	t.Parallel()
	f, service := newFleet(t), newAuthServiceFake(t)
	f.cfg.OAuth.Endpoint, f.cfg.OAuth.Secret = service.URL, serviceSecret
	master, reader := f.start(t, Master, "m"), f.start(t, Synchrotron, "s")
	f.owns(t, "m")

	mas := func(method, path, body string) (int, map[string]any) {
		t.Helper()
		status, answer, _ := master.call(t, method, "/_synapse/mas/"+path, serviceSecret, body)
		return status, answer
	}
	done := func(want int, method, path, body string) map[string]any {
		t.Helper()
		status, answer := mas(method, path, body)
		require.Equal(t, want, status, "%s: %v", path, answer)
		return answer
	}
	whoAmI := func(w *worker, token string) (int, map[string]any) {
		t.Helper()
		status, answer, _ := w.call(t, "GET", "/_matrix/client/v3/account/whoami", token, "")
		return status, answer
	}
	devices := func(token string) (out []string) {
		t.Helper()
		status, answer, _ := reader.call(t, "GET", "/_matrix/client/v3/devices", token, "")
		require.Equal(t, http.StatusOK, status, answer)
		list, _ := answer["devices"].([]any)
		for _, d := range list {
			m, _ := d.(map[string]any)
			name, _ := m["display_name"].(string)
			dev, _ := m["device_id"].(string)
			out = append(out, dev+":"+name)
		}
		return out
	}

	// What there is before: nobody.
	service.token("t1", "alice", "PHONE", apiScope)
	status, answer := whoAmI(reader, "t1")
	require.Equal(t, http.StatusUnauthorized, status, "the service speaks of a user whom it has not made: %v", answer)
	done(http.StatusNotFound, "GET", "query_user?localpart=alice", "")
	done(http.StatusOK, "GET", "is_localpart_available?localpart=alice", "")

	done(http.StatusCreated, "POST", "provision_user", `{"localpart":"alice","set_displayname":"Alice A","set_avatar_url":"mxc://a/b"}`)
	done(http.StatusOK, "POST", "provision_user", `{"localpart":"alice","unset_avatar_url":true}`)
	require.Equal(t, map[string]any{
		"user_id": "@alice:example.org", "display_name": "Alice A", "avatar_url": nil, "is_suspended": false, "is_deactivated": false,
		"is_locked": false,
	}, done(http.StatusOK, "GET", "query_user?localpart=alice", ""))
	require.Equal(t, "M_USER_IN_USE", done(http.StatusBadRequest, "GET", "is_localpart_available?localpart=alice", "")["errcode"])
	require.Equal(t, "M_INVALID_USERNAME", done(http.StatusBadRequest, "GET", "is_localpart_available?localpart=Alice", "")["errcode"])

	// A good token makes its device known, and is good at every worker.
	require.Eventually(t, func() bool { // until the master knows who serves reading
		status, _ := whoAmI(master, "t1")
		return status == http.StatusOK
	}, patient, patient/1000)
	asked := service.asked.Load()
	for range 3 {
		for _, w := range []*worker{master, reader} {
			status, answer = whoAmI(w, "t1")
			require.Equal(t, http.StatusOK, status, answer)
			require.Equal(t, "@alice:example.org", answer["user_id"])
			require.Equal(t, "PHONE", answer["device_id"])
		}
	}
	require.LessOrEqual(t, service.asked.Load()-asked, int32(2), "the answer is remembered")
	require.Equal(t, []string{"PHONE:"}, devices("t1"))
	service.token("t2", "alice", "", apiScope+" urn:matrix:client:device:DESK")
	status, answer = whoAmI(reader, "t2")
	require.Equal(t, http.StatusOK, status, answer)
	require.Equal(t, "DESK", answer["device_id"])

	// What a token is not good for.
	service.token("openid", "alice", "X", "openid email")
	service.token("two", "alice", "", apiScope+" urn:matrix:client:device:A urn:matrix:client:device:B")
	service.token("nobody", "", "X", apiScope)
	for _, bad := range []string{"openid", "two", "nobody", "unknown", "hea_YWxpY2U_aaaa_0aaaaa"} {
		status, answer = whoAmI(reader, bad)
		require.Equal(t, http.StatusUnauthorized, status, bad)
		require.Equal(t, "M_UNKNOWN_TOKEN", answer["errcode"], bad)
	}
	suspend := "/_matrix/client/v1/admin/suspend/@alice:example.org"
	status, _, _ = master.call(t, "GET", suspend, "t1", "")
	require.Equal(t, http.StatusForbidden, status)
	service.token("admin", "alice", "", apiScope+" urn:synapse:admin:*")
	status, answer, _ = master.call(t, "GET", suspend, "admin", "")
	require.Equal(t, http.StatusOK, status, answer)

	// Devices.
	done(http.StatusOK, "POST", "upsert_device", `{"localpart":"alice","device_id":"PAD","display_name":"Pad"}`)
	done(http.StatusOK, "POST", "upsert_device", `{"localpart":"alice","device_id":"PAD"}`)
	done(http.StatusOK, "POST", "update_device_display_name", `{"localpart":"alice","device_id":"PHONE","display_name":"Phone"}`)
	done(http.StatusNotFound, "POST", "update_device_display_name", `{"localpart":"alice","device_id":"NONE","display_name":"x"}`)
	require.Equal(t, []string{"DESK:", "PAD:Pad", "PHONE:Phone"}, devices("t1"))
	service.end("t2")
	done(http.StatusNoContent, "POST", "delete_device", `{"localpart":"alice","device_id":"DESK"}`)
	require.Eventually(t, func() bool { // the reader hears of it
		status, _ := whoAmI(reader, "t2")
		return status == http.StatusUnauthorized
	}, patient, patient/1000)
	done(http.StatusOK, "POST", "sync_devices", `{"localpart":"alice","devices":["PHONE","NEW","NEW"]}`)
	require.Equal(t, []string{"NEW:", "PHONE:Phone"}, devices("t1"))
	done(http.StatusOK, "POST", "sync_devices", `{"localpart":"alice","devices":["PHONE","NEW"]}`)

	// The profile.
	done(http.StatusOK, "POST", "set_displayname", `{"localpart":"alice","displayname":"Al"}`)
	require.Equal(t, "Al", done(http.StatusOK, "GET", "query_user?localpart=alice", "")["display_name"])
	done(http.StatusOK, "POST", "unset_displayname", `{"localpart":"alice"}`)
	require.Nil(t, done(http.StatusOK, "GET", "query_user?localpart=alice", "")["display_name"])

	done(http.StatusOK, "POST", "allow_cross_signing_reset", `{"localpart":"alice"}`)

	// Clients are pointed to the service, and do nothing here that is the service's.
	status, answer, _ = reader.call(t, "GET", "/_matrix/client/v1/auth_metadata", "", "")
	require.Equal(t, http.StatusOK, status, answer)
	require.Equal(t, "https://auth.example.org/", answer["issuer"])
	require.Equal(t, "https://auth.example.org/oauth2/token", answer["token_endpoint"])
	for path, method := range map[string]string{
		"login": "POST", "register": "POST", "refresh": "POST", "logout": "POST", "logout/all": "POST", "account/password": "POST",
		"account/deactivate": "POST", "delete_devices": "POST", "devices/PHONE": "DELETE",
	} {
		status, answer, _ = master.call(t, method, "/_matrix/client/v3/"+path, "t1", "{}")
		require.Equal(t, http.StatusNotFound, status, path)
		require.Equal(t, "M_UNRECOGNIZED", answer["errcode"], path)
	}
	status, answer, _ = reader.call(t, "GET", "/_matrix/client/v3/capabilities", "t1", "")
	require.Equal(t, http.StatusOK, status)
	capabilities, _ := answer["capabilities"].(map[string]any)
	for _, name := range []string{"m.change_password", "m.3pid_changes", "m.get_login_token"} {
		require.Equal(t, map[string]any{"enabled": false}, capabilities[name], name)
	}

	// Locked, and open again; closed, and open again.
	done(http.StatusOK, "POST", "provision_user", `{"localpart":"alice","locked":true}`)
	require.Eventually(t, func() bool {
		_, answer := whoAmI(reader, "t1")
		return answer["errcode"] == "M_USER_LOCKED"
	}, patient, patient/1000)
	done(http.StatusOK, "POST", "provision_user", `{"localpart":"alice","locked":false}`)
	done(http.StatusOK, "POST", "delete_user", `{"localpart":"alice","erase":true}`)
	require.Eventually(t, func() bool {
		status, _ := whoAmI(reader, "t1")
		return status == http.StatusUnauthorized
	}, patient, patient/1000)
	require.Equal(t, true, done(http.StatusOK, "GET", "query_user?localpart=alice", "")["is_deactivated"])
	done(http.StatusForbidden, "POST", "upsert_device", `{"localpart":"alice","device_id":"X"}`)
	done(http.StatusOK, "POST", "reactivate_user", `{"localpart":"alice"}`)
	require.Eventually(t, func() bool { // and until the reader has heard of the device that this makes, and remembers
		asked := service.asked.Load()
		status, _ := whoAmI(reader, "t1")
		return status == http.StatusOK && service.asked.Load() == asked
	}, patient, patient/1000)

	// While the service is away, what is known goes on, and what is not is no reason to log out.
	service.down.Store(true)
	status, _ = whoAmI(reader, "t1")
	require.Equal(t, http.StatusOK, status)
	status, answer = whoAmI(reader, "another")
	require.Equal(t, http.StatusServiceUnavailable, status, answer)
	status, _, _ = master.call(t, "GET", "/_matrix/client/v1/auth_metadata", "", "")
	require.Equal(t, http.StatusOK, status, "the last copy")
	service.down.Store(false)
}

// Only who knows the secret may use the provisioning API, and it is not there without a service.
func TestProvisioningIsRefused(t *testing.T) {
	t.Parallel()
	f, service := newFleet(t), newAuthServiceFake(t)
	f.cfg.OAuth.Endpoint, f.cfg.OAuth.Secret = service.URL, serviceSecret
	w := f.start(t, Master, "m")
	f.owns(t, "m")
	service.token("t", "alice", "A", apiScope)
	for _, path := range []string{
		"provision_user", "delete_user", "reactivate_user", "set_displayname", "unset_displayname", "allow_cross_signing_reset",
		"upsert_device", "delete_device", "update_device_display_name", "sync_devices",
	} {
		for _, token := range []string{"", "x", "t", serviceSecret + "x"} {
			status, answer, _ := w.call(t, "POST", "/_synapse/mas/"+path, token, `{"localpart":"alice"}`)
			require.Equal(t, http.StatusForbidden, status, "%s: %v", path, answer)
		}
		status, answer, _ := w.call(t, "POST", "/_synapse/mas/"+path, serviceSecret, `{}`)
		require.Equal(t, "M_MISSING_PARAM", answer["errcode"], path)
		require.Equal(t, http.StatusBadRequest, status)
		status, _, _ = w.call(t, "POST", "/_synapse/mas/"+path, serviceSecret, `{`)
		require.Equal(t, http.StatusBadRequest, status)
	}
	for path, body := range map[string]string{
		"upsert_device": `{"localpart":"alice"}`, "sync_devices": `{"localpart":"alice"}`, "set_displayname": `{"localpart":"alice"}`,
		"delete_device": `{"localpart":"alice","device_id":""}`,
	} {
		status, answer, _ := w.call(t, "POST", "/_synapse/mas/"+path, serviceSecret, body)
		require.Equal(t, http.StatusBadRequest, status, "%s: %v", path, answer)
	}
	for _, path := range []string{"set_displayname", "reactivate_user", "delete_user", "allow_cross_signing_reset", "upsert_device"} {
		status, answer, _ := w.call(t, "POST", "/_synapse/mas/"+path, serviceSecret, `{"localpart":"nobody","displayname":"x","device_id":"A"}`)
		require.Equal(t, http.StatusNotFound, status, "%s: %v", path, answer)
	}

	g := newFleet(t)
	own := g.start(t, Master, "own")
	g.owns(t, "own")
	for path, method := range map[string]string{
		"/_synapse/mas/provision_user": "POST", "/_matrix/client/v1/auth_metadata": "GET",
	} {
		status, answer, _ := own.call(t, method, path, serviceSecret, `{"localpart":"alice"}`)
		require.Equal(t, http.StatusNotFound, status, answer)
		require.Equal(t, "M_UNRECOGNIZED", answer["errcode"])
	}
}
