package msync_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	jsonx "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/push"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// listeners is the preferences as the writer of rooms hears them.
type listeners struct {
	*push.Preferences
	follower *follow.Follower
}

// listen has the world's writer hear preferences.
func listen(t testing.TB, w *roomtest.World) *listeners {
	t.Helper()
	l := &listeners{Preferences: push.NewPreferences(w.Shards, accountdb.NewReader(w.DB.Pool))}
	l.follower = follow.New(follow.Config{Poll: 5 * time.Millisecond, Grace: time.Millisecond}, follow.Options{
		Source: w.Log(), Consumer: l, Filter: push.Wants,
	})
	require.NoError(t, l.follower.Start(w.Ctx()))
	t.Cleanup(func() { require.NoError(t, l.follower.Stop(w.Ctx())) })
	w.Preferences = l
	w.Restart()
	return l
}

func (l *listeners) settled(t require.TestingT, w *roomtest.World) {
	h, err := w.Log().Heads(w.Ctx())
	require.NoError(t, err)
	require.NoError(t, l.follower.Reach(w.Ctx(), h))
}

type unreadCount struct {
	Highlight int `json:"highlight_count"`
	Notify    int `json:"notification_count"`
}

// unreadIn gives what a first sync tells of a room: the main timeline as "", and the threads.
func unreadIn(t require.TestingT, s *worker, w *roomtest.World, q msync.Request, r id.RoomID) (map[string]unreadCount, string) {
	b, err := s.Sync(w.Ctx(), q)
	require.NoError(t, err)
	var a struct {
		Next  string `json:"next_batch"`
		Rooms struct {
			Join map[string]struct {
				Unread  unreadCount            `json:"unread_notifications"`
				Threads map[string]unreadCount `json:"unread_thread_notifications"`
			} `json:"join"`
		} `json:"rooms"`
	}
	require.NoError(t, json.Unmarshal(b, &a))
	in, ok := a.Rooms.Join[string(r)]
	if !ok {
		return nil, a.Next
	}
	out := map[string]unreadCount{}
	if in.Unread != (unreadCount{}) {
		out[""] = in.Unread
	}
	for thread, n := range in.Threads {
		out[thread] = n
	}
	return out, a.Next
}

func byThread() *filter.Filter {
	f := &filter.Filter{EventFormat: filter.FormatClient}
	f.Room.Timeline.UnreadThreadNotifications = true
	return f
}

// naiveEvent is an event as one would count it for each user by himself.
type naiveEvent struct {
	id       id.EventID
	thread   string
	outcomes map[id.UserID]unreadCount
}

// naive counts as one would without any thought of cost: each user's rules are asked of each event, and what is above the user's receipts
// is added up.
type naive struct {
	events []*naiveEvent
	rules  map[id.UserID]*pushrule.Custom
	ignore map[id.UserID]map[id.UserID]bool
	joined map[id.UserID]int // the index of the first event since
	read   map[id.UserID]map[string]int
}

func (n *naive) happened(r id.RoomID, e id.EventID, typ string, sender id.UserID, thread string, content []byte, says bool) {
	ev := &naiveEvent{id: e, thread: thread, outcomes: map[id.UserID]unreadCount{}}
	parts := pushrule.Parts{EventID: string(e), RoomID: string(r), Sender: string(sender), Type: typ, Content: content}
	for u := range n.joined {
		if u == sender || n.ignore[u][sender] {
			continue
		}
		c := n.rules[u]
		if c == nil {
			c = new(pushrule.Custom)
		}
		level := int64(0)
		if sender == alice {
			level = 100
		}
		o := pushrule.Compile(c.Rules(string(u))).Evaluate(pushrule.FromParts(parts), &pushrule.Circumstances{
			Members: len(n.joined), SenderLevel: level, NotificationLevel: func(string) int64 { return 50 }, DisplayName: "name of " + u.Localpart(),
		})
		var got unreadCount
		if o.Notify {
			got.Notify = 1
		}
		if o.Highlight {
			got.Highlight = 1
		}
		ev.outcomes[u] = got
	}
	n.events = append(n.events, ev)
	if says {
		n.readTo(sender, orMain(thread), len(n.events))
	}
}

func orMain(thread string) string {
	if thread == "" {
		return "main"
	}
	return thread
}

func (n *naive) readTo(u id.UserID, thread string, upto int) {
	if n.read[u] == nil {
		n.read[u] = map[string]int{}
	}
	n.read[u][thread] = max(n.read[u][thread], upto)
}

