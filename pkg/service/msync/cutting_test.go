package msync_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// toldRoom is a room as /sync tells it.
type toldRoom struct {
	Timeline struct {
		events
		Limited bool   `json:"limited"`
		Prev    string `json:"prev_batch"`
	} `json:"timeline"`
	State      events                 `json:"state"`
	After      events                 `json:"state_after"`
	AfterUns   events                 `json:"org.matrix.msc4222.state_after"`
	Ephemeral  events                 `json:"ephemeral"`
	Data       events                 `json:"account_data"`
	Invite     events                 `json:"invite_state"`
	Knock      events                 `json:"knock_state"`
	UnreadJSON *unreadCount           `json:"unread_notifications"`
	ThreadJSON map[string]unreadCount `json:"unread_thread_notifications"`
	Summary    struct {
		Joined  *int      `json:"m.joined_member_count"`
		Invited *int      `json:"m.invited_member_count"`
		Heroes  *[]string `json:"m.heroes"`
	} `json:"summary"`
}

func (r *toldRoom) states() []shownEvent {
	return slices.Concat(r.State.Events, r.After.Events, r.AfterUns.Events)
}

type toldAll struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join, Invite, Knock, Leave map[string]*toldRoom
	} `json:"rooms"`
	Data     events `json:"account_data"`
	ToDevice struct {
		Events []struct {
			Content struct {
				N int `json:"n"`
			} `json:"content"`
		} `json:"events"`
	} `json:"to_device"`
	Lists struct {
		Changed []string `json:"changed"`
		Left    []string `json:"left"`
	} `json:"device_lists"`
}

// held is a room as a client holds it.
type held struct {
	state           map[string]string // event ids
	unread          map[string]unreadCount
	joined, invited int
	heroes          []string
}

// folder is a client that puts together what it is told.
type folder struct {
	h        *history
	name     string
	device   id.DeviceID
	filter   *filter.Filter
	only     string // the one type of events that it wants of timelines
	deaf     bool   // it wants no receipts
	stable   bool
	unstable bool

	since     string
	in        map[string]*held
	invited   map[string]bool
	knocked   map[string]bool
	timelines map[string][]string
	data      map[string]string // by room and type
	receipts  map[string]string // events, by room, user, kind and thread
	got       []int
	tracked   map[string]int64
}

func newFolder(h *history, name string, set func(c *folder, f *filter.Filter)) *folder {
	c := &folder{
		h: h, name: name, device: id.DeviceID(name), in: map[string]*held{}, invited: map[string]bool{}, knocked: map[string]bool{},
		timelines: map[string][]string{}, data: map[string]string{}, receipts: map[string]string{}, tracked: map[string]int64{},
	}
	f := byThread()
	set(c, f)
	c.filter = f
	return c
}

func (c *folder) after() bool { return c.stable || c.unstable }

func (c *folder) request(full bool) msync.Request {
	f := *c.filter
	if f.Room.Timeline.Limit == nil && c.h.rnd.IntN(3) > 0 {
		few := c.h.rnd.IntN(5)
		f.Room.Timeline.Limit = &few
	}
	return msync.Request{
		User: c.h.watcher, Device: c.device, Since: c.since, Filter: &f, FullState: full, StateAfter: c.stable, StateAfterUnstable: c.unstable,
	}
}

func (w *worker) syncAll(t testing.TB, q msync.Request) toldAll {
	t.Helper()
	b, err := w.Sync(t.Context(), q)
	require.NoError(t, err)
	var a toldAll
	require.NoError(t, json.Unmarshal(b, &a), "%s", b)
	return a
}

// sharing gives with whom the watcher shares rooms, himself too, and the positions of their device lists.
func (c *folder) sharing(t testing.TB) map[string]int64 {
	rows, err := c.h.DB.Pool.Query(t.Context(), `SELECT m.user_id, coalesce((SELECT pos FROM device_list d WHERE d.user_id = m.user_id), 0)
		FROM member m WHERE m.membership = $2 AND room_nid IN (SELECT room_nid FROM member WHERE user_id = $1 AND membership = $2)`,
		string(c.h.watcher), roomdb.MembershipJoin)
	require.NoError(t, err)
	defer rows.Close()
	out := map[string]int64{}
	for rows.Next() {
		var u string
		var pos int64
		require.NoError(t, rows.Scan(&u, &pos))
		out[u] = pos
	}
	return out
}

