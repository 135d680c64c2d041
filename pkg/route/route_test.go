package route

import (
	"bufio"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type endpoint struct{ api, method, path, operation, auth, guest string }

// specEndpoints are the endpoints of the specification that a homeserver may serve.
func specEndpoints(t *testing.T) []endpoint {
	t.Helper()
	f, err := os.Open("testdata/endpoints.tsv")
	require.NoError(t, err)
	defer f.Close()
	var out []endpoint
	s := bufio.NewScanner(f)
	require.True(t, s.Scan(), "header")
	for s.Scan() {
		c := strings.Split(s.Text(), "\t")
		require.Len(t, c, 6)
		out = append(out, endpoint{c[0], c[1], c[2], c[3], c[4], c[5]})
	}
	require.NoError(t, s.Err())
	require.Len(t, out, 202)
	return out
}

// notServed are the operations of which the homeserver is not the server, and the second names of
// operations that share method and path with another.
func notServed() map[string]bool {
	return map[string]bool{
		"getWellknownPolicy":    true, // served by a policy server's host
		"askPolicyServerToSign": true, // the homeserver asks
		"peekEvents":            true, // getEvents
		"inviteBy3PID":          true, // inviteUser
	}
}

func newIndex(t testing.TB) *Index {
	t.Helper()
	ix, err := NewIndex(Table())
	require.NoError(t, err)
	return ix
}

func TestTableCoversTheSpecification(t *testing.T) {
	ix := newIndex(t)
	covered := map[string]int{}
	for _, e := range specEndpoints(t) {
		if notServed()[e.operation] {
			continue
		}
		m := ix.Lookup(e.method, e.path)
		require.NotNil(t, m.Row, "%s %s is missing", e.method, e.path)
		require.Equal(t, e.path, m.Pattern, "%s found through another pattern", m.Row.Name)
		want := e.operation
		if e.api == "Server-Server" {
			want = "federation." + e.operation
			if strings.HasPrefix(e.path, "/_matrix/key/") {
				want = "key." + e.operation
			}
		}
		require.Equal(t, want, m.Row.Name)
		covered[m.Row.Name]++

		switch e.auth {
		case "none":
			require.Equal(t, AuthNone, m.Row.Auth, m.Row.Name)
		case "optional user":
			require.Equal(t, AuthOptional, m.Row.Auth, m.Row.Name)
		case "federation signature":
			require.Equal(t, AuthFederation, m.Row.Auth, m.Row.Name)
		case "appservice (as_token)":
			require.Equal(t, AuthAppservice, m.Row.Auth, m.Row.Name)
		case "user":
			want := []Auth{AuthUser, AuthAdmin}
			if e.guest != "" {
				want = []Auth{AuthGuest}
			}
			require.Contains(t, want, m.Row.Auth, m.Row.Name)
		default:
			t.Fatalf("unknown auth %q", e.auth)
		}
	}
	// What is in the table and not in the specification is listed here, so that nothing slips in by a typo.
	extra := []string{}
	for _, r := range ix.Rows() {
		if covered[r.Name] == 0 {
			extra = append(extra, r.Name)
		}
		require.LessOrEqual(t, covered[r.Name], 1, r.Name)
	}
	require.ElementsMatch(t, []string{
		"slidingSync",
		"getThreadSubscription", "setThreadSubscription", "deleteThreadSubscription", "getThreadSubscriptions",
		"sendDelayedEvent", "getDelayedEvents", "updateDelayedEvent", "actOnDelayedEvent",
		"getDehydratedDevice", "putDehydratedDevice", "deleteDehydratedDevice", "getDehydratedDeviceEvents",
		"deleteAccountData", "deleteAccountDataPerRoom", "getRtcTransports", "getAuthIssuer",
		"oauthRegister", "oauthToken", "oauthRevoke", "oauthDevice", "oauthAuthorize", "oauthLink", "oauthAccount", "emailConfirm", "consent", "loginFallback",
		"ssoCallback", "ssoContinue", "authFallback",
		"createRendezvous", "useRendezvous", "createRendezvousJSON", "useRendezvousJSON",
		"federation.sendJoinV1", "federation.sendLeaveV1", "federation.getRoomComplexity", "federation.getExtremities",
		"adminSharedSecretRegister", "adminServerVersion", "admin", "adminSendServerNotice", "adminSendServerNoticeTxn",
		"provisionQueryUser", "provisionUser", "provisionAvailable", "provisionDeleteUser", "provisionReactivateUser",
		"provisionSetDisplayName", "provisionUnsetDisplayName", "provisionAllowReset", "provisionUpsertDevice", "provisionDeleteDevice",
		"provisionRenameDevice", "provisionSyncDevices",
	}, extra)
}

func TestRowsAreSound(t *testing.T) {
	paths := map[string]bool{}
	for _, r := range Table() {
		require.Contains(t, Kinds(), r.Kind, r.Name)
		require.Contains(t, []Sticky{ByNone, ByUser, ByRoom, ByOrigin}, r.Sticky, r.Name)
		require.Contains(t, Timeouts(), r.Timeout, r.Name)
		require.NotEmpty(t, r.Rate, r.Name)
		require.NotZero(t, r.MaxBody, r.Name)
		for _, m := range r.Methods {
			require.Contains(t, []string{"GET", "POST", "PUT", "DELETE"}, m, r.Name)
		}
		federation := r.Kind == FederationReader
		for _, p := range r.Paths {
			for _, m := range r.Methods {
				require.False(t, paths[m+" "+p], "%s %s twice", m, p)
				paths[m+" "+p] = true
			}
			require.Equal(t, federation, strings.HasPrefix(p, "/_matrix/federation/") ||
				strings.HasPrefix(p, "/_matrix/key/") || p == "/.well-known/matrix/server", p)
			if r.Sticky == ByRoom {
				require.Regexp(t, `\{(roomId|roomIdOrAlias)\}`, p, r.Name)
			}
		}
		if r.Sticky == ByOrigin {
			require.Equal(t, AuthFederation, r.Auth, r.Name)
		}
		if r.Sticky == ByUser {
			require.NotContains(t, []Auth{AuthNone, AuthFederation}, r.Auth, r.Name)
		}
		if r.Kind == Synchrotron && r.MaxBody > BodyNone {
			require.Contains(t, []string{
				"slidingSync", "queryKeys", "queryPublicRooms", "search", "searchUserDirectory",
				"getDehydratedDeviceEvents",
				"setPresence", // soft: it is known where the user syncs, and nothing is stored
			}, r.Name, "a synchrotron only reads")
		}
	}
}

// TestNoAmbiguity: where two patterns can match one path, one of them is the more literal one throughout.
func TestNoAmbiguity(t *testing.T) {
	type pattern struct {
		row  Row
		text string
		segs []Segment
	}
	var all []pattern
	for _, r := range Table() {
		for _, p := range r.Paths {
			segs, err := ParsePattern(p)
			require.NoError(t, err)
			all = append(all, pattern{r, p, segs})
		}
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			if !slices.ContainsFunc(a.row.Methods, b.row.Allows) || len(a.segs) != len(b.segs) {
				continue
			}
			overlap, aMore, bMore := true, false, false
			for k := range a.segs {
				switch al, bl := a.segs[k].Type == Literal, b.segs[k].Type == Literal; {
				case al && bl:
					overlap = overlap && a.segs[k].Text == b.segs[k].Text
				case al:
					overlap = overlap && a.segs[k].Text != ""
					aMore = true
				case bl:
					overlap = overlap && b.segs[k].Text != ""
					bMore = true
				}
			}
			require.False(t, overlap && aMore == bMore, "%s and %s are ambiguous", a.text, b.text)
		}
	}
}

