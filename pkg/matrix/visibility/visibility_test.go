package visibility_test

import (
	"crypto/sha256"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/matrix/visibility"
)

func build(t *testing.T, version roomver.Version, p event.Proto) *event.Event {
	t.Helper()
	seed := sha256.Sum256(nil)
	key, err := signing.NewKey("ed25519:a", seed[:])
	require.NoError(t, err)
	p.EventID = id.EventID("$" + p.Type + ":" + string(p.Sender.Server()))
	if p.RoomID == "" {
		p.RoomID = "!r:example.org"
	}
	e, err := event.Build(roomver.MustGet(version), &p, p.Sender.Server(), key)
	require.NoError(t, err)
	return e
}

// Every combination, against the five rules as they are written.
func TestRules(t *testing.T) {
	memberships := []string{"", "join", "invite", "leave", "ban", "knock"}
	visible := map[visibility.History]map[bool]string{ // joined after → one digit a membership
		visibility.WorldReadable: {false: "111111", true: "111111"},
		visibility.Shared:        {false: "010000", true: "111111"},
		visibility.Invited:       {false: "011000", true: "011000"},
		visibility.Joined:        {false: "010000", true: "010000"},
	}
	message := build(t, "11", event.Proto{Type: "m.room.message", Sender: "@a:example.org"})
	for history, byJoined := range visible {
		for joined, digits := range byJoined {
			for i, m := range memberships {
				view := visibility.View{history, m}
				want := digits[i] == '1'
				require.Equal(t, want, view.Allows(joined), "%s %q joined after %v", history, m, joined)
				// For a message the state before it does not count.
				require.Equal(t, want, visibility.CanSee(message, visibility.Reader{"@r:example.org", joined}, visibility.View{visibility.WorldReadable, "join"}, view))
			}
		}
		require.Equal(t, history, visibility.ParseHistory(history.String()))
	}
	require.Equal(t, visibility.Shared, visibility.ParseHistory("nonsense"))
	require.Equal(t, visibility.Shared, visibility.ParseHistory(""))
	require.Equal(t, visibility.Shared, visibility.HistoryOf(nil))
}

func TestEitherSide(t *testing.T) {
	empty, reader := "", "@r:example.org"
	change := build(t, "11", event.Proto{Type: event.TypeHistoryVisibility, StateKey: &empty, Sender: "@a:example.org", Content: []byte(`{"history_visibility":"joined"}`)})
	require.Equal(t, visibility.Joined, visibility.HistoryOf(change))
	r := visibility.Reader{User: id.UserID(reader)}
	require.True(t, visibility.CanSee(change, r, visibility.View{visibility.WorldReadable, ""}, visibility.View{visibility.Joined, ""}))
	require.True(t, visibility.CanSee(change, r, visibility.View{visibility.Joined, ""}, visibility.View{visibility.WorldReadable, ""}))
	require.False(t, visibility.CanSee(change, r, visibility.View{visibility.Joined, ""}, visibility.View{visibility.Invited, ""}))

	own := build(t, "11", event.Proto{Type: event.TypeMember, StateKey: &reader, Sender: "@a:example.org", Content: []byte(`{"membership":"ban"}`)})
	require.True(t, visibility.CanSee(own, r, visibility.View{visibility.Joined, "join"}, visibility.View{visibility.Joined, "ban"}))
	require.True(t, visibility.CanSee(own, r, visibility.View{visibility.Joined, ""}, visibility.View{visibility.Joined, "join"}))
	require.True(t, visibility.CanSee(own, r, visibility.View{visibility.Invited, "invite"}, visibility.View{visibility.Invited, "leave"}))
	require.False(t, visibility.CanSee(own, r, visibility.View{visibility.Joined, "leave"}, visibility.View{visibility.Joined, "ban"}))
	// Somebody else's member event is like any other.
	require.False(t, visibility.CanSee(own, visibility.Reader{User: "@other:example.org"}, visibility.View{visibility.Joined, "join"}, visibility.View{visibility.Joined, "leave"}))
}

func TestServers(t *testing.T) {
	for _, c := range []struct {
		view visibility.ServerView
		want bool
	}{
		{visibility.ServerView{visibility.Shared, false, false}, true},
		{visibility.ServerView{visibility.WorldReadable, false, false}, true},
		{visibility.ServerView{visibility.Invited, false, false}, false},
		{visibility.ServerView{visibility.Invited, false, true}, true},
		{visibility.ServerView{visibility.Invited, true, false}, true},
		{visibility.ServerView{visibility.Joined, false, true}, false},
		{visibility.ServerView{visibility.Joined, true, false}, true},
	} {
		require.Equal(t, c.want, c.view.Allows(), "%+v", c.view)
	}
}

func TestRedactionApplies(t *testing.T) {
	target := func(v roomver.Version) *event.Event {
		return build(t, v, event.Proto{Type: "m.room.message", Sender: "@a:example.org"})
	}
	redaction := func(v roomver.Version, sender id.UserID, of id.EventID, room id.RoomID) *event.Event {
		return build(t, v, event.Proto{Type: event.TypeRedaction, Sender: sender, Redacts: of, RoomID: room})
	}
	for _, c := range []struct {
		name    string
		version roomver.Version
		sender  id.UserID
		power   int64
		want    bool
	}{
		{"power", "3", "@mod:other.org", 50, true},
		{"no power, other server", "3", "@b:other.org", 49, false},
		{"no power, same server", "3", "@b:example.org", 0, true},
		{"content.redacts", "11", "@mod:other.org", 50, true},
		{"content.redacts, no power", "11", "@b:other.org", 0, false},
		{"creator", "12", "@c:other.org", math.MaxInt64, true},
		{"decided by auth", "1", "@b:other.org", 0, true},
	} {
		e := target(c.version)
		require.Equal(t, c.want, visibility.RedactionApplies(redaction(c.version, c.sender, e.EventID(), ""), e, c.power, 50), c.name)
		require.False(t, visibility.RedactionApplies(redaction(c.version, c.sender, "$another:x", ""), e, 100, 50), c.name)
		require.False(t, visibility.RedactionApplies(redaction(c.version, c.sender, e.EventID(), "!other:example.org"), e, 100, 50), c.name)
		require.False(t, visibility.RedactionApplies(e, e, 100, 50), c.name)
	}
}
