package event_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// ring is a key ring of a few servers.
type ring map[id.ServerName]map[id.KeyID]signing.VerifyKey

func (r ring) VerifyKey(server id.ServerName, key id.KeyID) (signing.VerifyKey, bool) {
	k, ok := r[server][key]
	return k, ok
}

func (r ring) with(server id.ServerName, key signing.Key) ring {
	if r[server] == nil {
		r[server] = map[id.KeyID]signing.VerifyKey{}
	}
	r[server][key.ID()] = signing.VerifyKey{Key: key.Public(), ValidUntil: 1 << 50}
	return r
}

func keyOf(t testing.TB, name string) signing.Key {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	key, err := signing.NewKey(id.NewKeyID("ed25519", name), seed[:])
	require.NoError(t, err)
	return key
}

const room = id.RoomID("!room:example.org")

func ptr(s string) *string { return &s }

// message is an event that every room version takes.
func message() *event.Proto {
	return &event.Proto{
		RoomID: room, Type: "m.room.message", Sender: "@alice:example.org", EventID: "$ev:example.org",
		Content:    []byte(`{"msgtype":"m.text","body":"hello"}`),
		PrevEvents: []id.EventID{"$Zr0mP3wEwXqS1q7yZ4pUoR3Bf4mCt1d0tqS1q7yZ4pU"},
		AuthEvents: []id.EventID{"$Vo6HH2DKfZOkpWGZTF7dXGPJ1Lfw2mGmCLjhJdTQbUg", "$p1mXV6_TlCmlvZX5EWCXgDwG1dVHQvG6TkwVjrjlYnY"},
		Depth:      12, OriginServerTS: 1_700_000_000_000,
	}
}

func build(t testing.TB, r *roomver.Rules, p *event.Proto) *event.Event {
	t.Helper()
	e, err := event.Build(r, p, p.Sender.Server(), keyOf(t, string(p.Sender.Server())[:3]))
	require.NoError(t, err)
	return e
}

func example(t testing.TB) ring { return ring{}.with("example.org", keyOf(t, "exa")) }

func TestBuildAndParse(t *testing.T) {
	for _, r := range roomver.All() {
		t.Run(string(r.Version), func(t *testing.T) {
			p := message()
			e := build(t, r, p)
			require.Equal(t, room, e.RoomID())
			require.Equal(t, "m.room.message", e.Type())
			require.EqualValues(t, "@alice:example.org", e.Sender())
			require.Equal(t, p.PrevEvents, e.PrevEvents())
			require.Equal(t, p.AuthEvents, e.AuthEvents())
			require.EqualValues(t, 12, e.Depth())
			require.EqualValues(t, 1_700_000_000_000, e.OriginServerTS())
			require.JSONEq(t, `{"msgtype":"m.text","body":"hello"}`, string(e.Content()))
			_, isState := e.StateKey()
			require.False(t, isState || e.IsState())
			require.True(t, canonjson.IsCanonical(e.JSON(), canonjson.Options{}))
			require.NoError(t, e.Verify(example(t)))
			require.Same(t, r, e.Rules())

			for name, parse := range map[string]func() (*event.Event, error){
				"parse":    func() (*event.Event, error) { return event.Parse(r, e.JSON()) },
				"trusted":  func() (*event.Event, error) { return event.ParseTrusted(r, e.JSON(), "") },
				"given id": func() (*event.Event, error) { return event.ParseTrusted(r, e.JSON(), e.EventID()) },
				"unsigned": func() (*event.Event, error) {
					return event.Parse(r, e.AppendFederation(nil, []byte(`{"age":1}`)))
				},
			} {
				again, err := parse()
				require.NoError(t, err, name)
				require.Equal(t, string(e.JSON()), string(again.JSON()), name)
				require.Equal(t, e.EventID(), again.EventID(), name)
				require.False(t, again.HashMismatch())
				require.NoError(t, again.Verify(example(t)), name)
				if name == "unsigned" {
					require.JSONEq(t, `{"age":1}`, string(again.Unsigned()))
				} else {
					require.Nil(t, again.Unsigned())
				}
			}
			want, err := naiveID(r, e.JSON())
			require.NoError(t, err)
			require.Equal(t, want, e.EventID())
		})
	}
}

