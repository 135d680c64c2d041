package fedtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
)

// Remote is another server that the test plays: it does and says what the test wants. It gives its keys and takes transactions, and answers nothing
// else until Handle says otherwise. It is safe for concurrent use.
type Remote struct {
	Name id.ServerName
	Key  signing.Key

	t    testing.TB
	http *http.Client

	mu       sync.Mutex // guards all below
	handlers map[string]http.HandlerFunc
	asked    []string
	serial   int
	label    *string // what answers say that they are, nil for what is usual
}

// NewRemote makes a Remote on this machine.
func NewRemote(t testing.TB, ca *certtest.Authority) *Remote {
	t.Helper()
	r := &Remote{t: t, handlers: map[string]http.HandlerFunc{}}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails
	var err error
	r.Key, err = signing.NewKey("ed25519:liar", seed)
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	s.TLS, s.Config.ErrorLog = ca.TLS("127.0.0.1"), log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	r.Name = id.ServerName(s.Listener.Addr().String())
	r.http = ca.Client(t)
	r.Says("/_matrix/federation/v1/send/", `{"pdus":{}}`)
	r.Handle("/_matrix/key/v2/server", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(r.Document(time.Hour)) })
	return r
}

// Document is what the server publishes of its keys.
func (r *Remote) Document(valid time.Duration) []byte {
	d, err := signing.BuildKeyDocument(r.Name, []signing.Key{r.Key}, nil, time.Now().Add(valid).UnixMilli())
	if err != nil {
		r.t.Errorf("build key document: %v", err)
	}
	return d
}

// Handle has paths that begin with something be answered by f; of several the longest counts. nil: they are not answered any more.
func (r *Remote) Handle(prefix string, f http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handlers[prefix] = f
}