func TestLookup(t *testing.T) {
	ix := newIndex(t)
	cases := []struct{ method, path, name string }{
		{"GET", "/_matrix/client/v3/sync", "sync"},
		{"HEAD", "/_matrix/client/r0/sync", "sync"},
		{"PUT", "/_matrix/client/v3/rooms/!a%2Fb:c/send/m.room.message/1", "sendMessage"},
		{"PUT", "/_matrix/client/v3/rooms/!a:c/state/m.room.name", "setRoomStateWithKey"},
		{"PUT", "/_matrix/client/v3/rooms/!a:c/state/m.room.name/", "setRoomStateWithKey"},
		{"GET", "/_matrix/client/v3/rooms/!a:c/state/m.room.name/x%2Fy", "getRoomStateWithKey"},
		{"GET", "/_matrix/client/v3/rooms/!a:c/state", "getRoomState"},
		{"GET", "/_matrix/client/v3/pushrules", "getPushRules"},
		{"GET", "/_matrix/client/v3/pushrules/", "getPushRules"},
		{"GET", "/_matrix/federation/v1/query/directory", "federation.queryRoomDirectory"},
		{"GET", "/_matrix/federation/v1/query/other", "federation.queryInfo"},
		{"POST", "/_matrix/key/v2/query", "key.bulkPerspectivesKeyQuery"},
		{"POST", "/_synapse/admin/v1/register", "adminSharedSecretRegister"},
		{"PUT", "/_synapse/admin/v2/users/@a:b", "admin"},
		{"DELETE", "/_synapse/admin/", "admin"},
		{"GET", "/_matrix/client/v3/directory/list/room/!a:b", "getRoomVisibilityOnDirectory"},
		{"POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", "slidingSync"},
	}
	for _, c := range cases {
		m := ix.Lookup(c.method, c.path)
		require.NotNil(t, m.Row, "%s %s", c.method, c.path)
		require.Equal(t, c.name, m.Row.Name)
	}
	for _, path := range []string{
		"", "/", "x", "/_matrix", "/_matrix/client/v3/sync/", "/_matrix/client/v3//sync",
		"/_matrix/client/v3/rooms//state", "/_matrix/client/v9/sync", "/_matrix/client/v3/Sync", "//",
		"/_matrix/client/v3/rooms/!a:b/state/x/y/z", "/_synapse/adminx", "/_matrix/identity/v2",
	} {
		m := ix.Lookup("GET", path)
		require.Nil(t, m.Row, path)
		require.Empty(t, m.Allowed, path)
	}
	m := ix.Lookup("PATCH", "/_matrix/client/v3/login")
	require.Nil(t, m.Row)
	require.Equal(t, []string{"GET", "POST"}, m.Allowed)
	m = ix.Lookup("DELETE", "/_matrix/client/v3/rooms/!a:c/state/m.room.name/")
	require.Equal(t, []string{"GET", "PUT"}, m.Allowed)

	m = ix.Lookup("PUT", "/_matrix/client/v3/rooms/!a%2Fb:c/send/m.room.message/t")
	require.Equal(t, []Param{{"roomId", "!a%2Fb:c"}, {"eventType", "m.room.message"}, {"txnId", "t"}}, m.Params)
	m = ix.Lookup("GET", "/_synapse/admin/a/b/")
	require.Equal(t, []Param{{"path", "a/b/"}}, m.Params)
}

