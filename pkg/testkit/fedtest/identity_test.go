package fedtest_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// registry is an identity server that knows what the specification wants of one. It has proven every address of whoever knows its secret.
type registry struct {
	*fedtest.Remote
	t     *testing.T
	homes map[string]*fedtest.Homeserver

	mu      sync.Mutex // guards all below
	pepper  int
	bound   map[string]string // by address
	waiting map[string][]waiting
	refuse  map[string]func(w http.ResponseWriter) // by path
	bearer  []string                               // tokens shown
	// signs says with what invitations are signed; nil: with the key that was announced.
	signs *signing.Key
	keys  map[string]signing.Key // by token
}

type waiting struct{ Room, Sender, Token, Address, Name, RoomName string }

const identityBase = "/_matrix/identity/v2"

func newRegistry(t *testing.T, ca *certtest.Authority, homes ...*fedtest.Homeserver) *registry {
	t.Helper()
	r := &registry{
		Remote: fedtest.NewRemote(t, ca), t: t, homes: map[string]*fedtest.Homeserver{}, bound: map[string]string{}, waiting: map[string][]waiting{},
		refuse: map[string]func(http.ResponseWriter){}, keys: map[string]signing.Key{},
	}
	for _, h := range homes {
		r.homes[string(h.Name)] = h
	}
	for path, f := range map[string]func(body map[string]any) any{
		"/hash_details": r.hashDetails, "/lookup": r.lookup, "/store-invite": r.store, "/3pid/bind": r.bind,
	} {
		r.Handle(identityBase+path, func(w http.ResponseWriter, q *http.Request) { r.answer(w, q, path, f) })
	}
	r.Handle(identityBase+"/3pid/unbind", r.unbind)
	return r
}