// Says has paths be answered with a text.
func (r *Remote) Says(prefix, body string) {
	r.Handle(prefix, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
}

// Label has every answer say that it is of a type, or say nothing if there is none.
func (r *Remote) Label(contentType string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.label = &contentType
}

func (r *Remote) serve(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.asked = append(r.asked, q.URL.Path)
	var best string
	for prefix, f := range r.handlers {
		if f != nil && strings.HasPrefix(q.URL.Path, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	f := r.handlers[best]
	switch {
	case r.label == nil:
	case *r.label == "":
		w.Header()["Content-Type"] = nil // or it would be guessed
	default:
		w.Header().Set("Content-Type", *r.label)
	}
	r.mu.Unlock()
	if f == nil {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errcode":"M_NOT_FOUND","error":"not here"}`)
		return
	}
	f(w, q)
}

// Asked counts the requests for paths that begin with something.
func (r *Remote) Asked(prefix string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.asked {
		if strings.HasPrefix(p, prefix) {
			n++
		}
	}
	return n
}

func (r *Remote) next() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.serial++
	return r.serial
}

// Header is the Authorization header of a request.
func (r *Remote) Header(t testing.TB, origin, destination id.ServerName, key signing.Key, method, uri string, body []byte) string {
	t.Helper()
	object, err := fedclient.RequestObject(origin, destination, method, uri, body)
	require.NoError(t, err)
	return fmt.Sprintf(`X-Matrix origin="%s",destination="%s",key="%s",sig="%s"`, origin, destination, key.ID(),
		base64.RawStdEncoding.EncodeToString(key.Sign(object)))
}

// Ask makes a request to a homeserver, signed as it has to be.
func (r *Remote) Ask(t testing.TB, to *Homeserver, method, uri string, body []byte) (int, []byte) {
	t.Helper()
	return r.AskWith(t, to, method, uri, body, r.Header(t, r.Name, to.Name, r.Key, method, uri, body))
}

// AskWith makes a request with an Authorization header of the caller's.
func (r *Remote) AskWith(t testing.TB, to *Homeserver, method, uri string, body []byte, header string) (int, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+string(to.Name)+uri, bytes.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Authorization", header)
	resp, err := r.http.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, answer
}

// Transaction sends events and other data under an id, and gives what is said of each event.
func (r *Remote) Transaction(t testing.TB, to *Homeserver, txn string, pdus, edus []json.RawMessage) (int, map[string]string) {
	t.Helper()
	if pdus == nil {
		pdus = []json.RawMessage{}
	}
	body, err := json.Marshal(map[string]any{"origin": r.Name, "origin_server_ts": time.Now().UnixMilli(), "pdus": pdus, "edus": edus})
	require.NoError(t, err)
	status, answer := r.Ask(t, to, http.MethodPut, "/_matrix/federation/v1/send/"+url.PathEscape(txn), body)
	var said struct {
		PDUs map[string]struct {
			Error string `json:"error"`
		} `json:"pdus"`
	}
	if status == http.StatusOK {
		require.NoError(t, json.Unmarshal(answer, &said), "%s", answer)
	}
	out := map[string]string{}
	for e, v := range said.PDUs {
		out[e] = v.Error
	}
	return status, out
}

// Send sends events in a transaction of its own, which has to be taken.
func (r *Remote) Send(t testing.TB, to *Homeserver, events ...*event.Event) map[string]string {
	t.Helper()
	pdus := make([]json.RawMessage, len(events))
	for i, e := range events {
		pdus[i] = e.JSON()
	}
	status, said := r.Transaction(t, to, fmt.Sprint("t", r.next()), pdus, nil)
	require.Equal(t, http.StatusOK, status)
	return said
}

// Place is where a user of a Remote stands in a room.
type Place struct {
	Remote *Remote
	Home   *Homeserver
	Room   id.RoomID
	User   id.UserID
	Rules  *roomver.Rules
	// Join is the event by which the user came in, State what the homeserver said was there, with it; Chain the auth chain.
	Join         *event.Event
	State, Chain []*event.Event

	hashes map[id.EventID]event.Hash // for room versions that name them
}

// Enter has a user of the Remote join a room of a homeserver, as a good server does.
func (r *Remote) Enter(t testing.TB, home *Homeserver, room, name string) *Place {
	t.Helper()
	p, _ := r.EnterBy(t, home, room, name, "")
	return p
}

// EnterBy is Enter with a query of send_join, which begins with "?" if there is any. It gives the answer too.
func (r *Remote) EnterBy(t testing.TB, home *Homeserver, room, name, query string) (*Place, []byte) {
	t.Helper()
	p := &Place{Remote: r, Home: home, Room: id.RoomID(room), User: id.UserID("@" + name + ":" + string(r.Name)), hashes: map[id.EventID]event.Hash{}}
	q := url.Values{}
	for _, v := range roomver.All() {
		q.Add("ver", string(v.Version))
	}
	status, answer := r.Ask(t, home, http.MethodGet,
		"/_matrix/federation/v1/make_join/"+url.PathEscape(room)+"/"+url.PathEscape(string(p.User))+"?"+q.Encode(), nil)
	require.Equal(t, http.StatusOK, status, "%s", answer)
	var template struct {
		Version roomver.Version `json:"room_version"`
		Event   json.RawMessage `json:"event"`
	}
	require.NoError(t, json.Unmarshal(answer, &template))
	p.Rules = roomver.MustGet(template.Version)
	proto, err := event.ParseTemplate(p.Rules, template.Event)
	require.NoError(t, err)
	for e, h := range proto.LinkHashes {
		p.hashes[e] = h
	}
	p.Join = p.Build(t, proto)
	status, answer = r.Ask(t, home, http.MethodPut,
		"/_matrix/federation/v2/send_join/"+url.PathEscape(room)+"/"+url.PathEscape(string(p.Join.EventID()))+query, p.Join.JSON())
	require.Equal(t, http.StatusOK, status, "%s", answer)
	var state struct {
		State []json.RawMessage `json:"state"`
		Chain []json.RawMessage `json:"auth_chain"`
	}
	require.NoError(t, json.Unmarshal(answer, &state))
	p.State, p.Chain = p.parse(t, state.State), p.parse(t, state.Chain)
	p.State = append(p.State, p.Join)
	return p, answer
}

func (p *Place) parse(t testing.TB, raw []json.RawMessage) []*event.Event {
	t.Helper()
	out := make([]*event.Event, len(raw))
	for i, pdu := range raw {
		var err error
		out[i], err = event.Parse(p.Rules, pdu)
		require.NoError(t, err)
		p.hashes[out[i].EventID()] = out[i].ReferenceHash()
	}
	return out
}

// Find gives an event of the state that the user came in by.
func (p *Place) Find(t testing.TB, typ, key string) *event.Event {
	t.Helper()
	for _, e := range p.State {
		if e.Is(typ, key) {
			return e
		}
	}
	require.FailNow(t, "there is no such state", "%s %s", typ, key)
	return nil
}

// Auth gives the events that an ordinary event of the user names as what allows it.
func (p *Place) Auth(t testing.TB) []id.EventID {
	t.Helper()
	auth := []id.EventID{p.Find(t, event.TypePowerLevels, "").EventID(), p.Join.EventID()}
	if !p.Rules.RoomIDIsHash {
		auth = append(auth, p.Find(t, event.TypeCreate, "").EventID())
	}
	return auth
}

// Message is a proposed message of the user after others, or after the join.
func (p *Place) Message(t testing.TB, text string, after ...*event.Event) *event.Proto {
	t.Helper()
	content, err := json.Marshal(map[string]string{"msgtype": "m.text", "body": text})
	require.NoError(t, err)
	if len(after) == 0 {
		after = []*event.Event{p.Join}
	}
	proto := &event.Proto{
		RoomID: p.Room, Type: event.TypeMessage, Sender: p.User, Content: content, AuthEvents: p.Auth(t), OriginServerTS: time.Now().UnixMilli(),
	}
	for _, e := range after {
		proto.PrevEvents = append(proto.PrevEvents, e.EventID())
		proto.Depth = max(proto.Depth, e.Depth()+1)
	}
	return proto
}

// Build makes an event of what is proposed.
func (p *Place) Build(t testing.TB, proto *event.Proto) *event.Event {
	t.Helper()
	if p.Rules.EventIDs == roomver.EventIDGiven && proto.EventID == "" {
		proto.EventID = id.EventID(fmt.Sprintf("$%d:%s", p.Remote.next(), p.Remote.Name))
	}
	proto.LinkHashes = p.hashes
	e, err := event.Build(p.Rules, proto, p.Remote.Name, p.Remote.Key)
	require.NoError(t, err)
	p.hashes[e.EventID()] = e.ReferenceHash()
	return e
}

// Say builds a message of the user.
func (p *Place) Say(t testing.TB, text string, after ...*event.Event) *event.Event {
	t.Helper()
	return p.Build(t, p.Message(t, text, after...))
}

// Nowhere is a server name at which nobody answers.
func Nowhere(t testing.TB) id.ServerName {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return id.ServerName(l.Addr().String())
}
