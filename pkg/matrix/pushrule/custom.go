package pushrule

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The kinds of rules, in the order in which they are asked.
const (
	KindOverride  = "override"
	KindContent   = "content"
	KindRoom      = "room"
	KindSender    = "sender"
	KindUnderride = "underride"
)

// ErrUnknownRule is the error of a change to a rule that is not there.
var ErrUnknownRule = errors.New("the push rule was not found")

// InvalidError is the error of a rule that cannot be: what the client got wrong.
type InvalidError struct{ Problem string }

// Error implements error.
func (e *InvalidError) Error() string { return e.Problem }

func invalid(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

// Custom is what a user has changed of the rules, which is what is stored of them: the predefined rules are not, so that those of a later
// version of the specification reach every user.
type Custom struct {
	// Own are the user's own rules, each kind in the order of priority.
	Own Ruleset `json:"own"`
	// Defaults are the changes to predefined rules, by kind and id with a slash between them.
	Defaults map[string]Change `json:"defaults,omitempty"`
}

// Change is what differs of a predefined rule; nil is no difference.
type Change struct {
	Enabled *bool            `json:"enabled,omitzero"`
	Actions []jsontext.Value `json:"actions,omitzero"`
}

// ParseCustom reads what is stored; nothing is a user who has changed nothing.
func ParseCustom(stored []byte) (*Custom, error) {
	c := new(Custom)
	if len(stored) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(stored, c); err != nil {
		return nil, fmt.Errorf("stored push rules: %w", err)
	}
	return c, nil
}

// Content gives the content of m.push_rules as a client sees it, from what is stored.
func Content(userID string, stored []byte) ([]byte, error) {
	c, err := ParseCustom(stored)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]*Ruleset{"global": c.Rules(userID)})
}

// Rules gives all rules of the user: own ones before the predefined, but for the master rule, which comes before everything.
func (c *Custom) Rules(userID string) *Ruleset {
	s := Defaults(userID)
	for kind, rules := range s.kinds() {
		for i := range *rules {
			r := &(*rules)[i]
			ch := c.Defaults[kind+"/"+r.ID]
			if ch.Enabled != nil {
				r.Enabled = *ch.Enabled
			}
			if ch.Actions != nil {
				r.Actions = ch.Actions
			}
		}
		own, _ := c.Own.Of(kind)
		at := 0
		if kind == KindOverride {
			at = 1
		}
		*rules = slices.Insert(*rules, at, own...)
	}
	return s
}

// kinds gives the lists of a set by kind.
func (s *Ruleset) kinds() map[string]*[]Rule {
	return map[string]*[]Rule{
		KindOverride: &s.Override, KindContent: &s.Content, KindRoom: &s.Room, KindSender: &s.Sender, KindUnderride: &s.Underride,
	}
}

// maxOwn bounds the user's own rules of one kind: a user may have one for each of very many rooms.
const maxOwn = 5000

// Preference is what one user wants to be notified of.
type Preference struct {
	// Rules are the user's push rules; nil: as predefined.
	Rules *Custom
	// Ignored are those whom the user wants to hear nothing of.
	Ignored map[string]bool
}

// Put makes an own rule or replaces one, before or after another own rule of the kind, if one of these is given: before, if both are. Otherwise
// a new rule comes first and an old one stays where it is. A rule that is replaced stays enabled or disabled.
func (c *Custom) Put(kind string, r Rule, before, after string) error {
	rules, ok := c.Own.kinds()[kind]
	if !ok {
		return invalid("unknown kind of push rule")
	}
	if err := check(kind, &r); err != nil {
		return err
	}
	list := slices.Clone(*rules)
	r.Default, r.Enabled = false, true
	at := 0
	if i := indexOf(list, r.ID); i >= 0 {
		r.Enabled, at = list[i].Enabled, i
		list = slices.Delete(list, i, i+1)
	}
	if anchor := cmp.Or(before, after); anchor != "" {
		i := indexOf(list, anchor)
		if i < 0 {
			return invalid("before/after rule not found: %s", anchor)
		}
		if at = i; before == "" {
			at++
		}
	}
	if len(list) >= maxOwn {
		return invalid("there are too many push rules of this kind")
	}
	*rules = slices.Insert(list, at, r)
	return nil
}