func refused(status int, code string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"errcode":"`+code+`","error":"no"}`)
	}
}

func (r *registry) answer(w http.ResponseWriter, q *http.Request, path string, f func(map[string]any) any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	token, _ := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer ")
	r.bearer = append(r.bearer, token)
	if no := r.refuse[path]; no != nil {
		no(w)
		return
	}
	if token != "known" {
		refused(401, "M_UNKNOWN_TOKEN")(w)
		return
	}
	body := map[string]any{}
	if q.Method == http.MethodPost {
		if err := json.NewDecoder(q.Body).Decode(&body); err != nil {
			refused(400, "M_NOT_JSON")(w)
			return
		}
	}
	switch out := f(body).(type) {
	case func(http.ResponseWriter):
		out(w)
	default:
		_ = json.NewEncoder(w).Encode(out)
	}
}

func (r *registry) hashDetails(map[string]any) any {
	return map[string]any{"lookup_pepper": fmt.Sprint("pepper", r.pepper), "algorithms": []string{"none", "sha256"}}
}

func (r *registry) lookup(body map[string]any) any {
	if body["algorithm"] != "sha256" {
		return refused(400, "M_INVALID_PARAM")
	}
	if pepper := fmt.Sprint("pepper", r.pepper); body["pepper"] != pepper {
		return refused(400, "M_INVALID_PEPPER")
	}
	found := map[string]string{}
	for address, user := range r.bound {
		sum := sha256.Sum256([]byte(address + " email pepper" + fmt.Sprint(r.pepper)))
		hash := base64.RawURLEncoding.EncodeToString(sum[:])
		for _, asked := range body["addresses"].([]any) {
			if asked == hash {
				found[hash] = user
			}
		}
	}
	return map[string]any{"mappings": found}
}

func (r *registry) store(body map[string]any) any {
	text := func(k string) string { s, _ := body[k].(string); return s }
	address := text("address")
	if text("medium") != "email" {
		return refused(400, "M_UNRECOGNIZED")
	}
	if r.bound[address] != "" {
		return refused(400, "M_THREEPID_IN_USE")
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	key, err := signing.NewKey("ed25519:0", seed)
	if err != nil {
		return refused(500, "M_UNKNOWN")
	}
	w := waiting{Room: text("room_id"), Sender: text("sender"), Address: address, Name: text("sender_display_name"), RoomName: text("room_name")}
	w.Token = fmt.Sprint("token", len(r.keys), ".x_=-")
	r.waiting[address], r.keys[w.Token] = append(r.waiting[address], w), key
	enc := base64.RawURLEncoding // either alphabet is allowed
	return map[string]any{"token": w.Token, "display_name": "b...@e...", "public_keys": []map[string]string{
		{"public_key": enc.EncodeToString(r.Key.Public()), "key_validity_url": "https://" + string(r.Name) + identityBase + "/pubkey/isvalid"},
		{"public_key": enc.EncodeToString(key.Public()), "key_validity_url": "https://" + string(r.Name) + identityBase + "/pubkey/ephemeral/isvalid"},
	}}
}

// signed is what proves that an invitation is a user's.
func (r *registry) signed(w waiting, user string, sender bool) json.RawMessage {
	key := r.keys[w.Token]
	if r.signs != nil {
		key = *r.signs
	}
	content := map[string]string{"mxid": user, "token": w.Token}
	if sender {
		content["sender"] = w.Sender
	}
	raw, err := json.Marshal(content)
	require.NoError(r.t, err)
	out, err := signing.SignJSON(raw, string(r.Name), key)
	require.NoError(r.t, err)
	return out
}

// bind binds the address that a session names.
func (r *registry) bind(body map[string]any) any {
	address, _ := strings.CutPrefix(fmt.Sprint(body["sid"]), "proven:")
	if body["client_secret"] != "s3cret" {
		return refused(404, "M_NO_VALID_SESSION")
	}
	user := fmt.Sprint(body["mxid"])
	r.bound[address] = user
	var invites []map[string]any
	for _, w := range r.waiting[address] {
		invites = append(invites, map[string]any{
			"medium": "email", "address": address, "mxid": user, "room_id": w.Room, "sender": w.Sender, "signed": r.signed(w, user, false),
		})
	}
	if len(invites) > 0 {
		told, err := json.Marshal(map[string]any{"medium": "email", "address": address, "mxid": user, "invites": invites})
		require.NoError(r.t, err)
		go func() { // the homeserver waits for this very answer
			r.Ask(r.t, r.homes[string(id.UserID(user).Server())], "PUT", "/_matrix/federation/v1/3pid/onbind", told)
		}()
	}
	return map[string]any{
		"medium": "email", "address": address, "mxid": user, "not_before": 1, "not_after": 2, "ts": 1, "signatures": map[string]any{},
	}
}

// unbind believes the homeserver of the user, by its signature.
func (r *registry) unbind(w http.ResponseWriter, q *http.Request) {
	raw, _ := io.ReadAll(q.Body)
	var body struct {
		User     string            `json:"mxid"`
		Threepid map[string]string `json:"threepid"`
	}
	_ = json.Unmarshal(raw, &body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if no := r.refuse["/3pid/unbind"]; no != nil {
		no(w)
		return
	}
	header, fields := q.Header.Get("Authorization"), map[string]string{}
	rest, _ := strings.CutPrefix(header, "X-Matrix ")
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(part, "=")
		fields[k] = strings.Trim(v, `"`)
	}
	home := r.homes[fields["origin"]]
	if home == nil || string(id.UserID(body.User).Server()) != fields["origin"] || fields["destination"] != string(r.Name) {
		refused(403, "M_FORBIDDEN")(w)
		return
	}
	object, err := fedclient.RequestObject(home.Name, r.Name, q.Method, q.URL.Path, raw)
	sig, err2 := base64.RawStdEncoding.DecodeString(fields["sig"])
	keys, err3 := app.LoadSigningKeys(home.Config.SigningKeyPath)
	if err != nil || err2 != nil || err3 != nil || string(keys[0].ID()) != fields["key"] || !signing.Verify(keys[0].Public(), object, sig) {
		refused(403, "M_FORBIDDEN")(w)
		return
	}
	if r.bound[body.Threepid["address"]] == body.User {
		delete(r.bound, body.Threepid["address"])
	}
	_, _ = io.WriteString(w, `{}`)
}

func (r *registry) locked(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *registry) owner(address string) (user string) {
	r.locked(func() { user = r.bound[address] })
	return user
}

func (r *registry) creds(address string) map[string]any {
	return map[string]any{"sid": "proven:" + address, "client_secret": "s3cret", "id_server": r.Name, "id_access_token": "known"}
}

