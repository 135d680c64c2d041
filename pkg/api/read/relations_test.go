package read_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

var (
	alice = roomtest.User("alice")
	bob   = roomtest.User("bob")
	carol = roomtest.User("carol")
	troll = roomtest.User("troll")
	dave  = roomtest.User("dave")
)

func in(r id.RoomID, rest string, args ...any) string {
	return "/v1/rooms/" + url.PathEscape(string(r)) + fmt.Sprintf(rest, args...)
}

func in3(r id.RoomID, rest string, args ...any) string {
	return "/v3/rooms/" + url.PathEscape(string(r)) + fmt.Sprintf(rest, args...)
}

func (s *stack) event(user id.UserID, r id.RoomID, e id.EventID) shown {
	s.T.Helper()
	return ok[shown](s, user, in3(r, "/event/%s", e))
}

func TestBundledAggregations(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob, carol)
	r := s.Room(alice, roomver.Default)
	s.Join(r, bob, carol, troll)
	root := s.Send(r, alice, "root")
	s.Relate(r, alice, "m.replace", root, "first edit")
	edit := s.Relate(r, alice, "m.replace", root, "second edit")
	s.Relate(r, bob, "m.replace", root, "not mine to edit")
	s.Do(&room.Send{Room: r, By: roomtest.As(alice), Type: "m.sticker", Content: roomtest.Relating("m.replace", root, "another type")})
	s.Relate(r, alice, "m.replace", edit, "an edit of an edit")
	s.Do(roomtest.Reaction(r, bob, root, "+1"))
	ref1 := s.Relate(r, bob, "m.reference", root, "see")
	ref2 := s.Relate(r, troll, "m.reference", root, "see too")
	s.Relate(r, bob, "m.thread", root, "in the thread")
	latest := s.Relate(r, bob, "m.thread", root, "also")
	latestEdit := s.Relate(r, bob, "m.replace", latest, "also this")
	latestRef := s.Relate(r, alice, "m.reference", latest, "see this")
	trolled := s.Relate(r, troll, "m.thread", root, "look at me")
	name := s.State(r, alice, "m.room.name", "", `{"name":"x"}`)
	s.Relate(r, alice, "m.reference", name, "state events get nothing")

	check := func(e shown, user id.UserID, ignoring bool) {
		t.Helper()
		got := e.Unsigned.Relations
		require.NotNil(t, got)
		require.Equal(t, "root", e.Content["body"], "the content is left alone")
		require.Equal(t, edit, got.Replace.ID)
		require.Equal(t, r, got.Replace.Room)
		require.Equal(t, "second edit", got.Replace.Content["body"])
		require.Nil(t, got.Annotation)
		require.Equal(t, user != carol, got.Thread.Participated)
		if ignoring {
			require.Equal(t, []id.EventID{ref1}, got.references())
			require.Equal(t, 2, got.Thread.Count)
			require.Equal(t, latest, got.Thread.Latest.ID)
			inner := got.Thread.Latest.Unsigned.Relations
			require.Equal(t, latestEdit, inner.Replace.ID)
			require.Equal(t, []id.EventID{latestRef}, inner.references())
			require.Nil(t, inner.Thread)
			return
		}
		require.Equal(t, []id.EventID{ref1, ref2}, got.references())
		require.Equal(t, 3, got.Thread.Count)
		require.Equal(t, trolled, got.Thread.Latest.ID)
		require.Nil(t, got.Thread.Latest.Unsigned.Relations)
	}
	everywhere := func(user id.UserID, ignoring bool) {
		t.Helper()
		check(s.event(user, r, root), user, ignoring)
		found := func(list []shown) shown {
			t.Helper()
			i := slices.IndexFunc(list, func(e shown) bool { return e.ID == root })
			require.GreaterOrEqual(t, i, 0)
			return list[i]
		}
		check(found(ok[page](s, user, in3(r, "/messages?dir=b&limit=100")).Chunk), user, ignoring)
		check(found(ok[page](s, user, in3(r, "/messages?dir=f&limit=100")).Chunk), user, ignoring)
		check(found(ok[page](s, user, in(r, "/threads")).Chunk), user, ignoring)
		around := ok[struct {
			Event  shown   `json:"event"`
			Before []shown `json:"events_before"`
			After  []shown `json:"events_after"`
		}](s, user, in3(r, "/context/%s?limit=100", root))
		check(around.Event, user, ignoring)
		check(found(ok[struct {
			Before []shown `json:"events_before"`
		}](s, user, in3(r, "/context/%s?limit=100", latest)).Before), user, ignoring)
		children := ok[page](s, user, in(r, "/relations/%s/m.thread", root))
		i := slices.Index(children.ids(), latest)
		require.Equal(t, latestEdit, children.Chunk[i].Unsigned.Relations.Replace.ID)
	}
	everywhere(alice, false)
	everywhere(carol, false)
	s.ignore(bob, troll)
	s.ignore(carol, troll)
	everywhere(bob, true)
	everywhere(carol, true)

	require.Nil(t, s.event(alice, r, name).Unsigned.Relations)
	require.Nil(t, s.event(alice, r, edit).Unsigned.Relations, "an edit is not edited")
	require.Nil(t, s.event(alice, r, ref2).Unsigned.Relations)

	// What is redacted falls out, one by one.
	s.Redact(r, alice, trolled)
	s.Redact(r, alice, ref2)
	s.Redact(r, alice, edit)
	got := s.event(alice, r, root).Unsigned.Relations
	require.Equal(t, latest, got.Thread.Latest.ID)
	require.Equal(t, 2, got.Thread.Count)
	require.Equal(t, []id.EventID{ref1}, got.references())
	require.Equal(t, "first edit", got.Replace.Content["body"])
	s.Redact(r, alice, root)
	got = s.event(alice, r, root).Unsigned.Relations
	require.Nil(t, got.Replace, "what was redacted has no edits")
	require.Equal(t, 2, got.Thread.Count)
	require.Equal(t, []id.EventID{ref1}, got.references())
}