// Delete removes an own rule.
func (c *Custom) Delete(kind, ruleID string) error {
	rules, ok := c.Own.kinds()[kind]
	if !ok {
		return ErrUnknownRule
	}
	i := indexOf(*rules, ruleID)
	if i < 0 {
		return ErrUnknownRule
	}
	*rules = slices.Delete(slices.Clone(*rules), i, i+1)
	return nil
}

// SetEnabled enables or disables a rule, own or predefined.
func (c *Custom) SetEnabled(kind, ruleID string, enabled bool) error {
	return c.change(kind, ruleID, func(r *Rule) { r.Enabled = enabled }, func(d *Change) { d.Enabled = &enabled })
}

// SetActions sets what a rule, own or predefined, does.
func (c *Custom) SetActions(kind, ruleID string, actions []jsontext.Value) error {
	if err := checkActions(actions); err != nil {
		return err
	}
	return c.change(kind, ruleID, func(r *Rule) { r.Actions = actions }, func(d *Change) { d.Actions = actions })
}

func (c *Custom) change(kind, ruleID string, own func(*Rule), predefined func(*Change)) error {
	rules, ok := c.Own.kinds()[kind]
	if !ok {
		return ErrUnknownRule
	}
	if i := indexOf(*rules, ruleID); i >= 0 {
		*rules = slices.Clone(*rules)
		own(&(*rules)[i])
		return nil
	}
	if _, ok := Defaults("").Find(kind, ruleID); !ok {
		return ErrUnknownRule
	}
	if c.Defaults == nil {
		c.Defaults = map[string]Change{}
	}
	d := c.Defaults[kind+"/"+ruleID]
	predefined(&d)
	c.Defaults[kind+"/"+ruleID] = d
	return nil
}

func indexOf(rules []Rule, id string) int {
	return slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })
}

const (
	maxID         = 1024
	maxPattern    = 512
	maxConditions = 64
	maxActions    = 16
)

// check refuses an own rule that cannot be.
func check(kind string, r *Rule) error {
	switch {
	case r.ID == "":
		return invalid("the rule has no id")
	case len(r.ID) > maxID:
		return invalid("the rule's id is longer than %d bytes", maxID)
	case r.ID[0] == '.':
		return invalid("ids that begin with a dot are of predefined rules")
	case strings.ContainsAny(r.ID, `/\`):
		return invalid("a rule's id may hold neither / nor \\")
	}
	switch kind {
	case KindOverride, KindUnderride:
		r.Pattern = ""
		if r.Conditions == nil {
			r.Conditions = []Condition{}
		}
		if len(r.Conditions) > maxConditions {
			return invalid("a rule has at most %d conditions", maxConditions)
		}
		for i := range r.Conditions {
			if err := r.Conditions[i].check(); err != nil {
				return err
			}
		}
	case KindContent:
		r.Conditions = nil
		if r.Pattern == "" {
			return invalid("a rule of this kind needs a pattern")
		}
		if len(r.Pattern) > maxPattern {
			return invalid("a pattern is at most %d bytes long", maxPattern)
		}
	default:
		r.Conditions, r.Pattern = nil, ""
	}
	return checkActions(r.Actions)
}

func (c *Condition) check() error {
	switch {
	case c.Kind == "":
		return invalid("a condition has no kind")
	case c.Pattern != nil && len(*c.Pattern) > maxPattern:
		return invalid("a pattern is at most %d bytes long", maxPattern)
	case c.Kind == "event_match" && (c.Key == "" || c.Pattern == nil):
		return invalid("event_match needs key and pattern")
	case (c.Kind == "event_property_is" || c.Kind == "event_property_contains") && (c.Key == "" || len(c.Value) == 0):
		return invalid("%s needs key and value", c.Kind)
	}
	if c.Kind == "room_member_count" {
		if _, ok := parseCount(c.Is); !ok {
			return invalid("room_member_count compares with a number, such as \"==2\"")
		}
	}
	return nil
}

// checkActions refuses actions that are neither texts nor tweaks.
func checkActions(actions []jsontext.Value) error {
	if actions == nil {
		return invalid("a rule needs actions")
	}
	if len(actions) > maxActions {
		return invalid("a rule has at most %d actions", maxActions)
	}
	for _, a := range actions {
		switch a.Kind() {
		case '"':
		case '{':
			var tweak struct {
				SetTweak *string `json:"set_tweak"`
			}
			if err := json.Unmarshal(a, &tweak); err != nil || tweak.SetTweak == nil {
				return invalid("an action that is an object has a member set_tweak")
			}
		default:
			return invalid("an action is a text or an object")
		}
	}
	return nil
}
