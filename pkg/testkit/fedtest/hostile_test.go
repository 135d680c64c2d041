package fedtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// stage is a homeserver with a user, and another server that means no good.
type stage struct {
	ca     *certtest.Authority
	home   *fedtest.Homeserver
	alice  *fedtest.User
	remote *fedtest.Remote

	speakers int
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{ca: certtest.NewAuthority(t)}
	s.home = fedtest.NewHomeserver(t, s.ca, "127.0.0.1")
	s.home.Start(app.AllInOne, "one")
	s.alice = s.home.NewUser(t, "alice")
	s.remote = fedtest.NewRemote(t, s.ca)
	return s
}

// undisturbed runs the traffic of a room that has nothing to do with what f does, and demands that it went on.
func (s *stage) undisturbed(t *testing.T, f func()) {
	t.Helper()
	defer s.traffic(t)()
	f()
}

// traffic has somebody speak in a room that has nothing to do with the bad server, until stop is called, which demands that every message
// that was sent there was taken, and is there once.
func (s *stage) traffic(t *testing.T) (stop func()) {
	t.Helper()
	s.speakers++
	speaker := s.home.NewUser(t, fmt.Sprint("speaker", s.speakers))
	room := speaker.Create(t, "11", nil)
	over := make(chan struct{})
	var group sync.WaitGroup
	var said []string
	group.Go(func() {
		for {
			said = append(said, speaker.Say(t, room, "undisturbed"))
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	return func() {
		t.Helper()
		close(over)
		group.Wait()
		require.NotEmpty(t, said)
		timeline := s.home.Timeline(t, room)
		for _, e := range said {
			require.Contains(t, timeline, e)
		}
	}
}

// enter gives a room of alice's that a user of the bad server is in.
func (s *stage) enter(t *testing.T, version roomver.Version, name string) *fedtest.Place {
	t.Helper()
	room := s.alice.Create(t, string(version), map[string]any{"preset": "public_chat"})
	return s.remote.Enter(t, s.home, room, name)
}

// goesOn tells that a room takes good events as before: those of its bad server too.
func (s *stage) goesOn(t *testing.T, p *fedtest.Place) {
	t.Helper()
	e := p.Say(t, "and now in earnest")
	require.Empty(t, s.remote.Send(t, s.home, e)[string(e.EventID())])
	s.alice.Sees(t, string(p.Room), string(e.EventID()))
	s.alice.Sees(t, string(p.Room), s.alice.Say(t, string(p.Room), "well said"))
}

// with gives an event's JSON with members replaced, signatures and hashes as they were; nil takes one away.
func with(t *testing.T, e *event.Event, members map[string]any) json.RawMessage {
	t.Helper()
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(e.JSON()))
	d.UseNumber()
	require.NoError(t, d.Decode(&m))
	for k, v := range members {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	out, err := json.Marshal(m)
	require.NoError(t, err)
	return out
}

// Events that a server must not be believed: each gets its answer, none comes in, and the room goes on.
func TestHostileEvents(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	bystander := s.alice.Create(t, "11", nil) // nobody of the other server is in it
	bob := id.UserID("@bob:" + string(fedtest.Nowhere(t)))
	type hostile struct {
		pdu func(t *testing.T, p *fedtest.Place) json.RawMessage
		// refused at once, by name; else it is looked at later, or has no name.
		refused bool
	}
	changed := func(change func(t *testing.T, p *fedtest.Place, proto *event.Proto)) func(t *testing.T, p *fedtest.Place) json.RawMessage {
		return func(t *testing.T, p *fedtest.Place) json.RawMessage {
			t.Helper()
			proto := p.Message(t, "trust me")
			change(t, p, proto)
			return p.Build(t, proto).JSON()
		}
	}
	state := func(typ, key, content string) func(t *testing.T, p *fedtest.Place, proto *event.Proto) {
		return func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) {
			proto.Type, proto.StateKey, proto.Content = typ, &key, []byte(content)
		}
	}
	altered := func(members map[string]any) func(t *testing.T, p *fedtest.Place) json.RawMessage {
		return func(t *testing.T, p *fedtest.Place) json.RawMessage { return with(t, p.Say(t, "trust me"), members) }
	}
	raw := func(text string) func(*testing.T, *fedtest.Place) json.RawMessage {
		return func(*testing.T, *fedtest.Place) json.RawMessage { return json.RawMessage(text) }
	}
	cases := map[string]hostile{
		"without signatures": {altered(map[string]any{"signatures": map[string]any{}}), true},
		"signature that is wrong": {altered(map[string]any{"signatures": map[string]any{
			string(s.remote.Name): map[string]string{"ed25519:liar": strings.Repeat("A", 86)},
		}}), true},
		"signature of a key that is not published": {altered(map[string]any{"signatures": map[string]any{
			string(s.remote.Name): map[string]string{"ed25519:other": strings.Repeat("A", 86)},
		}}), true},
		"what was signed was changed": {altered(map[string]any{"depth": 99}), true},
		"a user of another server":    {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) { proto.Sender = bob }), true},
		"a user of the homeserver":    {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) { proto.Sender = id.UserID(s.alice.User) }), true},
		"a user who is not in the room": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) {
			proto.Sender = id.UserID("@else:" + string(s.remote.Name))
		}), false},
		"a room that nobody knows": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) { proto.RoomID = "!nothing:nowhere.test" }), true},
		"a room that the server is not in": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) {
			proto.RoomID = id.RoomID(bystander)
		}), false},
		"power that the user has not": {changed(state(event.TypePowerLevels, "", `{"users_default":100}`)), false},
		"a second create event":       {changed(state(event.TypeCreate, "", `{"room_version":"10"}`)), false},
		"a ban of who made the room":  {changed(state(event.TypeMember, s.alice.User, `{"membership":"ban"}`)), false},
		"somebody else's join":        {changed(state(event.TypeMember, string(bob), `{"membership":"join"}`)), false},
		"a membership that is none":   {changed(state(event.TypeMember, "x", `{"membership":["join"]}`)), false},
		"auth events that are not enough": {changed(func(t *testing.T, p *fedtest.Place, proto *event.Proto) {
			proto.AuthEvents = []id.EventID{p.Find(t, event.TypePowerLevels, "").EventID()}
		}), false},
		"no auth events": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) { proto.AuthEvents = nil }), false},
		"signed after its key's end": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) {
			proto.OriginServerTS = time.Now().Add(2 * time.Hour).UnixMilli()
		}), true},
		"the same auth event many times": {changed(func(_ *testing.T, p *fedtest.Place, proto *event.Proto) {
			for range 6 {
				proto.AuthEvents = append(proto.AuthEvents, p.Join.EventID())
			}
		}), false},
		"no prev events": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) { proto.PrevEvents = nil }), false},
		"prev events and auth events that nobody has": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) {
			proto.PrevEvents = []id.EventID{"$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
			proto.AuthEvents = append(proto.AuthEvents, "$BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
		}), false},
		"more prev events than there may be": {func(t *testing.T, p *fedtest.Place) json.RawMessage {
			list := make([]string, 21)
			for i := range list {
				list[i] = fmt.Sprintf("$%043d", i)
			}
			return with(t, p.Say(t, "trust me"), map[string]any{"prev_events": list})
		}, false},
		"larger than it may be":   {altered(map[string]any{"content": map[string]string{"body": strings.Repeat("x", 70_000)}}), false},
		"a type that is too long": {altered(map[string]any{"type": strings.Repeat("x", 300)}), false},
		"no sender":               {altered(map[string]any{"sender": nil}), false},
		"a sender that is none":   {altered(map[string]any{"sender": "mallory"}), false},
		"no room":                 {altered(map[string]any{"room_id": nil}), false},
		"a room that is a number": {altered(map[string]any{"room_id": 5}), false},
		"no depth":                {altered(map[string]any{"depth": nil}), false},
		"a negative depth":        {altered(map[string]any{"depth": -1}), false},
		"a depth beyond all":      {altered(map[string]any{"depth": json.Number("9223372036854775807")}), false},
		"content that is a list":  {altered(map[string]any{"content": []int{}}), false},
		"a list":                  {raw(`[]`), false},
		"null":                    {raw(`null`), false},
		"a number":                {raw(`1e400`), false},
		"an invitation by a token that is a NUL": {changed(state(event.TypeMember, string(bob), `{"membership":"invite","third_party_invite":{"display_name":"x",`+
			`"signed":{"mxid":"`+string(bob)+`","token":"\u0000","signatures":{"x":{"ed25519:0":"x"}}}}}`)), false},
		"a join that a NUL vouches for": {changed(func(_ *testing.T, p *fedtest.Place, proto *event.Proto) {
			me := string(p.User)
			proto.Type, proto.StateKey, proto.Content = event.TypeMember, &me, []byte(`{"membership":"join","join_authorised_via_users_server":"@\u0000:`+string(s.home.Name)+`"}`)
		}), false},
		"an id of another server's": {changed(func(_ *testing.T, _ *fedtest.Place, proto *event.Proto) {
			proto.EventID = id.EventID("$trust-me:" + string(s.home.Name))
		}), true},
	}
	not := map[string]func(r *roomver.Rules) bool{ // of which versions a case is none
		"signed after its key's end":    func(r *roomver.Rules) bool { return !r.EnforceKeyValidity },
		"an id of another server's":     func(r *roomver.Rules) bool { return r.EventIDs != roomver.EventIDGiven },
		"a join that a NUL vouches for": func(r *roomver.Rules) bool { return !r.Restricted },
	}
	for _, version := range versions {
		p := s.enter(t, version, "mallory"+string(version))
		for name, c := range cases {
			if not[name] != nil && not[name](p.Rules) {
				continue
			}
			t.Run("version "+string(version)+" "+name, func(t *testing.T) {
				before := s.home.Timeline(t, string(p.Room))
				pdu := c.pdu(t, p)
				status, said := s.remote.Transaction(t, s.home, t.Name(), []json.RawMessage{pdu}, nil)
				require.Equal(t, http.StatusOK, status)
				if c.refused {
					require.Len(t, said, 1)
				}
				for _, e := range said {
					if c.refused {
						require.NotEmpty(t, e)
					}
				}
				s.goesOn(t, p)
				require.Len(t, s.home.Timeline(t, string(p.Room)), len(before)+2, "nothing but the good ones")
				state := s.alice.State(t, string(p.Room))
				require.NotContains(t, state, "m.room.member|"+string(bob))
				require.Len(t, s.home.Timeline(t, bystander), 6, "the other room is as it was made")
			})
		}
	}
}

