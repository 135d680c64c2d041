package msync_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// slidingRoom is a room as sliding sync tells it.
type slidingRoom struct {
	Initial      bool           `json:"initial"`
	Membership   string         `json:"membership"`
	Name         *string        `json:"name"`
	Avatar       *string        `json:"avatar"`
	Heroes       []hero         `json:"heroes"`
	IsDM         *bool          `json:"is_dm"`
	Joined       *int           `json:"joined_count"`
	Invited      *int           `json:"invited_count"`
	BumpStamp    int64          `json:"bump_stamp"`
	State        []slidingState `json:"required_state"`
	Timeline     []shownEvent   `json:"timeline"`
	Limited      bool           `json:"limited"`
	Expanded     bool           `json:"unstable_expanded_timeline"`
	Live         int            `json:"num_live"`
	Prev         string         `json:"prev_batch"`
	InviteState  []shownEvent   `json:"invite_state"`
	Lists        []string       `json:"lists"`
	Notification *int           `json:"notification_count"`
	Highlight    *int           `json:"highlight_count"`
}

type slidingState struct {
	ID       string           `json:"event_id"`
	Type     string           `json:"type"`
	StateKey string           `json:"state_key"`
	Content  *json.RawMessage `json:"content"`
}

type hero struct {
	User string `json:"user_id"`
	Name string `json:"displayname"`
}

type slidingAnswer struct {
	Pos   string `json:"pos"`
	Lists map[string]struct {
		Count int `json:"count"`
	} `json:"lists"`
	Rooms      map[string]slidingRoom `json:"rooms"`
	Extensions struct {
		ToDevice struct {
			Next   string `json:"next_batch"`
			Events []struct {
				Type string `json:"type"`
			} `json:"events"`
		} `json:"to_device"`
		E2EE struct {
			Lists struct {
				Changed []string `json:"changed"`
			} `json:"device_lists"`
			Counts map[string]int `json:"device_one_time_keys_count"`
		} `json:"e2ee"`
		AccountData struct {
			Global []shownEvent            `json:"global"`
			Rooms  map[string][]shownEvent `json:"rooms"`
		} `json:"account_data"`
		Receipts struct {
			Rooms map[string]shownEvent `json:"rooms"`
		} `json:"receipts"`
		Typing struct {
			Rooms map[string]shownEvent `json:"rooms"`
		} `json:"typing"`
	} `json:"extensions"`
}

// ask makes a request of a body.
func ask(t testing.TB, user id.UserID, pos, body string) *msync.SlidingRequest {
	t.Helper()
	q := &msync.SlidingRequest{User: user, Device: "DEVICE", Pos: pos}
	require.NoError(t, json.Unmarshal([]byte(body), q))
	require.NoError(t, q.Check())
	return q
}

func (w *worker) slideRaw(ctx context.Context, q *msync.SlidingRequest) ([]byte, error) {
	body, p, err := w.BeginSliding(ctx, q)
	if p != nil {
		return p.Wait(ctx)
	}
	return body, err
}

func (w *worker) slide(t testing.TB, q *msync.SlidingRequest) slidingAnswer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b, err := w.slideRaw(ctx, q)
	require.NoError(t, err)
	var a slidingAnswer
	require.NoError(t, json.Unmarshal(b, &a), "%s", b)
	return a
}

const (
	// elementX is what the room list of matrix-rust-sdk asks for.
	elementX = `{"conn_id":"room-list","lists":{"all_rooms":{"ranges":[[0,19]],"timeline_limit":1,"required_state":[
		["m.room.name",""],["m.room.encryption",""],["m.room.member","$LAZY"],["m.room.member","$ME"],["m.room.topic",""],["m.room.avatar",""],
		["m.room.canonical_alias",""],["m.room.power_levels",""],["org.matrix.msc3401.call.member","*"],["m.room.join_rules",""],
		["m.room.tombstone",""],["m.room.create",""],["m.room.history_visibility",""],["io.element.functional_members",""],
		["m.space.parent","*"],["m.space.child","*"],["m.beacon_info","*"]],
		"filters":{"not_room_types":["m.space"]}}},
		"extensions":{"account_data":{"enabled":true},"receipts":{"enabled":true,"rooms":["*"]},"typing":{"enabled":true},
			"io.element.msc4308.thread_subscriptions":{"enabled":true}}}`
	everything = `{"lists":{"all":{"ranges":[[0,99]],"timeline_limit":20,"required_state":[["*","*"]]}}}`
)

