package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// TestBadInput walks over every endpoint that the route table has and that is served, with all that a client can get wrong: an error
// of the specification comes back and never a 500, and what was refused has left no trace in the database. Endpoints that come later
// are found by themselves; so are the fields of their bodies.
func TestBadInput(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	f.cfg.PublicBaseurl, f.cfg.OAuth.Provide = "https://matrix.example.org", true
	f.cfg.Log.Level = "error"
	f.passwords = account.Argon2Params{MemoryKiB: 64, Time: 1, Threads: 1}
	f.cfg.Appservices = []string{bridge(t, "walk", "null", "")}
	w := &badInput{fleet: f, worker: f.start(t, AllInOne, "one"), fields: fieldNames(t)}
	f.owns(t, "one")
	w.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: abreast}}
	t.Cleanup(w.client.CloseIdleConnections)
	require.Greater(t, len(w.fields), 40)
	w.t = t
	w.watch()
	w.cast()
	require.Contains(t, w.changes(), "event INSERT", "what is stored is seen")

	var served []string
	for _, row := range route.Table() {
		for _, method := range row.Methods {
			ok := t.Run(method+" "+row.Name, func(t *testing.T) {
				w.t = t
				w.cast()
				if !w.serves(&row, method) {
					t.Skip("not served yet")
				}
				served = append(served, row.Name)
				w.endpoint(&row, method)
			})
			if !ok && len(w.failures) > 60 {
				t.Fatal("enough")
			}
		}
	}
	for _, must := range []string{"sync", "sendMessage", "createRoom", "login", "register", "setAccountData", "getRoomEvents"} {
		require.Contains(t, served, must)
	}
	t.Logf("%d endpoints, %d requests", len(served), w.requests.Load())
}

// badInput is the walk. Who asks, and the room and event that are asked about, are real.
type badInput struct {
	*fleet
	*worker
	t        *testing.T
	client   *http.Client
	fields   []string
	requests atomic.Int64
	mu       sync.Mutex // guards failures
	failures []string

	users, accepted, txns     int
	user, token, device       string
	room, event, filter, sync string
}

// answer is what came back; errcode is empty when it was not refused.
type badAnswer struct {
	status  int
	errcode string
	body    []byte
}

// abreast is how many requests are under way at a time, and together how many may be made before it is asked whether anything was stored.
const abreast, together = 4, 50

// full is how much may have been stored on a scene: what a user has grown to is no mistake of a client's, and makes all that reads it slow.
const full = 100

// cast sets the scene, anew if the walk so far has made it useless.
func (w *badInput) cast() {
	if w.token != "" && w.accepted < full {
		who := w.do(http.MethodGet, "/_matrix/client/v3/account/whoami", w.token, nil)
		in := w.do(http.MethodGet, "/_matrix/client/v3/rooms/"+url.PathEscape(w.room)+"/state/m.room.create", w.token, nil)
		if who.status == http.StatusOK && in.status == http.StatusOK {
			return
		}
	}
	w.users++
	w.accepted = 0
	var made struct {
		UserID, DeviceID, AccessToken string
		Room                          string `json:"room_id"`
		Event                         string `json:"event_id"`
		Filter                        string `json:"filter_id"`
		Next                          string `json:"next_batch"`
	}
	ask := func(method, path, body string) {
		w.t.Helper()
		a := w.do(method, "/_matrix/client/v3"+path, w.token, []byte(body))
		require.Equal(w.t, http.StatusOK, a.status, "%s %s: %s", method, path, a.body)
		var session struct {
			UserID      string `json:"user_id"`
			DeviceID    string `json:"device_id"`
			AccessToken string `json:"access_token"`
		}
		require.NoError(w.t, json.Unmarshal(a.body, &made))
		require.NoError(w.t, json.Unmarshal(a.body, &session))
		if session.AccessToken != "" {
			w.user, w.device, w.token = session.UserID, session.DeviceID, session.AccessToken
		}
	}
	w.token = ""
	ask("POST", "/register", fmt.Sprintf(`{"username":"walker%d","password":"correct horse","auth":{"type":"m.login.dummy"}}`, w.users))
	ask("POST", "/createRoom", `{"preset":"public_chat"}`)
	w.room = made.Room
	ask("PUT", "/rooms/"+url.PathEscape(w.room)+"/send/m.room.message/1", `{"msgtype":"m.text","body":"x"}`)
	w.event = made.Event
	ask("POST", "/user/"+url.PathEscape(w.user)+"/filter", `{}`)
	w.filter = made.Filter
	ask("GET", "/sync?timeout=0", ``)
	w.sync = made.Next
}