func (r *registry) invitation(address string) map[string]any {
	return map[string]any{"medium": "email", "address": address, "id_server": r.Name, "id_access_token": "known"}
}

// knowing makes homeservers that may ask identity servers on this machine.
func knowing(t *testing.T, ca *certtest.Authority, host string) *fedtest.Homeserver {
	t.Helper()
	h := fedtest.NewHomeserver(t, ca, host)
	h.Config.Identity.CAFile, h.Config.Identity.AllowNetworks = ca.File, h.Config.Federation.AllowNetworks
	h.Start(app.AllInOne, "one")
	return h
}

func stateOf(t *testing.T, u *fedtest.User, room, typ, key string) map[string]any {
	t.Helper()
	return u.Must(t, "GET", fedtest.RoomPath(room, "state", typ)+"/"+url.PathEscape(key), nil)
}

// The whole way: invited by an address that is nobody's, bound, and let in by what the identity server signed.
func TestInviteByAddress(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one, two := knowing(t, ca, "127.0.0.1"), knowing(t, ca, "localhost")
	r := newRegistry(t, ca, one, two)
	alice, bob := one.NewUser(t, "alice"), two.NewUser(t, "bob")
	for _, v := range []roomver.Version{roomver.V1, roomver.V9, roomver.V12} {
		t.Run("version "+string(v), func(t *testing.T) {
			address := "bob" + string(v) + "@example.org"
			room := alice.Create(t, string(v), map[string]any{"name": "The loom"})
			alice.Must(t, "POST", fedtest.RoomPath(room, "invite"), r.invitation(strings.ToUpper(address[:1])+address[1:]))
			var w waiting
			r.locked(func() { w = r.waiting[address][0] })
			require.Equal(t, waiting{Room: room, Sender: alice.User, Token: w.Token, Address: address, Name: "alice", RoomName: "The loom"}, w)
			content := stateOf(t, alice, room, "m.room.third_party_invite", w.Token)
			require.Equal(t, "b...@e...", content["display_name"])
			keys := content["public_keys"].([]any)
			require.Len(t, keys, 2)
			require.Equal(t, keys[0].(map[string]any)["public_key"], content["public_key"])
			require.Equal(t, keys[0].(map[string]any)["key_validity_url"], content["key_validity_url"])

			// Signed by somebody else: no invitation.
			seed := make([]byte, 32)
			_, _ = rand.Read(seed) // never fails
			forger, err := signing.NewKey("ed25519:0", seed)
			require.NoError(t, err)
			var forged, true_ json.RawMessage
			r.locked(func() {
				r.signs = &forger
				forged = r.signed(w, bob.User, true)
				r.signs = nil
				true_ = r.signed(w, bob.User, true)
			})
			join := fedtest.JoinPath(room, one)
			status, code := bob.Refused(t, "POST", join, map[string]any{"third_party_signed": forged})
			require.Equal(t, "403 M_FORBIDDEN", fmt.Sprint(status, " ", code))
			require.NotContains(t, alice.State(t, room), "m.room.member|"+bob.User)
			// Signed for somebody else.
			eve := two.NewUser(t, "eve"+string(v))
			status, code = eve.Refused(t, "POST", join, map[string]any{"third_party_signed": true_})
			require.Equal(t, "400 M_INVALID_PARAM", fmt.Sprint(status, " ", code))

			if v == roomver.V9 { // who was given the proof itself shows it (/sign-ed25519); the sender is among what is signed
				bob.Must(t, "POST", join, map[string]any{"third_party_signed": true_})
			} else {
				bob.Must(t, "POST", "/account/3pid/bind", r.creds(address))
				require.Equal(t, bob.User, r.owner(address))
				bob.SeesRoom(t, room, "invite")
				alice.SeesMember(t, room, bob, "invite")
				member := stateOf(t, alice, room, "m.room.member", bob.User)
				require.Equal(t, "b...@e...", member["third_party_invite"].(map[string]any)["display_name"])
				bob.Join(t, room)
			}
			alice.SeesMember(t, room, bob, "join")
			fedtest.Agree(t, room, alice, bob)
		})
	}
	t.Run("the address of a user", func(t *testing.T) {
		carol, dave := one.NewUser(t, "carol"), two.NewUser(t, "dave")
		for address, u := range map[string]*fedtest.User{"carol@example.org": carol, "dave@example.org": dave} {
			u.Must(t, "POST", "/account/3pid", map[string]any{"three_pid_creds": r.creds(address)})
		}
		room := alice.Create(t, "12", nil)
		r.locked(func() { r.pepper++ })
		for address, u := range map[string]*fedtest.User{"carol@example.org": carol, "dave@example.org": dave} {
			alice.Must(t, "POST", fedtest.RoomPath(room, "invite"), r.invitation(address))
			u.SeesRoom(t, room, "invite")
			require.Nil(t, stateOf(t, alice, room, "m.room.member", u.User)["third_party_invite"])
		}
		made := alice.Create(t, "12", map[string]any{"invite_3pid": []any{
			r.invitation("carol@example.org"), r.invitation("dave@example.org"), r.invitation("nobody@example.org"),
		}})
		carol.SeesRoom(t, made, "invite")
		dave.SeesRoom(t, made, "invite")
		var token string
		r.locked(func() { token = r.waiting["nobody@example.org"][0].Token })
		require.Equal(t, "b...@e...", stateOf(t, alice, made, "m.room.third_party_invite", token)["display_name"])
	})
	t.Run("nobody is written to for who may not invite", func(t *testing.T) {
		room := alice.Create(t, "12", nil)
		before := r.Asked(identityBase)
		status, code := bob.Refused(t, "POST", fedtest.RoomPath(room, "invite"), r.invitation("x@example.org"))
		require.Equal(t, "403 M_FORBIDDEN", fmt.Sprint(status, " ", code))
		require.Equal(t, before, r.Asked(identityBase))
	})
}