func (r slidingRoom) stateOf(typ string) (keys []string) {
	for _, e := range r.State {
		if e.Type == typ {
			keys = append(keys, e.StateKey)
		}
	}
	slices.Sort(keys)
	return keys
}

func TestSlidingConversation(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob, carol := roomtest.User("alice"), roomtest.User("bob"), roomtest.User("carol")
	r := w.Room(alice, "12")
	w.State(r, alice, "m.room.join_rules", "", `{"join_rule":"public"}`)
	w.State(r, alice, "m.room.name", "", `{"name":"Weaving"}`)
	w.State(r, alice, "org.example.loom", "", `{"shafts":8}`)
	w.Join(r, bob, carol)
	w.Send(r, alice, "one")
	other := w.Create(room.CreateRoom{Creator: roomtest.As(carol), Invite: []room.Invitation{{User: bob}}})

	a := s.slide(t, ask(t, bob, "", elementX))
	require.Equal(t, 2, a.Lists["all_rooms"].Count)
	one := a.Rooms[string(r)]
	require.True(t, one.Initial)
	require.True(t, one.Limited)
	require.Equal(t, "Weaving", *one.Name)
	require.Empty(t, one.Heroes)
	require.Equal(t, 3, *one.Joined)
	require.Zero(t, one.Live)
	require.Positive(t, one.BumpStamp)
	require.Len(t, one.Timeline, 1)
	require.Equal(t, []string{string(alice), string(bob)}, one.stateOf("m.room.member"))
	require.Len(t, one.stateOf("m.room.create"), 1)
	require.Len(t, one.stateOf("m.room.join_rules"), 1)
	require.Empty(t, one.stateOf("org.example.loom"))
	invited := a.Rooms[string(other)]
	require.Equal(t, "invite", invited.Membership)
	require.Equal(t, "m.room.member", invited.InviteState[len(invited.InviteState)-1].Type)
	require.NotEmpty(t, a.Extensions.AccountData.Global) // the push rules

	q := ask(t, bob, a.Pos, elementX)
	q.Timeout = 10 * time.Second
	done := make(chan slidingAnswer)
	go func() { done <- s.slide(t, q) }()
	w.Send(r, carol, "two")
	b := <-done
	two := b.Rooms[string(r)]
	require.Len(t, b.Rooms, 1)
	require.False(t, two.Initial)
	require.False(t, two.Limited)
	require.Len(t, two.Timeline, 1)
	require.Equal(t, 1, two.Live)
	require.Equal(t, []string{string(carol)}, two.stateOf("m.room.member"))
	require.Nil(t, two.Name)
	require.Nil(t, two.Joined)

	// A subscription that wants more is answered at once.
	more := `{"conn_id":"room-list","room_subscriptions":{"` + string(r) + `":{"timeline_limit":20,"required_state":[["org.example.loom",""]]}}}`
	q = ask(t, bob, b.Pos, more)
	q.Timeout = time.Minute
	c := s.slide(t, q)
	three := c.Rooms[string(r)]
	require.True(t, three.Expanded)
	require.Greater(t, len(three.Timeline), 2)
	require.Len(t, three.stateOf("org.example.loom"), 1)
	require.Zero(t, three.Live)

	w.Membership(r, alice, bob, room.ActionKick)
	s.settled(t, w)
	d := s.slide(t, ask(t, bob, c.Pos, elementX))
	require.Equal(t, "leave", d.Rooms[string(r)].Membership)
	require.Contains(t, d.Rooms[string(r)].stateOf("m.room.member"), string(bob))
	require.Empty(t, s.slide(t, ask(t, bob, d.Pos, elementX)).Rooms[string(r)].Membership)
}

// shared is a store that all workers see; lossy ones forget.
type shared struct {
	mu    sync.Mutex
	kept  map[string][]byte
	lossy *rand.Rand
}

func (s *shared) Get(_ context.Context, key string) ([]byte, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lossy != nil && s.lossy.IntN(2) == 0 {
		return nil, false, nil
	}
	b, ok := s.kept[key]
	return b, ok, nil
}