// TestLookupAgainstRegexps compares the tree with the plain reading of the patterns, over paths that
// are near the real ones.
func TestLookupAgainstRegexps(t *testing.T) {
	ix := newIndex(t)
	type entry struct {
		row  *Row
		text string
		re   *regexp.Regexp
	}
	var entries []entry
	var words []string
	variable := regexp.MustCompile(`\\\{[a-zA-Z0-9]+\\\}`)
	tail := regexp.MustCompile(`\\\{[a-zA-Z0-9]+\\\.\\\.\\\.\\\}`)
	for i := range ix.Rows() {
		r := &ix.Rows()[i]
		for _, p := range r.Paths {
			q := tail.ReplaceAllString(variable.ReplaceAllString(regexp.QuoteMeta(p), `[^/]+`), `.*`)
			entries = append(entries, entry{r, p, regexp.MustCompile("^" + q + "$")})
			words = append(words, p)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SampledFrom(words).Draw(t, "pattern")
		path := Fill(pattern, func(string) string {
			return rapid.SampledFrom([]string{"x", "keys", "directory", "a%2Fb", "register", "state", ""}).Draw(t, "value")
		})
		if rapid.Bool().Draw(t, "cut") {
			path = path[:rapid.IntRange(0, len(path)).Draw(t, "at")]
		}
		method := rapid.SampledFrom([]string{"GET", "PUT", "POST", "DELETE", "PATCH"}).Draw(t, "method")
		got := ix.Lookup(method, path)
		known := false
		var matching []string
		for _, e := range entries {
			if !e.re.MatchString(path) {
				continue
			}
			known = true
			if e.row.Allows(method) {
				matching = append(matching, e.text)
			}
		}
		if got.Row == nil {
			require.Empty(t, matching, "%s %s", method, path)
			require.Equal(t, known, len(got.Allowed) > 0, path)
			return
		}
		require.Contains(t, matching, got.Pattern)
		vars := func(s string) int { return strings.Count(s, "{") }
		for _, other := range matching {
			if !strings.Contains(got.Pattern, "...") && !strings.Contains(other, "...") {
				require.LessOrEqual(t, vars(got.Pattern), vars(other), "%s taken for %s, %s is more literal", got.Pattern, path, other)
			}
		}
	})
}

