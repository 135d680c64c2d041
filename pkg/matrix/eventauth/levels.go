package eventauth

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Level is a power level. Numbers beyond int64, which versions before 10 let through, stand at its ends, below Infinite: they
// compare as equal among themselves, so that a user of absurd power cannot act on another, and never as more than they are.
type Level int64

// Infinite is the level of a creator in room version 12. No integer of canonical JSON reaches it.
const Infinite Level = math.MaxInt64

// NamedLevel is the level of a user, an event type or a notification.
type NamedLevel struct {
	Name  string
	Level Level
}

// Levels is a list of levels sorted by name, without duplicates.
type Levels []NamedLevel

// Get returns the level of a name.
func (l Levels) Get(name string) (Level, bool) {
	lo, hi := 0, len(l)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if l[m].Name < name {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo < len(l) && l[lo].Name == name {
		return l[lo].Level, true
	}
	return 0, false
}

// topLevel numbers the levels that stand at the top of a power levels event.
type topLevel uint8

const (
	usersDefault topLevel = iota
	eventsDefault
	stateDefault
	banLevel
	redactLevel
	kickLevel
	inviteLevel
	numTopLevels
)

//nolint:gochecknoglobals // constant
var (
	topNames    = [numTopLevels]string{"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"}
	topDefaults = [numTopLevels]Level{stateDefault: 50, banLevel: 50, redactLevel: 50, kickLevel: 50}
)

// PowerLevels is the content of a power levels event as the rules read it.
type PowerLevels struct {
	Users, Events, Notifications Levels

	top     [numTopLevels]Level // defaults filled in
	given   uint8               // bit i: top[i] stands in the event
	invalid Rule                // the rule by which the content itself is refused
}

// parsePowerLevels never fails: content that is refused gives a value that says so, in which what could be read stands.
func parsePowerLevels(rules *roomver.Rules, content []byte) *PowerLevels {
	p := &PowerLevels{top: topDefaults}
	refuse := func(r Rule) {
		if p.invalid == Allowed || r < p.invalid { // the first in the order of the text
			p.invalid = r
		}
	}
	scalar, object := PowerMalformed, PowerMalformed
	if rules.PowerLevels == roomver.PowerInt {
		scalar, object = PowerNotInteger, PowerMapNotInteger
	}
	for it := canonjson.Walk(content); it.Next(); {
		key := it.KeyString()
		switch key {
		case "users":
			ok := parseLevels(rules, it.Value(), &p.Users)
			for _, u := range p.Users {
				if _, err := id.ParseUserID(u.Name); err != nil {
					ok = false
				}
			}
			if !ok {
				refuse(PowerUsers)
			}
		case "events":
			if !parseLevels(rules, it.Value(), &p.Events) {
				refuse(object)
			}
		case "notifications":
			if !parseLevels(rules, it.Value(), &p.Notifications) && rules.NotificationLevels {
				refuse(object)
			}
		default:
			i := slices.Index(topNames[:], key)
			if i < 0 {
				continue
			}
			level, ok := parseLevel(rules, it.Value())
			if !ok {
				refuse(scalar)
				continue
			}
			p.top[i] = level
			p.given |= 1 << i
		}
	}
	return p
}

// parseLevels says whether value is an object of levels; what could be read is in out.
func parseLevels(rules *roomver.Rules, value []byte, out *Levels) bool {
	if !canonjson.IsObject(value) {
		return false
	}
	n := 0
	for it := canonjson.Walk(value); it.Next(); {
		n++
	}
	levels, ok := make(Levels, 0, n), true
	for it := canonjson.Walk(value); it.Next(); {
		level, valid := parseLevel(rules, it.Value())
		if !valid {
			ok = false
			continue
		}
		levels = append(levels, NamedLevel{it.KeyString(), level})
	}
	byName := func(a, b NamedLevel) int { return strings.Compare(a.Name, b.Name) }
	if !slices.IsSortedFunc(levels, byName) {
		slices.SortFunc(levels, byName)
	}
	*out = levels
	return ok
}

// parseLevel reads a level in the forms that the room version accepts.
func parseLevel(rules *roomver.Rules, value []byte) (Level, bool) {
	if n, ok := canonjson.Int(value); ok {
		return finite(n), true
	}
	if rules.PowerLevels == roomver.PowerInt || len(value) == 0 {
		return 0, false
	}
	if value[0] == '"' {
		s, ok := canonjson.String(value)
		if !ok {
			return 0, false
		}
		return decimal(strings.TrimSpace(s), true)
	}
	if rules.PowerLevels != roomver.PowerLax || (value[0] != '-' && (value[0] < '0' || value[0] > '9')) {
		return 0, false
	}
	if n, ok := decimal(string(value), false); ok {
		return n, true
	}
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0, false
	}
	switch f = math.Trunc(f); {
	case f >= math.MaxInt64:
		return finite(math.MaxInt64), true
	case f <= math.MinInt64:
		return math.MinInt64, true
	}
	return Level(f), true
}

// decimal reads an optional sign and digits, and stops at the ends of int64.
func decimal(s string, plus bool) (Level, bool) {
	digits := s
	if s != "" && (s[0] == '-' || (plus && s[0] == '+')) {
		digits = s[1:]
	}
	if digits == "" {
		return 0, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64) // out of range: the nearest end
	_ = err
	return finite(n), true
}

// finite keeps the value of Infinite free.
func finite(n int64) Level { return min(Level(n), Infinite-1) }