// Of several edits the one with the latest timestamp holds, of those with the same the one with the greatest id.
func TestWhichEditHolds(t *testing.T) {
	s := newStack(t)
	s.users(alice)
	r := s.Room(alice, roomver.Default)
	for range 8 {
		root := s.Send(r, alice, "root")
		at := func(ts int64, text string) id.EventID {
			return s.Do(&room.Send{
				Room: r, By: room.Origin{User: alice, TS: ts}, Type: "m.room.message", Content: roomtest.Relating("m.replace", root, text),
			}).Event
		}
		same := []id.EventID{at(1000, "a"), at(1000, "b"), at(1000, "c")}
		at(999, "d")
		require.Equal(t, slices.Max(same), s.event(alice, r, root).Unsigned.Relations.Replace.ID)
	}
	secret := s.Do(&room.Send{Room: r, By: roomtest.As(alice), Type: "m.room.encrypted", Content: []byte(`{"ciphertext":"x"}`)}).Event
	edit := s.Do(&room.Send{
		Room: r, By: roomtest.As(alice), Type: "m.room.encrypted",
		Content: fmt.Appendf(nil, `{"ciphertext":"y","m.relates_to":{"rel_type":"m.replace","event_id":%q}}`, secret),
	}).Event
	require.Equal(t, edit, s.event(alice, r, secret).Unsigned.Relations.Replace.ID)
}

