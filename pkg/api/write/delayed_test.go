package write_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/delay"
	"github.com/heddle-im/heddle/pkg/store/delaydb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

const delayedEvents = "/_matrix/client/unstable/org.matrix.msc4140"

// newDelays is a stack whose events can be delayed; pass lets time pass.
func newDelays(t *testing.T) (s *stack, waiting func(user string) []delaydb.Event, pass func(time.Duration)) {
	var now atomic.Int64
	now.Store(time.Now().UnixMilli())
	db := new(delaydb.DB)
	var e *delay.Engine
	s = newStack(t, func(o *write.RoomOptions) {
		e = delay.New(delay.Config{Poll: 5 * time.Millisecond, MaxWaiting: 5}, delay.Options{
			Store: db, Send: write.SendDelayed(o.Writer), Now: func() time.Time { return time.UnixMilli(now.Load()) },
		})
		o.Delays = e
	})
	*db = *delaydb.NewDB(s.DB.Pool)
	require.NoError(t, e.Start(s.Ctx()))
	t.Cleanup(func() { require.NoError(t, e.Stop(s.Ctx())) })
	waiting = func(user string) []delaydb.Event {
		list, err := db.Waiting(s.Ctx(), string(roomtest.User(user)))
		require.NoError(t, err)
		return list
	}
	return s, waiting, func(d time.Duration) { now.Add(d.Milliseconds()) }
}

func TestDelayedEvents(t *testing.T) {
	s, waiting, pass := newDelays(t)
	s.users("alice", "bob")
	r := s.create("alice", `{"preset":"public_chat"}`)
	later := func(path string) string { return fmt.Sprintf("/rooms/%s/%s?org.matrix.msc4140.delay=60000", r, path) }
	message := s.call("alice", "PUT", later("send/m.room.message/t1"), `{"body":"later","msgtype":"m.text"}`).ok("delay_id")
	require.Equal(t, message, s.call("alice", "PUT", later("send/m.room.message/t1"), "").ok("delay_id"), "asked again")
	s.call("alice", "PUT", later("state/org.example.call/me"), `{"in":true}`).ok("delay_id")
	mine := delayedEvents + "/rooms/" + string(r) + "/delayed_event/org.example.call/"
	s.raw("alice", "PUT", mine+"t2", `{"delay_ms":120000,"state_key":"me","content":{"in":false}}`).ok("delay_id")
	dropped := s.raw("alice", "PUT", mine+"t3", `{"delay":60000,"state_key":"other","content":{}}`).ok("delay_id")
	require.Len(t, waiting("alice"), 4)
	require.Empty(t, waiting("bob"))
	require.Nil(t, s.state(r, "org.example.call", "me"))

	s.raw("", "POST", delayedEvents+"/delayed_events/"+dropped+"/cancel", `{}`).ok("")
	pass(50 * time.Second)
	s.raw("", "POST", delayedEvents+"/delayed_events/"+message, `{"action":"restart"}`).ok("")
	pass(10 * time.Second)
	require.Eventually(t, func() bool { return len(waiting("alice")) == 2 }, 20*time.Second, time.Millisecond)
	require.Equal(t, map[string]any{"in": true}, s.state(r, "org.example.call", "me"))
	s.raw("", "POST", delayedEvents+"/delayed_events/"+message+"/send", `{}`).ok("")
	require.Len(t, waiting("alice"), 1)
	pass(60 * time.Second)
	require.Eventually(t, func() bool { return len(waiting("alice")) == 0 }, 20*time.Second, time.Millisecond)
	require.Equal(t, map[string]any{"in": false}, s.state(r, "org.example.call", "me"))
	require.Nil(t, s.state(r, "org.example.call", "other"))
}

