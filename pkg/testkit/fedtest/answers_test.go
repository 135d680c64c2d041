package fedtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// told asks a homeserver for something that is made of events, and gives the answer's fields.
func (s *stage) told(t *testing.T, method, uri string, body []byte) map[string]json.RawMessage {
	t.Helper()
	status, answer := s.remote.Ask(t, s.home, method, uri, body)
	require.Equal(t, 200, status, "%s", answer)
	var out map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(answer, &out))
	return out
}

// events reads a list of PDUs.
func events(t *testing.T, rules *roomver.Rules, list json.RawMessage) (out []*event.Event) {
	t.Helper()
	var pdus []json.RawMessage
	require.NoError(t, json.Unmarshal(list, &pdus))
	for _, pdu := range pdus {
		e, err := event.Parse(rules, pdu)
		require.NoError(t, err)
		out = append(out, e)
	}
	return out
}

// requireClosed demands that of some events all that allows them is there, down to the room's beginning.
func requireClosed(t *testing.T, of, chain []*event.Event) {
	t.Helper()
	there := idsOf(chain...)
	for _, e := range slices.Concat(of, chain) {
		for _, a := range e.AuthEvents() {
			require.Contains(t, there, a, "what allows %s is told", e.EventID())
		}
	}
	require.True(t, slices.ContainsFunc(slices.Concat(of, chain), func(e *event.Event) bool {
		return e.Type() == event.TypeCreate || e.RoomID() != "" && e.Type() == event.TypeMember && len(e.AuthEvents()) == 0
	}), "down to the room's beginning")
}

// Another server that is in a room is told what it asks of it as it was: the state before an event and not the one now, what allows it, what was
// before it, what lies between, and what was said when. It is the same that its users are shown.
func TestAnswersAboutARoom(t *testing.T) {
	s := newStage(t)
	for _, v := range versions {
		t.Run("version "+string(v), func(t *testing.T) {
			p := s.enter(t, v, "weaver")
			room := string(p.Room)
			r, esc := url.PathEscape(room), url.PathEscape
			s.alice.Sees(t, room, string(p.Join.EventID()))
			old := s.alice.Set(t, room, "m.room.topic", "", map[string]any{"topic": "warp"})
			then := s.alice.State(t, room)
			first := s.alice.Say(t, room, "one")
			topic := s.alice.Set(t, room, "m.room.topic", "", map[string]any{"topic": "weft"})
			last := s.alice.Say(t, room, "two")

			want := slices.Sorted(func(yield func(string) bool) {
				for _, e := range then {
					if !yield(e) {
						return
					}
				}
			})
			whole := s.told(t, "GET", fed+"state/"+r+"?event_id="+esc(first), nil)
			state, chain := events(t, p.Rules, whole["pdus"]), events(t, p.Rules, whole["auth_chain"])
			sorted := func(list []id.EventID) (out []string) {
				for _, e := range list {
					out = append(out, string(e))
				}
				slices.Sort(out)
				return out
			}
			require.Equal(t, want, sorted(idsOf(state...)), "the state is that before the event")
			require.Contains(t, want, old)
			requireClosed(t, state, chain)
			ids := s.told(t, "GET", fed+"state_ids/"+r+"?event_id="+esc(first), nil)
			require.Equal(t, want, sorted(list(t, ids["pdu_ids"])))
			require.Equal(t, sorted(idsOf(chain...)), sorted(list(t, ids["auth_chain_ids"])))

			one := events(t, p.Rules, s.told(t, "GET", fed+"event/"+esc(last), nil)["pdus"])
			require.Equal(t, []id.EventID{id.EventID(last)}, idsOf(one...))
			requireClosed(t, one, events(t, p.Rules, s.told(t, "GET", fed+"event_auth/"+r+"/"+esc(last), nil)["auth_chain"]))

			back := events(t, p.Rules, s.told(t, "GET", fed+"backfill/"+r+"?limit=3&v="+esc(last), nil)["pdus"])
			require.Equal(t, []id.EventID{id.EventID(last), id.EventID(topic), id.EventID(first)}, idsOf(back...), "the latest first")
			missing := func(limit int) []id.EventID {
				body := encoded(t, map[string]any{"earliest_events": []string{old}, "latest_events": []string{last}, "limit": limit, "min_depth": 0})
				return idsOf(events(t, p.Rules, s.told(t, "POST", fed+"get_missing_events/"+r, []byte(body))["events"])...)
			}
			require.Equal(t, []id.EventID{id.EventID(first), id.EventID(topic)}, missing(10), "what lies between, the earliest first")
			require.Equal(t, []id.EventID{id.EventID(topic)}, missing(1), "of what is too much, what is nearest to the latest")

			for dir, at := range map[string]int64{"f": 0, "b": time.Now().Add(time.Hour).UnixMilli()} {
				end := map[string]string{"f": string(p.Find(t, event.TypeCreate, "").EventID()), "b": last}[dir]
				found := s.told(t, "GET", fed+"timestamp_to_event/"+r+fmt.Sprintf("?dir=%s&ts=%d", dir, at), nil)
				require.JSONEq(t, encoded(t, end), string(found["event_id"]), dir)
			}
		})
	}
}

