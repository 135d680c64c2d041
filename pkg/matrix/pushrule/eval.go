package pushrule

import (
	"bytes"
	"strconv"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// Event is an event as conditions look at it, for all who are asked about it. See [FromParts].
type Event struct {
	Parts
	body string // content.body, if it is a text
	// lower is the body in small letters, in which plain patterns are looked for; empty if that would not find the same.
	lower string
}

// maxDepth is how deep conditions look into an event.
const maxDepth = 20

// value gives what stands at a path, which has NUL between the names; nil if there is nothing, or an object.
func (e *Event) value(path string) jsontext.Value {
	rest, ok := strings.CutPrefix(path, "content\x00")
	if !ok {
		s, ok := e.text(path)
		if !ok {
			return nil
		}
		quoted, err := jsontext.AppendQuote(nil, s)
		if err != nil {
			return nil
		}
		return quoted
	}
	v := e.Content
	for range maxDepth {
		name, next, more := strings.Cut(rest, "\x00")
		v = member(v, name)
		if !more {
			if canonjson.IsObject(v) {
				return nil
			}
			return v
		}
		rest = next
	}
	return nil
}

// member gives a member of an object; nil if it has none, or is no object.
func member(object []byte, name string) []byte {
	if !canonjson.IsObject(object) {
		return nil
	}
	for it := canonjson.Walk(object); it.Next(); {
		if bytes.IndexByte(it.Key(), '\\') < 0 {
			if it.KeyIs(name) {
				return it.Value()
			}
		} else if it.KeyString() == name {
			return it.Value()
		}
	}
	return nil
}

// text gives the text at a path.
func (e *Event) text(path string) (string, bool) {
	switch path {
	case "event_id":
		return e.EventID, true
	case "room_id":
		return e.RoomID, true
	case "sender":
		return e.Sender, true
	case "type":
		return e.Type, true
	case "state_key":
		if e.StateKey == nil {
			return "", false
		}
		return *e.StateKey, true
	}
	if !strings.HasPrefix(path, "content\x00") {
		return "", false
	}
	return canonjson.String(e.value(path))
}

// Circumstances are what a rule can ask of beside the event.
type Circumstances struct {
	// UserID is the reader, for rules that have [Me] in that place; empty is nobody in particular.
	UserID string
	// Members is how many are joined to the room.
	Members int
	// SenderLevel is the sender's power level, and NotificationLevel gives the level that a kind of notification needs.
	SenderLevel       int64
	NotificationLevel func(kind string) int64
	// DisplayName is the reader's in the room; empty if there is none.
	DisplayName string
}

// Outcome is what a user's rules say of an event.
type Outcome struct {
	// Notify: the user is to hear of it, and it counts as unread. Highlight: it is for the user in particular.
	Notify, Highlight bool
	// Sound is the sound to play; empty: none.
	Sound string
	// Rule and Kind are of the rule that matched; empty if none did.
	Kind, Rule string
	// Actions are the rule's, as they were set.
	Actions []jsontext.Value
}

// Compiled is a user's rules made ready to be asked. It is safe for concurrent use.
type Compiled struct{ rules []compiledRule }

type compiledRule struct {
	conditions []test
	outcome    Outcome
}

// test is one condition made ready.
type test func(e *Event, c *Circumstances) bool

// Compile makes rules ready. Rules that are disabled, or can never match, are left out.
func Compile(s *Ruleset) *Compiled {
	c := new(Compiled)
	for _, kind := range []string{KindOverride, KindContent, KindRoom, KindSender, KindUnderride} {
		rules, _ := s.Of(kind)
		for i := range rules {
			r := &rules[i]
			if !r.Enabled {
				continue
			}
			if tests, ok := compileRule(kind, r); ok {
				c.rules = append(c.rules, compiledRule{tests, outcomeOf(kind, r)})
			}
		}
	}
	return c
}

func compileRule(kind string, r *Rule) ([]test, bool) {
	switch kind {
	case KindContent:
		g := newGlob(r.Pattern)
		return []test{func(e *Event, _ *Circumstances) bool { return e.body != "" && g.inBody(e) }}, true
	case KindRoom:
		id := r.ID
		return []test{func(e *Event, _ *Circumstances) bool { return e.RoomID == id }}, true
	case KindSender:
		id := r.ID
		return []test{func(e *Event, _ *Circumstances) bool { return e.Sender == id }}, true
	}
	tests := make([]test, 0, len(r.Conditions))
	for i := range r.Conditions {
		t, ok := r.Conditions[i].compile()
		if !ok {
			return nil, false // an unknown condition never holds (spec: "Conditions")
		}
		tests = append(tests, t)
	}
	return tests, true
}

func (c *Condition) compile() (test, bool) {
	path := pathOf(c.Key)
	switch c.Kind {
	case "event_match":
		if c.Pattern == nil {
			return nil, false
		}
		if *c.Pattern == Me {
			return func(e *Event, a *Circumstances) bool {
				s, ok := e.text(path)
				return ok && s == a.UserID && s != ""
			}, true
		}
		g := newGlob(*c.Pattern)
		if path == "content\x00body" {
			return func(e *Event, _ *Circumstances) bool { return e.body != "" && g.inBody(e) }, true
		}
		return func(e *Event, _ *Circumstances) bool {
			s, ok := e.text(path)
			return ok && g.whole(s)
		}, true
	case "event_property_is":
		want := c.Value
		return func(e *Event, _ *Circumstances) bool { return same(e.value(path), want) }, true
	case "event_property_contains":
		want := c.Value
		if string(want) == quotedMe {
			return func(e *Event, a *Circumstances) bool {
				if a.UserID == "" || e.value(path).Kind() != '[' {
					return false
				}
				quoted, err := jsontext.AppendQuote(nil, a.UserID)
				return err == nil && contains(e.value(path), quoted)
			}, true
		}
		return func(e *Event, _ *Circumstances) bool { return contains(e.value(path), want) }, true
	case "contains_display_name":
		return func(e *Event, a *Circumstances) bool {
			return e.Names(a.DisplayName)
		}, true
	case "room_member_count":
		count, ok := parseCount(c.Is)
		return func(_ *Event, a *Circumstances) bool { return count.holds(a.Members) }, ok
	case "sender_notification_permission":
		key := c.Key
		return func(_ *Event, a *Circumstances) bool {
			return a.NotificationLevel != nil && a.SenderLevel >= a.NotificationLevel(key)
		}, true
	}
	return nil, false
}

func outcomeOf(kind string, r *Rule) Outcome {
	o := Outcome{Kind: kind, Rule: r.ID, Actions: r.Actions}
	for _, a := range r.Actions {
		if a.Kind() == '"' { // dont_notify and coalesce of older versions say nothing (spec: "Historical Actions")
			o.Notify = o.Notify || string(a) == `"notify"`
			continue
		}
		var tweak struct {
			SetTweak string         `json:"set_tweak"`
			Value    jsontext.Value `json:"value"`
		}
		if json.Unmarshal(a, &tweak) != nil {
			continue
		}
		switch tweak.SetTweak {
		case "highlight":
			o.Highlight = string(tweak.Value) != "false"
		case "sound":
			_ = json.Unmarshal(tweak.Value, &o.Sound) // what is no text is no sound
		}
	}
	if !o.Notify {
		o.Highlight, o.Sound = false, ""
	}
	return o
}

// Evaluate tells what the rules say of an event. Whoever sent it hears nothing of it: that is for the caller to know.
func (c *Compiled) Evaluate(e *Event, a *Circumstances) Outcome {
next:
	for i := range c.rules {
		for _, t := range c.rules[i].conditions {
			if !t(e, a) {
				continue next
			}
		}
		return c.rules[i].outcome
	}
	return Outcome{}
}

// pathOf makes a key's path: names between dots, in which a backslash takes a dot or a backslash as it is (spec: "Conditions").
func pathOf(key string) string {
	if strings.IndexByte(key, '\\') < 0 {
		return strings.ReplaceAll(key, ".", "\x00")
	}
	var b strings.Builder
	for i := 0; i < len(key); i++ {
		switch {
		case key[i] == '\\' && i+1 < len(key) && (key[i+1] == '.' || key[i+1] == '\\'):
			i++
			b.WriteByte(key[i])
		case key[i] == '.':
			b.WriteByte(0)
		default:
			b.WriteByte(key[i])
		}
	}
	return b.String()
}

// same compares values that are neither objects nor arrays: texts, whole numbers, booleans and null.
func same(v, want jsontext.Value) bool {
	k := want.Kind()
	if v.Kind() != k {
		return false
	}
	switch k {
	case '"':
		if bytes.Equal(v, want) {
			return true
		}
		a, err1 := jsontext.AppendUnquote(nil, v)
		b, err2 := jsontext.AppendUnquote(nil, want)
		return err1 == nil && err2 == nil && bytes.Equal(a, b)
	case 't', 'f', 'n':
		return true
	case '0':
		a, err1 := strconv.ParseInt(string(v), 10, 64)
		b, err2 := strconv.ParseInt(string(want), 10, 64)
		return err1 == nil && err2 == nil && a == b
	}
	return false
}

func contains(array, want jsontext.Value) bool {
	if array.Kind() != '[' {
		return false
	}
	for it := canonjson.Walk(array); it.Next(); {
		if same(it.Value(), want) {
			return true
		}
	}
	return false
}

// count is the comparison of room_member_count.
type count struct {
	op string
	n  int
}

func parseCount(s string) (count, bool) {
	digits := strings.TrimLeft(s, "<>=")
	c := count{op: s[:len(s)-len(digits)]}
	switch c.op {
	case "", "==", "<", ">", "<=", ">=":
	default:
		return c, false
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	c.n = int(n) //nolint:gosec // 31 bits
	return c, err == nil
}

func (c count) holds(n int) bool {
	switch c.op {
	case "<":
		return n < c.n
	case ">":
		return n > c.n
	case "<=":
		return n <= c.n
	case ">=":
		return n >= c.n
	}
	return n == c.n
}

// glob is a pattern in which * stands for any characters and ? for one, small and capital letters being the same.
type glob struct {
	pattern []rune
	plain   bool   // neither * nor ?
	text    string // the pattern, if it is plain
}

const (
	anyRun rune = -1 // *
	anyOne rune = -2 // ?
)

func newGlob(pattern string) *glob {
	g := &glob{plain: true}
	for _, r := range pattern {
		switch r {
		case '*':
			r, g.plain = anyRun, false
		case '?':
			r, g.plain = anyOne, false
		default:
			r = unicode.ToLower(r)
		}
		if n := len(g.pattern); r != anyRun || n == 0 || g.pattern[n-1] != anyRun {
			g.pattern = append(g.pattern, r)
		}
	}
	if g.plain {
		g.text = string(g.pattern)
	}
	return g
}

// literal is the pattern of a text that is meant as it is written.
func literal(s string) *glob {
	g := &glob{plain: true}
	for _, r := range s {
		g.pattern = append(g.pattern, unicode.ToLower(r))
	}
	g.text = string(g.pattern)
	return g
}

// whole tells whether the pattern matches all of s.
func (g *glob) whole(s string) bool {
	if g.plain {
		i := 0
		for _, r := range s {
			if i == len(g.pattern) || unicode.ToLower(r) != g.pattern[i] {
				return false
			}
			i++
		}
		return i == len(g.pattern)
	}
	return g.search([]rune(s), false)
}

// inWords tells whether the pattern matches a part of s that begins and ends where a word could: at an end of s, or beside a character
// that is no ASCII letter, digit or underscore.
func (g *glob) inWords(s string) bool { return g.search([]rune(s), true) }

// readBody takes the body out of the content.
func (e *Event) readBody() {
	e.body, _ = e.text("content\x00body")
	// Two letters outside of ASCII have small ones in it, which would move the ends of words.
	if !strings.ContainsAny(e.body, "\u0130\u212a") {
		e.lower = strings.ToLower(e.body)
	}
}

// inBody tells whether the pattern matches words of an event's body.
func (g *glob) inBody(e *Event) bool {
	if !g.plain || e.lower == "" {
		return g.inWords(e.body)
	}
	if len(g.pattern) == 0 {
		return false
	}
	for from := 0; ; {
		i := strings.Index(e.lower[from:], g.text)
		if i < 0 {
			return false
		}
		i += from
		if byteBoundary(e.lower, i) && byteBoundary(e.lower, i+len(g.text)) {
			return true
		}
		from = i + 1
	}
}

// byteBoundary is boundary for a text that is not taken apart: no byte of a letter outside of ASCII is of a word.
func byteBoundary(s string, i int) bool {
	return i == 0 || i == len(s) || !wordRune(rune(s[i-1])) || !wordRune(rune(s[i]))
}

// search runs all ways to match side by side, so that its time is bounded by the lengths' product whatever the pattern.
func (g *glob) search(s []rune, words bool) bool {
	if len(g.pattern) == 0 {
		return !words && len(s) == 0
	}
	var small [2 * 64]bool
	size := len(g.pattern) + 1
	buf := small[:]
	if 2*size > len(buf) {
		buf = make([]bool, 2*size)
	}
	now, then := buf[:size], buf[size:2*size]
	for i := 0; ; i++ {
		if i == 0 || (words && boundary(s, i)) {
			now[0] = true
		}
		for j, p := range g.pattern { // what * stands for may be nothing
			if now[j] && p == anyRun {
				now[j+1] = true
			}
		}
		if now[size-1] && (i == len(s) || (words && boundary(s, i))) {
			return true
		}
		if i == len(s) {
			return false
		}
		r := unicode.ToLower(s[i])
		clear(then)
		for j, p := range g.pattern {
			if !now[j] {
				continue
			}
			switch p {
			case anyRun:
				then[j] = true
			case anyOne, r:
				then[j+1] = true
			}
		}
		now, then = then, now
	}
}

// boundary tells whether a word can begin or end before s[i].
func boundary(s []rune, i int) bool {
	return i == 0 || i == len(s) || !wordRune(s[i-1]) || !wordRune(s[i])
}

func wordRune(r rune) bool {
	return r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
}