// An event whose content was changed on its way counts without it.
func TestChangedContentIsRedacted(t *testing.T) {
	s := newStage(t)
	p := s.enter(t, roomver.V11, "mallory")
	e := p.Say(t, "what was said")
	pdu := with(t, e, map[string]any{"content": map[string]string{"msgtype": "m.text", "body": "what was not"}})
	status, said := s.remote.Transaction(t, s.home, "1", []json.RawMessage{pdu}, nil)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, map[string]string{string(e.EventID()): ""}, said)
	s.alice.Sees(t, string(p.Room), string(e.EventID()))
	got := s.alice.Must(t, "GET", fedtest.RoomPath(string(p.Room), "event", string(e.EventID())), nil)
	require.Empty(t, got["content"])
}

// An event that names another in a way that nothing is named by comes in all the same, and concerns none.
func TestNamesOfNothing(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	for _, version := range []roomver.Version{roomver.V6, roomver.V12} {
		p := s.enter(t, version, "mallory"+string(version))
		for typ, content := range map[string]string{
			"m.reaction":          `{"m.relates_to":{"rel_type":"m.annotation","event_id":"$\u0000","key":"x"}}`,
			"m.room.message":      `{"m.relates_to":{"rel_type":"m.\u0000","event_id":"$x","m.in_reply_to":{"event_id":"$\u0000"}},"body":"a\u0000b"}`,
			"org.example.x":       `{"m.relates_to":{"rel_type":"m.annotation","event_id":"$x","key":"\u0000"}}`,
			event.TypeRedaction:   `{"redacts":"$\u0000"}`,
			"m.room.guest_access": `{"guest_access":"\u0000"}`,
		} {
			proto := p.Message(t, "")
			proto.Type, proto.Content = typ, []byte(content)
			if typ == event.TypeRedaction {
				proto.Redacts = "$\x00"
			}
			e := p.Build(t, proto)
			require.Empty(t, s.remote.Send(t, s.home, e)[string(e.EventID())])
			s.alice.Sees(t, string(p.Room), string(e.EventID()))
		}
		s.goesOn(t, p)
		require.Zero(t, s.home.Staged(t))
	}
}

