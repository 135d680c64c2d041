package event_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// raw is an event of a version as JSON in which parts can be replaced; its hash does not matter, since
// formats are checked first.
func raw(t testing.TB, v roomver.Version) string {
	return string(build(t, roomver.MustGet(v), message()).JSON())
}

func with(t testing.TB, data, old, replacement string) string {
	t.Helper()
	require.Contains(t, data, old)
	return strings.Replace(data, old, replacement, 1)
}

func ids(n int, format string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(list, ",") + "]"
}

func TestRefusedInEveryVersion(t *testing.T) {
	for _, r := range roomver.All() {
		data := raw(t, r.Version)
		var members map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(data), &members))
		set := func(key, value string) string {
			return with(t, data, `"`+key+`":`+string(members[key]), `"`+key+`":`+value)
		}
		drop := func(key string) string {
			out := strings.Replace(data, `"`+key+`":`+string(members[key])+`,`, "", 1)
			return strings.Replace(out, `,"`+key+`":`+string(members[key])+"}", "}", 1)
		}
		link := `"$l%d"`
		if r.LinksWithHashes {
			link = `["$l%d:x",{}]`
		}
		for name, c := range map[string]struct {
			data string
			want error
		}{
			"no object":          {`[]`, event.ErrFormat},
			"nothing":            {``, canonjson.ErrSyntax},
			"surrogate":          {set("content", `{"a":"\ud800"}`), canonjson.ErrSurrogate},
			"surrogate as key":   {set("content", `{"\udc00":1}`), canonjson.ErrSurrogate},
			"UTF-8":              {set("content", "{\"a\":\"\xff\"}"), canonjson.ErrUTF8},
			"deep":               {set("content", `{"a":`+strings.Repeat("[", 600)+strings.Repeat("]", 600)+`}`), canonjson.ErrDepth},
			"very deep":          {set("content", strings.Repeat(`{"a":`, 50_000)), canonjson.ErrDepth},
			"content array":      {set("content", `[]`), event.ErrFormat},
			"content string":     {set("content", `"x"`), event.ErrFormat},
			"type number":        {set("type", `1`), event.ErrFormat},
			"type null":          {set("type", `null`), event.ErrFormat},
			"type with NUL":      {set("type", `"m.\u0000"`), event.ErrFormat},
			"sender with NUL":    {set("sender", `"@\u0000:a"`), event.ErrFormat},
			"sender no id":       {set("sender", `"alice"`), event.ErrFormat},
			"sender no server":   {set("sender", `"@alice"`), event.ErrFormat},
			"sender null":        {set("sender", `null`), event.ErrFormat},
			"room no id":         {set("room_id", `"room"`), event.ErrFormat},
			"room no server":     {set("room_id", `"!room"`), event.ErrFormat},
			"depth string":       {set("depth", `"1"`), event.ErrFormat},
			"depth negative":     {set("depth", `-1`), event.ErrFormat},
			"ts string":          {set("origin_server_ts", `"1"`), event.ErrFormat},
			"ts null":            {set("origin_server_ts", `null`), event.ErrFormat},
			"hashes array":       {set("hashes", `[]`), event.ErrFormat},
			"hashes without":     {set("hashes", `{}`), event.ErrFormat},
			"hashes number":      {set("hashes", `{"sha256":1}`), event.ErrFormat},
			"hashes not base64":  {set("hashes", `{"sha256":"!!!"}`), event.ErrFormat},
			"signatures array":   {set("signatures", `[]`), event.ErrFormat},
			"state_key number":   {with(t, data, `"type":`, `"state_key":1,"type":`), event.ErrFormat},
			"state_key null":     {with(t, data, `"type":`, `"state_key":null,"type":`), event.ErrFormat},
			"unsigned array":     {with(t, data, `"type":`, `"unsigned":[],"type":`), event.ErrFormat},
			"prev object":        {set("prev_events", `{}`), event.ErrFormat},
			"prev number":        {set("prev_events", `[1]`), event.ErrFormat},
			"prev no id":         {set("prev_events", `["x"]`), event.ErrFormat},
			"prev with NUL":      {set("prev_events", strings.Replace(ids(1, link), "$l", `$\u0000`, 1)), event.ErrFormat},
			"prev other form":    {set("prev_events", map[bool]string{true: `["$a"]`, false: `[["$a",{}]]`}[r.LinksWithHashes]), event.ErrFormat},
			"prev too many":      {set("prev_events", ids(21, link)), event.ErrTooMany},
			"prev absurdly many": {set("prev_events", ids(3000, link)), event.ErrTooMany},
			"auth too many":      {set("auth_events", ids(11, link)), event.ErrTooMany},
			"auth long id":       {set("auth_events", `["$`+strings.Repeat("a", 255)+`"]`), event.ErrFormat},
			"type too long":      {set("type", `"`+strings.Repeat("a", 256)+`"`), event.ErrTooLarge},
			"too large":          {set("content", `{"a":"`+strings.Repeat("a", 65536)+`"}`), event.ErrTooLarge},
			"absurdly large":     {set("content", `{"a":"`+strings.Repeat("a", 1<<20)+`"}`), event.ErrTooLarge},
			"no type":            {drop("type"), event.ErrFormat},
			"no sender":          {drop("sender"), event.ErrFormat},
			"no room":            {drop("room_id"), event.ErrFormat},
			"no content":         {drop("content"), event.ErrFormat},
			"no depth":           {drop("depth"), event.ErrFormat},
			"no ts":              {drop("origin_server_ts"), event.ErrFormat},
			"no hashes":          {drop("hashes"), event.ErrFormat},
			"no signatures":      {drop("signatures"), event.ErrFormat},
			"no prev":            {drop("prev_events"), event.ErrFormat},
			"no auth":            {drop("auth_events"), event.ErrFormat},
		} {
			_, err := event.Parse(r, []byte(c.data))
			require.ErrorIs(t, err, c.want, "%s in version %s", name, r.Version)
		}
		_, err := event.Parse(r, []byte(set("prev_events", ids(20, link))))
		require.NoError(t, err)
		_, err = event.Parse(r, []byte(set("auth_events", ids(10, link))))
		require.NoError(t, err)
	}
}