// good gives a value that fits a path's variable.
func (w *badInput) good(name string) string {
	w.txns++
	v, ok := map[string]string{
		"roomId": w.room, "roomIdOrAlias": w.room, "userId": w.user, "eventId": w.event, "threadRootId": w.event,
		"roomAlias": "#walk:example.org", "eventType": "m.room.topic", "stateKey": "", "txnId": fmt.Sprint(w.txns), "deviceId": w.device,
		"type": "org.example.walk", "tag": "u.walk", "filterId": w.filter, "keyName": "displayname", "kind": "override",
		"ruleId": ".m.rule.master", "action": "restart", "receiptType": "m.read", "relType": "m.annotation", "version": "1", "serverName": "example.org",
	}[name]
	if !ok {
		return "walk"
	}
	return url.PathEscape(v)
}

func (w *badInput) path(row *route.Row) string { return route.Fill(row.Paths[0], w.good) }

func (w *badInput) do(method, path, token string, body []byte) badAnswer {
	return w.send(method, path, bearer(token), body, int64(len(body)))
}

func bearer(token string) string {
	if token == "" {
		return ""
	}
	return "Bearer " + token
}

// send makes one request and checks what is true of every answer.
func (w *badInput) send(method, path, authorization string, body []byte, length int64) badAnswer {
	w.t.Helper()
	w.requests.Add(1)
	ctx, cancel := context.WithTimeout(w.t.Context(), patient)
	defer cancel()
	var in io.Reader
	if body != nil {
		in = io.MultiReader(bytes.NewReader(body)) // of a length that only length tells
	}
	req, err := http.NewRequestWithContext(ctx, method, w.URL()+path, in)
	if err != nil {
		w.fail(method, path, authorization, body, "%v", err)
		return badAnswer{}
	}
	req.ContentLength = length
	// What a client says of itself is as bad as the rest, always.
	req.Header["User-Agent"] = []string{"\xff\xfe walker"}
	req.Header["X-Forwarded-For"] = []string{"\xff, 1.2.3, ::ffff:1.2.3.4%eth0"}
	req.Header["X-Request-Id"] = []string{"\xff'"}
	req.Header["Content-Type"] = []string{"text/\xff"}
	req.Header["Traceparent"] = []string{"00-zz-\xff"}
	if authorization != "" {
		req.Header["Authorization"] = []string{authorization}
	}
	res, err := w.client.Do(req)
	if err != nil {
		w.fail(method, path, authorization, body, "%v", err)
		return badAnswer{}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.fail(method, path, authorization, body, "%v", err)
		return badAnswer{}
	}
	a := badAnswer{status: res.StatusCode, body: b}
	if res.StatusCode < 400 {
		return a
	}
	var e struct {
		Errcode string `json:"errcode"`
		Error   string `json:"error"`
		Flows   []any  `json:"flows"`
	}
	valid := json.Unmarshal(b, &e) == nil && strings.HasPrefix(res.Header.Get("Content-Type"), "application/json")
	a.errcode = e.Errcode
	challenge := res.StatusCode == http.StatusUnauthorized && len(e.Flows) > 0
	// That the server which has a file is not there is no failure of this one.
	elsewhere := res.StatusCode == http.StatusBadGateway && strings.Contains(path, "/media/")
	proposed := strings.HasPrefix(e.Errcode, "IO.ELEMENT.MSC4306.M_") // as the proposal spells it
	if res.StatusCode >= 500 && !elsewhere || !valid || (!challenge && (!strings.HasPrefix(e.Errcode, "M_") && !proposed || e.Error == "")) {
		w.fail(method, path, authorization, body, "%d %s", res.StatusCode, cut(b))
	}
	return a
}

func cut[T ~string | ~[]byte](b T) string {
	if len(b) > 300 {
		return string(b[:300]) + "…"
	}
	return string(b)
}

func (w *badInput) fail(method, path, authorization string, body []byte, format string, args ...any) {
	w.t.Helper()
	text := fmt.Sprintf("%s %s\n%s\n%s\n", method, cut(path), cut(authorization), cut(body)) + fmt.Sprintf(format, args...)
	w.mu.Lock()
	w.failures = append(w.failures, text)
	w.mu.Unlock()
	w.t.Error(text)
}

