// Package visibility says who may see an event, and whether a redaction takes effect: the
// specification's rules as pure functions over what the caller looked up.
//
// Guarantees: pure, without state, safe for concurrent use; what is unknown or malformed is treated as
// the specification says, and where it says nothing, as not visible.
//
// Imported by everything but infra/; imports matrix/*.
package visibility

import (
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// A History is a room's history visibility. The zero value is Shared, which holds where none is set.
type History uint8

// The history visibilities.
const (
	Shared History = iota
	WorldReadable
	Invited
	Joined
)

// ParseHistory reads a history_visibility; what is not understood is Shared.
func ParseHistory(s string) History {
	switch s {
	case "world_readable":
		return WorldReadable
	case "invited":
		return Invited
	case "joined":
		return Joined
	}
	return Shared
}

// HistoryOf reads the visibility that an m.room.history_visibility event sets; nil is none.
func HistoryOf(e *event.Event) History {
	if e == nil {
		return Shared
	}
	s, _ := canonjson.GetString(e.Content(), "history_visibility")
	return ParseHistory(s)
}

// String returns the visibility as it is written in events.
func (h History) String() string {
	switch h {
	case WorldReadable:
		return "world_readable"
	case Invited:
		return "invited"
	case Joined:
		return "joined"
	default:
		return "shared"
	}
}

// A View is the room's state at an event, as far as one reader's sight of it depends on it.
type View struct {
	History History
	// Membership is the reader's, empty if there is none.
	Membership string
}

// A Reader is what of a reader does not depend on the event alone.
type Reader struct {
	User id.UserID
	// JoinedAfter: the reader has joined the room at any point after the event was sent.
	JoinedAfter bool
}

// Allows applies rules 1 to 5 to the state at an event.
func (v View) Allows(joinedAfter bool) bool {
	switch {
	case v.History == WorldReadable: // rule 1
		return true
	case v.Membership == event.Join: // rule 2
		return true
	case v.History == Shared && joinedAfter: // rule 3
		return true
	case v.History == Invited && v.Membership == event.Invite: // rule 4
		return true
	}
	return false // rule 5
}

// CanSee tells whether a reader may see an event. before and after are the state around it; for all
// events but the two named below they are the same, and only after counts.
//
// A change of history visibility is visible if the value before or after it would allow so; so is the
// reader's own member event, with the membership before or after it.
func CanSee(e *event.Event, r Reader, before, after View) bool {
	if after.Allows(r.JoinedAfter) {
		return true
	}
	switch {
	case e.Is(event.TypeHistoryVisibility, ""):
		return View{before.History, after.Membership}.Allows(r.JoinedAfter)
	case e.Is(event.TypeMember, string(r.User)):
		return View{after.History, before.Membership}.Allows(r.JoinedAfter)
	}
	return false
}

// ServerView is the room's state at an event, as far as one server's sight of it depends on it.
type ServerView struct {
	History History
	// Joined and Invited: a user of the server was so at the event.
	Joined, Invited bool
}

// Allows tells whether a server that is in the room now may be given the event. With Shared it may,
// since its users can read all of it.
func (v ServerView) Allows() bool {
	switch v.History {
	case WorldReadable, Shared:
		return true
	case Invited:
		return v.Joined || v.Invited
	default:
		return v.Joined
	}
}