func TestStateEvent(t *testing.T) {
	p := message()
	p.Type, p.StateKey, p.Content = "m.room.topic", ptr("quo\"ted\né"), []byte(`{"topic":"x"}`)
	e := build(t, roomver.MustGet("11"), p)
	key, ok := e.StateKey()
	require.True(t, ok)
	require.Equal(t, "quo\"ted\né", key)
	require.True(t, e.Is("m.room.topic", "quo\"ted\né"))
	require.False(t, e.Is("m.room.topic", ""))
	again, err := event.Parse(e.Rules(), e.JSON())
	require.NoError(t, err)
	require.True(t, again.Is("m.room.topic", "quo\"ted\né"))
}

// The room id of version 12 is the hash of the create event, which does not hold it.
func TestCreateOfVersion12(t *testing.T) {
	p := &event.Proto{
		Type: "m.room.create", StateKey: ptr(""), Sender: "@alice:example.org", Depth: 1, OriginServerTS: 5,
		Content: []byte(`{"room_version":"12"}`), RoomID: "!ignored:example.org",
	}
	e := build(t, roomver.MustGet("12"), p)
	require.False(t, e.HasRoomID())
	require.Equal(t, "!"+string(e.EventID())[1:], string(e.RoomID()))
	require.NotContains(t, string(e.JSON()), "room_id")
	again, err := event.Parse(e.Rules(), e.JSON())
	require.NoError(t, err)
	require.Equal(t, e.RoomID(), again.RoomID())
	require.Contains(t, string(again.AppendClient(nil, event.ClientFormat{})), `"room_id":"`+string(e.RoomID())+`"`)
	require.Equal(t, e.RoomID(), e.Redact().RoomID())

	// Only the create event itself may lack one, and in older versions not even that.
	p.StateKey, p.RoomID = ptr("x"), ""
	_, err = event.Build(roomver.MustGet("12"), p, "example.org", keyOf(t, "exa"))
	require.ErrorIs(t, err, event.ErrFormat)
	p.StateKey = ptr("")
	_, err = event.Build(roomver.MustGet("11"), p, "example.org", keyOf(t, "exa"))
	require.ErrorIs(t, err, event.ErrFormat)

	// One that claims a room id is seen, to be rejected by rule 1.2.
	claimed := strings.Replace(string(e.JSON()), `"sender"`, `"room_id":"!x:example.org","sender"`, 1)
	other, err := event.Parse(e.Rules(), []byte(claimed))
	require.NoError(t, err)
	require.True(t, other.HasRoomID())
	require.Equal(t, "!"+string(other.EventID())[1:], string(other.RoomID()))
}

// naiveID derives an event id by marshalling maps: slowly, from the specification's text.
func naiveID(r *roomver.Rules, data []byte) (id.EventID, error) {
	var e map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&e); err != nil {
		return "", err
	}
	if r.EventIDs == roomver.EventIDGiven {
		return id.EventID(e["event_id"].(string)), nil
	}
	naiveRedact(r, e)
	delete(e, "signatures")
	raw, err := naiveMarshal(e)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(raw)
	if r.EventIDs == roomver.EventIDHashStd {
		return id.EventID("$" + base64.RawStdEncoding.EncodeToString(h[:])), nil
	}
	return id.EventID("$" + base64.RawURLEncoding.EncodeToString(h[:])), nil
}

func naiveMarshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	// It escapes U+2028 and U+2029, which canonical form does not.
	return []byte(strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSpace(b.String()))), nil
}

func naiveRedact(r *roomver.Rules, e map[string]any) {
	version := 0
	for i, v := range roomver.All() {
		if v == r {
			version = i + 1
		}
	}
	top := "event_id type room_id sender state_key content hashes signatures depth prev_events auth_events origin_server_ts"
	if version < 11 {
		top += " prev_state origin membership"
	}
	only(e, strings.Fields(top)...)
	content, ok := e["content"].(map[string]any)
	if !ok {
		return
	}
	switch e["type"] {
	case "m.room.member":
		kept := []string{"membership"}
		if version >= 9 {
			kept = append(kept, "join_authorised_via_users_server")
		}
		invite, isObject := content["third_party_invite"].(map[string]any)
		only(content, kept...)
		if version >= 11 && isObject {
			only(invite, "signed")
			content["third_party_invite"] = invite
		}
	case "m.room.create":
		if version < 11 {
			only(content, "creator")
		}
	case "m.room.join_rules":
		if version >= 8 {
			only(content, "join_rule", "allow")
		} else {
			only(content, "join_rule")
		}
	case "m.room.power_levels":
		kept := strings.Fields("ban events events_default kick redact state_default users users_default")
		if version >= 11 {
			kept = append(kept, "invite")
		}
		only(content, kept...)
	case "m.room.aliases":
		if version < 6 {
			only(content, "aliases")
		} else {
			only(content)
		}
	case "m.room.history_visibility":
		only(content, "history_visibility")
	case "m.room.redaction":
		if version >= 11 {
			only(content, "redacts")
		} else {
			only(content)
		}
	default:
		only(content)
	}
}