func TestDelayedEventsAreRefused(t *testing.T) {
	s, waiting, pass := newDelays(t)
	s.users("alice", "bob")
	r := string(s.create("alice", `{"preset":"public_chat"}`))
	send, state := "/rooms/"+r+"/send/m.room.message/t", "/rooms/"+r+"/state/m.room.name/"
	own := strings.ReplaceAll(delayedEvents+"/rooms/R/delayed_event/m.x/t", "R", r)
	v3 := "/_matrix/client/v3"
	for name, x := range map[string]struct {
		user, method, path, body string
		status                   int
		code                     string
	}{
		"nobody":          {"", "PUT", v3 + send + "?org.matrix.msc4140.delay=1", `{}`, 401, "M_MISSING_TOKEN"},
		"no number":       {"alice", "PUT", v3 + send + "?org.matrix.msc4140.delay=soon", `{}`, 400, "M_INVALID_PARAM"},
		"negative":        {"alice", "PUT", v3 + state + "?org.matrix.msc4140.delay=-1", `{}`, 400, "M_INVALID_PARAM"},
		"empty":           {"alice", "PUT", v3 + state + "?org.matrix.msc4140.delay=", `{}`, 400, "M_INVALID_PARAM"},
		"too long":        {"alice", "PUT", v3 + send + "?org.matrix.msc4140.delay=86400001", `{}`, 400, "M_UNKNOWN"},
		"no content":      {"alice", "PUT", v3 + send + "?org.matrix.msc4140.delay=1", "", 400, "M_NOT_JSON"},
		"no object":       {"alice", "PUT", v3 + send + "?org.matrix.msc4140.delay=1", "[]", 400, "M_BAD_JSON"},
		"not in the room": {"bob", "PUT", v3 + send + "?org.matrix.msc4140.delay=1", `{}`, 403, "M_FORBIDDEN"},
		"unknown room":    {"alice", "PUT", v3 + "/rooms/!no:heddle.test/send/m.x/t?org.matrix.msc4140.delay=1", `{}`, 403, "M_FORBIDDEN"},
		"no room":         {"alice", "PUT", v3 + "/rooms/no/send/m.x/t?org.matrix.msc4140.delay=1", `{}`, 400, "M_INVALID_PARAM"},
		"a false alias":   {"alice", "PUT", v3 + "/rooms/" + r + "/state/m.room.canonical_alias/?org.matrix.msc4140.delay=1", `{"alias":"#no:heddle.test"}`, 400, "M_BAD_ALIAS"},
		"own, no delay":   {"alice", "PUT", own, `{"content":{}}`, 400, "M_MISSING_PARAM"},
		"own, negative":   {"alice", "PUT", own, `{"content":{},"delay_ms":-1}`, 400, "M_INVALID_PARAM"},
		"own, no content": {"alice", "PUT", own, `{"delay_ms":1}`, 400, "M_MISSING_PARAM"},
		"own, no member":  {"bob", "PUT", own, `{"delay_ms":1,"content":{}}`, 403, "M_FORBIDDEN"},
		"own, nobody":     {"", "PUT", own, `{"delay_ms":1,"content":{}}`, 401, "M_MISSING_TOKEN"},
		"no action":       {"", "POST", delayedEvents + "/delayed_events/x", `{}`, 400, "M_MISSING_PARAM"},
		"bad action":      {"", "POST", delayedEvents + "/delayed_events/x", `{"action":"y"}`, 400, "M_INVALID_PARAM"},
		"unknown action":  {"", "POST", delayedEvents + "/delayed_events/x/y", `{}`, 404, "M_UNRECOGNIZED"},
		"unknown restart": {"", "POST", delayedEvents + "/delayed_events/x/restart", `{}`, 404, "M_NOT_FOUND"},
		"unknown send":    {"", "POST", delayedEvents + "/delayed_events/x/send", `{}`, 404, "M_NOT_FOUND"},
		"unknown cancel":  {"", "POST", delayedEvents + "/delayed_events/x", `{"action":"cancel"}`, 404, "M_NOT_FOUND"},
	} {
		t.Run(name, func(t *testing.T) { s.in(t).raw(x.user, x.method, x.path, x.body).refused(x.status, x.code) })
	}
	require.Empty(t, waiting("alice"))
	require.Empty(t, waiting("bob"))

	// What the room refuses by the time is given up.
	s.call("bob", "POST", "/rooms/"+r+"/join", `{}`).ok("room_id")
	s.call("bob", "PUT", state+"?org.matrix.msc4140.delay=1000", `{"name":"bob's"}`).ok("delay_id")
	pass(time.Second)
	require.Eventually(t, func() bool { return len(waiting("bob")) == 0 }, 20*time.Second, time.Millisecond)
	require.Nil(t, s.state(id.RoomID(r), "m.room.name", ""))
	for i := range 5 {
		s.call("bob", "PUT", fmt.Sprint(send, i, "?org.matrix.msc4140.delay=1000"), `{}`).ok("delay_id")
	}
	s.call("bob", "PUT", send+"?org.matrix.msc4140.delay=1000", `{}`).refused(http.StatusBadRequest, "M_UNKNOWN")
}