func (n *naive) unread(u id.UserID) map[string]unreadCount {
	out := map[string]unreadCount{}
	for i, e := range n.events {
		c := e.outcomes[u]
		if i < n.joined[u] || i < n.read[u][""] || i < n.read[u][orMain(e.thread)] || c == (unreadCount{}) {
			continue
		}
		sum := out[e.thread]
		out[e.thread] = unreadCount{sum.Highlight + c.Highlight, sum.Notify + c.Notify}
	}
	return out
}

var alice = roomtest.User("alice")

// Whatever happens in a room, the counts of every user are those of a naive count for each user and event: as a synchrotron carries them on from
// the log, as one reads them that holds nothing, and after the writer was restarted.
func TestUnreadCountsAreThoseOfANaiveCount(t *testing.T) {
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue { // each is many commands on a real database
		require.NoError(t, flag.Set("rapid.checks", "8"))
		defer func() { _ = flag.Set("rapid.checks", checks.DefValue) }()
	}
	w := roomtest.New(t)
	l := listen(t, w)
	front := w.Accounts(account.Config{})
	s := start(t, w, 256<<20)
	users := []id.UserID{alice, roomtest.User("bob"), roomtest.User("carol"), roomtest.User("dave"), roomtest.User("erin")}
	for _, u := range users {
		w.Register(front, u)
	}
	rapid.Check(t, func(rt *rapid.T) {
		w.Restart()
		front := w.Accounts(account.Config{}) // of the master that is there now
		r := w.Room(alice, roomver.Default)
		n := &naive{
			rules: map[id.UserID]*pushrule.Custom{}, ignore: map[id.UserID]map[id.UserID]bool{}, joined: map[id.UserID]int{alice: 0},
			read: map[id.UserID]map[string]int{},
		}
		put := func(u id.UserID, typ string, content []byte) {
			_, err := front.Do(w.Ctx(), &account.SetAccountData{UserID: string(u), Type: typ, Content: content})
			require.NoError(rt, err)
			l.settled(rt, w)
		}
		for _, u := range users { // what another run has left behind
			put(u, account.TypePushRules, []byte(`{}`))
			put(u, accountdb.TypeIgnored, []byte(`{"ignored_users":{}}`))
		}
		join := func(u id.UserID) {
			w.Do(&room.SetMembership{Room: r, By: roomtest.As(u), Target: u, Action: room.ActionJoin, Profile: room.Profile{DisplayName: "name of " + u.Localpart()}})
			n.joined[u] = len(n.events)
		}
		since := map[id.UserID]string{}
		seen := map[id.UserID]map[string]unreadCount{}
		check := func(s *worker, u id.UserID, from string) string {
			s.settled(t, w)
			got, next := unreadIn(rt, s, w, msync.Request{User: u, Since: from, Filter: byThread()}, r)
			switch {
			case got != nil:
				require.Equal(rt, n.unread(u), got, "%s since %q", u, from)
				seen[u] = got
			case from != "" && seen[u] != nil:
				require.Equal(rt, n.unread(u), seen[u], "%s was not told of a change since %q", u, from)
			}
			return next
		}
		for range rapid.IntRange(5, 40).Draw(rt, "steps") {
			u := rapid.SampledFrom(users).Draw(rt, "user")
			_, in := n.joined[u]
			switch verb := rapid.IntRange(0, 13).Draw(rt, "verb"); {
			case !in:
				join(u)
				seen[u] = nil
			case verb <= 5: // says something
				body := rapid.SampledFrom([]string{"hello", "some cake", "name of bob, look"}).Draw(rt, "body")
				content := map[string]any{"msgtype": rapid.SampledFrom([]string{"m.text", "m.text", "m.notice"}).Draw(rt, "msgtype"), "body": body}
				mentions := map[string]any{}
				if rapid.IntRange(0, 3).Draw(rt, "mentions") == 0 {
					mentions["user_ids"] = []any{rapid.SampledFrom(users).Draw(rt, "mention")}
				}
				if rapid.IntRange(0, 3).Draw(rt, "mentions the room") == 0 {
					mentions["room"] = true
				}
				if len(mentions) > 0 {
					content["m.mentions"] = mentions
				}
				thread, says := "", true
				if len(n.events) > 0 && rapid.Bool().Draw(rt, "relates") {
					to := rapid.SampledFrom(n.events).Draw(rt, "to")
					rel := rapid.SampledFrom([]string{"m.thread", "m.thread", "m.replace", "m.reference"}).Draw(rt, "relation")
					target := to.id
					switch {
					case rel == "m.thread" && to.thread != "":
						target = id.EventID(to.thread)
						thread = to.thread
					case rel == "m.thread" && slices.ContainsFunc(n.events, func(e *naiveEvent) bool { return e == to && e.outcomes == nil }):
						continue
					case rel == "m.thread":
						thread = string(to.id)
					default:
						thread, says = to.thread, false
					}
					content["m.relates_to"] = map[string]any{"rel_type": rel, "event_id": target}
					content["m.new_content"] = map[string]any{"msgtype": "m.text", "body": body}
				}
				b, err := json.Marshal(content)
				require.NoError(rt, err)
				a, err := w.Host.Do(w.Ctx(), nil, &room.Send{Room: r, By: roomtest.As(u), Type: "m.room.message", Content: b})
				if err != nil { // a thread may not begin at what relates to something
					continue
				}
				n.happened(r, a.Event, "m.room.message", u, thread, b, says)
			case verb <= 8 && len(n.events) > 0: // reads
				at := rapid.IntRange(0, len(n.events)-1).Draw(rt, "event")
				if rapid.Bool().Draw(rt, "the last") {
					at = len(n.events) - 1
				}
				thread := rapid.SampledFrom([]string{"", orMain(n.events[at].thread)}).Draw(rt, "thread")
				kind := rapid.SampledFrom([]string{room.ReceiptRead, room.ReceiptReadPrivate}).Draw(rt, "kind")
				if _, err := w.Host.Do(w.Ctx(), nil, &room.Receipt{Room: r, User: u, Kind: kind, Thread: thread, Event: n.events[at].id}); err == nil {
					n.readTo(u, thread, at+1)
				}
			case verb == 9: // changes the rules
				c := new(pushrule.Custom)
				notify := []jsontext.Value{jsontext.Value(`"notify"`), jsontext.Value(`{"set_tweak":"highlight"}`)}
				here := string(r)
				switch rapid.IntRange(0, 7).Draw(rt, "rules") {
				case 0: // mute
					require.NoError(rt, c.Put("override", pushrule.Rule{
						ID: here, Actions: []jsontext.Value{jsontext.Value(`"dont_notify"`)},
						Conditions: []pushrule.Condition{{Kind: "event_match", Key: "room_id", Pattern: &here}},
					}, "", ""))
				case 1: // mentions only
					require.NoError(rt, c.Put("room", pushrule.Rule{ID: here, Actions: []jsontext.Value{}}, "", ""))
				case 2:
					require.NoError(rt, c.Put("content", pushrule.Rule{ID: "cake", Pattern: "cake", Actions: notify}, "", ""))
				case 3:
					require.NoError(rt, c.SetEnabled("override", ".m.rule.master", true))
				case 4:
					require.NoError(rt, c.Put("override", pushrule.Rule{
						ID: "name", Actions: notify, Conditions: []pushrule.Condition{{Kind: "contains_display_name"}},
					}, "", ""))
				case 5:
					require.NoError(rt, c.Put("sender", pushrule.Rule{ID: string(alice), Actions: []jsontext.Value{}}, "", ""))
				case 6:
					require.NoError(rt, c.SetEnabled("override", ".m.rule.suppress_edits", false))
				}
				b, err := jsonx.Marshal(c, jsonx.Deterministic(true))
				require.NoError(rt, err)
				put(u, account.TypePushRules, b)
				n.rules[u] = c
			case verb == 10: // ignores
				whom := rapid.SampledFrom(users).Draw(rt, "whom")
				put(u, accountdb.TypeIgnored, fmt.Appendf(nil, `{"ignored_users":{%q:{}}}`, whom))
				n.ignore[u] = map[id.UserID]bool{whom: whom != u}
			case verb == 11 && len(n.events) > 0: // redacts
				e := rapid.SampledFrom(n.events).Draw(rt, "redacted")
				a, err := w.Host.Do(w.Ctx(), nil, &room.Redact{Room: r, By: roomtest.As(u), Target: e.id})
				if err != nil {
					continue
				}
				e.outcomes = nil
				n.happened(r, a.Event, "m.room.redaction", u, "", []byte(`{}`), true)
			case verb == 12 && u != alice:
				w.Membership(r, u, u, room.ActionLeave)
				delete(n.joined, u)
				delete(n.read, u)
				seen[u] = nil
			case verb == 13:
				w.Restart()
				front = w.Accounts(account.Config{})
			}
			if u := rapid.SampledFrom(users).Draw(rt, "who syncs"); n.joined[u] > 0 || u == alice {
				since[u] = check(s, u, since[u])
			}
		}
		for u := range n.joined {
			check(s, u, since[u])
			check(s, u, "")
		}
		fresh := start(t, w, 256<<20)
		for u := range n.joined {
			check(fresh, u, "")
		}
	})
}