// What is bound can be unbound: one by one, with the address, and with the account.
func TestUnbinding(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one := knowing(t, ca, "127.0.0.1")
	r := newRegistry(t, ca, one)
	alice := one.NewUser(t, "alice")
	address := func(a string) map[string]any { return map[string]any{"medium": "email", "address": a} }
	bind := func(a string) {
		alice.Must(t, "POST", "/account/3pid/bind", r.creds(a))
		require.Equal(t, alice.User, r.owner(a))
	}
	result := func(path string, body map[string]any) string {
		return alice.Must(t, "POST", path, body)["id_server_unbind_result"].(string)
	}
	require.Equal(t, "no-support", result("/account/3pid/unbind", address("a@example.org")), "nobody knows where it could be bound")
	for _, path := range []string{"/account/3pid/unbind", "/account/3pid/delete"} {
		bind("a@example.org")
		require.Equal(t, "success", result(path, address("A@example.org")))
		require.Empty(t, r.owner("a@example.org"))
		require.Equal(t, "no-support", result(path, address("a@example.org")), "it is bound no more")
		// What this server does not remember, the client may know.
		r.locked(func() { r.bound["b@example.org"] = alice.User })
		body := address("b@example.org")
		body["id_server"] = r.Name
		require.Equal(t, "success", result(path, body))
		require.Empty(t, r.owner("b@example.org"))
	}
	bind("c@example.org")
	r.locked(func() { r.refuse["/3pid/unbind"] = refused(403, "M_FORBIDDEN") })
	status, code := alice.Refused(t, "POST", "/account/3pid/unbind", address("c@example.org"))
	require.Equal(t, "403 M_FORBIDDEN", fmt.Sprint(status, " ", code), "what the identity server refuses is told")
	require.Equal(t, "no-support", result("/account/3pid/delete", address("c@example.org")), "the address goes from the account all the same")
	r.locked(func() {
		r.refuse["/3pid/unbind"] = func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotImplemented) }
	})
	require.Equal(t, "no-support", result("/account/3pid/unbind", address("c@example.org")), "it cannot")
	r.locked(func() { delete(r.refuse, "/3pid/unbind") })

	bind("d@example.org")
	status, _ = alice.Refused(t, "POST", "/account/deactivate", map[string]any{})
	require.Equal(t, 401, status)
	require.Equal(t, alice.User, r.owner("d@example.org"))
	auth := map[string]any{"type": "m.login.password", "password": "correct horse", "identifier": map[string]string{"type": "m.id.user", "user": alice.User}}
	require.Equal(t, "success", result("/account/deactivate", map[string]any{"auth": auth}))
	require.Empty(t, r.owner("c@example.org"))
	require.Empty(t, r.owner("d@example.org"))
	var left int
	require.NoError(t, one.DB.Pool.QueryRow(t.Context(), `SELECT count(*) FROM threepid_bind`).Scan(&left))
	require.Zero(t, left)
}