func only(m map[string]any, keys ...string) {
	for k := range m {
		kept := false
		for _, want := range keys {
			kept = kept || k == want
		}
		if !kept {
			delete(m, k)
		}
	}
}

// contents that redaction treats in ways of its own, each with members that it must take away.
var contents = map[string]string{
	"m.room.message":            `{"body":"x","membership":"join","m.relates_to":{}}`,
	"m.room.member":             `{"membership":"join","displayname":"A","join_authorised_via_users_server":"@b:example.org","third_party_invite":{"display_name":"x","signed":{"mxid":"@a:b"}}}`,
	"m.room.create":             `{"creator":"@a:b","room_version":"1","m.federate":true,"additional_creators":["@x:y"]}`,
	"m.room.join_rules":         `{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!x:y"}],"other":1}`,
	"m.room.power_levels":       `{"ban":50,"events":{"a":1},"events_default":0,"invite":5,"kick":50,"notifications":{"room":50},"redact":50,"state_default":50,"users":{"@a:b":100},"users_default":0,"historical":100}`,
	"m.room.aliases":            `{"aliases":["#a:b"],"other":1}`,
	"m.room.history_visibility": `{"history_visibility":"shared","other":1}`,
	"m.room.redaction":          `{"redacts":"$x","reason":"spam"}`,
}