func (c *folder) fold(t testing.TB, a toldAll, full bool) {
	t.Helper()
	for r, x := range a.Rooms.Join {
		delete(c.invited, r)
		delete(c.knocked, r)
		have := c.in[r]
		if have == nil {
			have = &held{state: map[string]string{}, unread: map[string]unreadCount{}}
			c.in[r] = have
		}
		lazy := c.filter.Room.State.LazyLoadMembers
		if full { // of members that it loads lazily it keeps what it knows: what they have become is told
			maps.DeleteFunc(have.state, func(k, _ string) bool { return !lazy || !strings.HasPrefix(k, "m.room.member|") })
		}
		set := func(list []shownEvent) {
			for _, e := range list {
				if e.StateKey != nil {
					have.state[e.Type+"|"+*e.StateKey] = e.ID
				}
			}
		}
		set(x.states())
		for _, e := range x.Timeline.Events {
			if c.after() {
				break
			}
			if lazy && e.Type != "m.room.member" && e.Type != "m.room.create" {
				require.Contains(t, have.state, "m.room.member|"+e.Sender, "%s: who says %s", c.name, e.ID)
			}
			set([]shownEvent{e})
		}
		c.continues(t, r, x)
		for _, e := range x.Ephemeral.Events {
			c.receipt(t, r, e)
		}
		for _, e := range x.Data.Events {
			c.data[r+"|"+e.Type] = string(e.Content)
		}
		require.NotNil(t, x.UnreadJSON, "counts are told of every room")
		have.unread = map[string]unreadCount{}
		maps.Copy(have.unread, x.ThreadJSON)
		if *x.UnreadJSON != (unreadCount{}) {
			have.unread[""] = *x.UnreadJSON
		}
		if s := x.Summary; s.Joined != nil {
			have.joined, have.invited = *s.Joined, *s.Invited
			if s.Heroes != nil {
				have.heroes = *s.Heroes
			}
		}
	}
	for r, x := range a.Rooms.Invite {
		c.stripped(t, r, x.Invite.Events, "invite")
		c.invited[r] = true
	}
	for r, x := range a.Rooms.Knock {
		c.stripped(t, r, x.Knock.Events, "knock")
		c.knocked[r] = true
	}
	for r, x := range a.Rooms.Leave {
		c.leaves(r)
		if len(x.Timeline.Events) == 0 {
			delete(c.timelines, r) // forgotten
			continue
		}
		c.continues(t, r, x)
	}
	for _, e := range a.Data.Events {
		c.data["|"+e.Type] = string(e.Content)
	}
	for _, m := range a.ToDevice.Events {
		c.got = append(c.got, m.Content.N)
	}
	positions := c.sharing(t)
	if c.since == "" {
		c.tracked = positions
	}
	for _, u := range a.Lists.Changed {
		c.tracked[u] = positions[u]
	}
	for _, u := range a.Lists.Left {
		require.NotEqual(t, string(c.h.watcher), u)
		delete(c.tracked, u)
	}
	c.since = a.Next
}

func (c *folder) leaves(r string) {
	delete(c.in, r)
	delete(c.invited, r)
	delete(c.knocked, r)
	for _, m := range []map[string]string{c.receipts, c.data} {
		maps.DeleteFunc(m, func(k, _ string) bool { return strings.HasPrefix(k, r+"|") })
	}
}

func (c *folder) stripped(t testing.TB, r string, list []shownEvent, membership string) {
	t.Helper()
	require.NotNil(t, list)
	last := list[len(list)-1]
	require.Equal(t, string(c.h.watcher), *last.StateKey)
	require.Contains(t, string(last.Content), membership)
	c.leaves(r)
}

// continues goes on with a room's timeline.
func (c *folder) continues(t testing.TB, r string, x *toldRoom) {
	t.Helper()
	if x.Timeline.Limited {
		delete(c.timelines, r)
	}
	for _, e := range x.Timeline.Events {
		require.NotContains(t, c.timelines[r], e.ID, "%s is told twice to %s: %+v", r, c.name, x)
		c.timelines[r] = append(c.timelines[r], e.ID)
	}
}