// serves tells whether the endpoint has a handler. It asks for nothing that anybody would do.
func (w *badInput) serves(row *route.Row, method string) bool {
	return w.do(method, w.path(row)+"?timeout=x", "walk", []byte("{")).errcode != "M_UNRECOGNIZED"
}

// watch has the database note which tables were changed, by whoever: a row in table written for each row that was made, changed or removed
// and committed. What a worker does by itself is left out: leases, cursors, indexes that come behind the log, and when a device was last seen.
func (w *badInput) watch() {
	_, err := w.db.Pool.Exec(w.t.Context(), `
		CREATE UNLOGGED TABLE written (rel text NOT NULL);
		CREATE FUNCTION note_written() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN INSERT INTO public.written VALUES (TG_TABLE_NAME || ' ' || TG_OP); RETURN NULL; END $$;
		DO $$
		DECLARE t text;
		BEGIN
			FOR t IN SELECT c.relname FROM pg_class c WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
				AND c.relname NOT IN ('written', 'worker', 'shard_lease', 'role_lease', 'cursor') AND c.relname !~ '^(search|directory)_'
			LOOP
				EXECUTE format('CREATE TRIGGER noted AFTER INSERT OR DELETE %s ON %I FOR EACH ROW EXECUTE FUNCTION note_written()',
					CASE t WHEN 'device' THEN '' ELSE 'OR UPDATE' END, t);
			END LOOP;
		END $$`)
	require.NoError(w.t, err)
}

// changes tells what was changed since it was asked last, empty if nothing was.
func (w *badInput) changes() (out string) {
	w.t.Helper()
	require.NoError(w.t, w.db.Pool.QueryRow(w.t.Context(), `
		WITH gone AS (DELETE FROM written RETURNING rel)
		SELECT coalesce(string_agg(rel || ': ' || n, ', ' ORDER BY rel), '') FROM (SELECT rel, count(*) AS n FROM gone GROUP BY rel) g`).Scan(&out))
	return out
}

// settle waits until nothing that goes on behind an answer changes anything any more.
func (w *badInput) settle() {
	w.t.Helper()
	for w.changes() != "" {
		select {
		case <-time.After(30 * time.Millisecond):
		case <-w.t.Context().Done():
			return
		}
	}
}

// demand is what is asked, and the error that has to come back.
type demand struct {
	method, path, authorization string
	body                        []byte
	length                      int64
	status                      int
	codes                       []string
}

// refused demands of everything that is asked that it is refused as is said, and that nothing is stored.
func (w *badInput) refused(demands []demand) {
	w.t.Helper()
	w.settle()
	if stored := w.stores(func() { w.each(len(demands), func(i int) { w.want(&demands[i]) }) }); stored != "" {
		w.fail("", "", "", nil, "something was stored although everything was refused: %s", stored)
	}
}

// stores tells what is stored whenever something is done, empty if it is nothing: what is stored once may be what still went on behind an earlier
// answer.
func (w *badInput) stores(do func()) (stored string) {
	w.t.Helper()
	for range 4 {
		do()
		if stored = w.changes(); stored == "" {
			break
		}
		w.settle()
	}
	return stored
}

func (w *badInput) want(d *demand) {
	w.t.Helper()
	a := w.send(d.method, d.path, d.authorization, d.body, d.length)
	if a.status < 500 && (a.status != d.status || !slices.Contains(d.codes, a.errcode)) {
		w.fail(d.method, d.path, d.authorization, d.body, "%d %s, want %d %v", a.status, cut(a.body), d.status, d.codes)
	}
}

// each does n things, some at a time.
func (w *badInput) each(n int, do func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, abreast) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

func (w *badInput) endpoint(row *route.Row, method string) {
	w.refused(w.tokens(row, method))
	if row.Auth == route.AuthAppservice {
		user := w.token
		w.token = "as-walk"
		defer func() { w.token = user }()
	}
	w.refused(w.sizes(row, method))
	scene := w.cast
	switch row.Auth {
	case route.AuthFederation:
		return // nobody here can sign
	case route.AuthAdmin:
		scene = func() {}
		w.promote(true)
		defer w.promote(false)
	case route.AuthAppservice:
		scene = func() {}
	}
	if takesJSON(row, method) {
		w.refused(w.syntax(row, method))
	}
	w.paths(row, method)
	scene()
	w.queries(row, method)
	if takesJSON(row, method) {
		scene()
		w.bodies(row, method)
		scene()
		w.spoilt(row, method)
	}
}