// What is refused, by whom, and what a client is told of it. Nothing of it may sound as if the client's own session were over.
func TestIdentityServersThatRefuse(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one := knowing(t, ca, "127.0.0.1")
	r := newRegistry(t, ca, one)
	alice := one.NewUser(t, "alice")
	room := alice.Create(t, "12", nil)
	bind := func(change func(map[string]any)) (string, map[string]any) {
		c := r.creds("a@example.org")
		change(c)
		return "/account/3pid/bind", c
	}
	invite := func(change func(map[string]any)) (string, map[string]any) {
		c := r.invitation("a@example.org")
		change(c)
		return fedtest.RoomPath(room, "invite"), c
	}
	set := func(k string, v any) func(map[string]any) { return func(m map[string]any) { m[k] = v } }
	without := func(k string) func(map[string]any) { return func(m map[string]any) { delete(m, k) } }
	same := func(map[string]any) {}
	type making func(change func(map[string]any)) (string, map[string]any)
	for name, c := range map[string]struct {
		make   making
		change func(map[string]any)
		path   string // of the identity server, which answers with no
		no     func(http.ResponseWriter)
		want   string
	}{
		"bind without server":      {bind, without("id_server"), "", nil, "400 M_MISSING_PARAM"},
		"bind without token":       {bind, without("id_access_token"), "", nil, "400 M_MISSING_PARAM"},
		"bind without session":     {bind, without("sid"), "", nil, "400 M_MISSING_PARAM"},
		"bind without secret":      {bind, without("client_secret"), "", nil, "400 M_MISSING_PARAM"},
		"bind at a path":           {bind, set("id_server", string(r.Name)+"/x"), "", nil, "400 M_INVALID_PARAM"},
		"bind at a user":           {bind, set("id_server", "a@"+string(r.Name)), "", nil, "400 M_INVALID_PARAM"},
		"bind at a URL":            {bind, set("id_server", "https://"+string(r.Name)), "", nil, "400 M_INVALID_PARAM"},
		"bind nowhere":             {bind, set("id_server", string(fedtest.Nowhere(t))), "", nil, "502 M_CONNECTION_FAILED"},
		"bind with another secret": {bind, set("client_secret", "x"), "", nil, "404 M_NO_VALID_SESSION"},
		"bind, token unknown":      {bind, set("id_access_token", "x"), "", nil, "403 M_FORBIDDEN"},
		"bind, token of two lines": {bind, set("id_access_token", "x\r\nX: y"), "", nil, "400 M_INVALID_PARAM"},
		"bind, terms":              {bind, same, "/3pid/bind", refused(403, "M_TERMS_NOT_SIGNED"), "403 M_TERMS_NOT_SIGNED"},
		"bind, locked":             {bind, same, "/3pid/bind", refused(401, "M_USER_LOCKED"), "403 M_FORBIDDEN"},
		"bind, broken":             {bind, same, "/3pid/bind", refused(500, "M_UNKNOWN"), "502 M_UNKNOWN"},
		"bind, no API":             {bind, same, "/3pid/bind", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, "502 M_UNRECOGNIZED"},
		"bind, redirected": {bind, same, "/3pid/bind", func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://"+string(r.Name)+identityBase+"/lookup")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "502 M_UNRECOGNIZED"},
		"bind, endless": {bind, same, "/3pid/bind", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, strings.Repeat(" ", 100<<10)+`{}`)
		}, "502 M_CONNECTION_FAILED"},
		"bind, another user": {bind, same, "/3pid/bind", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"medium":"email","address":"a@example.org","mxid":"@b:c"}`)
		}, "502 M_UNKNOWN"},
		"invite without medium":    {invite, without("medium"), "", nil, "400 M_MISSING_PARAM"},
		"invite without address":   {invite, without("address"), "", nil, "400 M_MISSING_PARAM"},
		"invite without server":    {invite, without("id_server"), "", nil, "400 M_MISSING_PARAM"},
		"invite without token":     {invite, without("id_access_token"), "", nil, "400 M_MISSING_PARAM"},
		"invite by no address":     {invite, set("address", "x"), "", nil, "400 M_INVALID_PARAM"},
		"invite by another medium": {invite, set("medium", "pigeon"), "", nil, "400 M_THREEPID_MEDIUM_NOT_SUPPORTED"},
		"invite, no SHA-256": {invite, same, "/hash_details", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"lookup_pepper":"x","algorithms":["none"]}`)
		}, "502 M_UNKNOWN"},
		"invite, pepper never right": {invite, same, "/lookup", refused(400, "M_INVALID_PEPPER"), "400 M_INVALID_PEPPER"},
		"invite, in use":             {invite, same, "/store-invite", refused(400, "M_THREEPID_IN_USE"), "400 M_THREEPID_IN_USE"},
		"invite, token malformed": {invite, same, "/store-invite", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"token":"a b","display_name":"x","public_keys":[{"public_key":"x"}]}`)
		}, "502 M_UNKNOWN"},
		"invite, no keys": {invite, same, "/store-invite", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"token":"ab","display_name":"x","public_keys":[]}`)
		}, "502 M_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			r.locked(func() { clear(r.refuse); r.refuse[c.path] = c.no })
			path, body := c.make(c.change)
			status, code := alice.Refused(t, "POST", path, body)
			require.Equal(t, c.want, fmt.Sprint(status, " ", code))
		})
	}
	r.locked(func() { clear(r.refuse) })
	require.Equal(t, 0, countTokens(t, alice, room))
	status, code := alice.Refused(t, "POST", "/account/3pid", map[string]any{"three_pid_creds": func() map[string]any {
		c := r.creds("a@example.org")
		c["client_secret"] = "x"
		return c
	}()})
	require.Equal(t, "403 M_THREEPID_AUTH_FAILED", fmt.Sprint(status, " ", code))

	// What the operator says of identity servers.
	for name, c := range map[string]struct {
		change func(h *fedtest.Homeserver)
		want   string
	}{
		"switched off":        {func(h *fedtest.Homeserver) { h.Config.Identity.Enabled = false }, "400 M_SERVER_NOT_TRUSTED"},
		"others are trusted":  {func(h *fedtest.Homeserver) { h.Config.Identity.Servers = []string{"identity.test"} }, "400 M_SERVER_NOT_TRUSTED"},
		"in a closed network": {func(h *fedtest.Homeserver) { h.Config.Identity.AllowNetworks = nil }, "502 M_CONNECTION_FAILED"},
		"not certified":       {func(h *fedtest.Homeserver) { h.Config.Identity.CAFile = "" }, "502 M_CONNECTION_FAILED"},
	} {
		t.Run(name, func(t *testing.T) {
			h := fedtest.NewHomeserver(t, ca, "127.0.0.1")
			h.Config.Identity.CAFile, h.Config.Identity.AllowNetworks = ca.File, h.Config.Federation.AllowNetworks
			c.change(h)
			h.Start(app.AllInOne, "one")
			u := h.NewUser(t, "u")
			asked := r.Asked(identityBase)
			status, code := u.Refused(t, "POST", "/account/3pid/bind", r.creds("a@example.org"))
			require.Equal(t, c.want, fmt.Sprint(status, " ", code))
			status, code = u.Refused(t, "POST", "/createRoom", map[string]any{"invite_3pid": []any{r.invitation("a@example.org")}})
			require.Equal(t, c.want, fmt.Sprint(status, " ", code))
			require.Equal(t, asked, r.Asked(identityBase))
		})
	}
	alice.Must(t, "GET", "/account/whoami", nil)
}

// countTokens counts the invitations to addresses in a room.
func countTokens(t *testing.T, u *fedtest.User, room string) (n int) {
	t.Helper()
	for name := range u.State(t, room) {
		if strings.HasPrefix(name, "m.room.third_party_invite|") {
			n++
		}
	}
	return n
}