func (c *folder) receipt(t testing.TB, r string, e shownEvent) {
	t.Helper()
	if e.Type != "m.receipt" {
		return
	}
	var content map[string]map[string]map[string]struct {
		Thread string `json:"thread_id"`
	}
	require.NoError(t, json.Unmarshal(e.Content, &content))
	for event, kinds := range content {
		for kind, users := range kinds {
			for u, at := range users {
				c.receipts[strings.Join([]string{r, u, kind, at.Thread}, "|")] = event
			}
		}
	}
}

// check compares what the client holds with what the database says.
func (c *folder) check(t testing.TB, at shard.Vector) {
	t.Helper()
	h := c.h
	rows, err := h.Reader.Memberships(t.Context(), string(h.watcher))
	require.NoError(t, err)
	receipts, data := map[string]string{}, map[string]string{}
	stored, err := accountdb.NewReader(h.DB.Pool).AccountDataSince(t.Context(), h.Shards.OfUser(string(h.watcher)), string(h.watcher), 0)
	require.NoError(t, err)
	in := map[string]bool{"": true}
	for i := range rows {
		m := &rows[i]
		joined := m.Membership == roomdb.MembershipJoin
		require.Equal(t, joined, c.in[m.RoomID] != nil, "joined to %s", m.RoomID)
		require.Equal(t, m.Membership == roomdb.MembershipInvite, c.invited[m.RoomID], "invited to %s", m.RoomID)
		require.Equal(t, m.Membership == roomdb.MembershipKnock, c.knocked[m.RoomID], "knocked on %s", m.RoomID)
		place := h.places[slices.IndexFunc(h.places, func(s *setting) bool { return string(s.id) == m.RoomID })]
		all := h.timeline(place)
		c.checkTimeline(t, place, all, joined)
		if !joined {
			continue
		}
		in[m.RoomID] = true
		if place.far == nil || c.after() { // who folds the timeline into the state does not see what became of forks
			c.checkState(t, m)
		}
		moved, err := h.Reader.ReceiptsSince(t.Context(), m.Nid, 0)
		require.NoError(t, err)
		for _, r := range moved {
			if !c.deaf && (r.Kind == "m.read" || r.UserID == string(h.watcher)) {
				receipts[strings.Join([]string{m.RoomID, r.UserID, r.Kind, r.Thread}, "|")] = r.EventID
			}
		}
		c.checkCounts(t, m, int64(at[m.Nid.Shard()]))
	}
	require.Equal(t, receipts, c.receipts, "receipts")
	for _, d := range stored {
		if in[d.RoomID] {
			data[d.RoomID+"|"+d.Type] = string(d.Content)
		}
	}
	have := maps.Clone(c.data)
	delete(have, "|m.push_rules")
	require.Equal(t, data, have, "account data")
	require.Equal(t, h.sent[string(c.device)], c.got, "messages to the device")
	want := c.sharing(t)
	tracked := maps.Clone(c.tracked)
	delete(want, string(h.watcher)) // his own list is his in any case
	delete(tracked, string(h.watcher))
	require.Equal(t, want, tracked, "device lists")
}

func (c *folder) checkState(t testing.TB, m *roomdb.MembershipRow) {
	t.Helper()
	current, err := c.h.Reader.CurrentStateEvents(t.Context(), m.Nid)
	require.NoError(t, err)
	lazy := c.filter.Room.State.LazyLoadMembers
	want, have := map[string]string{}, maps.Clone(c.in[m.RoomID].state)
	for _, e := range current {
		var s storedShown
		require.NoError(t, json.Unmarshal(e.JSON, &s))
		k := s.Type + "|" + *s.StateKey
		if _, ok := have[k]; lazy && s.Type == "m.room.member" && !ok {
			continue
		}
		want[k] = e.EventID
	}
	require.Equal(t, want, have, "%s: state of %s", c.name, m.RoomID)
}