// Numbers and duplicate keys by version: old rooms hold them, and they must stay what was hashed.
func TestNumbersByVersion(t *testing.T) {
	for _, r := range roomver.All() {
		data := raw(t, r.Version)
		for _, number := range []string{"1E3", "0.0", "1.5", "9007199254740992", "-9007199254740992", "1e400"} {
			e, err := event.Parse(r, []byte(with(t, data, `"content":{`, `"content":{"n":`+number+`,`)))
			if r.StrictJSON {
				require.ErrorIs(t, err, canonjson.ErrNumber, "%s in %s", number, r.Version)
				continue
			}
			require.NoError(t, err)
			require.True(t, e.HashMismatch()) // it was not hashed with the number: it is there only before redaction
		}
		_, err := event.Parse(r, []byte(with(t, data, `"content":{`, `"content":{"body":"x",`)))
		if r.StrictJSON {
			require.ErrorIs(t, err, canonjson.ErrDuplicate)
		} else {
			require.NoError(t, err)
		}
		_, err = event.Parse(r, []byte(with(t, data, `"content":{`, `"content":{"n":-0,`)))
		require.NoError(t, err)
		_, err = event.Parse(r, []byte(with(t, data, `"depth":12`, `"depth":12.0`)))
		require.Error(t, err)
		_, err = event.Parse(r, []byte(with(t, data, `"depth":12`, `"depth":9223372036854775807`)))
		require.Equal(t, r.StrictJSON, err != nil, r.Version)
		_, err = event.Parse(r, []byte(with(t, data, `"depth":12`, `"depth":9223372036854775808`)))
		require.Error(t, err)
	}
	// A float that was hashed stays as it was written.
	r := roomver.MustGet("5")
	e, err := event.ParseTrusted(r, []byte(with(t, raw(t, "5"), `"content":{`, `"content":{"a":1.50,`)), "")
	require.NoError(t, err)
	h := e.ContentHash()
	hashed := with(t, string(e.JSON()), hashOf(t, e.JSON()), `"`+encode(h[:])+`"`)
	got, err := event.Parse(r, []byte(hashed))
	require.NoError(t, err)
	require.False(t, got.HashMismatch())
	require.Contains(t, string(got.Content()), `"a":1.50`)
}