func TestRedact(t *testing.T) {
	for _, r := range roomver.All() {
		for typ, content := range contents {
			p := message()
			p.Type, p.Content, p.StateKey = typ, []byte(content), ptr("@b:example.org")
			built := build(t, r, p)
			// Members of old, and one that nobody knows.
			data := strings.Replace(string(built.JSON()), `"origin_server_ts"`, `"origin":"example.org","origin_server_ts"`, 1)
			data = strings.Replace(data, `"prev_events"`, `"membership":"join","prev_state":[],"unknown":{"a":1},"prev_events"`, 1)
			data = strings.Replace(data, `"type"`, `"redacts":"$target","type"`, 1)
			e, err := event.ParseTrusted(r, must(canonjson.Canonical([]byte(data), canonjson.Options{})), built.EventID())
			require.NoError(t, err)

			var want map[string]any
			decoder := json.NewDecoder(strings.NewReader(data))
			decoder.UseNumber()
			require.NoError(t, decoder.Decode(&want))
			naiveRedact(r, want)
			wanted, err := naiveMarshal(want)
			require.NoError(t, err)
			redacted := e.Redact()
			require.Equal(t, string(wanted), string(redacted.JSON()), "%s in version %s", typ, r.Version)
			require.Equal(t, e.EventID(), redacted.EventID())
			require.Equal(t, e.ReferenceHash(), redacted.ReferenceHash())
			require.Same(t, redacted, redacted.Redact())
			require.True(t, redacted.IsRedacted())
			require.False(t, e.IsRedacted())
			require.True(t, redacted.Is(typ, "@b:example.org"))
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// drawn is an event with any content.
func drawn(t *rapid.T) *event.Proto {
	p := message()
	types := []string{"x"}
	for typ := range contents {
		types = append(types, typ)
	}
	p.Type = rapid.SampledFrom(sorted(types)).Draw(t, "type")
	content := map[string]any{}
	if text, ok := contents[p.Type]; ok && rapid.Bool().Draw(t, "known content") {
		if err := json.Unmarshal([]byte(text), &content); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range rapid.MapOfN(rapid.String(), rapid.String(), 0, 4).Draw(t, "content") {
		content[k] = v
	}
	p.Content, _ = json.Marshal(content)
	if rapid.Bool().Draw(t, "state") {
		p.StateKey = ptr(rapid.StringN(0, 40, 200).Draw(t, "state key"))
	}
	p.Depth = rapid.Int64Range(0, canonjson.MaxInt).Draw(t, "depth")
	return p
}

func sorted(s []string) []string {
	for i := range s {
		for k := i + 1; k < len(s); k++ {
			if s[k] < s[i] {
				s[i], s[k] = s[k], s[i]
			}
		}
	}
	return s
}

func anyRules(t *rapid.T) *roomver.Rules {
	return rapid.SampledFrom(roomver.All()).Draw(t, "version")
}

func TestParseIsTheInverseOfJSON(t *testing.T) {
	key := keyOf(t, "exa")
	keys := example(t)
	rapid.Check(t, func(t *rapid.T) {
		r := anyRules(t)
		p := drawn(t)
		e, err := event.Build(r, p, "example.org", key)
		if err != nil {
			t.Skip(err)
		}
		again, err := event.Parse(r, e.JSON())
		require.NoError(t, err)
		require.Equal(t, string(e.JSON()), string(again.JSON()))
		require.False(t, again.HashMismatch())
		require.Equal(t, e.EventID(), again.EventID())
		wantID, err := naiveID(r, e.JSON())
		require.NoError(t, err)
		require.Equal(t, wantID, e.EventID())
		require.NoError(t, again.Verify(keys)) // everything here was signed by example.org
		redacted := e.Redact()
		require.Equal(t, e.EventID(), redacted.EventID())
		fromWire, err := event.Parse(r, redacted.JSON())
		require.NoError(t, err)
		require.Equal(t, e.EventID(), fromWire.EventID())
		require.Equal(t, string(redacted.JSON()), string(fromWire.JSON()))
		require.NoError(t, err)
	})
}

// A byte of a verified event is changed: what results no longer parses, or no longer verifies, or its
// content hash gives it away and only the redacted form, which is the old one, is left.
func TestAnyChangedByteIsSeen(t *testing.T) {
	key, keys := keyOf(t, "exa"), example(t)
	for _, version := range []roomver.Version{"1", "5", "10", "12"} {
		r := roomver.MustGet(version)
		p := message()
		p.Type, p.StateKey, p.Content = "m.room.member", ptr("@alice:example.org"), []byte(`{"membership":"join","displayname":"Alice"}`)
		e, err := event.Build(r, p, "example.org", key)
		require.NoError(t, err)
		require.NoError(t, e.Verify(keys))
		original := string(e.JSON())
		for i := range original {
			for _, flip := range []byte{1, 2, 0x20, 0x80} {
				changed := []byte(original)
				changed[i] ^= flip
				other, err := event.Parse(r, changed)
				if err != nil || other.Verify(keys) != nil {
					continue
				}
				if string(other.JSON()) == original {
					// Only what canonical form takes away anyway may differ.
					t.Fatalf("version %s: byte %d (%q) may be %q", version, i, original[i], changed[i])
				}
				require.True(t, other.HashMismatch(), "byte %d of %s", i, original)
				require.Equal(t, string(e.Redact().JSON()), string(other.JSON()))
			}
		}
	}
}

func TestSigners(t *testing.T) {
	member := func(content string) *event.Proto {
		p := message()
		p.Type, p.StateKey, p.Content = "m.room.member", ptr("@bob:other.org"), []byte(content)
		p.EventID = "$ev:third.org"
		return p
	}
	for _, c := range []struct {
		version roomver.Version
		content string
		want    []id.ServerName
	}{
		{"1", `{"membership":"join"}`, []id.ServerName{"example.org", "third.org"}},
		{"2", `{"membership":"join"}`, []id.ServerName{"example.org", "third.org"}},
		{"3", `{"membership":"join"}`, []id.ServerName{"example.org"}},
		{"12", `{"membership":"join"}`, []id.ServerName{"example.org"}},
		{"1", `{"membership":"invite","third_party_invite":{}}`, []id.ServerName{"third.org"}},
		{"11", `{"membership":"invite","third_party_invite":{"signed":{}}}`, nil},
		{"11", `{"membership":"invite","third_party_invite":"x"}`, []id.ServerName{"example.org"}},
		{"11", `{"membership":"join","third_party_invite":{}}`, []id.ServerName{"example.org"}},
		{"7", `{"membership":"join","join_authorised_via_users_server":"@x:resident.org"}`, []id.ServerName{"example.org"}},
		{"8", `{"membership":"join","join_authorised_via_users_server":"@x:resident.org"}`, []id.ServerName{"example.org", "resident.org"}},
		{"12", `{"membership":"join","join_authorised_via_users_server":"@x:example.org"}`, []id.ServerName{"example.org"}},
		{"12", `{"membership":"join","join_authorised_via_users_server":7}`, []id.ServerName{"example.org", ""}},
	} {
		e, err := event.Build(roomver.MustGet(c.version), member(c.content), "example.org", keyOf(t, "exa"))
		require.NoError(t, err)
		require.Equal(t, c.want, e.AppendSigners(nil), "%s %s", c.version, c.content)
	}
}

func TestVerify(t *testing.T) {
	r4, r5, r11 := roomver.MustGet("4"), roomver.MustGet("5"), roomver.MustGet("11")
	key := keyOf(t, "exa")
	for _, c := range []struct {
		name  string
		rules *roomver.Rules
		key   signing.VerifyKey
		want  error
	}{
		{"valid", r11, signing.VerifyKey{Key: key.Public(), ValidUntil: 1_700_000_000_000}, nil},
		{"past its validity", r11, signing.VerifyKey{Key: key.Public(), ValidUntil: 1_699_999_999_999}, signing.ErrNoKey},
		{"past its validity, version 5", r5, signing.VerifyKey{Key: key.Public(), ValidUntil: 1}, signing.ErrNoKey},
		{"past its validity, version 4", r4, signing.VerifyKey{Key: key.Public(), ValidUntil: 1}, nil},
		{"old, then valid", r11, signing.VerifyKey{Key: key.Public(), Expired: 1_700_000_000_000}, nil},
		{"old, expired before", r11, signing.VerifyKey{Key: key.Public(), Expired: 1_699_999_999_999}, signing.ErrNoKey},
		{"old, expired before, version 4", r4, signing.VerifyKey{Key: key.Public(), Expired: 1_699_999_999_999}, signing.ErrNoKey},
		{"another key", r11, signing.VerifyKey{Key: keyOf(t, "other").Public(), ValidUntil: 1 << 50}, signing.ErrInvalid},
		{"no key at all", r11, signing.VerifyKey{ValidUntil: 1 << 50}, signing.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := build(t, c.rules, message())
			err := e.Verify(ring{"example.org": {key.ID(): c.key}})
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.want)
			var signature *event.SignatureError
			require.ErrorAs(t, err, &signature)
			require.EqualValues(t, "example.org", signature.Server)
		})
	}
	e := build(t, r11, message())
	require.ErrorIs(t, e.Verify(ring{}), signing.ErrNoKey)
	require.NoError(t, e.VerifyWith("example.org", key.ID(), key.Public()))
	require.ErrorIs(t, e.VerifyWith("example.org", "ed25519:none", key.Public()), signing.ErrMissing)
	require.Equal(t, []signing.Request{{Server: "example.org", Key: key.ID(), ValidAt: e.OriginServerTS()}}, e.AppendKeyRequests(nil))

	stripped := strings.Replace(string(e.JSON()), `"signatures":{"example.org"`, `"signatures":{"example.net"`, 1)
	other, err := event.Parse(r11, []byte(stripped))
	require.NoError(t, err)
	require.ErrorIs(t, other.Verify(example(t)), signing.ErrMissing)

	// A second signature, by an unknown key or of an unknown algorithm, does no harm; a wrong one by a
	// known key does.
	second := keyOf(t, "second")
	twice := e.Sign("example.org", second)
	require.Equal(t, e.EventID(), twice.EventID())
	require.NoError(t, twice.Verify(example(t)))
	require.NoError(t, twice.Verify(example(t).with("example.org", second)))
	wrong := example(t)
	wrong["example.org"][second.ID()] = signing.VerifyKey{Key: key.Public(), ValidUntil: 1 << 50}
	require.ErrorIs(t, twice.Verify(wrong), signing.ErrInvalid)
	require.True(t, twice.SignedBy("example.org"))
	require.False(t, twice.SignedBy("example.com"))

	resident := e.Sign("resident.org", second)
	require.NoError(t, resident.VerifyWith("resident.org", second.ID(), second.Public()))
	require.NoError(t, resident.Verify(example(t)))
	require.True(t, canonjson.IsCanonical(resident.JSON(), canonjson.Options{}))
	reparsed, err := event.Parse(r11, resident.JSON())
	require.NoError(t, err)
	require.Equal(t, string(resident.JSON()), string(reparsed.JSON()))
}

func TestHashMismatchRedacts(t *testing.T) {
	e := build(t, roomver.MustGet("11"), message())
	forged := strings.Replace(string(e.JSON()), "hello", "hullo", 1)
	got, err := event.Parse(e.Rules(), []byte(forged))
	require.NoError(t, err)
	require.True(t, got.HashMismatch())
	require.Equal(t, "{}", string(got.Content()))
	require.Equal(t, e.EventID(), got.EventID())
	require.NoError(t, got.Verify(example(t)))
}

func TestClientFormat(t *testing.T) {
	e := build(t, roomver.MustGet("11"), message())
	require.JSONEq(t, `{"type":"m.room.message","room_id":"!room:example.org","sender":"@alice:example.org","event_id":"`+string(e.EventID())+`",
		"origin_server_ts":1700000000000,"content":{"msgtype":"m.text","body":"hello"},"unsigned":{"age":5}}`,
		string(e.AppendClient(nil, event.ClientFormat{Unsigned: []byte(`{"age":5}`)})))
	require.NotContains(t, string(e.AppendClient(nil, event.ClientFormat{OmitRoomID: true})), "room_id")

	p := message()
	p.Type, p.StateKey, p.Content = "m.room.name", ptr(""), []byte(`{"name":"n"}`)
	s := build(t, roomver.MustGet("11"), p)
	require.JSONEq(t, `{"type":"m.room.name","state_key":"","sender":"@alice:example.org","content":{"name":"n"}}`, string(s.AppendStripped(nil)))

	// A redaction has its target in both places, whatever its room version.
	for _, version := range []roomver.Version{"1", "10", "11", "12"} {
		for _, content := range []string{`{"reason":"spam"}`, `{"a":1,"z":2}`, `{}`} {
			p := message()
			p.Type, p.Redacts, p.Content = "m.room.redaction", "$target", []byte(content)
			e := build(t, roomver.MustGet(version), p)
			require.EqualValues(t, "$target", e.Redacts())
			shown := e.AppendClient(nil, event.ClientFormat{})
			require.True(t, canonjson.IsCanonical(shown, canonjson.Options{}), "%s", shown)
			top, _ := canonjson.GetString(shown, "redacts")
			require.Equal(t, "$target", top)
			c, _ := canonjson.Get(shown, "content")
			inner, _ := canonjson.GetString(c, "redacts")
			require.Equal(t, "$target", inner)
			again, err := event.Parse(e.Rules(), e.JSON())
			require.NoError(t, err)
			require.EqualValues(t, "$target", again.Redacts())
		}
	}
}

func TestTemplate(t *testing.T) {
	for _, r := range roomver.All() {
		p := message()
		p.Type, p.StateKey, p.Content = "m.room.member", ptr("@alice:example.org"), []byte(`{"membership":"join"}`)
		if r.LinksWithHashes {
			p.LinkHashes = map[id.EventID]event.Hash{p.PrevEvents[0]: {1, 2, 3}}
		}
		template, err := p.AppendTemplate([]byte("x"), r)
		require.NoError(t, err)
		template = template[1:]
		require.NotContains(t, string(template), "signatures")
		back, err := event.ParseTemplate(r, template)
		require.NoError(t, err)
		back.EventID = p.EventID
		require.Equal(t, string(build(t, r, p).JSON()), string(build(t, r, back).JSON()), r.Version)
	}
}

func encode(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// naiveContentHash is the content hash by marshalling maps.
func naiveContentHash(t testing.TB, data []byte) event.Hash {
	t.Helper()
	var e map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&e))
	delete(e, "signatures")
	delete(e, "hashes")
	raw, err := naiveMarshal(e)
	require.NoError(t, err)
	return sha256.Sum256(raw)
}