// checkTimeline demands that what the client holds of a timeline are the last events that it may see and wants.
func (c *folder) checkTimeline(t testing.TB, s *setting, all []*storedShown, joined bool) {
	t.Helper()
	have := c.timelines[string(s.id)]
	if len(have) == 0 {
		return
	}
	var want []string
	in, ends, declined, closed := false, 0, false, false
	var came int64 // when he last came in; what was told of his being put out before is not told again
	for _, e := range all {
		if e.own(c.h.watcher) && e.membership() == "join" {
			came = e.Ord
		}
	}
	for _, e := range all {
		before, open := in, !closed
		if e.Type == "m.room.history_visibility" {
			closed = bytes.Contains(e.Content, []byte("joined"))
		}
		if e.own(c.h.watcher) {
			declined = !in
			in = e.membership() == "join"
		}
		if (in || before || open) && (c.only == "" || e.Type == c.only) || e.Ord > came && e.own(c.h.watcher) && !in && c.only == "" {
			want = append(want, e.ID)
		}
		if in || before {
			ends = len(want)
		}
	}
	if !joined {
		if declined {
			return // what comes between is not for him
		}
		want = want[:ends]
	}
	require.GreaterOrEqual(t, len(want), len(have), "%s", s.id)
	require.Equal(t, want[len(want)-len(have):], have, "timeline of %s", s.id)
}

// checkCounts compares counts of what is unread, and of members.
func (c *folder) checkCounts(t testing.TB, m *roomdb.MembershipRow, upto int64) {
	t.Helper()
	h, have := c.h, c.in[m.RoomID]
	read, err := pushdb.NewReader(h.DB.Pool).Unread(t.Context(), string(h.watcher), []pushdb.Place{{Room: m.Nid, Base: int64(m.Pos), Upto: upto}})
	require.NoError(t, err)
	want := map[string]unreadCount{}
	for thread, n := range read[0].Counts {
		if n != (pushdb.Count{}) {
			want[thread] = unreadCount{int(n.Highlight), int(n.Notify)}
		}
	}
	require.Equal(t, want, have.unread, "unread in %s", m.RoomID)
	counts, err := h.Reader.CountMembers(t.Context(), m.Nid)
	require.NoError(t, err)
	require.Equal(t, counts[roomdb.MembershipJoin], have.joined, "joined in %s", m.RoomID)
	require.Equal(t, counts[roomdb.MembershipInvite], have.invited, "invited to %s", m.RoomID)
	with := []roomdb.Membership{roomdb.MembershipJoin, roomdb.MembershipInvite}
	if counts[roomdb.MembershipJoin]+counts[roomdb.MembershipInvite] <= 1 {
		with = append(with, roomdb.MembershipLeave, roomdb.MembershipBan)
	}
	heroes, err := h.Reader.FirstMembers(t.Context(), m.Nid, 6, with...)
	require.NoError(t, err)
	heroes = slices.DeleteFunc(heroes, func(u string) bool { return u == string(h.watcher) })
	require.ElementsMatch(t, heroes[:min(5, len(heroes))], have.heroes, "heroes of %s", m.RoomID)
}

// checkTold holds what one answer tells against the database: contents, what is redacted, where to read on backwards, and that whoever
// loads members lazily knows who speaks.
func (c *folder) checkTold(t testing.TB, a toldAll) {
	t.Helper()
	for _, section := range []map[string]*toldRoom{a.Rooms.Join, a.Rooms.Leave} {
		for r, x := range section {
			place := c.h.places[slices.IndexFunc(c.h.places, func(s *setting) bool { return string(s.id) == r })]
			all := c.h.timeline(place)
			byID := map[string]*storedShown{}
			for _, e := range all {
				byID[e.ID] = e
			}
			for _, e := range slices.Concat(x.Timeline.Events, x.states()) {
				s := byID[e.ID]
				require.NotNil(t, s, "%s", e.ID)
				if !s.Redacted {
					require.JSONEq(t, string(s.Content), string(e.Content))
				} else if s.Type == "m.room.message" || s.Type == "m.room.topic" {
					require.JSONEq(t, `{}`, string(e.Content), "%s is redacted", e.ID)
				}
			}
			before, err := token.DecodeRoom(x.Timeline.Prev)
			if len(x.Timeline.Events) > 0 {
				require.NoError(t, err)
				first := byID[x.Timeline.Events[0].ID].Ord
				require.Less(t, before.Order, first)
				for _, e := range all {
					between := e.Ord > before.Order && e.Ord < first
					require.False(t, between && !place.closed && (c.only == "" || e.Type == c.only), "prev_batch skips %s", e.ID)
				}
			}
			if have := c.in[r]; have != nil && c.filter.Room.State.LazyLoadMembers {
				for _, e := range x.Timeline.Events {
					require.Contains(t, have.state, "m.room.member|"+byID[e.ID].Sender)
				}
			}
		}
	}
}

