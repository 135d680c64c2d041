package app

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// person is a user with a session, who asks a worker.
type person struct {
	*worker
	t                   *testing.T
	user, token, device string
}

func (f *fleet) person(t *testing.T, w *worker, name string) *person {
	t.Helper()
	status, a, _ := w.call(t, "POST", "/_matrix/client/v3/register", "", `{"username":"`+name+`","password":"correct horse","auth":{"type":"m.login.dummy"}}`)
	require.Equal(t, 200, status, "%v", a)
	return &person{worker: w, t: t, user: a["user_id"].(string), token: a["access_token"].(string), device: a["device_id"].(string)}
}

// ask makes a request of the client-server API; path begins after /_matrix/client.
func (p *person) ask(method, path string, body any) (int, map[string]any) {
	p.t.Helper()
	text, ok := body.(string)
	if !ok {
		b, err := json.Marshal(body)
		require.NoError(p.t, err)
		text = string(b)
	}
	status, a, _ := p.call(p.t, method, "/_matrix/client"+path, p.token, text)
	return status, a
}

// expect makes a request and demands a status and, if it is refused, a code.
func (p *person) expect(status int, code, method, path string, body any) map[string]any {
	p.t.Helper()
	got, a := p.ask(method, path, body)
	require.Equal(p.t, status, got, "%s %s %v: %v", method, path, body, a)
	if code != "" {
		require.Equal(p.t, code, a["errcode"], "%s %s %v: %v", method, path, body, a)
	}
	return a
}

// signer is a signing key that is called by itself, as cross-signing keys are.
type signer struct {
	public string
	key    ed25519.PrivateKey
}

func newSigner(seed string) signer {
	k := ed25519.NewKeyFromSeed([]byte((seed + strings.Repeat(".", 32))[:32]))
	return signer{base64.RawStdEncoding.EncodeToString(k.Public().(ed25519.PublicKey)), k}
}

// sign gives an object with one more signature.
func (s signer) sign(t *testing.T, user, keyID string, object map[string]any) map[string]any {
	t.Helper()
	out, bare := map[string]any{}, map[string]any{}
	for k, v := range object {
		if out[k] = v; k != "signatures" {
			bare[k] = v
		}
	}
	raw, err := json.Marshal(bare)
	require.NoError(t, err)
	raw, err = canonjson.Canonical(raw, canonjson.Options{})
	require.NoError(t, err)
	own := map[string]any{keyID: base64.RawStdEncoding.EncodeToString(ed25519.Sign(s.key, raw))}
	if old, ok := object["signatures"].(map[string]any); ok {
		if m, ok := old[user].(map[string]any); ok {
			for k, v := range m {
				own[k] = v
			}
		}
	}
	out["signatures"] = map[string]any{user: own}
	return out
}

func (s signer) as(usage, user string) map[string]any {
	return map[string]any{"user_id": user, "usage": []string{usage}, "keys": map[string]string{"ed25519:" + s.public: s.public}}
}

func (p *person) deviceKeys(s signer) map[string]any {
	return s.sign(p.t, p.user, "ed25519:"+p.device, map[string]any{
		"user_id": p.user, "device_id": p.device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
		"keys": map[string]string{"ed25519:" + p.device: s.public, "curve25519:" + p.device: "x"},
	})
}

// Every refusal that the specification lists for devices, keys, messages to devices and key backups, in its words.
func TestRefusalsOfEncryption(t *testing.T) {
	f := newFleet(t)
	f.cfg.RateLimits.Enabled = false
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	alice := f.person(t, w, "alice")
	t.Run("keys", func(t *testing.T) { alice.t = t; refusedKeys(alice) })
	t.Run("cross-signing", func(t *testing.T) { alice.t = t; refusedCrossSigning(alice) })
	t.Run("messages to devices", func(t *testing.T) { alice.t = t; refusedMessages(alice) })
	t.Run("backup", func(t *testing.T) { alice.t = t; refusedBackup(alice) })
	t.Run("dehydrated device", func(t *testing.T) { alice.t = t; refusedDehydrated(alice) })
	t.Run("devices", func(t *testing.T) { alice.t = t; refusedDevices(alice, f.person(t, w, "bob")) })
}

