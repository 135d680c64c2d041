package fedtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// User is a user of a homeserver, and what a client of theirs has been told. It is for one goroutine at a time.
type User struct {
	*fleettest.Client
	Home   *Homeserver
	Device string
	// Seen is what came with syncs.
	Seen Seen

	since string
	txn   int
}

// Event is an event as a client is given it.
type Event struct {
	ID       string         `json:"event_id"`
	Type     string         `json:"type"`
	Sender   string         `json:"sender"`
	StateKey *string        `json:"state_key"`
	Content  map[string]any `json:"content"`
}

// Seen is all that a client has been told so far.
type Seen struct {
	// Events are those of the rooms' timelines, Members what is known of memberships, Section in which part of the answer the room was last.
	Events           map[string][]Event
	Members          map[string]map[string]string
	Section          map[string]string
	Stripped         map[string][]Event
	Typing           map[string][]string
	Read             map[string]map[string]string // room, user: event
	Presence         map[string]string
	ToDevice         []Event
	Changed, Forgone map[string]bool
}

// NewUser registers a user.
func (h *Homeserver) NewUser(t testing.TB, name string) *User {
	t.Helper()
	u := &User{Client: &fleettest.Client{URL: h.URL, HTTP: &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}}, Home: h}
	var a struct {
		AccessToken string `json:"access_token"`
		UserID      string `json:"user_id"`
		DeviceID    string `json:"device_id"`
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := u.Persist(ctx, http.MethodPost, "/register", map[string]any{
		"username": name, "password": "correct horse", "auth": map[string]string{"type": "m.login.dummy"},
	}, &a)
	require.NoError(t, err)
	u.Token, u.User, u.Device = a.AccessToken, a.UserID, a.DeviceID
	u.Seen = Seen{
		Events: map[string][]Event{}, Members: map[string]map[string]string{}, Section: map[string]string{}, Stripped: map[string][]Event{},
		Typing: map[string][]string{}, Read: map[string]map[string]string{}, Presence: map[string]string{}, Changed: map[string]bool{},
		Forgone: map[string]bool{},
	}
	return u
}

// Must makes a request that has to be answered with 200.
func (u *User) Must(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var answer map[string]any
	require.NoError(t, u.Do(ctx, method, path, body, &answer), "%s %s by %s", method, path, u.User)
	return answer
}

// text gives a field of an answer that is a text.
func text(t testing.TB, answer map[string]any, field string) string {
	t.Helper()
	s, ok := answer[field].(string)
	require.True(t, ok, "%s: %v", field, answer)
	return s
}

// Refused makes a request that has to be refused, and gives the status and the code.
func (u *User) Refused(t testing.TB, method, path string, body any) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := u.Do(ctx, method, path, body, nil)
	var s *fleettest.StatusError
	require.ErrorAs(t, err, &s, "%s %s by %s", method, path, u.User)
	var e struct {
		Code string `json:"errcode"`
	}
	require.NoError(t, json.Unmarshal([]byte(s.Body), &e))
	return s.Status, e.Code
}

// Create makes a room of a version.
func (u *User) Create(t testing.TB, version string, more map[string]any) string {
	t.Helper()
	body := map[string]any{"room_version": version, "preset": "private_chat"}
	maps.Copy(body, more)
	return text(t, u.Must(t, "POST", "/createRoom", body), "room_id")
}

// RoomPath is the path of something in a room.
func RoomPath(room string, more ...string) string {
	p := "/rooms/" + url.PathEscape(room)
	for _, m := range more {
		p += "/" + url.PathEscape(m)
	}
	return p
}

// Say sends a message and gives its event id.
func (u *User) Say(t testing.TB, room, words string) string {
	t.Helper()
	u.txn++
	body := map[string]any{"msgtype": "m.text", "body": words}
	return text(t, u.Must(t, "PUT", RoomPath(room, "send", "m.room.message", fmt.Sprint("t", u.txn)), body), "event_id")
}

// Set sets state and gives its event id.
func (u *User) Set(t testing.TB, room, typ, key string, content any) string {
	t.Helper()
	return text(t, u.Must(t, "PUT", RoomPath(room, "state", typ)+"/"+url.PathEscape(key), content), "event_id")
}

// Join joins a room by id or alias.
func (u *User) Join(t testing.TB, room string, via ...*Homeserver) {
	t.Helper()
	answer := u.Must(t, "POST", JoinPath(room, via...), map[string]any{})
	delete(u.Seen.Section, text(t, answer, "room_id")) // what was told before is over
}

// JoinPath is the path by which a room is joined.
func JoinPath(room string, via ...*Homeserver) string {
	return "/join/" + url.PathEscape(room) + "?" + viaQuery(via)
}

func viaQuery(via []*Homeserver) string {
	q := url.Values{}
	for _, h := range via {
		q.Add("via", string(h.Name))
		q.Add("server_name", string(h.Name))
	}
	return q.Encode()
}

// Member does something to a user's membership: invite, kick, ban, unban.
func (u *User) Member(t testing.TB, room, action string, who *User) {
	t.Helper()
	u.Must(t, "POST", RoomPath(room, action), map[string]any{"user_id": who.User})
}