func TestNewIndexRefuses(t *testing.T) {
	ok := Row{Name: "a", Methods: []string{"GET"}, Paths: []string{"/a/{x}"}}
	for name, rows := range map[string][]Row{
		"twice":        {ok, ok},
		"no name":      {{Methods: ok.Methods, Paths: ok.Paths}},
		"no method":    {{Name: "a", Paths: ok.Paths}},
		"no path":      {{Name: "a", Methods: ok.Methods}},
		"conflict":     {ok, {Name: "b", Methods: []string{"PUT", "GET"}, Paths: []string{"/a/{y}"}}},
		"no slash":     {{Name: "b", Methods: ok.Methods, Paths: []string{"a"}}},
		"bad var":      {{Name: "b", Methods: ok.Methods, Paths: []string{"/{a"}}},
		"bad var 2":    {{Name: "b", Methods: ok.Methods, Paths: []string{"/x{a}"}}},
		"var twice":    {{Name: "b", Methods: ok.Methods, Paths: []string{"/{a}/{a}"}}},
		"tail not end": {{Name: "b", Methods: ok.Methods, Paths: []string{"/{a...}/b"}}},
		"empty seg":    {{Name: "b", Methods: ok.Methods, Paths: []string{"/a//b"}}},
	} {
		_, err := NewIndex(rows)
		require.Error(t, err, name)
	}
	_, err := NewIndex([]Row{ok, {Name: "b", Methods: []string{"PUT"}, Paths: []string{"/a/{y}"}}})
	require.NoError(t, err)
}

func FuzzLookup(f *testing.F) {
	ix := newIndex(f)
	for _, r := range ix.Rows() {
		f.Add(r.Methods[0], r.Paths[0])
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		m := ix.Lookup(method, path)
		if m.Row != nil {
			i := 0
			back := Fill(m.Pattern, func(string) string { i++; return m.Params[i-1].Value })
			require.Equal(t, path, back)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	ix := newIndex(b)
	for _, path := range []string{"/_matrix/client/v3/sync", "/_matrix/client/v3/rooms/!abcdef:example.org/send/m.room.message/12345"} {
		b.Run(path[strings.LastIndex(path, "v3/")+3:][:4], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ix.Lookup("GET", path)
			}
		})
	}
}