func refusedKeys(p *person) {
	for _, path := range []string{"/v3/keys/upload", "/v3/keys/query", "/v3/keys/claim", "/v3/keys/device_signing/upload", "/v3/keys/signatures/upload"} {
		stranger := &person{worker: p.worker, t: p.t}
		stranger.expect(401, "M_MISSING_TOKEN", "POST", path, "{}")
		p.expect(400, "M_NOT_JSON", "POST", path, "{")
	}
	other := p.deviceKeys(newSigner("d"))
	other["user_id"] = "@eve:example.org"
	for body, code := range map[string]string{
		`{"device_keys":[]}`: "M_BAD_JSON", `{"device_keys":{}}`: "M_BAD_JSON", `{"one_time_keys":[]}`: "M_BAD_JSON",
		`{"one_time_keys":{"x":{"key":"x"}}}`:                                                     "M_INVALID_PARAM",
		`{"one_time_keys":{"signed_curve25519:\u0000":{"key":"x"}}}`:                              "M_INVALID_PARAM",
		`{"one_time_keys":{"signed_curve25519:` + strings.Repeat("x", 300) + `":{"key":"x"}}}`:    "M_INVALID_PARAM",
		`{"one_time_keys":{"signed_curve25519:x":7}}`:                                             "M_BAD_JSON",
		`{"fallback_keys":{"signed_curve25519:x":{"key":"x"},"signed_curve25519:y":{"key":"y"}}}`: "M_INVALID_PARAM",
	} {
		p.expect(400, code, "POST", "/v3/keys/upload", body)
	}
	p.expect(400, "M_INVALID_PARAM", "POST", "/v3/keys/upload", map[string]any{"device_keys": other})
	p.expect(413, "M_TOO_LARGE", "POST", "/v3/keys/upload", `{"one_time_keys":{"signed_curve25519:x":{"key":"`+strings.Repeat("x", 20<<10)+`"}}}`)
	p.expect(200, "", "POST", "/v3/keys/upload", map[string]any{"device_keys": p.deviceKeys(newSigner("d"))})
	for range 2 { // the same again is no mistake
		p.expect(200, "", "POST", "/v3/keys/upload", `{"one_time_keys":{"signed_curve25519:x":{"key":"x"}}}`)
	}
	p.expect(400, "M_INVALID_PARAM", "POST", "/v3/keys/upload", `{"one_time_keys":{"signed_curve25519:x":{"key":"another"}}}`)

	p.expect(400, "M_MISSING_PARAM", "POST", "/v3/keys/query", "{}")
	p.expect(400, "M_INVALID_PARAM", "POST", "/v3/keys/query", `{"device_keys":{"alice":[]}}`)
	p.expect(400, "M_MISSING_PARAM", "POST", "/v3/keys/claim", "{}")
	p.expect(400, "M_INVALID_PARAM", "POST", "/v3/keys/claim", `{"one_time_keys":{"alice":{"D":"signed_curve25519"}}}`)
	for _, nothing := range []string{`{"NONE":"signed_curve25519"}`, `{"` + p.device + `":"none"}`, `{"\u0000":"\u0000"}`, `{"` + strings.Repeat("x", 9000) + `":"y"}`} {
		a := p.expect(200, "", "POST", "/v3/keys/claim", `{"one_time_keys":{"`+p.user+`":`+nothing+`}}`)
		require.Empty(p.t, a["one_time_keys"], "there is no such key, and it is no mistake to ask")
	}

	_, sync := p.ask("GET", "/v3/sync?timeout=0", "")
	since := url.QueryEscape(sync["next_batch"].(string))
	p.expect(200, "", "GET", "/v3/keys/changes?from="+since+"&to="+since, "")
	p.expect(400, "M_MISSING_PARAM", "GET", "/v3/keys/changes?to="+since, "")
	p.expect(400, "M_MISSING_PARAM", "GET", "/v3/keys/changes?from="+since, "")
	p.expect(400, "M_INVALID_PARAM", "GET", "/v3/keys/changes?from=x&to="+since, "")
	p.expect(400, "M_INVALID_PARAM", "GET", "/v3/keys/changes?from="+since+"&to=x", "")
}