func TestRelations(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob, carol)
	r := s.Room(alice, roomver.Default)
	s.Join(r, bob)
	root := s.Send(r, alice, "root")
	var all []id.EventID // the latest first
	push := func(e id.EventID) id.EventID { all = append([]id.EventID{e}, all...); return e }
	thread := push(s.Relate(r, alice, "m.thread", root, "1"))
	sticker := push(s.Do(&room.Send{Room: r, By: roomtest.As(bob), Type: "m.sticker", Content: roomtest.Relating("m.thread", root, "2")}).Event)
	edit := push(s.Relate(r, alice, "m.replace", root, "3"))
	reaction := push(s.Do(roomtest.Reaction(r, bob, root, "+1")).Event)
	other := push(s.Relate(r, bob, "org.example/x", root, "4"))
	gone := s.Relate(r, bob, "m.thread", root, "5")
	s.Redact(r, bob, gone)

	list := func(user id.UserID, rest string, args ...any) page {
		t.Helper()
		return ok[page](s, user, in(r, "/relations/%s%s", root, fmt.Sprintf(rest, args...)))
	}
	got := list(bob, "")
	require.Equal(t, all, got.ids())
	require.Empty(t, got.Next)
	require.Empty(t, got.Prev)
	require.Nil(t, got.Depth)
	require.Equal(t, []id.EventID{sticker, thread}, list(bob, "/m.thread").ids())
	require.Equal(t, []id.EventID{thread}, list(bob, "/m.thread/m.room.message").ids())
	require.Equal(t, []id.EventID{other}, list(bob, "/org.example%%2Fx").ids())
	require.Equal(t, []id.EventID{reaction}, list(bob, "/m.annotation/m.reaction").ids())
	require.Equal(t, []id.EventID{}, list(bob, "/m.thread/m.reaction").ids())
	require.Equal(t, []id.EventID{}, list(bob, "/m.nothing").ids())
	require.Equal(t, []id.EventID{}, list(bob, "/m.thread/m.nothing").ids())
	require.Equal(t, []id.EventID{edit}, list(bob, "/m.replace").ids())
	unstable := ok[page](s, bob, strings.Replace(in(r, "/relations/%s", root), "/v1/", "/unstable/", 1))
	require.Equal(t, all, unstable.ids())

	// Pages, in both directions, come to the same.
	for _, dir := range []string{"b", "f"} {
		var pages []id.EventID
		from := ""
		for {
			got := list(bob, "?limit=2&dir=%s&from=%s", dir, from)
			require.Equal(t, from, got.Prev)
			require.LessOrEqual(t, len(got.Chunk), 2)
			pages = append(pages, got.ids()...)
			if from = got.Next; from == "" {
				break
			}
		}
		if dir == "f" {
			slices.Reverse(pages)
		}
		require.Equal(t, all, pages)
	}
	first := list(bob, "?limit=2")
	second := list(bob, "?limit=2&from=%s", first.Next)
	require.Equal(t, second.ids(), list(bob, "?from=%s&to=%s", first.Next, second.Next).ids())
	require.Empty(t, list(bob, "?from=%s&to=%s", second.Next, first.Next).ids(), "to lies the other way")
	require.Empty(t, list(bob, "?limit=0").ids())
	require.NotEmpty(t, list(bob, "?limit=0").Next)
	// Tokens of /messages and of /sync are places too.
	messages := ok[page](s, bob, in3(r, "/messages?dir=b&limit=3")) // redaction, gone, other
	require.Equal(t, all[1:], list(bob, "?from=%s", messages.End).ids())
	positions := make([]int64, s.Shards.Count())
	rows, err := s.DB.Pool.Query(s.Ctx(), `SELECT shard, max(pos) FROM log GROUP BY shard`)
	require.NoError(t, err)
	for rows.Next() {
		var of int16
		var pos int64
		require.NoError(t, rows.Scan(&of, &pos))
		positions[of] = pos
	}
	sync := syncToken(positions)
	require.Equal(t, all, list(bob, "?from=%s", sync).ids())
	late := s.Relate(r, alice, "m.reference", root, "late")
	require.Equal(t, []id.EventID{late}, list(bob, "?dir=f&from=%s", sync).ids())
	require.Equal(t, all, list(bob, "?from=%s", sync).ids())

	s.ignore(alice, bob)
	require.Equal(t, []id.EventID{late, edit, thread}, list(alice, "").ids())

	// What cannot be seen is not there, whatever the reason.
	for _, path := range []string{
		in(r, "/relations/$unknown"), in("!nowhere:heddle.test", "/relations/%s", root), in(r, "/relations/$unknown/m.thread"),
		in(r, "/relations/$unknown/m.thread/m.room.message"),
	} {
		s.refused(bob, path, 404, "M_NOT_FOUND")
	}
	private := s.Create(room.CreateRoom{Creator: roomtest.As(alice), Preset: room.PresetPrivate})
	hidden := s.Send(private, alice, "hidden")
	s.Relate(private, alice, "m.thread", hidden, "hidden")
	s.refused(carol, in(private, "/relations/%s", hidden), 404, "M_NOT_FOUND")
	s.refused(bob, in(r, "/relations/%s", hidden), 404, "M_NOT_FOUND")
	s.refused("", in(r, "/relations/%s", root), 401, "M_MISSING_TOKEN")
	for _, bad := range []string{
		"?dir=x", "?limit=x", "?limit=-1", "?from=x", "?to=!!", "?recurse=perhaps", "?from=" + strings.Repeat("A", 20_000),
	} {
		s.refused(bob, in(r, "/relations/%s%s", root, bad), 400, "M_INVALID_PARAM")
	}
	s.refused(bob, in(r, "/relations/nothing"), 400, "M_INVALID_PARAM")
}