func (s *shared) Set(_ context.Context, key string, b []byte, _ time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[key] = slices.Clone(b)
	return nil
}

// slider is a client of sliding sync, by what it was told.
type slider struct {
	pos   string
	rooms map[string]*slid
}

type slid struct {
	membership string
	name       string
	joined     int
	state      map[string]string
	timeline   []string
}

func (c *slider) fold(t testing.TB, a slidingAnswer) {
	t.Helper()
	for id, r := range a.Rooms {
		x := c.rooms[id]
		if r.Initial {
			x = &slid{state: map[string]string{}}
			c.rooms[id] = x
		}
		require.NotNil(t, x, "%s is not told as initial", id)
		x.membership = r.Membership
		if r.Name != nil {
			x.name = *r.Name
		}
		if r.Joined != nil {
			x.joined = *r.Joined
		}
		for _, e := range r.State {
			if e.Content == nil {
				delete(x.state, e.Type+"|"+e.StateKey)
				continue
			}
			x.state[e.Type+"|"+e.StateKey] = e.ID
		}
		if r.Limited || r.Expanded {
			x.timeline = nil
		}
		for _, e := range r.Timeline {
			require.NotContains(t, x.timeline, e.ID, "told twice")
			x.timeline = append(x.timeline, e.ID)
		}
	}
	c.pos = a.Pos
}

// device is a client with two connections, as Element X has them: one for rooms, one for keys and messages to the device.
type slidingDevice struct {
	slider
	id       id.DeviceID
	keysPos  string
	received string
	folded   *folder // messages to the device, and device lists
	own      map[string]string
	data     map[string]string
	unread   map[string]unreadCount
	lazy     bool // members
}

// body makes a request that asks for whatever comes to mind.
func (c *slidingDevice) body(h *history) string {
	rnd := h.rnd
	required := `["*","*"]`
	topic := `["m.room.topic",""]`
	if c.lazy {
		required += `,["m.room.member","$LAZY"],["m.room.member","$ME"]`
		topic += `,["m.room.member","$LAZY"]`
	}
	list := func(filters string) string {
		from := rnd.IntN(3)
		return fmt.Sprintf(`{"ranges":[[%d,%d],[%d,%d]],"timeline_limit":%d,"required_state":[%s],"filters":%s}`,
			from, from+rnd.IntN(2), from+1, from+rnd.IntN(3)+1, rnd.IntN(4), required, filters)
	}
	lists := []string{`"all":` + list(`{}`)}
	for _, f := range []string{`{"is_invite":true}`, `{"is_dm":true}`, `{"tags":["m.a"]}`, `{"not_tags":["m.a"],"is_dm":false}`} {
		if rnd.IntN(4) == 0 {
			lists = append(lists, fmt.Sprintf(`"%d":%s`, len(lists), list(f)))
		}
	}
	rooms := map[string]string{}
	for range rnd.IntN(3) {
		rooms[string(h.pick().id)] = fmt.Sprintf(`{"timeline_limit":%d,"required_state":[%s]}`, rnd.IntN(6), topic)
	}
	var subscriptions []string
	for _, r := range slices.Sorted(maps.Keys(rooms)) {
		subscriptions = append(subscriptions, fmt.Sprintf(`%q:%s`, r, rooms[r]))
	}
	return fmt.Sprintf(`{"conn_id":"room-list","lists":{%s},"room_subscriptions":{%s},%s}`,
		strings.Join(lists, ","), strings.Join(subscriptions, ","), roomExtensions)
}

const roomExtensions = `"extensions":{"account_data":{"enabled":true},"receipts":{"enabled":true,"rooms":["*"]}}`

// speakers demands that of those who said what an answer tells the client knows who they are now, if it loads members lazily.
func (c *slidingDevice) speakers(t testing.TB, w *roomtest.World, a slidingAnswer) {
	t.Helper()
	for r, x := range a.Rooms {
		if x.Membership != "join" || !c.lazy {
			continue
		}
		ref, _, err := w.Reader.Room(w.Ctx(), w.Shards.Of(r), r)
		require.NoError(t, err)
		for _, e := range x.Timeline {
			name := roomdb.StateName{Type: "m.room.member", StateKey: e.Sender}
			now, err := w.Reader.CurrentStateAt(w.Ctx(), ref.Nid, []roomdb.StateName{name})
			require.NoError(t, err)
			require.Equal(t, now[name].EventID, c.rooms[r].state["m.room.member|"+e.Sender], "%s in %s", e.Sender, r)
		}
	}
}