func refusedCrossSigning(p *person) {
	const path, sign = "/v3/keys/device_signing/upload", "/v3/keys/signatures/upload"
	master, self, user, wrong := newSigner("m"), newSigner("s"), newSigner("u"), newSigner("w")
	signed := func(by signer, k signer, usage string) map[string]any {
		return by.sign(p.t, p.user, "ed25519:"+by.public, k.as(usage, p.user))
	}
	p.expect(400, "M_MISSING_PARAM", "POST", path, map[string]any{"self_signing_key": signed(master, self, "self_signing")})
	p.expect(400, "M_INVALID_SIGNATURE", "POST", path, map[string]any{
		"master_key": master.as("master", p.user), "self_signing_key": signed(wrong, self, "self_signing"),
	})
	for what, key := range map[string]map[string]any{
		"another user's": master.as("master", "@eve:example.org"), "another usage": master.as("self_signing", p.user),
		"two keys": {"user_id": p.user, "usage": []string{"master"}, "keys": map[string]string{"ed25519:a": "a", "ed25519:b": "b"}},
		"no key":   {"user_id": p.user, "usage": []string{"master"}, "keys": map[string]string{"ed25519:a": "a"}},
	} {
		a := p.expect(400, "M_INVALID_PARAM", "POST", path, map[string]any{"master_key": key})
		require.NotEmpty(p.t, a["error"], what)
	}
	keys := map[string]any{
		"master_key": master.as("master", p.user), "self_signing_key": signed(master, self, "self_signing"),
		"user_signing_key": signed(master, user, "user_signing"),
	}
	for range 2 { // the first, and the same again, need no confirmation
		p.expect(200, "", "POST", path, keys)
	}
	next := newSigner("m2")
	a := p.expect(401, "", "POST", path, map[string]any{"master_key": next.as("master", p.user)})
	require.NotEmpty(p.t, a["flows"])
	// The session is for these keys and no others.
	auth := map[string]any{"type": "m.login.password", "session": a["session"], "password": "correct horse", "identifier": map[string]string{"type": "m.id.user", "user": p.user}}
	p.expect(400, "", "POST", path, map[string]any{"master_key": wrong.as("master", p.user), "auth": auth})

	device := p.deviceKeys(newSigner("d"))
	failures := func(body map[string]any) map[string]string {
		out := map[string]string{}
		a := p.expect(200, "", "POST", sign, body)
		for u, byKey := range a["failures"].(map[string]any) {
			for key, why := range byKey.(map[string]any) {
				out[u+" "+key] = fmt.Sprint(why.(map[string]any)["errcode"])
			}
		}
		return out
	}
	changed := map[string]any{"user_id": p.user, "device_id": p.device, "algorithms": []string{}, "keys": map[string]string{}}
	require.Equal(p.t, map[string]string{
		p.user + " NONE": "M_NOT_FOUND", p.user + " " + p.device: "M_INVALID_SIGNATURE", "@nobody:example.org x": "M_NOT_FOUND",
	}, failures(map[string]any{
		p.user:                map[string]any{"NONE": device, p.device: wrong.sign(p.t, p.user, "ed25519:"+self.public, device)},
		"@nobody:example.org": map[string]any{"x": master.as("master", "@nobody:example.org")},
	}))
	require.Equal(p.t, map[string]string{p.user + " " + p.device: "M_NOT_FOUND"}, failures(map[string]any{
		p.user: map[string]any{p.device: self.sign(p.t, p.user, "ed25519:"+self.public, changed)}, // not the keys that are stored
	}))
	require.Empty(p.t, failures(map[string]any{p.user: map[string]any{p.device: self.sign(p.t, p.user, "ed25519:"+self.public, device)}}))
	p.expect(400, "M_INVALID_PARAM", "POST", sign, map[string]any{"alice": map[string]any{}})

	// A key takes signatures, and does not grow without end by them.
	for i := range 10 {
		noise := map[string]string{}
		for n := range 100 {
			noise[fmt.Sprintf("ed25519:%d-%d", i, n)] = strings.Repeat("A", 86)
		}
		more := p.deviceKeys(newSigner("d"))
		more["signatures"] = map[string]any{p.user: noise}
		if status, a := p.ask("POST", "/v3/keys/upload", map[string]any{"device_keys": more}); status != 200 {
			require.Equal(p.t, "M_TOO_LARGE", a["errcode"])
			return
		}
	}
	require.Fail(p.t, "the key took all signatures")
}