func syncToken(positions []int64) string {
	t := token.Sync{}
	for _, p := range positions {
		t.Positions = append(t.Positions, shard.Pos(p))
	}
	return t.Encode()
}

func TestRecursion(t *testing.T) {
	s := newStack(t)
	s.users(alice)
	r := s.Room(alice, roomver.Default)
	root := s.Send(r, alice, "root")
	thread := s.Relate(r, alice, "m.thread", root, "1")
	edit := s.Relate(r, alice, "m.replace", thread, "2")
	reaction := s.Do(roomtest.Reaction(r, alice, edit, "+1")).Event
	s.Do(roomtest.Reaction(r, alice, reaction, "too far"))
	inner := s.Do(roomtest.Reaction(r, alice, thread, "-1")).Event
	gone := s.Relate(r, alice, "m.reference", root, "gone")
	s.Relate(r, alice, "m.reference", gone, "an orphan")
	s.Redact(r, alice, gone)
	list := func(rest string, args ...any) page {
		t.Helper()
		return ok[page](s, alice, in(r, "/relations/%s%s", root, fmt.Sprintf(rest, args...)))
	}
	got := list("?recurse=true")
	require.Equal(t, []id.EventID{inner, reaction, edit, thread}, got.ids())
	require.Equal(t, 3, *got.Depth)
	require.Equal(t, []id.EventID{thread, edit, reaction, inner}, list("?recurse=true&dir=f").ids())
	require.Equal(t, []id.EventID{inner, reaction, edit, thread}, list("?org.matrix.msc3981.recurse=true").ids())
	require.Equal(t, []id.EventID{thread}, list("?recurse=false").ids())
	require.Equal(t, 1, *list("?recurse=false").Depth)
	// Every generation has to pass.
	require.Equal(t, []id.EventID{thread}, list("/m.thread?recurse=true").ids())
	require.Equal(t, []id.EventID{edit, thread}, ok[page](s, alice, in(r, "/relations/%s?recurse=true&from=%s", root, list("?recurse=true&limit=2").Next)).ids())
	require.Equal(t, edit, got.Chunk[3].Unsigned.Relations.Replace.ID)
	var pages []id.EventID
	for from := ""; ; {
		p := list("?recurse=true&limit=1&from=%s", from)
		pages = append(pages, p.ids()...)
		if from = p.Next; from == "" {
			break
		}
	}
	require.Equal(t, got.ids(), pages)
}

