package read_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/push"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

type notifications struct {
	Next string `json:"next_token"`
	List []struct {
		Actions []any     `json:"actions"`
		Event   shown     `json:"event"`
		Read    *bool     `json:"read"`
		Room    id.RoomID `json:"room_id"`
		TS      int64     `json:"ts"`
	} `json:"notifications"`
}

func (n *notifications) ids() (out []id.EventID) {
	for _, x := range n.List {
		out = append(out, x.Event.ID)
	}
	return out
}

// mention is a message for somebody in particular.
func mention(s *stack, r id.RoomID, by, of id.UserID) id.EventID {
	return s.Do(&room.Send{
		Room: r, By: roomtest.As(by), Type: "m.room.message",
		Content: fmt.Appendf(nil, `{"msgtype":"m.text","body":"you","m.mentions":{"user_ids":[%q]}}`, of),
	}).Event
}

func TestNotifications(t *testing.T) {
	s := newStack(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	s.users(alice, bob)
	r := s.Room(alice, "11")
	s.Send(r, alice, "before bob is here")
	s.Join(r, bob)
	one := s.Send(r, alice, "one")
	s.Send(r, bob, "his own")
	gone := s.Send(r, alice, "taken back")
	s.Redact(r, alice, gone)
	two := mention(s, r, alice, bob)
	s.Do(&room.Send{Room: r, By: roomtest.As(alice), Type: "m.reaction", Content: []byte(`{}`)})
	root := s.Send(r, bob, "root")
	three := s.Relate(r, alice, "m.thread", root, "three, in a thread")
	four := s.Send(r, alice, "four")
	s.Do(&room.Receipt{Room: r, User: bob, Kind: "m.read", Thread: "main", Event: four})

	a := ok[notifications](s, bob, "/v3/notifications")
	require.Equal(t, []id.EventID{four, three, two, one}, a.ids())
	require.Empty(t, a.Next)
	for i, read := range []bool{true, false, true, true} {
		x := a.List[i]
		require.Equal(t, read, *x.Read, "%d", i)
		require.Equal(t, r, x.Room)
		require.Empty(t, x.Event.Room, "the answer names the room beside the event")
		require.Positive(t, x.TS)
		require.Equal(t, "notify", x.Actions[0])
	}
	sound := map[string]any{"set_tweak": "sound", "value": "default"}
	require.Equal(t, []any{"notify", sound}, a.List[0].Actions, "of a room of two")
	require.Equal(t, []any{"notify", sound, map[string]any{"set_tweak": "highlight"}}, a.List[2].Actions, "of a mention")
	require.Equal(t, []id.EventID{two}, func() []id.EventID {
		a := ok[notifications](s, bob, "/v3/notifications?only=highlight")
		return a.ids()
	}())

	// Paged, with somebody speaking in between.
	var all []id.EventID
	for from := ""; ; {
		page := ok[notifications](s, bob, "/v3/notifications?limit=1&from="+from)
		require.LessOrEqual(t, len(page.List), 1)
		all = append(all, page.ids()...)
		s.Send(r, alice, "later")
		if from = page.Next; from == "" {
			break
		}
	}
	require.Equal(t, []id.EventID{four, three, two, one}, all)

	s.refused(bob, "/v3/notifications?from=nonsense", http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused(bob, "/v3/notifications?only=lowlight", http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused(bob, "/v3/notifications?limit=-1", http.StatusBadRequest, "M_INVALID_PARAM")
	s.refused("", "/v3/notifications", http.StatusUnauthorized, "M_MISSING_TOKEN")
}

// The actions are all of the rule that matches, the user's own or predefined; of one that is gone it is left that there was a notification.
func TestActionsOfNotifications(t *testing.T) {
	s := newStack(t)
	alice, bob, carol := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")
	s.users(alice, bob, carol)
	heard := push.NewPreferences(s.Shards, accountdb.NewReader(s.DB.Pool))
	s.Preferences = heard
	s.Restart()
	s.front = s.Accounts(account.Config{Enabled: true})
	r := s.Room(alice, "11")
	s.Join(r, carol)
	s.Do(&room.SetMembership{Room: r, By: roomtest.As(bob), Target: bob, Action: room.ActionJoin, Profile: room.Profile{DisplayName: "Bobby"}})
	change := func(op, kind, rule string) {
		t.Helper()
		_, err := s.front.Do(s.Ctx(), &account.ChangePushRule{UserID: string(bob), Op: op, Kind: kind, Rule: []byte(rule)})
		require.NoError(t, err)
	}
	const cake = `["notify",{"set_tweak":"sound","value":"cake.wav"},{"set_tweak":"org.example.light","value":{"blue":3}}]`
	const named = `["notify",{"set_tweak":"highlight"}]`
	change(account.PutRule, "content", `{"rule_id":"cake","pattern":"cake","default":false,"enabled":true,"actions":`+cake+`}`)
	change(account.PutRule, "override", `{"rule_id":"name","conditions":[{"kind":"contains_display_name"}],"default":false,"enabled":true,"actions":`+named+`}`)
	require.NoError(t, heard.Reset(s.Ctx(), shard.Heads{}))
	s.Send(r, alice, "hello")
	s.Send(r, alice, "a cake")
	s.Send(r, alice, "bobby?")
	s.Do(&room.Send{Room: r, By: roomtest.As(alice), Type: "m.room.message", Content: []byte(`{"msgtype":"m.text","body":"all","m.mentions":{"room":true}}`)})
	actions := func() (out []string) {
		a := ok[notifications](s, bob, "/v3/notifications")
		for _, x := range a.List {
			b, err := json.Marshal(x.Actions)
			require.NoError(t, err)
			out = append(out, string(b))
		}
		return out
	}
	const plain, told = `["notify"]`, `["notify",{"set_tweak":"highlight","value":true}]`
	require.Equal(t, []string{named, named, cake, plain}, actions(), "the room's is predefined with the same")
	change(account.DeleteRule, "override", `{"rule_id":"name","default":false,"enabled":true,"actions":[]}`)
	change(account.EnableRule, "content", `{"rule_id":"cake","default":false,"enabled":false,"actions":[]}`)
	require.Equal(t, []string{named, told, plain, plain}, actions())
	change(account.EnableRule, "override", `{"rule_id":".m.rule.master","default":true,"enabled":true,"actions":[]}`)
	require.Equal(t, []string{told, told, plain, plain}, actions())
}

func TestNotificationsOfManyRooms(t *testing.T) {
	s := newStack(t)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	s.users(alice, bob)
	var rooms []id.RoomID
	for range 40 {
		r := s.Room(alice, "11")
		s.Join(r, bob)
		rooms = append(rooms, r)
	}
	var want []id.EventID
	for i := range 120 {
		r := rooms[(i*i+7)%len(rooms)]
		if i%10 == 0 {
			want = append(want, mention(s, r, alice, bob))
			continue
		}
		want = append(want, s.Send(r, alice, "text"))
	}
	slices.Reverse(want)
	for _, limit := range []int{50, 7} {
		var all []id.EventID
		var most int64
		for from := ""; ; {
			var page notifications
			path := fmt.Sprintf("/v3/notifications?limit=%d&from=%s", limit, from)
			page = ok[notifications](s, bob, path)
			_, _, queries := s.get(bob, path)
			most = max(most, queries)
			all = append(all, page.ids()...)
			if from = page.Next; from == "" {
				break
			}
		}
		require.ElementsMatch(t, want, all, "each once")
		require.LessOrEqual(t, most, int64(12+limit), "queries do not grow with what there is")
	}
	a := ok[notifications](s, bob, "/v3/notifications?only=highlight&limit=50")
	require.Len(t, a.List, 12)
}