// foldMore takes in what an answer tells beside rooms' states and timelines.
func (c *slidingDevice) foldMore(t testing.TB, a slidingAnswer, me id.UserID) {
	t.Helper()
	for r, x := range a.Rooms {
		if x.Membership == "join" {
			require.NotNil(t, x.Notification)
			c.unread[r] = unreadCount{Highlight: *x.Highlight, Notify: *x.Notification}
		} else {
			delete(c.unread, r)
		}
	}
	for r, e := range a.Extensions.Receipts.Rooms {
		var content map[string]map[string]map[id.UserID]struct {
			Thread string `json:"thread_id"`
		}
		require.NoError(t, json.Unmarshal(e.Content, &content))
		for event, kinds := range content {
			for kind, users := range kinds {
				if at, ok := users[me]; ok {
					c.own[r+"|"+kind+"|"+at.Thread] = event
				}
			}
		}
	}
	for _, e := range a.Extensions.AccountData.Global {
		c.data["|"+e.Type] = string(e.Content)
	}
	for r, list := range a.Extensions.AccountData.Rooms {
		for _, e := range list {
			c.data[r+"|"+e.Type] = string(e.Content)
		}
	}
}

// keys asks on the connection for keys.
func (c *slidingDevice) keys(t testing.TB, x *worker, h *history, lost bool) {
	t.Helper()
	body := fmt.Sprintf(`{"conn_id":"encryption","extensions":{"e2ee":{"enabled":true},"to_device":{"enabled":true,"since":%q}}}`, c.received)
	q := ask(t, h.watcher, c.keysPos, body)
	q.Device = c.id
	if lost {
		again := ask(t, h.watcher, c.keysPos, body)
		again.Device = c.id
		x.slide(t, again)
	}
	b, err := x.slideRaw(t.Context(), q)
	require.NoError(t, err)
	var a struct {
		Pos        string `json:"pos"`
		Extensions struct {
			ToDevice struct {
				Next   string `json:"next_batch"`
				Events []struct {
					Content struct {
						N int `json:"n"`
					} `json:"content"`
				} `json:"events"`
			} `json:"to_device"`
			E2EE struct {
				Lists struct {
					Changed []string `json:"changed"`
					Left    []string `json:"left"`
				} `json:"device_lists"`
			} `json:"e2ee"`
		} `json:"extensions"`
	}
	require.NoError(t, json.Unmarshal(b, &a))
	var all toldAll
	all.Next, all.Lists.Changed, all.Lists.Left = a.Pos, a.Extensions.E2EE.Lists.Changed, a.Extensions.E2EE.Lists.Left
	all.ToDevice.Events = a.Extensions.ToDevice.Events
	c.folded.fold(t, all, false)
	c.keysPos, c.received = a.Pos, a.Extensions.ToDevice.Next
}

// Random histories; however a client moves its window over its rooms, from whichever worker, from memory, from what is left of it or from the
// database, with the state of its connections at hand or lost, with answers that are lost, it comes to what the database has.
func TestSlidingAnyhowComesToTheSame(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			slideAnyhow(t, seed, 150)
		})
	}
}