// Random histories by several users and two servers; however they are cut into syncs, across workers, from memory, from what is left of it or from
// the database, with workers and masters that begin anew in between, with filters, members loaded lazily, states before or after the
// timeline, with answers that are lost: a client comes to what the database has.
func TestAnyCuttingComesToTheSame(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			cut(t, seed, 150)
		})
	}
}

func cut(t *testing.T, seed uint64, steps int) {
	kinds := []struct {
		name string
		set  func(c *folder, f *filter.Filter)
	}{
		{"PLAIN", func(*folder, *filter.Filter) {}},
		{"AFTER", func(c *folder, _ *filter.Filter) { c.stable = true }},
		{"LAZY", func(_ *folder, f *filter.Filter) { f.Room.State.LazyLoadMembers = true }},
		{"LAZYAFTER", func(c *folder, f *filter.Filter) { c.unstable, f.Room.State.LazyLoadMembers = true, true }},
		{"REDUNDANT", func(_ *folder, f *filter.Filter) {
			f.Room.State.LazyLoadMembers, f.Room.State.IncludeRedundantMembers = true, true
		}},
		{"MESSAGES", func(c *folder, f *filter.Filter) {
			c.only, f.Room.Timeline.Types = "m.room.message", []string{"m.room.message"}
		}},
		{"MESSAGESAFTER", func(c *folder, f *filter.Filter) {
			c.stable, c.only, f.Room.Timeline.Types = true, "m.room.message", []string{"m.room.message"}
		}},
		{"COUNTS", func(c *folder, f *filter.Filter) { // it sees nothing of what changes its counts
			c.only, f.Room.Timeline.Types = "m.test", []string{"m.test"}
			c.deaf, f.Room.Ephemeral.Types = true, []string{}
		}},
	}
	var devices []string
	for _, k := range kinds {
		devices = append(devices, k.name)
	}
	h := newHistory(t, seed, devices...)
	rnd := h.rnd
	var clients []*folder
	for _, k := range kinds {
		clients = append(clients, newFolder(h, k.name, k.set))
	}
	workers := []*worker{start(t, h.World, 256<<20), start(t, h.World, 20<<20)}
	one := func(c *folder, settled bool) {
		x := workers[rnd.IntN(2)]
		full := rnd.IntN(12) == 0
		if settled {
			x.settled(t, h.World)
		}
		q := c.request(full)
		if rnd.IntN(4) == 0 { // an answer that is lost
			y := workers[rnd.IntN(2)]
			lost := y.syncAll(t, q)
			if settled && x == y {
				again := x.syncAll(t, q)
				require.ElementsMatch(t, slices.Collect(maps.Keys(lost.Rooms.Join)), slices.Collect(maps.Keys(again.Rooms.Join)), "the same since")
				for r, room := range lost.Rooms.Join {
					require.Equal(t, room.UnreadJSON, again.Rooms.Join[r].UnreadJSON)
					require.Equal(t, room.Timeline.Limited, again.Rooms.Join[r].Timeline.Limited)
					require.Len(t, again.Rooms.Join[r].Timeline.Events, len(room.Timeline.Events))
				}
			}
		}
		a := x.syncAll(t, q)
		c.fold(t, a, full)
		if settled {
			c.checkTold(t, a)
			c.check(t, x.follower.Positions().Positions)
		}
	}
	for step := range steps {
		h.deed()
		switch rnd.IntN(40) {
		case 0:
			workers[rnd.IntN(2)] = start(t, h.World, 256<<20)
		case 1:
			h.restart()
		case 2, 3, 4:
			workers[rnd.IntN(2)].Squeeze()
		}
		for i, c := range clients {
			if rnd.IntN(4+3*i) == 0 {
				t.Logf("step %d: %s", step, c.name)
				one(c, rnd.IntN(4) > 0)
			}
		}
	}
	for _, c := range clients {
		t.Log("last: ", c.name)
		one(c, true)
	}
}
