package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/follow"
)

// Whoever logged out is unknown to every worker from then on, whichever remembered the token: by logging out, by another device, by another
// login of the same device, or as an account that is no more.
func TestLoggedOutEverywhere(t *testing.T) {
	f := newFleet(t)
	m := f.start(t, Master, "m")
	f.owns(t, "m")
	f.hears = slowly(20 * time.Millisecond)
	workers := []*worker{m, f.start(t, Synchrotron, "s1"), f.start(t, Synchrotron, "s2"), f.start(t, FederationReader, "f")}
	require.Eventually(t, func() bool { return len(m.base.living()) == len(workers) }, patient, 20*time.Millisecond)
	const client = "/_matrix/client/v3"
	auth := `"auth":{"type":"m.login.password","identifier":{"type":"m.id.user","user":%q},"password":"correct horse"}`
	for round := range 2 {
		name := fmt.Sprint("u", round)
		self := fmt.Sprintf(auth, name)
		_, a, _ := m.call(t, "POST", client+"/register", "",
			`{"username":"`+name+`","password":"correct horse","auth":{"type":"m.login.dummy"}}`)
		keeper := a["access_token"].(string)
		for _, way := range []struct{ path, body, by string }{
			{"/logout", `{}`, "gone"},
			{"/login", `{"type":"m.login.password","device_id":"GONE","password":"correct horse",
				"identifier":{"type":"m.id.user","user":"` + name + `"}}`, "nobody"},
			{"/delete_devices", `{"devices":["GONE"],` + self + `}`, "keeper"},
			{"/logout/all", `{}`, "gone"},
			{"/account/deactivate", `{` + self + `}`, "gone"},
		} {
			login := func(device string) string {
				status, a, _ := m.call(t, "POST", client+"/login", "", `{"type":"m.login.password","device_id":"`+device+
					`","identifier":{"type":"m.id.user","user":"`+name+`"},"password":"correct horse"}`)
				require.Equal(t, 200, status, "%v", a)
				return a["access_token"].(string)
			}
			gone := login("GONE")
			if way.by == "keeper" {
				keeper = login("KEEPER")
			}
			for _, w := range workers {
				status, _, _ := w.call(t, "GET", client+"/account/whoami", gone, "")
				require.Equal(t, 200, status)
			}
			status, a, _ := m.call(t, "POST", client+way.path, map[string]string{"gone": gone, "keeper": keeper}[way.by], way.body)
			require.Equal(t, 200, status, "%v", a)
			for _, w := range workers[1:] {
				status, _, _ := w.call(t, "GET", client+"/sync", gone, "")
				require.Equal(t, 401, status, "%s on %s", way.path, w.base.cfg.Instance)
			}
		}
	}
}

// slowly has workers be slow to hear of what happens.
func slowly(by time.Duration) func(follow.Batch) {
	return func(b follow.Batch) {
		if len(b.Entries) > 0 {
			time.Sleep(by) //nolint:forbidigo // that is what is tested
		}
	}
}

// An account that an administrator locks is locked on every worker from then on, and when it is let go it is let go everywhere.
func TestLockedEverywhere(t *testing.T) {
	f := newFleet(t)
	m := f.start(t, Master, "m")
	f.owns(t, "m")
	_, err := CreateUser(t.Context(), f.cfg, NewUser{Localpart: "root", Password: "correct horse", Admin: true})
	require.NoError(t, err)
	f.hears = slowly(50 * time.Millisecond)
	workers := []*worker{f.start(t, Synchrotron, "s1"), f.start(t, Synchrotron, "s2")}
	require.Eventually(t, func() bool { return len(m.base.living()) == len(workers)+1 }, patient, 20*time.Millisecond)
	const client = "/_matrix/client"
	user := m.registers(t, "user")
	root := m.asked(t, 200, "", "POST", client+"/v3/login", "",
		`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"root"},"password":"correct horse"}`)["access_token"].(string)
	for range 2 {
		for _, locked := range []bool{true, false} {
			for _, w := range workers { // who is to remember it
				w.call(t, "GET", client+"/v3/sync", user, "")
			}
			m.asked(t, 200, "", "PUT", client+"/v1/admin/lock/@user:example.org", root, fmt.Sprintf(`{"locked":%v}`, locked))
			for _, w := range workers {
				if locked {
					w.asked(t, 401, "M_USER_LOCKED", "GET", client+"/v3/sync", user, "")
				} else {
					w.asked(t, 200, "", "GET", client+"/v3/sync", user, "")
				}
			}
		}
	}
}

// A device that the outside service leaves out of a user's is gone on every worker from then on, and so is what its tokens were good for.
func TestSyncedDevicesEverywhere(t *testing.T) {
	f, service := newFleet(t), newAuthServiceFake(t)
	f.cfg.OAuth.Endpoint, f.cfg.OAuth.Secret = service.URL, serviceSecret
	m := f.start(t, Master, "m")
	f.owns(t, "m")
	f.hears = slowly(50 * time.Millisecond)
	workers := []*worker{f.start(t, Synchrotron, "s1"), f.start(t, Synchrotron, "s2")}
	require.Eventually(t, func() bool { return len(m.base.living()) == len(workers)+1 }, patient, 20*time.Millisecond)
	const whoami = "/_matrix/client/v3/account/whoami"
	m.asked(t, 201, "", "POST", "/_synapse/mas/provision_user", serviceSecret, `{"localpart":"alice"}`)
	for _, keep := range []string{`[]`, `["OTHER"]`, `["NEW"]`} { // all, some, and some beside one that is made
		m.asked(t, 200, "", "POST", "/_synapse/mas/sync_devices", serviceSecret, `{"localpart":"alice","devices":["OTHER","GONE"]}`)
		service.token("t", "alice", "GONE", apiScope)
		for _, w := range workers { // who is to remember it
			w.asked(t, 200, "", "GET", whoami, "t", "")
		}
		service.end("t")
		for _, w := range workers {
			w.asked(t, 200, "", "GET", whoami, "t", "")
		}
		m.asked(t, 200, "", "POST", "/_synapse/mas/sync_devices", serviceSecret, `{"localpart":"alice","devices":`+keep+`}`)
		for _, w := range workers {
			w.asked(t, 401, "M_UNKNOWN_TOKEN", "GET", whoami, "t", "")
		}
	}
}