func slideAnyhow(t *testing.T, seed uint64, steps int) {
	h := newHistory(t, seed+100, "S0", "S1", "LAZY")
	w, rnd, watcher := h.World, h.rnd, h.watcher
	store := &shared{kept: map[string][]byte{}}
	h.keeps = seed%2 == 0 // a worker that had heard of the room before does not hear that it is forgotten
	if seed%2 == 1 {
		store.lossy = rand.New(rand.NewPCG(seed, 12))
	}
	begin := func(budget int64) *worker {
		x := startKeeping(t, w, budget, store)
		if seed%2 == 1 { // then nobody compares two answers
			x.ShortenSliding(4000)
		}
		return x
	}
	workers := []*worker{begin(256 << 20), begin(20 << 20)}
	var clients []*slidingDevice
	for _, d := range h.devices {
		clients = append(clients, &slidingDevice{
			slider: slider{rooms: map[string]*slid{}}, id: id.DeviceID(d), own: map[string]string{}, data: map[string]string{},
			unread: map[string]unreadCount{}, folded: newFolder(h, d, func(*folder, *filter.Filter) {}), lazy: d == "LAZY",
		})
	}
	asked := func(c *slidingDevice, body string) *msync.SlidingRequest {
		q := ask(t, watcher, c.pos, body)
		q.Device = c.id
		return q
	}
	for step := range steps {
		h.deed()
		switch rnd.IntN(40) {
		case 0:
			workers[rnd.IntN(2)] = begin(256 << 20)
		case 1:
			h.restart()
		case 2, 3, 4:
			workers[rnd.IntN(2)].Squeeze()
		}
		for i, c := range clients {
			if rnd.IntN(3+4*i) != 0 {
				continue
			}
			t.Logf("step %d: %s", step, c.id)
			body := c.body(h)
			x := workers[rnd.IntN(2)]
			x.settled(t, w)
			if rnd.IntN(4) == 0 { // the user comes or goes while the answer is made
				done := make(chan slidingAnswer, 1)
				go func() { done <- x.slide(t, asked(c, body)) }()
				h.move(watcher)
				a := <-done
				c.fold(t, a)
				c.foldMore(t, a, watcher)
				continue
			}
			a := x.slide(t, asked(c, body))
			if rnd.IntN(3) == 0 && store.lossy == nil { // the answer is lost
				y := workers[rnd.IntN(2)]
				y.settled(t, w)
				b := y.slide(t, asked(c, body))
				alike(t, a, b, c.lazy)
				a = b
			}
			c.fold(t, a)
			c.foldMore(t, a, watcher)
			c.speakers(t, w, a)
			if rnd.IntN(2) == 0 {
				c.keys(t, workers[rnd.IntN(2)], h, rnd.IntN(4) == 0)
			}
		}
	}
	for i, c := range clients {
		x := workers[i%2]
		x.settled(t, w)
		required := `["*","*"]`
		if c.lazy {
			required += `,["m.room.member","$LAZY"],["m.room.member","$ME"]`
		}
		for n := 0; ; n++ {
			require.Less(t, n, 100)
			a := x.slide(t, asked(c, `{"conn_id":"room-list","lists":{"all":{"ranges":[[0,99]],"timeline_limit":5,"required_state":[`+required+`]}},`+roomExtensions+`}`))
			c.fold(t, a)
			c.foldMore(t, a, watcher)
			c.speakers(t, w, a)
			if len(a.Rooms) == 0 {
				break
			}
		}
		c.keys(t, x, h, false)
		compare(t, w, c, watcher)
		compareMore(t, h, c, x)
		o := newClientState(x.syncAll(t, msync.Request{User: watcher, Device: "OTHER", StateAfter: true}))
		for r := range o {
			if !c.lazy {
				require.Equal(t, o[r], c.rooms[r].state, "state of %s as /sync has it", r)
			}
		}
	}
}

// newClientState gives the states that an answer to a first sync tells, by room.
func newClientState(a toldAll) map[string]map[string]string {
	out := map[string]map[string]string{}
	for r, x := range a.Rooms.Join {
		out[r] = map[string]string{}
		for _, e := range x.states() {
			out[r][e.Type+"|"+*e.StateKey] = e.ID
		}
	}
	return out
}

