package fedtest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// bridge is an application service that makes those of its users who are asked for, unless they are called shy.
type bridge struct {
	t    *testing.T
	home *fedtest.Homeserver

	mu    sync.Mutex // guards asked
	asked []string
}

// as gives a client of the service.
func (b *bridge) as() *fleettest.Client {
	return &fleettest.Client{URL: b.home.URL, Token: "as-secret"}
}

// ServeHTTP implements http.Handler.
func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, ok := strings.CutPrefix(r.URL.Path, "/_matrix/app/v1/users/")
	if ok {
		b.mu.Lock()
		b.asked = append(b.asked, user)
		b.mu.Unlock()
		if strings.Contains(user, "shy") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		localpart, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
		if err := b.register(r, localpart); err != nil {
			b.t.Errorf("register %s: %v", user, err)
		}
	}
	_, _ = w.Write([]byte("{}"))
}

func (b *bridge) register(r *http.Request, localpart string) error {
	return b.as().Do(r.Context(), http.MethodPost, "/register", map[string]any{
		"type": "m.login.application_service", "username": localpart, "inhibit_login": true,
	}, nil)
}

// questions gives whom the service was asked for. Where both versions of inviting are tried, it is asked twice for somebody who is not there.
func (b *bridge) questions() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Compact(slices.Clone(b.asked))
}

// When somebody elsewhere invites a user of an application service who is not there yet, the service is asked, makes the user, and the user can
// come. It is asked of nobody else. Whom it does not want there cannot be invited.
func TestUsersOfAServiceAreInvitedFromElsewhere(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.NewHomeserver(t, ca, "localhost")
	b := &bridge{t: t, home: two}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	registration := filepath.Join(t.TempDir(), "bridge.yaml")
	require.NoError(t, os.WriteFile(registration, fmt.Appendf(nil, `id: bridge
url: %s
as_token: as-secret
hs_token: hs-secret
sender_localpart: bridgebot
namespaces: { users: [{ exclusive: true, regex: "@bridge_.*" }] }
`, server.URL), 0o600))
	two.Config.Appservices = []string{registration}
	two.Start(app.AllInOne, "one")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	remote := fedtest.NewRemote(t, ca)
	named := func(localpart string) *fedtest.User {
		return &fedtest.User{Client: &fleettest.Client{User: "@" + localpart + ":" + string(two.Name)}, Home: two}
	}
	// comes has the service's user join a room.
	comes := func(t *testing.T, u *fedtest.User, path string) {
		t.Helper()
		sep := "?"
		if strings.Contains(path, sep) {
			sep = "&"
		}
		require.NoError(t, b.as().Do(t.Context(), http.MethodPost, path+sep+"user_id="+url.QueryEscape(u.User), map[string]any{}, nil))
	}
	for _, v := range versions {
		t.Run("version "+string(v), func(t *testing.T) {
			room := alice.Create(t, string(v), nil)
			ghost, shy, nobody := named("bridge_new"+string(v)), named("bridge_shy"+string(v)), named("nobody"+string(v))
			before := len(b.questions())
			for _, u := range []*fedtest.User{ghost, bob} {
				alice.Member(t, room, "invite", u)
				alice.SeesMember(t, room, u, "invite")
			}
			require.Equal(t, []string{ghost.User}, b.questions()[before:])
			for _, u := range []*fedtest.User{shy, nobody} {
				status, code := alice.Refused(t, "POST", fedtest.RoomPath(room, "invite"), map[string]any{"user_id": u.User})
				require.Equal(t, 404, status)
				require.Equal(t, "M_NOT_FOUND", code)
			}
			require.Equal(t, []string{ghost.User, shy.User}, b.questions()[before:])
			comes(t, ghost, fedtest.JoinPath(room, one))
			alice.SeesMember(t, room, ghost, "join")
			alice.Member(t, alice.Create(t, string(v), nil), "invite", ghost)
			require.Len(t, b.questions(), before+2, "who is there is not asked for")
		})
		t.Run("version "+string(v)+" by a server of another kind", func(t *testing.T) {
			p := remote.Host(t, v, "host")
			ghost, shy, nobody := named("bridge_direct"+string(v)), named("bridge_shyer"+string(v)), named("no"+string(v))
			before := len(b.questions())
			for _, u := range []struct {
				*fedtest.User
				status int
			}{{ghost, 200}, {shy, 404}, {nobody, 404}, {bob, 200}} {
				proto := p.Message(t, "", p.State[len(p.State)-1])
				proto.Type, proto.StateKey, proto.Content = event.TypeMember, &u.User.User, []byte(`{"membership":"invite"}`)
				proto.AuthEvents = append(proto.AuthEvents, p.Find(t, event.TypeJoinRules, "").EventID())
				e := p.Build(t, proto)
				status, answer := remote.Ask(t, two, http.MethodPut,
					"/_matrix/federation/v2/invite/"+url.PathEscape(string(p.Room))+"/"+url.PathEscape(string(e.EventID())),
					[]byte(encoded(t, map[string]any{"room_version": v, "event": json.RawMessage(e.JSON()), "invite_room_state": []any{}})))
				require.Equal(t, u.status, status, "%s: %s", u.User.User, answer)
			}
			require.Equal(t, []string{ghost.User, shy.User}, b.questions()[before:])
			bob.SeesRoom(t, string(p.Room), "invite")
			if v != roomver.V1 { // in whose form a Remote proposes no joins
				comes(t, ghost, p.JoinVia())
				require.True(t, two.Known(t, p.Room))
			}
		})
	}
}