func refusedMessages(p *person) {
	stranger := &person{worker: p.worker, t: p.t}
	stranger.expect(401, "M_MISSING_TOKEN", "PUT", "/v3/sendToDevice/m.test/1", "{}")
	for body, code := range map[string]string{
		"{": "M_NOT_JSON", "{}": "M_MISSING_PARAM", `{"messages":[]}`: "M_BAD_JSON", `{"messages":{"alice":{"D":{}}}}`: "M_INVALID_PARAM",
		`{"messages":{"` + p.user + `":{"D":7}}}`: "M_BAD_JSON",
	} {
		p.expect(400, code, "PUT", "/v3/sendToDevice/m.test/1", body)
	}
	p.expect(413, "M_TOO_LARGE", "PUT", "/v3/sendToDevice/m.test/2", `{"messages":{"`+p.user+`":{"*":{"x":"`+strings.Repeat("x", 65<<10)+`"}}}}`)
	p.expect(200, "", "PUT", "/v3/sendToDevice/m.test/3", `{"messages":{"`+p.user+`":{"\u0000":{}},"@nobody:example.org":{"*":{}}}}`)
}

func refusedBackup(p *person) {
	const versions, keys = "/v3/room_keys/version", "/v3/room_keys/keys"
	p.expect(404, "M_NOT_FOUND", "GET", versions, "")
	p.expect(404, "M_NOT_FOUND", "GET", versions+"/1", "")
	p.expect(404, "M_NOT_FOUND", "PUT", versions+"/1", `{"algorithm":"a","auth_data":{}}`)
	p.expect(404, "M_NOT_FOUND", "DELETE", versions+"/1", "")
	p.expect(404, "M_NOT_FOUND", "PUT", keys+"?version=1", `{"rooms":{}}`)
	p.expect(404, "M_NOT_FOUND", "DELETE", keys+"?version=1", "")
	for body, code := range map[string]string{
		"{}": "M_MISSING_PARAM", `{"algorithm":"a"}`: "M_MISSING_PARAM", `{"algorithm":"a","auth_data":1}`: "M_BAD_JSON",
		`{"algorithm":"\u0000","auth_data":{}}`: "M_INVALID_PARAM", `{"algorithm":7,"auth_data":{}}`: "M_BAD_JSON",
	} {
		p.expect(400, code, "POST", versions, body)
	}
	p.expect(413, "M_TOO_LARGE", "POST", versions, `{"algorithm":"a","auth_data":{"x":"`+strings.Repeat("x", 65<<10)+`"}}`)
	one := p.expect(200, "", "POST", versions, `{"algorithm":"a","auth_data":{"x":1}}`)["version"].(string)
	p.expect(400, "M_INVALID_PARAM", "PUT", versions+"/"+one, `{"algorithm":"another","auth_data":{}}`)
	p.expect(400, "M_INVALID_PARAM", "PUT", versions+"/"+one, `{"algorithm":"a","auth_data":{},"version":"another"}`)
	p.expect(200, "", "PUT", versions+"/"+one, `{"algorithm":"a","auth_data":{"x":2},"version":"`+one+`"}`)

	const key = `{"first_message_index":1,"forwarded_count":0,"is_verified":false,"session_data":{"x":1}}`
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		for path, body := range map[string]string{"": `{"rooms":{}}`, "/!r": `{"sessions":{}}`, "/!r/s": key} {
			p.expect(400, "M_MISSING_PARAM", method, keys+path, body)
			p.expect(404, "M_NOT_FOUND", method, keys+path+"?version=x", body)
		}
	}
	for body, code := range map[string]string{
		`{}`: "M_BAD_JSON", `{"rooms":{"!r":{}}}`: "M_BAD_JSON", `{"rooms":{"!r":{"sessions":{"s":{}}}}}`: "M_BAD_JSON",
		`{"rooms":{"\u0000":{"sessions":{"s":` + key + `}}}}`:                                "M_INVALID_PARAM",
		`{"rooms":{"!r":{"sessions":{"` + strings.Repeat("s", 300) + `":` + key + `}}}}`:     "M_INVALID_PARAM",
		`{"rooms":{"!r":{"sessions":{"s":` + strings.Replace(key, ":1,", ":-1,", 1) + `}}}}`: "M_INVALID_PARAM",
	} {
		p.expect(400, code, "PUT", keys+"?version="+one, body)
	}
	p.expect(413, "M_TOO_LARGE", "PUT", keys+"/!r/s?version="+one, strings.Replace(key, `{"x":1}`, `{"x":"`+strings.Repeat("x", 65<<10)+`"}`, 1))
	put := p.expect(200, "", "PUT", keys+"/!r/s?version="+one, key)
	require.Equal(p.t, put["etag"], p.expect(200, "", "GET", versions, "")["etag"])
	p.expect(404, "M_NOT_FOUND", "GET", keys+"/!r/another?version="+one, "")
	require.Equal(p.t, map[string]any{"sessions": map[string]any{}}, p.expect(200, "", "GET", keys+"/!another?version="+one, ""))
	var whole any
	require.NoError(p.t, json.Unmarshal([]byte(key), &whole))
	sessions := func(names ...string) map[string]any {
		m := map[string]any{}
		for _, n := range names {
			m[n] = whole
		}
		return map[string]any{"sessions": m}
	}
	p.expect(200, "", "PUT", keys+"?version="+one, `{"rooms":{"!q":{"sessions":{"a":`+key+`,"\"":`+key+`}},"!r":{"sessions":{"t":`+key+`}}}}`)
	require.Equal(p.t, map[string]any{"rooms": map[string]any{"!q": sessions("a", `"`), "!r": sessions("s", "t")}}, p.expect(200, "", "GET", keys+"?version="+one, ""))
	require.Equal(p.t, sessions("s", "t"), p.expect(200, "", "GET", keys+"/!r?version="+one, ""))
	require.Equal(p.t, whole, any(p.expect(200, "", "GET", keys+"/!r/t?version="+one, "")))

	two := p.expect(200, "", "POST", versions, `{"algorithm":"a","auth_data":{}}`)["version"].(string)
	require.Equal(p.t, map[string]any{"rooms": map[string]any{}}, p.expect(200, "", "GET", keys+"?version="+two, ""))
	wrong := p.expect(403, "M_WRONG_ROOM_KEYS_VERSION", "PUT", keys+"/!r/s?version="+one, key)
	require.Equal(p.t, two, wrong["current_version"])
	p.expect(200, "", "DELETE", versions+"/"+one, "")
	p.expect(404, "M_NOT_FOUND", "DELETE", versions+"/"+one, "")
	p.expect(404, "M_NOT_FOUND", "GET", keys+"?version="+one, "")
	p.expect(404, "M_NOT_FOUND", "DELETE", keys+"?version="+one, "")
}