// compareMore compares what a client holds beside states and timelines with the database.
func compareMore(t testing.TB, h *history, c *slidingDevice, x *worker) {
	t.Helper()
	require.Equal(t, h.sent[string(c.id)], c.folded.got, "messages to the device")
	want := c.folded.sharing(t)
	delete(want, string(h.watcher))
	delete(c.folded.tracked, string(h.watcher))
	require.Equal(t, want, c.folded.tracked, "device lists")
	stored, err := accountdb.NewReader(h.DB.Pool).AccountDataSince(t.Context(), h.Shards.OfUser(string(h.watcher)), string(h.watcher), 0)
	require.NoError(t, err)
	in := map[string]bool{"": true}
	rows, err := h.Reader.Memberships(t.Context(), string(h.watcher))
	require.NoError(t, err)
	at := x.follower.Positions().Positions
	for i := range rows {
		m := &rows[i]
		if m.Membership != roomdb.MembershipJoin {
			continue
		}
		in[m.RoomID] = true
		read, err := pushdb.NewReader(h.DB.Pool).Unread(t.Context(), string(h.watcher), []pushdb.Place{{Room: m.Nid, Base: int64(m.Pos), Upto: int64(at[m.Nid.Shard()])}})
		require.NoError(t, err)
		sum := pushdb.Sum(read[0].Counts)
		require.Equal(t, unreadCount{int(sum.Highlight), int(sum.Notify)}, c.unread[m.RoomID], "unread in %s", m.RoomID)
		receipts, err := h.Reader.ReceiptsOf(t.Context(), m.Nid, string(h.watcher))
		require.NoError(t, err)
		taken := map[string]bool{} // of several at one event the one that belongs to no thread is told
		for _, r := range receipts {
			if r.Thread == "" {
				taken[r.Kind+"|"+r.EventID] = true
			}
		}
		for _, r := range receipts {
			if r.Thread == "" || !taken[r.Kind+"|"+r.EventID] {
				require.Equal(t, r.EventID, c.own[m.RoomID+"|"+r.Kind+"|"+r.Thread], "own receipt in %s, %s of %q", m.RoomID, r.Kind, r.Thread)
			}
		}
	}
	for _, d := range stored {
		if in[d.RoomID] {
			require.Equal(t, string(d.Content), c.data[d.RoomID+"|"+d.Type], "account data %s of %q", d.Type, d.RoomID)
		}
	}
}

// alike demands that two answers say the same.
func alike(t testing.TB, a, b slidingAnswer, lazy bool) {
	t.Helper()
	require.Equal(t, a.Lists, b.Lists)
	require.ElementsMatch(t, slices.Collect(maps.Keys(a.Rooms)), slices.Collect(maps.Keys(b.Rooms)))
	for r, x := range a.Rooms {
		y := b.Rooms[r]
		others := func(e slidingState) bool { return lazy && e.Type == "m.room.member" } // whom it knows, one worker knows better than another
		require.ElementsMatch(t, slices.DeleteFunc(slices.Clone(x.State), others), slices.DeleteFunc(slices.Clone(y.State), others))
		x.State, y.State = nil, nil
		x.Joined, x.Invited, x.Heroes = y.Joined, y.Invited, y.Heroes // what is read from the database may be told without need
		for i := range x.Timeline {
			x.Timeline[i].Unsigned, y.Timeline[i].Unsigned = y.Timeline[i].Unsigned, x.Timeline[i].Unsigned
		}
		require.Equal(t, x, y)
	}
}

// compare compares what a client holds with the database.
func compare(t testing.TB, w *roomtest.World, c *slidingDevice, u id.UserID) {
	t.Helper()
	rows, err := w.Reader.Memberships(w.Ctx(), string(u))
	require.NoError(t, err)
	for i := range rows {
		m := &rows[i]
		x := c.rooms[m.RoomID]
		if m.Membership != roomdb.MembershipJoin {
			if x != nil {
				compareOutside(t, w, m, x)
			}
			continue
		}
		require.NotNil(t, x)
		require.Equal(t, "join", x.membership)
		current, err := w.Reader.CurrentStateEvents(w.Ctx(), m.Nid)
		require.NoError(t, err)
		want, have := map[string]bool{}, map[string]bool{}
		for _, e := range current {
			var of storedShown
			require.NoError(t, json.Unmarshal(e.JSON, &of))
			if !c.lazy || of.Type != "m.room.member" || of.own(u) {
				want[e.EventID] = true
			}
		}
		for k, e := range x.state {
			if key, member := strings.CutPrefix(k, "m.room.member|"); !c.lazy || !member || key == string(u) {
				have[e] = true
			}
		}
		require.Equal(t, want, have, "state of %s", m.RoomID)
		named, err := w.Reader.CurrentStateAt(w.Ctx(), m.Nid, []roomdb.StateName{{Type: "m.room.name"}})
		require.NoError(t, err)
		for _, e := range named {
			var pdu struct {
				Content struct {
					Name string `json:"name"`
				} `json:"content"`
			}
			if e.RedactedBy == 0 {
				require.NoError(t, json.Unmarshal(e.JSON, &pdu))
			}
			require.Equal(t, pdu.Content.Name, x.name, "name of %s", m.RoomID)
		}
		counts, err := w.Reader.CountMembers(w.Ctx(), m.Nid)
		require.NoError(t, err)
		require.Equal(t, counts[roomdb.MembershipJoin], x.joined)
		latest, err := w.Reader.TimelineBackward(w.Ctx(), m.Nid, roomdb.End, roomdb.Beginning, 1000)
		require.NoError(t, err)
		require.NotEmpty(t, latest)
		require.NotEmpty(t, x.timeline)
		open := strings.Contains(string(visibilityOf(t, w, m)), "shared")
		at := len(x.timeline) // what the user may not see is left out
		for _, e := range latest {
			if at > 0 && e.EventID == x.timeline[at-1] {
				at--
			} else if at > 0 && open {
				require.Equal(t, x.timeline[at-1], e.EventID, "timeline of %s", m.RoomID)
			}
		}
		require.Zero(t, at, "timeline of %s", m.RoomID)
		require.Equal(t, latest[0].EventID, x.timeline[len(x.timeline)-1], "timeline of %s", m.RoomID)
	}
}