// Requests that are not from whom they say, not for this server, or not what they say: each is refused for what it is.
func TestHostileRequests(t *testing.T) {
	s := newStage(t)
	defer s.traffic(t)()
	p := s.enter(t, roomver.V11, "mallory")
	r, here := s.remote, s.home.Name
	body := []byte(`{"origin":"x","origin_server_ts":1,"pdus":[],"edus":[]}`)
	const uri = "/_matrix/federation/v1/send/x"
	stranger, err := signing.NewKey("ed25519:liar", bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	unknown, err := signing.NewKey("ed25519:unknown", bytes.Repeat([]byte{7}, 32))
	require.NoError(t, err)
	good := r.Header(t, r.Name, here, r.Key, "PUT", uri, body)
	expired := fedtest.NewRemote(t, s.ca)
	expired.Handle("/_matrix/key/v2/server", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(expired.Document(-time.Minute)) })
	mute := fedtest.NewRemote(t, s.ca)
	mute.Handle("/_matrix/key/v2/server", nil)
	other := fedtest.NewRemote(t, s.ca)
	other.Handle("/_matrix/key/v2/server", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(r.Document(time.Hour)) })
	for name, header := range map[string]string{
		"no signature":                  "",
		"another scheme":                "Bearer x",
		"rubbish":                       "X-Matrix \x80\xff,,,=",
		"for another server":            r.Header(t, r.Name, "elsewhere.test", r.Key, "PUT", uri, body),
		"from this server":              r.Header(t, here, here, r.Key, "PUT", uri, body),
		"from another server":           r.Header(t, other.Name, here, r.Key, "PUT", uri, body),
		"another key under the name":    r.Header(t, r.Name, here, stranger, "PUT", uri, body),
		"a key that is not published":   r.Header(t, r.Name, here, unknown, "PUT", uri, body),
		"another method":                r.Header(t, r.Name, here, r.Key, "GET", uri, body),
		"another address":               r.Header(t, r.Name, here, r.Key, "PUT", uri+"y", body),
		"another body":                  r.Header(t, r.Name, here, r.Key, "PUT", uri, []byte(`{}`)),
		"a key that is expired":         expired.Header(t, expired.Name, here, expired.Key, "PUT", uri, body),
		"a server that gives no key":    mute.Header(t, mute.Name, here, mute.Key, "PUT", uri, body),
		"a server that nobody can find": r.Header(t, fedtest.Nowhere(t), here, r.Key, "PUT", uri, body),
		"an origin that is no name":     strings.Replace(good, string(r.Name), "a b", 1),
		"an origin within the network":  r.Header(t, "10.0.0.1", here, r.Key, "PUT", uri, body),
	} {
		t.Run(name, func(t *testing.T) {
			status, answer := r.AskWith(t, s.home, "PUT", uri, body, header)
			require.Equal(t, http.StatusUnauthorized, status, "%s", answer)
			require.Contains(t, string(answer), "M_UNAUTHORIZED")
		})
	}
	status, _ := r.AskWith(t, s.home, "PUT", uri, body, good)
	require.Equal(t, http.StatusOK, status)

	many := func(n int, one string) string { return "[" + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]" }
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"no JSON":            {`{"pdus":`, 400},
		"invalid UTF-8":      {"{\"pdus\":[],\"edus\":[],\"x\":\"\xff\xfe\"}", 400},
		"a list":             {`[]`, 400},
		"nested beyond all":  {`{"pdus":[` + strings.Repeat(`{"a":`, 50_000) + `1` + strings.Repeat(`}`, 50_000) + `]}`, 400},
		"PDUs that are none": {`{"pdus":{}}`, 400},
		"too many PDUs":      {`{"pdus":` + many(51, `{}`) + `}`, 400},
		"too many EDUs":      {`{"pdus":[],"edus":` + many(101, `{"edu_type":"x","content":{}}`) + `}`, 400},
		"EDUs that are none": {`{"pdus":[],"edus":[5]}`, 400},
		"nothing":            {`{}`, 200},
		"empty EDUs":         {`{"pdus":[],"edus":[{},{"edu_type":"m.typing"},{"edu_type":"m.direct_to_device","content":null}]}`, 200},
	} {
		t.Run(name, func(t *testing.T) {
			uri := "/_matrix/federation/v1/send/" + url.PathEscape(name)
			b := []byte(c.body)
			status, answer := r.AskWith(t, s.home, "PUT", uri, b, header(t, r, s.home, uri, b))
			require.Equal(t, c.status, status, "%s", answer)
		})
	}
	t.Run("a transaction id that is too long", func(t *testing.T) {
		status, _ := r.Transaction(t, s.home, strings.Repeat("x", 256), nil, nil)
		require.Equal(t, 400, status)
	})
	t.Run("a body that is too large", func(t *testing.T) {
		b := []byte(`{"pdus":[],"x":"` + strings.Repeat("x", 30<<20) + `"}`)
		status, _ := r.Ask(t, s.home, "PUT", uri, b)
		require.Equal(t, http.StatusRequestEntityTooLarge, status)
	})
	t.Run("a transaction that comes again", func(t *testing.T) {
		e := p.Say(t, "once")
		for range 3 {
			status, _ := r.Transaction(t, s.home, "again", []json.RawMessage{e.JSON()}, nil)
			require.Equal(t, http.StatusOK, status)
		}
		status, _ := r.Transaction(t, s.home, "again", []json.RawMessage{p.Say(t, "under an id that is taken").JSON()}, nil)
		require.Equal(t, http.StatusOK, status)
		r.Send(t, s.home, e)
		s.goesOn(t, p)
		n := 0
		for _, x := range s.alice.Seen.Events[string(p.Room)] {
			require.NotEqual(t, "under an id that is taken", x.Content["body"])
			if x.ID == string(e.EventID()) {
				n++
			}
		}
		require.Equal(t, 1, n)
	})
}

// header signs a body. What is no JSON cannot be signed, so an empty object is, which is wrong, and as good as can be.
func header(t *testing.T, r *fedtest.Remote, to *fedtest.Homeserver, uri string, body []byte) string {
	t.Helper()
	return headerOf(t, r, to, http.MethodPut, uri, body)
}

func headerOf(t *testing.T, r *fedtest.Remote, to *fedtest.Homeserver, method, uri string, body []byte) string {
	t.Helper()
	if _, err := fedclient.RequestObject(r.Name, to.Name, method, uri, body); err != nil {
		body = []byte(`{}`)
	}
	return r.Header(t, r.Name, to.Name, r.Key, method, uri, body)
}