func refusedDehydrated(p *person) {
	const at = "/unstable/org.matrix.msc3814.v1/dehydrated_device"
	p.expect(404, "M_NOT_FOUND", "GET", at, "")
	p.expect(404, "M_NOT_FOUND", "DELETE", at, "")
	p.expect(404, "M_NOT_FOUND", "GET", at+"/X/events", "")
	asleep := &person{worker: p.worker, t: p.t, user: p.user, token: p.token, device: "ASLEEP"}
	keys := asleep.deviceKeys(newSigner("a"))
	p.expect(400, "M_MISSING_PARAM", "PUT", at, map[string]any{"device_id": "ASLEEP", "device_data": map[string]any{}})
	p.expect(400, "M_INVALID_PARAM", "PUT", at, map[string]any{"device_data": map[string]any{}, "device_keys": keys})
	p.expect(400, "M_INVALID_PARAM", "PUT", at, map[string]any{"device_id": "A\x00", "device_data": map[string]any{}, "device_keys": keys})
	p.expect(400, "M_INVALID_PARAM", "PUT", at, map[string]any{"device_id": "OTHER", "device_data": map[string]any{}, "device_keys": keys})
	p.expect(400, "M_INVALID_PARAM", "PUT", at, map[string]any{
		"device_id": p.device, "device_data": map[string]any{}, "device_keys": p.deviceKeys(newSigner("d")),
	})
	p.expect(200, "", "PUT", at, map[string]any{"device_id": "ASLEEP", "device_data": map[string]any{"x": 1}, "device_keys": keys})
	p.expect(403, "M_FORBIDDEN", "GET", at+"/"+p.device+"/events", "")
	p.expect(400, "M_INVALID_PARAM", "GET", at+"/ASLEEP/events?from=x", "")

	// Messages come in pages: newer clients stop where there is no next_batch, older ones where there are no events.
	const sent = 130
	for i := range sent {
		p.expect(200, "", "PUT", fmt.Sprint("/v3/sendToDevice/m.test/asleep", i), map[string]any{
			"messages": map[string]any{p.user: map[string]any{"ASLEEP": map[string]int{"n": i}}},
		})
	}
	for _, method := range []string{"GET", "POST"} {
		n, pages, from := 0, 0, ""
		for {
			path, body := at+"/ASLEEP/events", "{}"
			switch {
			case from != "" && method == "GET":
				path += "?from=" + from
			case from != "":
				body = `{"next_batch":"` + from + `"}`
			}
			a := p.expect(200, "", method, path, body)
			events := a["events"].([]any)
			for i, e := range events {
				require.EqualValues(p.t, n+i, e.(map[string]any)["content"].(map[string]any)["n"])
			}
			n += len(events)
			pages++
			next, more := a["next_batch"].(string)
			if method == "GET" && !more || method == "POST" && len(events) == 0 {
				break
			}
			require.True(p.t, more, "an older client asks on")
			from = next
		}
		require.Equal(p.t, sent, n)
		require.LessOrEqual(p.t, pages, 3)
	}
	p.expect(200, "", "DELETE", at, "")
}