// promote makes the user an administrator, or an ordinary one again, and has the worker look at the session anew.
func (w *badInput) promote(admin bool) {
	_, err := w.db.Pool.Exec(w.t.Context(), `UPDATE account SET admin = $2 WHERE user_id = $1`, w.user, admin)
	require.NoError(w.t, err)
	a := w.do("PUT", "/_matrix/client/v3/devices/"+w.device, w.token, []byte(`{"display_name":"x"}`))
	require.Equal(w.t, http.StatusOK, a.status, "%s", a.body)
}

// takesJSON tells whether the endpoint reads a JSON object from its body.
func takesJSON(row *route.Row, method string) bool {
	without := map[string]string{
		"logout": "", "logout_all": "", "forgetRoom": "", "deleteRoomAlias": "", "deleteRoomTag": "", "deleteProfileField": "",
		"deletePushRule": "", "adminSharedSecretRegister GET": "", "postReceipt": "",
		"oauthToken": "a form", "oauthRevoke": "a form", "oauthDevice": "a form", "oauthAuthorize": "a form", "oauthLink": "a form", "oauthAccount": "a form",
		"authFallback": "a form", "loginFallback": "a form", "consent": "a form",
		"createRendezvous": "plain text", "useRendezvous": "plain text",
	}
	_, no := without[row.Name]
	return !no && (method == http.MethodPost || method == http.MethodPut) && row.MaxBody > route.BodyNone
}