type batch struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join, Leave map[string]struct {
			State     struct{ Events []Event }
			Timeline  struct{ Events []Event }
			Ephemeral struct{ Events []Event }
		}
		Invite map[string]struct {
			State struct{ Events []Event } `json:"invite_state"`
		}
		Knock map[string]struct {
			State struct{ Events []Event } `json:"knock_state"`
		}
	}
	Presence struct{ Events []Event }
	ToDevice struct{ Events []Event }         `json:"to_device"`
	Devices  struct{ Changed, Left []string } `json:"device_lists"`
}

// Sync makes one sync, waiting if wait.
func (u *User) Sync(t testing.TB, wait bool) {
	t.Helper()
	q := url.Values{"timeout": {"0"}, "filter": {`{"room":{"timeline":{"limit":1000}}}`}}
	if wait {
		q.Set("timeout", "1000")
	}
	if u.since != "" {
		q.Set("since", u.since)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var b batch
	_, err := u.Persist(ctx, http.MethodGet, "/sync?"+q.Encode(), nil, &b)
	require.NoError(t, err)
	u.since = b.Next
	u.Seen.take(&b)
}

func (s *Seen) take(b *batch) {
	for section, rooms := range map[string]map[string]struct {
		State     struct{ Events []Event }
		Timeline  struct{ Events []Event }
		Ephemeral struct{ Events []Event }
	}{"join": b.Rooms.Join, "leave": b.Rooms.Leave} {
		for room, r := range rooms {
			s.Section[room] = section
			s.Events[room] = append(s.Events[room], r.Timeline.Events...)
			for _, e := range slices.Concat(r.State.Events, r.Timeline.Events) {
				s.member(room, e)
			}
			for _, e := range r.Ephemeral.Events {
				s.ephemeral(room, e)
			}
		}
	}
	for room, r := range b.Rooms.Invite {
		s.Section[room], s.Stripped[room] = "invite", r.State.Events
	}
	for room, r := range b.Rooms.Knock {
		s.Section[room], s.Stripped[room] = "knock", r.State.Events
	}
	for _, e := range b.Presence.Events {
		s.Presence[e.Sender], _ = e.Content["presence"].(string)
	}
	s.ToDevice = append(s.ToDevice, b.ToDevice.Events...)
	for _, d := range b.Devices.Changed {
		s.Changed[d] = true
	}
	for _, d := range b.Devices.Left {
		s.Forgone[d] = true
	}
}

func (s *Seen) member(room string, e Event) {
	if e.Type != "m.room.member" || e.StateKey == nil {
		return
	}
	if s.Members[room] == nil {
		s.Members[room] = map[string]string{}
	}
	s.Members[room][*e.StateKey], _ = e.Content["membership"].(string)
}

func (s *Seen) ephemeral(room string, e Event) {
	switch e.Type {
	case "m.typing":
		s.Typing[room] = nil
		list, _ := e.Content["user_ids"].([]any)
		for _, u := range list {
			s.Typing[room] = append(s.Typing[room], fmt.Sprint(u))
		}
	case "m.receipt":
		for event, kinds := range e.Content {
			of, _ := kinds.(map[string]any)
			users, _ := of["m.read"].(map[string]any)
			for user := range users {
				if s.Read[room] == nil {
					s.Read[room] = map[string]string{}
				}
				s.Read[room][user] = event
			}
		}
	}
}

// Until syncs until a client has been told something.
func (u *User) Until(t testing.TB, what string, told func(s *Seen) bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for wait := false; !told(&u.Seen); wait = true {
		require.True(t, time.Now().Before(end), "%s is not told: %s", u.User, what)
		u.Sync(t, wait)
	}
}

// Sees waits until events are in the timeline.
func (u *User) Sees(t testing.TB, room string, events ...string) {
	t.Helper()
	for _, id := range events {
		u.Until(t, "event "+id, func(s *Seen) bool {
			return slices.ContainsFunc(s.Events[room], func(e Event) bool { return e.ID == id })
		})
	}
}

// SeesMember waits until a user is what is said in a room.
func (u *User) SeesMember(t testing.TB, room string, who *User, membership string) {
	t.Helper()
	u.Until(t, who.User+" is "+membership, func(s *Seen) bool { return s.Members[room][who.User] == membership })
}

// SeesRoom waits until a room is in a section: join, invite, knock, leave.
func (u *User) SeesRoom(t testing.TB, room, section string) {
	t.Helper()
	u.Until(t, "room is in "+section, func(s *Seen) bool { return s.Section[room] == section })
}

// State gives the room's state as the user is given it: event ids by type and key.
func (u *User) State(t testing.TB, room string) map[string]string {
	t.Helper()
	s, err := u.state(t, room)
	require.NoError(t, err)
	return s
}

func (u *User) state(t testing.TB, room string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var events []Event
	if err := u.Do(ctx, "GET", RoomPath(room, "state"), nil, &events); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, e := range events {
		if e.StateKey == nil {
			return nil, errors.New("state holds an event that is not state")
		}
		out[e.Type+"|"+*e.StateKey] = e.ID
	}
	return out, nil
}