func refusedDevices(p, eve *person) {
	p.expect(404, "M_NOT_FOUND", "GET", "/v3/devices/NONE", "")
	p.expect(404, "M_NOT_FOUND", "PUT", "/v3/devices/NONE", `{"display_name":"x"}`)
	p.expect(404, "M_NOT_FOUND", "GET", "/v3/devices/"+eve.device, "")
	p.expect(400, "M_MISSING_PARAM", "POST", "/v3/delete_devices", "{}")
	p.expect(400, "M_BAD_JSON", "POST", "/v3/delete_devices", `{"devices":7}`)
	for _, d := range []string{"ONE", "TWO", "THREE"} {
		p.expect(200, "", "POST", "/v3/login", map[string]any{
			"type": "m.login.password", "identifier": map[string]string{"type": "m.id.user", "user": p.user}, "password": "correct horse", "device_id": d,
		})
	}
	a := p.expect(401, "", "DELETE", "/v3/devices/ONE", "")
	require.NotEmpty(p.t, a["flows"])
	auth := func(password string) map[string]any {
		return map[string]any{
			"type": "m.login.password", "session": a["session"], "password": password, "identifier": map[string]string{"type": "m.id.user", "user": p.user},
		}
	}
	wrong := p.expect(401, "M_FORBIDDEN", "DELETE", "/v3/devices/ONE", map[string]any{"auth": auth("wrong")})
	require.NotEmpty(p.t, wrong["flows"], "the client may try again")
	// What was begun for one device, or by one user, confirms nothing else.
	p.expect(400, "", "DELETE", "/v3/devices/TWO", map[string]any{"auth": auth("correct horse")})
	p.expect(400, "", "POST", "/v3/delete_devices", map[string]any{"devices": []string{"ONE", "TWO"}, "auth": auth("correct horse")})
	p.expect(400, "", "POST", "/v3/account/deactivate", map[string]any{"auth": auth("correct horse")})
	own := auth("correct horse")
	delete(own, "identifier")
	eve.expect(400, "", "DELETE", "/v3/devices/ONE", map[string]any{"auth": own})
	p.expect(200, "", "GET", "/v3/devices/ONE", "")
	p.expect(200, "", "DELETE", "/v3/devices/ONE", map[string]any{"auth": auth("correct horse")})
	p.expect(404, "M_NOT_FOUND", "GET", "/v3/devices/ONE", "")

	a = p.expect(401, "", "POST", "/v3/delete_devices", `{"devices":["TWO","THREE","NONE"]}`)
	p.expect(200, "", "POST", "/v3/delete_devices", map[string]any{"devices": []string{"TWO", "THREE", "NONE"}, "auth": auth("correct horse")})
	p.expect(404, "M_NOT_FOUND", "GET", "/v3/devices/THREE", "")
	p.expect(200, "", "PUT", "/v3/devices/"+p.device, `{"display_name":"the loom"}`)
	require.Equal(p.t, "the loom", p.expect(200, "", "GET", "/v3/devices/"+p.device, "")["display_name"])
}
