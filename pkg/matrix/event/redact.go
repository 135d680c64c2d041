package event

import (
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Redact returns the event as its room version redacts it, the event itself if there is nothing to
// take away. The event id stays the same; unsigned goes.
func (e *Event) Redact() *Event {
	redacted := e.appendRedacted(make([]byte, 0, len(e.json)), true)
	if len(redacted) == len(e.json) && e.unsigned == nil {
		return e
	}
	r := &Event{rules: e.rules, json: append(make([]byte, 0, len(redacted)), redacted...)}
	var stack [24]canonjson.Member
	if err := r.place(canonjson.Index(r.json, stack[:0]), true); err != nil {
		panic("event: redaction broke an event: " + err.Error())
	}
	if err := r.read(); err != nil {
		panic("event: redaction broke an event: " + err.Error())
	}
	r.id, r.room = e.id, e.room
	r.flags |= e.flags
	return r
}

// IsRedacted tells whether redaction would take nothing away.
func (e *Event) IsRedacted() bool {
	var stack [scratch]byte
	return len(e.appendRedacted(stack[:0], true)) == len(e.json)
}

// appendRedacted appends the redacted form, with or without signatures: without them it is what is
// signed, and what the reference hash covers.
func (e *Event) appendRedacted(dst []byte, signatures bool) []byte {
	dst = append(dst, '{')
	first := true
	for f := range numFields {
		s := e.f[f]
		if s.end == 0 || !keeps(&e.rules.Redaction, f) || (f == fSignatures && !signatures) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if f == fContent {
			dst = append(dst, `"content":`...)
			dst = appendRedactedContent(dst, e.rules, e.typ, e.value(fContent))
			continue
		}
		dst = append(dst, e.json[s.start-keyLength(f):s.end]...)
	}
	return append(dst, '}')
}

func keeps(r *roomver.Redaction, f field) bool {
	switch f {
	case fMembership, fOrigin, fPrevState:
		return r.LegacyTopLevel
	case fRedacts:
		return false
	}
	return true
}

// appendRedactedContent appends what redaction leaves of a content.
func appendRedactedContent(dst []byte, rules *roomver.Rules, typ string, content []byte) []byte {
	var keys [9]string
	kept := keys[:0]
	r := &rules.Redaction
	switch typ {
	case TypeMember:
		kept = append(kept, "membership")
		if r.MemberAuthorised {
			kept = append(kept, "join_authorised_via_users_server")
		}
		if r.MemberThirdPartySigned {
			kept = append(kept, "third_party_invite")
		}
	case TypeCreate:
		if r.CreateAll {
			return append(dst, content...)
		}
		kept = append(kept, "creator")
	case TypeJoinRules:
		kept = append(kept, "join_rule")
		if r.JoinRulesAllow {
			kept = append(kept, "allow")
		}
	case TypePowerLevels:
		kept = append(kept, "ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default")
		if r.PowerInvite {
			kept = append(kept, "invite")
		}
	case TypeAliases:
		if r.Aliases {
			kept = append(kept, "aliases")
		}
	case TypeHistoryVisibility:
		kept = append(kept, "history_visibility")
	case TypeRedaction:
		if r.Redacts {
			kept = append(kept, "redacts")
		}
	}
	return appendKept(dst, content, kept, typ == TypeMember)
}

// appendKept appends an object with only the members that are named. Of a member event's
// third_party_invite only the member signed is kept.
func appendKept(dst, object []byte, kept []string, member bool) []byte {
	dst = append(dst, '{')
	if len(kept) == 0 {
		return append(dst, '}')
	}
	first := true
	for it := canonjson.Walk(object); it.Next(); {
		if !contains(kept, it.Key()) {
			continue
		}
		invite := member && it.KeyIs("third_party_invite")
		if invite && !canonjson.IsObject(it.Value()) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, it.Key()...)
		dst = append(dst, ':')
		if invite {
			dst = appendKept(dst, it.Value(), []string{"signed"}, false)
			continue
		}
		dst = append(dst, it.Value()...)
	}
	return append(dst, '}')
}

func contains(keys []string, quoted []byte) bool {
	for _, k := range keys {
		if len(quoted) == len(k)+2 && string(quoted[1:len(quoted)-1]) == k {
			return true
		}
	}
	return false
}