func hashOf(t testing.TB, data []byte) string {
	t.Helper()
	hashes, _ := canonjson.Get(data, "hashes")
	v, ok := canonjson.Get(hashes, "sha256")
	require.True(t, ok)
	return string(v)
}

func TestFieldLimits(t *testing.T) {
	// 128 code points of two bytes are too long where bytes count, and a reason to reject where other
	// servers count code points.
	wide := strings.Repeat("é", 128)
	for _, r := range roomver.All() {
		data := raw(t, r.Version)
		for _, changed := range []string{
			with(t, data, `"type":"m.room.message"`, `"type":"`+wide+`"`),
			with(t, data, `"type":`, `"state_key":"`+wide+`","type":`),
			with(t, data, `"sender":"@alice:`, `"sender":"@`+wide+`:`),
		} {
			e, err := event.Parse(r, []byte(changed))
			if r.StrictByteLimits {
				require.ErrorIs(t, err, event.ErrTooLarge, r.Version)
				continue
			}
			require.NoError(t, err, r.Version)
			require.True(t, e.OverlongField())
		}
		p := message()
		p.Type = wide
		_, err := event.Build(r, p, "example.org", keyOf(t, "exa"))
		require.ErrorIs(t, err, event.ErrTooLarge, "not from us, in any version")
		p.Type = strings.Repeat("é", 127) + "a"
		_, err = event.Build(r, p, "example.org", keyOf(t, "exa"))
		require.NoError(t, err)
	}
}

func TestSizeLimitIsExact(t *testing.T) {
	r := roomver.MustGet("11")
	p := message()
	size := func(n int) (*event.Event, error) {
		p.Content = []byte(`{"a":"` + strings.Repeat("a", n) + `"}`)
		return event.Build(r, p, "example.org", keyOf(t, "exa"))
	}
	small, err := size(0)
	require.NoError(t, err)
	full, err := size(event.MaxSize - small.Size())
	require.NoError(t, err)
	require.Equal(t, event.MaxSize, full.Size())
	_, err = event.Parse(r, full.JSON())
	require.NoError(t, err)
	_, err = event.Parse(r, append([]byte("   \n"), full.JSON()...)) // white space does not count
	require.NoError(t, err)
	_, err = size(event.MaxSize - small.Size() + 1)
	require.ErrorIs(t, err, event.ErrTooLarge)
	_, err = event.Parse(r, []byte(with(t, string(full.JSON()), `"a":"a`, `"a":"aa`)))
	require.ErrorIs(t, err, event.ErrTooLarge)
}

func TestEventThatNamesItself(t *testing.T) {
	for _, v := range []roomver.Version{"1", "2"} {
		for _, list := range []string{"prev_events", "auth_events"} {
			data := with(t, raw(t, v), `"`+list+`":[`, `"`+list+`":[["$ev:example.org",{}],`)
			_, err := event.Parse(roomver.MustGet(v), []byte(data))
			require.ErrorIs(t, err, event.ErrFormat)
		}
	}
}

// Letters that look alike are different, and case is; nothing is normalised.
func TestLookAlikesAreLeftAlone(t *testing.T) {
	r := roomver.MustGet("11")
	seen := map[id.EventID]bool{}
	for _, key := range []string{"@alice:a", "@аlice:a", "@Alice:a", "é", "e\u0301", "ﬁ", "fi", "\u200b", ""} {
		p := message()
		p.StateKey = ptr(key)
		e := build(t, r, p)
		got, err := event.Parse(r, e.JSON())
		require.NoError(t, err)
		k, _ := got.StateKey()
		require.Equal(t, key, k)
		require.False(t, seen[e.EventID()], key)
		seen[e.EventID()] = true
	}
}