// compareOutside compares what a client holds of a room that the user is not in: nothing that happened after the going.
func compareOutside(t testing.TB, w *roomtest.World, m *roomdb.MembershipRow, x *slid) {
	t.Helper()
	now := m.Membership.String()
	if now == "ban" {
		now = "leave"
	}
	was := x.membership
	if was == "ban" { // that a ban ends is news to nobody who never was in the room
		was = "leave"
	}
	require.Equal(t, now, was, "membership of %s", m.RoomID)
	if now != "leave" {
		return
	}
	later, err := w.Reader.TimelineBackward(w.Ctx(), m.Nid, roomdb.End, int64(m.Pos), 1000)
	require.NoError(t, err)
	for i := range later {
		require.NotContains(t, x.timeline, later[i].EventID, "timeline of %s", m.RoomID)
		for k, e := range x.state {
			require.NotEqual(t, later[i].EventID, e, "%s in %s", k, m.RoomID)
		}
	}
}

func visibilityOf(t testing.TB, w *roomtest.World, m *roomdb.MembershipRow) []byte {
	found, err := w.Reader.CurrentStateAt(w.Ctx(), m.Nid, []roomdb.StateName{{Type: "m.room.history_visibility"}})
	require.NoError(t, err)
	for _, e := range found {
		return e.JSON
	}
	return nil
}

func TestSlidingRefuses(t *testing.T) {
	for _, body := range []string{
		`{"lists":{"a":{"ranges":[[3,1]],"timeline_limit":1}}}`,
		`{"lists":{"a":{"ranges":[[1]],"timeline_limit":1}}}`,
		`{"lists":{"a":{"ranges":[[-1,1]],"timeline_limit":1}}}`,
		`{"lists":{"a":{"timeline_limit":-1}}}`,
		`{"lists":{"":{"timeline_limit":1}}}`,
		`{"lists":{"a":null}}`,
		`{"room_subscriptions":{"!a:b":{"timeline_limit":1,"required_state":[["m.room.name"]]}}}`,
		`{"room_subscriptions":{"!a:b":null}}`,
		`{"extensions":{"to_device":{"enabled":true,"limit":-1}}}`,
	} {
		q := new(msync.SlidingRequest)
		require.NoError(t, json.Unmarshal([]byte(body), q))
		err := q.Check()
		require.Error(t, err, body)
		require.Equal(t, mxerr.InvalidParam, mxerr.From(err).Code, body)
	}
}

func TestSlidingPositions(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice := roomtest.User("alice")
	w.Room(alice, "12")
	a := s.slide(t, ask(t, alice, "", everything))
	undone, err := token.DecodeSync(a.Pos, w.Shards.Count())
	require.NoError(t, err)
	for i := range undone.Positions { // of a database that was put back since
		undone.Positions[i] += 100
	}
	for _, pos := range []string{"x", "!", "b2xk", undone.Encode()} {
		_, err := s.slideRaw(t.Context(), ask(t, alice, pos, everything))
		require.Equal(t, mxerr.UnknownPos, mxerr.From(err).Code, pos)
		require.Equal(t, 400, mxerr.From(err).HTTPStatus)
	}
}