func TestThreads(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob, carol)
	r := s.Room(alice, roomver.Default)
	s.Join(r, bob, troll)
	require.Empty(t, ok[page](s, bob, in(r, "/threads")).ids())
	var roots []id.EventID
	for i := range 4 {
		roots = append(roots, s.Send(r, alice, fmt.Sprint(i)))
	}
	byTroll := s.Send(r, troll, "by troll")
	say := func(by id.UserID, root id.EventID) id.EventID { return s.Relate(r, by, "m.thread", root, "x") }
	say(alice, roots[0])
	say(alice, roots[1])
	say(bob, roots[2])
	say(troll, roots[3])
	say(alice, byTroll)
	say(alice, "$elsewhere")
	bump := say(troll, roots[0])
	list := func(user id.UserID, rest string, args ...any) page {
		t.Helper()
		return ok[page](s, user, in(r, "/threads%s", fmt.Sprintf(rest, args...)))
	}
	all := []id.EventID{roots[0], byTroll, roots[3], roots[2], roots[1]}
	got := list(bob, "")
	require.Equal(t, all, got.ids())
	require.Empty(t, got.Next)
	require.Equal(t, bump, got.Chunk[0].Unsigned.Relations.Thread.Latest.ID)
	require.Equal(t, all, list(bob, "?include=all").ids())
	require.Equal(t, []id.EventID{roots[2]}, list(bob, "?include=participated").ids())
	require.Equal(t, all, list(alice, "?include=participated").ids(), "who began it takes part")
	for _, limit := range []int{1, 2, 3} {
		var pages []id.EventID
		for from := ""; ; {
			p := list(bob, "?limit=%d&from=%s", limit, from)
			pages = append(pages, p.ids()...)
			if from = p.Next; from == "" {
				break
			}
		}
		require.Equal(t, all, pages)
	}

	// Nothing of an ignored user counts, but for the beginning of somebody else's thread.
	s.ignore(bob, troll)
	got = list(bob, "")
	require.Equal(t, []id.EventID{byTroll, roots[2], roots[1], roots[0]}, got.ids())
	require.Empty(t, got.Chunk[0].Content, "shown as if it was redacted")
	require.Equal(t, 1, got.Chunk[3].Unsigned.Relations.Thread.Count)

	// What is redacted counts for nothing.
	s.Redact(r, alice, bump)
	require.Equal(t, []id.EventID{byTroll, roots[3], roots[2], roots[1], roots[0]}, list(alice, "").ids())

	// One who has left sees the threads as they were.
	s.Membership(r, bob, bob, room.ActionLeave)
	say(alice, roots[1])
	late := s.Send(r, alice, "late")
	say(alice, late)
	got = list(bob, "")
	require.Equal(t, []id.EventID{byTroll, roots[2], roots[1], roots[0]}, got.ids())
	require.Equal(t, 1, got.Chunk[2].Unsigned.Relations.Thread.Count)
	require.Equal(t, []id.EventID{roots[2]}, list(bob, "?include=participated").ids())
	require.Equal(t, []id.EventID{roots[2], roots[1]}, list(bob, "?limit=2&from=%s", list(bob, "?limit=1").Next).ids())

	s.refused(carol, in(r, "/threads"), 403, "M_FORBIDDEN")
	s.refused(alice, in("!nowhere:heddle.test", "/threads"), 403, "M_FORBIDDEN")
	s.refused("", in(r, "/threads"), 401, "M_MISSING_TOKEN")
	for _, bad := range []string{"?include=some", "?limit=0", "?limit=-1", "?limit=x", "?from=x"} {
		s.refused(alice, in(r, "/threads%s", bad), 400, "M_INVALID_PARAM")
	}
	// One who is banned sees them as they were, too.
	s.users(troll)
	s.Membership(r, alice, troll, room.ActionBan)
	later := s.Send(r, alice, "later")
	say(alice, later)
	require.Equal(t, late, list(troll, "").Chunk[0].ID)
}