// Members that nobody knows, named to come between and before all others, stay hashed and go with
// redaction.
func TestUnknownMembers(t *testing.T) {
	r := roomver.MustGet("11")
	for _, member := range []string{`"":1`, `"\u0000":1`, `"A":{"x":1}`, `"hashe":1`, `"unsignee":1`, `"zzz":[1]`, `"\"":1`, `"signatures2":{}`} {
		data := strings.Replace(raw(t, "11"), "{", "{"+member+",", 1)
		c, err := canonjson.Canonical([]byte(data), canonjson.Options{})
		require.NoError(t, err)
		e, err := event.ParseTrusted(r, c, "")
		require.NoError(t, err, member)
		h := e.ContentHash()
		require.Equal(t, naiveContentHash(t, c), h, member)
		whole, err := event.Parse(r, []byte(strings.Replace(data, hashOf(t, c), `"`+encode(h[:])+`"`, 1)))
		require.NoError(t, err)
		require.False(t, whole.HashMismatch(), member)
		require.NotContains(t, string(whole.Redact().JSON()), member)
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range roomver.All() {
		f.Add(byte(len(r.Version)), []byte(raw(f, r.Version)))
	}
	f.Add(byte(0), []byte(`{"auth_events":[["$a:b",{"sha256":"x"}]],"content":{"membership":"join"},"depth":1,"event_id":"$x:y","hashes":{"sha256":""},`+
		`"origin_server_ts":1e3,"prev_events":[],"room_id":"!a:b","sender":"@a:b","signatures":{},"state_key":"\u0000","type":"m.room.member","unsigned":{"a":1}}`))
	f.Add(byte(11), []byte(`{"auth_events":[],"content":{},"depth":1,"hashes":{"sha256":"x"},"origin_server_ts":1,"prev_events":[],"sender":"@a:b",`+
		`"signatures":{},"state_key":"","type":"m.room.create"}`))
	all := roomver.All()
	f.Fuzz(func(t *testing.T, version byte, data []byte) {
		r := all[int(version)%len(all)]
		e, err := event.Parse(r, data)
		if err != nil {
			return
		}
		mode := canonjson.Options{Mode: canonjson.Lax}
		if r.StrictJSON {
			mode.Mode = canonjson.Strict
		}
		if !canonjson.IsCanonical(e.JSON(), mode) || e.Size() > event.MaxSize {
			t.Fatalf("%q is not canonical", e.JSON())
		}
		trusted, err := event.ParseTrusted(r, e.JSON(), "")
		if err != nil || trusted.EventID() != e.EventID() || trusted.RoomID() != e.RoomID() {
			t.Fatalf("%q does not survive storage: %v", e.JSON(), err)
		}
		redacted := e.Redact()
		if redacted.EventID() != e.EventID() || redacted.ReferenceHash() != e.ReferenceHash() || redacted.Redact() != redacted {
			t.Fatalf("%q does not survive redaction", e.JSON())
		}
		again, err := event.Parse(r, e.JSON())
		if err != nil || string(again.JSON()) != string(e.JSON()) || again.EventID() != e.EventID() {
			t.Fatalf("%q is not parsed twice: %v", e.JSON(), err)
		}
		if shown := e.AppendClient(nil, event.ClientFormat{}); !json.Valid(shown) {
			t.Fatalf("client format %q", shown)
		}
		_ = e.Verify(ring{})
		e.AppendKeyRequests(nil)
		e.Membership()
	})
}

func FuzzParseTrusted(f *testing.F) {
	f.Add([]byte(raw(f, "11")))
	f.Add([]byte(`{"a":`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		// Storage that is broken must not break us.
		if e, err := event.ParseTrusted(roomver.MustGet("11"), append([]byte(nil), data...), "$x"); err == nil {
			e.Membership()
			e.ContentHash()
			e.AppendClient(nil, event.ClientFormat{})
		}
		_, _ = event.ParseTemplate(roomver.MustGet("2"), data)
	})
}