// What Element X asks for is answered: of the rooms in its list all the state that it names and nothing else, more of the room that is open,
// and by a connection beside that one, which each goes on by itself, keys and messages alone.
func TestRequestsOfElementX(t *testing.T) {
	w := roomtest.New(t)
	s := start(t, w, 256<<20)
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	r := w.Room(alice, "12")
	named := map[string]string{ // the state keys
		"m.room.name": "", "m.room.encryption": "", "m.room.topic": "", "m.room.avatar": "", "m.room.canonical_alias": "", "m.room.power_levels": "",
		"org.matrix.msc3401.call.member": "_@alice:heddle.test_DEVICE_m.call", "m.room.join_rules": "", "m.room.tombstone": "", "m.room.create": "",
		"m.room.history_visibility": "", "io.element.functional_members": "", "m.space.parent": "!mill:heddle.test", "m.space.child": "!loft:heddle.test",
		"org.matrix.msc3672.beacon_info": string(alice),
	}
	contents := map[string]string{
		"m.room.encryption": `{"algorithm":"m.megolm.v1.aes-sha2"}`, "m.room.join_rules": `{"join_rule":"public"}`, "m.room.name": `{"name":"Weaving"}`,
		"m.room.history_visibility": `{"history_visibility":"shared"}`,
	}
	wishes := [][2]string{{"m.room.member", "$LAZY"}, {"m.room.member", "$ME"}}
	for _, typ := range slices.Sorted(maps.Keys(named)) {
		key := named[typ]
		if typ != "m.room.create" && typ != "m.room.power_levels" {
			content := contents[typ]
			if content == "" {
				content = `{}`
			}
			w.State(r, alice, typ, key, content)
		}
		if key != "" {
			key = "*"
		}
		wishes = append(wishes, [2]string{typ, key})
	}
	w.State(r, alice, "org.example.other", "", `{}`)
	w.State(r, alice, "m.room.pinned_events", "", `{"pinned":[]}`)
	w.Join(r, bob)
	for i := range 25 {
		w.Send(r, alice, fmt.Sprint(i))
	}
	s.settled(t, w)
	list := func(last int, more string) string {
		required, err := json.Marshal(wishes)
		require.NoError(t, err)
		return fmt.Sprintf(`{"conn_id":"room-list","lists":{"all_rooms":{"ranges":[[0,%d]],"timeline_limit":1,"required_state":%s,
			"filters":{"not_room_types":["m.space"]}}},"extensions":{"account_data":{"enabled":true},"receipts":{"enabled":true,"rooms":["*"]},
			"typing":{"enabled":true}}%s}`, last, required, more)
	}
	a := s.slide(t, ask(t, bob, "", list(19, "")))
	told := a.Rooms[string(r)]
	state := map[string]string{}
	for _, e := range told.State {
		if e.Type != "m.room.member" {
			state[e.Type] = e.StateKey
		}
	}
	require.Equal(t, named, state)
	require.Equal(t, []string{string(alice), string(bob)}, told.stateOf("m.room.member"))
	require.Len(t, told.Timeline, 1)

	const encryption = `{"conn_id":"encryption","extensions":{"e2ee":{"enabled":true},"to_device":{"enabled":true}}}`
	keys := s.slide(t, ask(t, bob, "", encryption))
	require.Empty(t, keys.Rooms)
	require.NotNil(t, keys.Extensions.E2EE.Counts)
	require.NotEmpty(t, keys.Extensions.ToDevice.Next)

	open := `,"room_subscriptions":{"` + string(r) + `":{"timeline_limit":20,"required_state":[["m.room.pinned_events",""]]}}`
	b := s.slide(t, ask(t, bob, a.Pos, list(119, open)))
	told = b.Rooms[string(r)]
	require.False(t, told.Initial, "the other connection has not made it begin anew")
	require.Len(t, told.Timeline, 20)
	require.Equal(t, []string{""}, told.stateOf("m.room.pinned_events"))
	require.Empty(t, told.stateOf("m.room.name"), "which it has been told")
	keys = s.slide(t, ask(t, bob, keys.Pos, encryption))
	require.Empty(t, keys.Rooms)
	require.NotContains(t, s.slide(t, ask(t, bob, b.Pos, list(119, open))).Rooms, string(r), "there is nothing new")
}