// Relations are told as far as the reader may see them, at each event.
func TestRelationsKeepHistoryVisibility(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob, carol)
	r := s.Room(alice, roomver.Default)
	s.Join(r, bob)
	root := s.Send(r, alice, "root")
	shown1 := s.Relate(r, alice, "m.thread", root, "shared")
	edit1 := s.Relate(r, alice, "m.replace", root, "shared")
	ref1 := s.Relate(r, alice, "m.reference", root, "shared")
	s.State(r, alice, "m.room.history_visibility", "", `{"history_visibility":"joined"}`)
	between := []id.EventID{
		s.Relate(r, alice, "m.thread", root, "between"), s.Relate(r, alice, "m.replace", root, "between"),
		s.Relate(r, alice, "m.reference", root, "between"),
	}
	hiddenRoot := s.Send(r, alice, "hidden root")
	s.Relate(r, alice, "m.thread", hiddenRoot, "hidden")
	told := func(user id.UserID) (latest, edit id.EventID, count int, references []id.EventID) {
		got := s.event(user, r, root).Unsigned.Relations
		return got.Thread.Latest.ID, got.Replace.ID, got.Thread.Count, got.references()
	}
	s.Join(r, carol)
	latest, edit, count, references := told(carol)
	require.Equal(t, shown1, latest)
	require.Equal(t, edit1, edit)
	require.Equal(t, 1, count)
	require.Equal(t, []id.EventID{ref1}, references)
	require.Equal(t, []id.EventID{ref1, edit1, shown1}, ok[page](s, carol, in(r, "/relations/%s", root)).ids())
	require.Equal(t, []id.EventID{root}, ok[page](s, carol, in(r, "/threads")).ids())
	s.refused(carol, in(r, "/relations/%s", hiddenRoot), 404, "M_NOT_FOUND")

	// What comes while she is there she sees; what comes after bob left, he does not.
	s.Membership(r, bob, bob, room.ActionLeave)
	shown2 := s.Relate(r, alice, "m.thread", root, "after")
	latest, edit, count, references = told(carol)
	require.Equal(t, shown2, latest)
	require.Equal(t, edit1, edit)
	require.Equal(t, 2, count)
	require.Equal(t, []id.EventID{ref1}, references)
	latest, edit, count, references = told(bob)
	require.Equal(t, between[0], latest)
	require.Equal(t, between[1], edit)
	require.Equal(t, 2, count)
	require.Equal(t, []id.EventID{ref1, between[2]}, references)
	require.NotContains(t, ok[page](s, bob, in(r, "/relations/%s", root)).ids(), shown2)

	// Away and back again: the time in between stays dark.
	s.Membership(r, carol, carol, room.ActionLeave)
	dark := s.Relate(r, alice, "m.thread", root, "dark")
	s.Join(r, carol)
	latest, _, count, _ = told(carol)
	require.Equal(t, shown2, latest)
	require.Equal(t, 2, count)
	ids := ok[page](s, carol, in(r, "/relations/%s", root)).ids()
	require.Contains(t, ids, shown2)
	require.NotContains(t, ids, dark)
}

// A page of 100 events with relations of all kinds takes as many queries as one of 10.
func TestRelationsTakeConstantQueries(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob)
	r := s.Room(alice, roomver.Default)
	s.State(r, alice, "m.room.history_visibility", "", `{"history_visibility":"shared"}`)
	first := s.Send(r, alice, "first")
	for i := range 60 {
		e := s.Send(r, alice, fmt.Sprint(i))
		s.Relate(r, alice, "m.replace", e, "edit")
		s.Relate(r, alice, "m.reference", e, "see")
		s.Relate(r, alice, "m.replace", s.Relate(r, alice, "m.thread", e, "thread"), "edit")
		s.Relate(r, alice, "m.replace", s.Relate(r, alice, "m.reference", first, "child"), "edit")
		if i%10 == 0 {
			s.State(r, alice, "m.room.topic", "", fmt.Sprintf(`{"topic":"%d"}`, i))
		}
	}
	s.Join(r, bob)
	for _, user := range []id.UserID{alice, bob} { // one who was there, and one for whom each event has to be looked at
		for _, path := range []string{
			in3(r, "/messages?dir=b&limit=LIMIT"), in3(r, "/messages?dir=f&limit=LIMIT"), in3(r, "/context/%s?limit=LIMIT", first),
			in(r, "/relations/%s?limit=LIMIT", first), in(r, "/relations/%s?recurse=true&limit=LIMIT", first), in(r, "/threads?limit=LIMIT"),
		} {
			s.get(user, strings.Replace(path, "LIMIT", "10", 1)) // the session is looked up
			status, few, fewQueries := s.get(user, strings.Replace(path, "LIMIT", "10", 1))
			require.Equal(t, 200, status, "%s", few)
			_, many, manyQueries := s.get(user, strings.Replace(path, "LIMIT", "100", 1))
			require.Greater(t, len(many), 2*len(few))
			require.Contains(t, string(many), `"m.relations"`)
			require.LessOrEqual(t, manyQueries, fewQueries+1, "%s", path) // a chain of states may have one link or more
			require.LessOrEqual(t, manyQueries, int64(40), path)
			t.Logf("%s: %s: %d queries", user, path, manyQueries)
		}
	}
}