// list reads a list of event ids.
func list(t *testing.T, raw json.RawMessage) (out []id.EventID) {
	t.Helper()
	require.NoError(t, json.Unmarshal(raw, &out))
	return out
}

// Each of two servers publishes its keys, vouches for the other's, and tells whose a token for third parties is.
func TestKeysAndTokensOfTwoServers(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := fedtest.Run(t, ca, "127.0.0.1"), fedtest.Run(t, ca, "localhost")
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	client := ca.Client(t)
	get := func(t *testing.T, method string, h *fedtest.Homeserver, path, body string) (int, []byte) {
		t.Helper()
		return fetched(t, client, method, "https://"+string(h.Name)+path, body)
	}
	for name, p := range map[string][2]*fedtest.User{"there": {alice, bob}, "back": {bob, alice}} {
		t.Run(name, func(t *testing.T) {
			own, notary := p[0].Home, p[1].Home
			keys := func(t *testing.T, by *fedtest.Homeserver) *signing.KeyDocument {
				t.Helper()
				status, raw := get(t, "GET", by, "/_matrix/key/v2/server", "")
				require.Equal(t, 200, status, "%s", raw)
				d, err := signing.ParseKeyDocument(raw, by.Name)
				require.NoError(t, err)
				return d
			}
			now := time.Now().UnixMilli()
			mine := keys(t, own).Keys(now)
			require.Len(t, mine, 1)
			vouches := keyring{server: notary.Name, keys: keys(t, notary).Keys(now)}
			for how, q := range map[string][3]string{
				"one": {"GET", "/_matrix/key/v2/query/" + url.PathEscape(string(own.Name)), ""},
				"many": {"POST", "/_matrix/key/v2/query", encoded(t, map[string]any{"server_keys": map[string]any{
					string(own.Name): map[string]any{}, string(notary.Name): map[string]any{}, string(fedtest.Nowhere(t)): map[string]any{},
				}})},
			} {
				status, raw := get(t, q[0], notary, q[1], q[2])
				require.Equal(t, 200, status, "%s", raw)
				var answer struct {
					Keys []json.RawMessage `json:"server_keys"`
				}
				require.NoError(t, json.Unmarshal(raw, &answer))
				found := false
				for _, k := range answer.Keys {
					require.NoError(t, signing.VerifyServerJSON(k, notary.Name, vouches, now), how)
					if d, err := signing.ParseKeyDocument(k, own.Name); err == nil {
						found = true
						for k, v := range mine {
							require.Equal(t, v.Key, d.Keys(now)[k].Key)
						}
					}
				}
				require.True(t, found, how)
			}

			a := p[0].Must(t, "POST", "/user/"+url.PathEscape(p[0].User)+"/openid/request_token", map[string]any{})
			require.Equal(t, string(own.Name), a["matrix_server_name"])
			userinfo := "/_matrix/federation/v1/openid/userinfo?access_token="
			status, raw := get(t, "GET", own, userinfo+url.QueryEscape(a["access_token"].(string)), "")
			require.Equal(t, 200, status, "%s", raw)
			require.JSONEq(t, encoded(t, map[string]string{"sub": p[0].User}), string(raw))
			for _, other := range []string{"", "x", p[0].Token} {
				status, raw = get(t, "GET", own, userinfo+url.QueryEscape(other), "")
				require.Equal(t, 401, status, "%s", raw)
			}
			status, _ = get(t, "GET", notary, userinfo+url.QueryEscape(a["access_token"].(string)), "")
			require.Equal(t, 401, status, "it is good at the server that gave it")
			status, raw = get(t, "GET", own, "/_matrix/federation/v1/version", "")
			require.Equal(t, 200, status)
			require.Contains(t, string(raw), `"name"`)
		})
	}
}

// keyring is the keys of one server.
type keyring struct {
	server id.ServerName
	keys   map[id.KeyID]signing.VerifyKey
}

// VerifyKey implements signing.Keys.
func (k keyring) VerifyKey(server id.ServerName, keyID id.KeyID) (signing.VerifyKey, bool) {
	v, ok := k.keys[keyID]
	return v, ok && server == k.server
}

func fetched(t *testing.T, c *http.Client, method, address, body string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, b
}