// tokens are credentials that are none.
func (w *badInput) tokens(row *route.Row, method string) (out []demand) {
	path := w.path(row)
	add := func(path, authorization string, status int, codes ...string) {
		out = append(out, demand{method, path, authorization, []byte("{}"), 2, status, codes})
	}
	if row.Auth == route.AuthFederation {
		for _, h := range []string{
			"", "X-Matrix", "X-Matrix ", "X-Matrix origin", "X-Matrix origin=", `X-Matrix origin="`, `X-Matrix origin="a",key="b"`,
			`X-Matrix origin="a.example",destination="example.org",key="ed25519:1",sig="AAAA"`,
			"X-Matrix origin=\"\x00\",key=\"\xff\",sig=\"", "X-Matrix " + strings.Repeat(`origin="a",`, 2000), "Bearer " + w.token,
			`X-Matrix origin="127.0.0.1:1",key="ed25519:1",sig="` + strings.Repeat("A", 20000) + `"`,
		} {
			if strings.ContainsAny(h, "\x00") {
				continue // net/http refuses it on both sides
			}
			add(path, h, http.StatusUnauthorized, "M_UNAUTHORIZED", "M_FORBIDDEN", "M_MISSING_TOKEN")
		}
		return out
	}
	if row.Auth == route.AuthNone || row.Auth == route.AuthOptional {
		return nil
	}
	add(path, "", http.StatusUnauthorized, "M_MISSING_TOKEN")
	last := w.token[len(w.token)-1]
	other := byte('a')
	if last == other {
		other = 'b'
	}
	for _, h := range []string{
		"Bearer x", "Bearer " + w.token + "x", "Bearer " + w.token[:len(w.token)-1] + string(other), "Bearer " + strings.ToUpper(w.token),
		"Bearer " + strings.Repeat("x", 30000), "Bearer \xff\xfe", "Bearer hed_", "Bearer hed__", "Bearer hed_%00_x_y", "Bearer ' OR 1=1 --", "bearer " + w.user,
	} {
		add(path, h, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	}
	for _, h := range []string{"Bearer", "Bearer ", "Basic eDp4", w.token, "Token " + w.token} {
		add(path, h, http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "M_MISSING_TOKEN")
	}
	add(path+"?access_token=%00%ff", "", http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
	if row.Auth == route.AuthAdmin || row.Auth == route.AuthAppservice {
		add(path, bearer(w.token), http.StatusForbidden, "M_FORBIDDEN")
	}
	return out
}

// sizes are more than the endpoint takes, once with a length before and once without.
func (w *badInput) sizes(row *route.Row, method string) (out []demand) {
	add := func(body []byte, length int64) {
		out = append(out, demand{method, w.path(row), bearer(w.token), body, length, http.StatusRequestEntityTooLarge, []string{"M_TOO_LARGE"}})
	}
	limit := row.MaxBody
	if limit == route.BodyUpload || limit > 1<<20 {
		limit = 1 << 20 // not sent: its length alone
	}
	big := []byte(`{"a":"` + strings.Repeat("a", int(limit)) + `"}`)
	if row.MaxBody == limit {
		add(big, int64(len(big)))
		if takesJSON(row, method) && row.Auth != route.AuthFederation && row.Auth != route.AuthAdmin {
			add(big, -1)
		}
	}
	return out
}

// syntax are bodies that are not a JSON object.
func (w *badInput) syntax(row *route.Row, method string) (out []demand) {
	add := func(body string, codes ...string) {
		out = append(out, demand{method, w.path(row), bearer(w.token), []byte(body), int64(len(body)), http.StatusBadRequest, codes})
	}
	for _, body := range []string{
		`{`, `}`, `{"a":}`, `{"a"}`, `{a:1}`, `{'a':1}`, `{"a":1,}`, `{} {}`, `{} x`, `nul`, `tru`, `{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":NaN}`,
		`{"a":Infinity}`, "{\"a\":\"\xff\"}", "{\"\xc3\x28\":1}", "\xef\xbb\xbf{}", "{\"a\":\"\x01\"}", "{\"a\":\"\\x\"}", `{"a":"\u12"}`,
		"\x00", "<xml/>", "a=b&c=d", `{"a":"`, "{\"a\":1}\x00",
	} {
		add(body, "M_NOT_JSON")
	}
	for _, body := range []string{
		`[]`, `[{}]`, `"x"`, `1`, `true`, `null`, `{"a":1,"a":2}`, `{"a":"\ud800"}`,
		`{"a":` + strings.Repeat(`[`, 2000) + strings.Repeat(`]`, 2000) + `}`,
		strings.Repeat(`{"a":`, 10_000) + `1` + strings.Repeat(`}`, 10_000),
	} {
		add(body, "M_BAD_JSON", "M_NOT_JSON")
	}
	return out
}

// attempt is what may be refused or not. errcode is demanded, if it is not empty.
type attempt struct {
	path    string
	body    []byte
	errcode string
}

// tries makes many attempts, some at a time: what was stored meanwhile may have been stored by one that was done, so that those that were refused
// are then made one by one.
func (w *badInput) tries(method string, attempts []attempt) {
	w.t.Helper()
	for some := range slices.Chunk(attempts, together) {
		answers := make([]badAnswer, len(some))
		w.each(len(some), func(i int) {
			answers[i] = w.send(method, some[i].path, bearer(w.token), some[i].body, int64(len(some[i].body)))
		})
		for i, a := range answers {
			if a.status < 400 && method != http.MethodGet {
				w.accepted++
			}
			if e := some[i].errcode; e != "" && a.status < 500 && a.errcode != e {
				w.fail(method, some[i].path, "", some[i].body, "%d %s, want %s", a.status, cut(a.body), e)
			}
		}
		if method == http.MethodGet || w.changes() == "" {
			continue
		}
		for i, a := range answers {
			if a.status >= 400 {
				w.try(method, some[i].path, some[i].body)
			}
		}
	}
}

// try asks with what may be refused or not, and demands of what is refused that it has stored nothing.
func (w *badInput) try(method, path string, body []byte) {
	w.t.Helper()
	var a badAnswer
	stored := w.stores(func() {
		if a.status == 0 || a.status >= 400 {
			a = w.send(method, path, bearer(w.token), body, int64(len(body)))
		}
	})
	if stored != "" && a.status >= 400 {
		w.fail(method, path, "", body, "%d %s\nrefused, and yet something was stored: %s", a.status, cut(a.body), stored)
	}
}

// paths asks with bad values for each variable of the path, the others being right.
func (w *badInput) paths(row *route.Row, method string) {
	segs, err := route.ParsePattern(row.Paths[0])
	require.NoError(w.t, err)
	var all []attempt
	for _, s := range segs {
		if s.Type == route.Literal {
			continue
		}
		for _, bad := range []string{
			"%00", "a%00b", "%FF", "%C3%28", "%ED%A0%80", "%E2%80%AE", "%20", "%2F", "..", "%2E%2E%2F", "!", "@", "$", "%23", "!:", "@:example.org",
			"@a", "!a:", "@a:b:c:d:e", "@%00:example.org", "!x%00:example.org", "$%00", "%23%00:example.org", "@walker1:example.org%00", "-1", "9223372036854775808", "'", "%22", "{}",
			"@" + strings.Repeat("a", 300) + ":example.org", strings.Repeat("a", 3000), "!" + strings.Repeat("%F0%9F%98%80", 1000),
		} {
			path := route.Fill(row.Paths[0], func(name string) string {
				if name == s.Text {
					return bad
				}
				return w.good(name)
			})
			a := attempt{path: path + quick(row), body: []byte("{}")}
			if slices.Contains([]string{"%FF", "%C3%28", "%ED%A0%80"}, bad) {
				a.errcode = "M_INVALID_PARAM"
			}
			all = append(all, a)
		}
	}
	w.tries(method, all)
}

// quick keeps a long poll from waiting.
func quick(row *route.Row) string {
	if row.Timeout == route.LongPoll {
		return "?timeout=0"
	}
	return ""
}

// queries asks with bad query parameters.
func (w *badInput) queries(row *route.Row, method string) {
	body := []byte("{}")
	if method == http.MethodGet {
		body = nil
	}
	values := []string{
		"", "x", "-1", "0", "1.5", "1e9", "99999999999999999999", "%00", "%FF", "%C3%28", "a%00b", "%F0%9F%98%80", "{", "{}", "[]", "null", "true",
		"s1", "t1-2_3", w.sync + "x", w.sync[1:], w.sync[:len(w.sync)/2], strings.Repeat("A", 5000), "!x:y", "@x:y", "$x", "%7B%22room%22%3A1%7D",
		"%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A-1%7D%7D%7D", "%7B%22room%22%3A%7B%22rooms%22%3A%5B%22%5Cu0000%22%5D%7D%7D",
		"%7B%22account_data%22%3A%7B%22types%22%3A%5B%22%2A%5Cu0000%2A%22%5D%7D%7D",
	}
	names := []string{"server_name", "via", "user_id", "filter", "limit"}
	if method == http.MethodGet {
		names = append(names,
			"since", "from", "to", "at", "dir", "set_presence", "full_state", "membership", "not_membership", "format", "ts", "username",
			"device_id", "order_by", "recurse", "only", "room_id", "use_state_after", "kind", "token", "version")
	}
	var all []attempt
	for _, p := range names {
		for _, v := range values {
			sep := "?"
			if q := quick(row); q != "" {
				sep = q + "&"
			}
			all = append(all, attempt{path: w.path(row) + sep + p + "=" + v, body: body})
		}
	}
	for _, q := range []string{"?%", "?%zz", "?=&=&", "?a;b", "?" + strings.Repeat("a=b&", 5000), "?timeout=x", "?timeout=-1"} {
		if row.Timeout == route.LongPoll && q[1] != 't' {
			q += "&timeout=0"
		}
		all = append(all, attempt{path: w.path(row) + q, body: body})
	}
	w.tries(method, all)
}

// bodies asks with objects whose members are named as the server's are and hold what they please: drawn at random, with a seed.
func (w *badInput) bodies(row *route.Row, method string) {
	rng := rand.New(rand.NewPCG(7, uint64(len(row.Name))))
	values := w.values()
	draw := func(share float64) []byte {
		var b bytes.Buffer
		b.WriteByte('{')
		for _, name := range w.fields {
			if rng.Float64() < share {
				if b.Len() > 1 {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, "%q:%s", name, values[rng.IntN(len(values))])
			}
		}
		b.WriteByte('}')
		return b.Bytes()
	}
	var all []attempt
	for range 40 {
		all = append(all, attempt{path: w.path(row), body: draw(0.3)})
	}
	for range 60 {
		all = append(all, attempt{path: w.path(row), body: draw(0.03)})
	}
	for _, name := range w.fields { // each by itself, so that none hides another
		v := values[rng.IntN(len(values))]
		for _, v := range []string{v, `"a\u0000b"`} {
			all = append(all, attempt{path: w.path(row), body: fmt.Appendf(nil, "{%q:%s}", name, v)})
		}
	}
	w.tries(method, all)
}

// spoilt asks with what would be right but for one member.
func (w *badInput) spoilt(row *route.Row, method string) {
	base, ok := map[string]string{
		"login":      fmt.Sprintf(`"type":"m.login.password","identifier":{"type":"m.id.user","user":%q},"password":"correct horse"`, w.user),
		"register":   `"username":"spoilt","password":"correct horse","auth":{"type":"m.login.dummy"}`,
		"createRoom": `"preset":"private_chat","name":"x","topic":"y"`,
		"inviteUser": `"user_id":"@guest:example.org"`,
		"kick":       `"user_id":"@guest:example.org"`,
		"ban":        `"user_id":"@guest:example.org"`,
		"unban":      `"user_id":"@guest:example.org"`,
		"setTyping":  `"typing":true,"timeout":1000`,
	}[row.Name]
	if !ok {
		return
	}
	var all []attempt
	for _, name := range w.fields {
		for _, v := range []string{`"a\u0000b"`, `{"a":["\u0000"]}`, `["\u0000"]`} {
			if !strings.Contains(base, `"`+name+`":`) { // one name twice is another mistake
				all = append(all, attempt{path: w.path(row), body: fmt.Appendf(nil, "{%s,%q:%s}", base, name, v)})
			}
		}
	}
	for _, member := range regexp.MustCompile(`"[a-z_]+":("[^"]*"|[a-z0-9]+)`).FindAllString(base, -1) {
		name, _, _ := strings.Cut(member, ":")
		for _, v := range w.values() {
			all = append(all, attempt{path: w.path(row), body: []byte("{" + strings.Replace(base, member, name+":"+v, 1) + "}")})
		}
	}
	w.tries(method, all)
}

func (w *badInput) values() []string {
	deep := strings.Repeat(`[`, 90) + strings.Repeat(`]`, 90)
	quote := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	out := []string{
		`null`, `true`, `false`, `0`, `-1`, `1.5`, `1e3`, `1e400`, `-0`, `9007199254740993`, `9223372036854775808`, `""`, `"x"`, `"\u0000"`, `"a\u0000b"`, `"\u202e"`,
		`"😀"`, `[]`, `{}`, `[[]]`, `[null]`, `[1]`, `[""]`, `["\u0000"]`, `[{}]`, `{"":""}`, `{"\u0000":1}`, `{"a":{"b":"\u0000"}}`, `{"a":1e400}`, deep,
		quote(strings.Repeat("x", 70_000)), quote(strings.Repeat("😀", 200)), `["@nobody:example.org"]`, `["@walker1:elsewhere.example"]`,
		`"@\u0000:example.org"`, `"public_chat"`, `"private"`, `"join"`, `"ban"`, `"m.login.password"`, `"12"`, `"1"`, `"nonsense"`,
		`{"type":"m.login.dummy"}`, `{"type":"m.id.user","user":"x\u0000"}`, `{"type":"m.login.password","session":"\u0000"}`, `{"type":1}`,
		`[{"type":"m.room.topic","content":{"topic":"\u0000"}}]`, `[{"type":"m.room.topic","state_key":"\u0000","content":{}}]`,
		`[{"type":"m.room.member","state_key":"x","content":{}}]`, `[{"type":"m.room.create","content":{}}]`, `[{"type":"m.room.power_levels","content":{"users":1}}]`,
		`{"users":{"x":1}}`, `{"users_default":"a"}`, `{"m.federate":1}`, `{"type":"\u0000"}`, `{"room_version":1}`, `{"predecessor":1}`,
	}
	for _, s := range []string{w.user, w.room, w.event, w.device, w.sync} {
		out = append(out, quote(s))
	}
	return out
}

// fieldNames gives the names of all members that the handlers, and what they decode into, know.
func fieldNames(t *testing.T) []string {
	t.Helper()
	tag := regexp.MustCompile(`json:"([A-Za-z0-9_.]+)`)
	seen := map[string]bool{}
	for _, dir := range []string{"../api", "../service", "../matrix"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range tag.FindAllSubmatch(text, -1) {
				if name := string(m[1]); !strings.HasPrefix(name, "_") && name != strings.ToUpper(name) {
					seen[name] = true
				}
			}
			return err
		}))
	}
	if len(seen) == 0 {
		require.NoError(t, errors.New("no names found"))
	}
	out := make([]string, 0, len(seen))
	for name := range seen {
		out = append(out, name)
	}
	sort.Strings(out)
	return out
}