func TestRelatedByFilter(t *testing.T) {
	s := newStack(t)
	s.users(alice)
	r := s.Room(alice, roomver.Default)
	s.Join(r, bob)
	root := s.Send(r, alice, "root")
	s.Relate(r, alice, "m.thread", root, "x")
	seen := s.Send(r, alice, "seen")
	s.Relate(r, bob, "m.reference", seen, "x")
	list := func(filter string) []id.EventID {
		t.Helper()
		return ok[page](s, alice, in3(r, "/messages?dir=f&limit=100&filter=%s", url.QueryEscape(filter))).ids()
	}
	require.Equal(t, []id.EventID{root}, list(`{"related_by_rel_types":["m.thread"]}`))
	require.Equal(t, []id.EventID{root, seen}, list(`{"related_by_rel_types":["m.thread","m.reference"]}`))
	require.Equal(t, []id.EventID{seen}, list(`{"related_by_senders":["@bob:heddle.test"]}`))
	require.Empty(t, list(`{"related_by_senders":["@bob:heddle.test"],"related_by_rel_types":["m.thread"]}`))
	require.Empty(t, list(`{"related_by_rel_types":["m.nothing"]}`))
}

func TestMutualRooms(t *testing.T) {
	s := newStack(t)
	s.users(alice, bob, carol)
	type answer struct {
		Joined   []id.RoomID `json:"joined"`
		Count    *int        `json:"count"`
		Next     string      `json:"next_batch"`
		Unstable string      `json:"next_batch_token"`
	}
	ask := func(user, other id.UserID) []id.RoomID {
		t.Helper()
		a := ok[answer](s, user, "/v1/mutual_rooms?user_id="+url.QueryEscape(string(other)))
		require.NotNil(t, a.Joined)
		require.Equal(t, len(a.Joined), *a.Count)
		require.Empty(t, a.Next)
		return a.Joined
	}
	require.Empty(t, ask(alice, bob))
	one, two, three := s.Room(alice, roomver.Default), s.Room(alice, roomver.Default), s.Room(alice, roomver.Default)
	s.Join(one, bob)
	s.Join(two, bob, carol)
	s.Membership(three, alice, bob, room.ActionInvite)
	require.ElementsMatch(t, []id.RoomID{one, two}, ask(alice, bob))
	require.ElementsMatch(t, []id.RoomID{one, two}, ask(bob, alice))
	require.Equal(t, []id.RoomID{two}, ask(carol, bob))
	require.Empty(t, ask(alice, "@nobody:elsewhere.example"))
	s.Membership(two, bob, bob, room.ActionLeave)
	require.Equal(t, []id.RoomID{one}, ask(alice, bob))
	for _, path := range []string{"/unstable/uk.half-shot.msc2666/user/mutual_rooms", "/unstable/mutual_rooms"} {
		require.Equal(t, []id.RoomID{one}, ok[answer](s, alice, path+"?user_id=@bob:heddle.test").Joined)
	}

	s.refused(alice, "/v1/mutual_rooms", 400, "M_MISSING_PARAM")
	s.refused(alice, "/v1/mutual_rooms?user_id=bob", 400, "M_INVALID_PARAM")
	s.refused(alice, "/v1/mutual_rooms?user_id=@alice:heddle.test", 400, "M_INVALID_PARAM")
	s.refused(alice, "/v1/mutual_rooms?user_id=@bob:heddle.test&from=x", 400, "M_INVALID_PARAM")
	s.refused("", "/v1/mutual_rooms?user_id=@bob:heddle.test", 401, "M_MISSING_TOKEN")

	// Many rooms are told in pages. How they came to be does not matter here.
	s.Exec(`INSERT INTO room (nid, shard, room_id, version, pos) SELECT (n << 8) + 1, 1, '!' || n || ':heddle.test', '12', 0 FROM generate_series(1000000, 1000600) n`)
	s.Exec(`INSERT INTO member (room_nid, user_id, membership, event_nid, pos, local)
		SELECT r.nid, u.name, 4, 0, 0, true FROM room r, unnest(ARRAY['@alice:heddle.test', '@bob:heddle.test']) u (name) WHERE r.pos = 0`)
	seen := map[id.RoomID]bool{}
	for from := ""; ; {
		a := ok[answer](s, alice, "/v1/mutual_rooms?user_id=@bob:heddle.test&from="+from)
		require.Equal(t, 602, *a.Count)
		require.Equal(t, a.Next, a.Unstable)
		for _, r := range a.Joined {
			require.False(t, seen[r])
			seen[r] = true
		}
		if from = a.Next; from == "" {
			break
		}
	}
	require.Len(t, seen, 602)
}
