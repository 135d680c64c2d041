// Package pushrule holds push rules: their form, and the rules that every user has to begin with (spec: client-server API,
// "Push rules").
//
// The package is pure; a Ruleset is not changed once it was given out. It may be imported by every package above layer 1.
package pushrule

import (
	"github.com/go-json-experiment/json/jsontext"
)

// Rule is one push rule.
type Rule struct {
	ID         string           `json:"rule_id"`
	Default    bool             `json:"default"`
	Enabled    bool             `json:"enabled"`
	Conditions []Condition      `json:"conditions,omitzero"`
	Pattern    string           `json:"pattern,omitempty"`
	Actions    []jsontext.Value `json:"actions"`
}

// Condition is one condition of a rule.
type Condition struct {
	Kind    string         `json:"kind"`
	Key     string         `json:"key,omitempty"`
	Pattern *string        `json:"pattern,omitzero"`
	Is      string         `json:"is,omitempty"`
	Value   jsontext.Value `json:"value,omitzero"` // null and the empty text are values, too
	// Unknown are the members of kinds of conditions that a client may know.
	Unknown jsontext.Value `json:",embed"`
}

// Ruleset is a user's rules, each kind in the order of priority.
type Ruleset struct {
	Override  []Rule `json:"override"`
	Content   []Rule `json:"content"`
	Room      []Rule `json:"room"`
	Sender    []Rule `json:"sender"`
	Underride []Rule `json:"underride"`
}

// Of gives the rules of a kind, and whether there is such a kind.
func (s *Ruleset) Of(kind string) ([]Rule, bool) {
	switch kind {
	case "override":
		return s.Override, true
	case "content":
		return s.Content, true
	case "room":
		return s.Room, true
	case "sender":
		return s.Sender, true
	case "underride":
		return s.Underride, true
	}
	return nil, false
}

// Find gives a rule of a kind by its id.
func (s *Ruleset) Find(kind, ruleID string) (Rule, bool) {
	rules, _ := s.Of(kind)
	for _, r := range rules {
		if r.ID == ruleID {
			return r, true
		}
	}
	return Rule{}, false
}

func match(key, pattern string) Condition {
	return Condition{Kind: "event_match", Key: key, Pattern: &pattern}
}

func is(key, value string) Condition {
	return Condition{Kind: "event_property_is", Key: key, Value: jsontext.Value(value)}
}

func rule(id string, conditions []Condition, actions ...string) Rule {
	r := Rule{ID: id, Default: true, Enabled: true, Conditions: conditions, Actions: []jsontext.Value{}}
	for _, a := range actions {
		r.Actions = append(r.Actions, jsontext.Value(a))
	}
	return r
}

// Defaults gives the rules that the specification predefines, for a user, and those of polls (MSC3930) and for clients that judge encrypted
// events themselves (MSC4028), which is for them to switch on.
func Defaults(userID string) *Ruleset {
	const (
		notify    = `"notify"`
		sound     = `{"set_tweak":"sound","value":"default"}`
		ring      = `{"set_tweak":"sound","value":"ring"}`
		highlight = `{"set_tweak":"highlight"}`
	)
	quoted, _ := jsontext.AppendQuote(nil, userID)
	master := rule(".m.rule.master", []Condition{})
	master.Enabled = false
	encrypted := rule(".org.matrix.msc4028.encrypted_event", []Condition{match("type", "m.room.encrypted")}, notify)
	encrypted.Enabled = false
	one2one := Condition{Kind: "room_member_count", Is: "2"}
	return &Ruleset{
		Override: []Rule{
			master,
			encrypted,
			rule(".m.rule.suppress_notices", []Condition{match("content.msgtype", "m.notice")}),
			rule(".m.rule.invite_for_me", []Condition{
				match("type", "m.room.member"), match("content.membership", "invite"), match("state_key", userID),
			}, notify, sound),
			rule(".m.rule.member_event", []Condition{match("type", "m.room.member")}),
			rule(".m.rule.is_user_mention", []Condition{{
				Kind: "event_property_contains", Key: `content.m\.mentions.user_ids`, Value: quoted,
			}}, notify, sound, highlight),
			rule(".m.rule.is_room_mention", []Condition{
				is(`content.m\.mentions.room`, "true"), {Kind: "sender_notification_permission", Key: "room"},
			}, notify, highlight),
			rule(".m.rule.tombstone", []Condition{match("type", "m.room.tombstone"), match("state_key", "")}, notify, highlight),
			rule(".m.rule.reaction", []Condition{match("type", "m.reaction")}),
			rule(".m.rule.room.server_acl", []Condition{match("type", "m.room.server_acl"), match("state_key", "")}),
			rule(".m.rule.suppress_edits", []Condition{is(`content.m\.relates_to.rel_type`, `"m.replace"`)}),
			rule(".org.matrix.msc3930.rule.poll_response", []Condition{match("type", "org.matrix.msc3381.poll.response")}),
		},
		Content: []Rule{}, Room: []Rule{}, Sender: []Rule{},
		Underride: []Rule{
			rule(".m.rule.call", []Condition{match("type", "m.call.invite")}, notify, ring),
			rule(".m.rule.encrypted_room_one_to_one", []Condition{one2one, match("type", "m.room.encrypted")}, notify, sound),
			rule(".m.rule.room_one_to_one", []Condition{one2one, match("type", "m.room.message")}, notify, sound),
			rule(".m.rule.message", []Condition{match("type", "m.room.message")}, notify),
			rule(".m.rule.encrypted", []Condition{match("type", "m.room.encrypted")}, notify),
			rule(".org.matrix.msc3930.rule.poll_start_one_to_one", []Condition{one2one, match("type", "org.matrix.msc3381.poll.start")}, notify, sound),
			rule(".org.matrix.msc3930.rule.poll_start", []Condition{match("type", "org.matrix.msc3381.poll.start")}, notify),
			rule(".org.matrix.msc3930.rule.poll_end_one_to_one", []Condition{one2one, match("type", "org.matrix.msc3381.poll.end")}, notify, sound),
			rule(".org.matrix.msc3930.rule.poll_end", []Condition{match("type", "org.matrix.msc3381.poll.end")}, notify),
		},
	}
}
