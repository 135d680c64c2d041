package pushrule

import (
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
)

// Me stands in a rule set for whoever is asked about, so that users who have set the same share one compiled set: see
// [Custom.InRoom] and Circumstances.UserID. It is no user id, and what a rule compares with can be it only on purpose.
const Me = "\x00"

// quotedMe is Me as JSON.
const quotedMe = `"\u0000"`

// InRoom gives the rules as far as they can matter in a room, with [Me] in the place of the user. Sets with the same key are the same;
// the key of the predefined rules is empty.
func (c *Custom) InRoom(roomID string) (rules *Ruleset, key string) {
	left := Custom{Defaults: c.Defaults}
	for kind, own := range c.Own.kinds() {
		kept := left.Own.kinds()[kind]
		for i := range *own {
			if r := &(*own)[i]; r.Enabled && r.possibleIn(kind, roomID) {
				*kept = append(*kept, *r)
			}
		}
	}
	if !left.empty() {
		b, err := json.Marshal(&left, json.Deterministic(true))
		if err != nil { // what was read can be written
			return Defaults(Me), ""
		}
		key = string(b)
	}
	return left.Rules(Me), key
}

func (c *Custom) empty() bool {
	for _, rules := range c.Own.kinds() {
		if len(*rules) > 0 {
			return false
		}
	}
	return len(c.Defaults) == 0
}

// possibleIn tells whether a rule of a kind can match in a room.
func (r *Rule) possibleIn(kind, roomID string) bool {
	if kind == KindRoom {
		return r.ID == roomID
	}
	return !slices.ContainsFunc(r.Conditions, func(c Condition) bool {
		return c.Kind == "event_match" && c.Key == "room_id" && c.Pattern != nil && !newGlob(*c.Pattern).whole(roomID)
	})
}

// LooksAtName tells whether a rule looks at the user's display name.
func (s *Ruleset) LooksAtName() bool {
	for _, rules := range s.kinds() {
		for i := range *rules {
			if slices.ContainsFunc((*rules)[i].Conditions, func(c Condition) bool { return c.Kind == "contains_display_name" }) {
				return true
			}
		}
	}
	return false
}

// Parts is what conditions look at of an event.
type Parts struct {
	EventID, RoomID, Sender, Type string
	StateKey                      *string
	Content                       []byte // canonical JSON
}

// Of is [FromParts] for an event of a room.
func Of(room string, e *event.Event) *Event {
	p := Parts{EventID: string(e.EventID()), RoomID: room, Sender: string(e.Sender()), Type: e.Type(), Content: e.Content()}
	if key, ok := e.StateKey(); ok {
		p.StateKey = &key
	}
	return FromParts(p)
}

// FromParts reads an event, once for all who are asked about it. It keeps what it is given, and does not change it.
func FromParts(p Parts) *Event {
	e := &Event{Parts: p}
	e.readBody()
	return e
}

// Mentions gives the users that m.mentions names.
func (e *Event) Mentions() []string {
	list := e.value("content\x00m.mentions\x00user_ids")
	if !canonjson.IsArray(list) {
		return nil
	}
	var users []string
	for it := canonjson.Walk([]byte(list)); it.Next(); {
		if u, ok := canonjson.String(it.Value()); ok && !slices.Contains(users, u) {
			users = append(users, u)
		}
	}
	return users
}

// Names tells whether the body has a name in it, as contains_display_name looks for it.
func (e *Event) Names(name string) bool {
	return name != "" && e.body != "" && literal(name).inBody(e)
}
