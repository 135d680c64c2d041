// Package invitation says whose invitations a user takes, by what the user's account data says (spec: "Invite permission"; and the
// finer rules of MSC4155).
//
// Guarantees: pure, without state; [Rules] are immutable and safe for concurrent use. Clients write the account data, and may have
// written anything: what is of the wrong type is as if it were not there. Imported by everything but infra/; imports matrix/*.
package invitation

import (
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/serveracl"
)

// The types of account data that hold rules.
const (
	TypeConfig   = "m.invite_permission_config"
	TypeFiltered = "org.matrix.msc4155.invite_permission_config"
)

// Verdict says what becomes of an invitation.
type Verdict int

// The verdicts.
const (
	Allowed Verdict = iota
	// Ignored is taken, as far as the inviting user can tell, and not shown.
	Ignored
	// Blocked is refused.
	Blocked
)

// maxPatterns bounds the patterns of one list that are looked at.
const maxPatterns = 1000

// Rules are whose invitations a user takes. The zero value takes all.
type Rules struct {
	blocked        bool // nobody's
	users, servers lists
}

// lists are patterns by what they come to.
type lists struct{ allowed, ignored, blocked []string }

// Parse reads the contents of both types of account data, nil for one that is not there.
func Parse(config, filtered []byte) Rules {
	var r Rules
	action, _ := canonjson.GetString(object(config), "default_action")
	r.blocked = action == "block"
	f := object(filtered)
	r.users = lists{patterns(f, "allowed_users"), patterns(f, "ignored_users"), patterns(f, "blocked_users")}
	r.servers = lists{patterns(f, "allowed_servers"), patterns(f, "ignored_servers"), patterns(f, "blocked_servers")}
	for _, l := range []*[]string{&r.servers.allowed, &r.servers.ignored, &r.servers.blocked} {
		for i := range *l {
			(*l)[i] = strings.ToLower((*l)[i])
		}
	}
	return r
}

// object gives content in the form that can be looked into, nil if it is no object.
func object(content []byte) []byte {
	if len(content) == 0 {
		return nil
	}
	c, err := canonjson.Canonical(content, canonjson.Options{Mode: canonjson.Lax})
	if err != nil || !canonjson.IsObject(c) {
		return nil
	}
	return c
}

func patterns(content []byte, name string) (out []string) {
	list, ok := canonjson.Get(content, name)
	if !ok || !canonjson.IsArray(list) {
		return nil
	}
	for it := canonjson.Walk(list); it.Next() && len(out) < maxPatterns; {
		if s, ok := canonjson.String(it.Value()); ok {
			out = append(out, s)
		}
	}
	return out
}

// Of says what becomes of an invitation by a user: what is said of the user comes before what is said of the user's server, and that
// before what is said of everybody; of two that fit, the friendlier holds.
func (r *Rules) Of(inviter id.UserID) Verdict {
	if v, ok := r.users.of(string(inviter)); ok {
		return v
	}
	if v, ok := r.servers.of(strings.ToLower(inviter.Server().Host())); ok {
		return v
	}
	if r.blocked {
		return Blocked
	}
	return Allowed
}

// Shows tells whether an invitation by a user that is there is shown. One that came before it was blocked is not shown either.
func (r *Rules) Shows(inviter id.UserID) bool { return r.Of(inviter) == Allowed }

func (l *lists) of(s string) (Verdict, bool) {
	for _, x := range [...]struct {
		patterns []string
		verdict  Verdict
	}{{l.allowed, Allowed}, {l.ignored, Ignored}, {l.blocked, Blocked}} {
		for _, p := range x.patterns {
			if serveracl.Match(p, s) {
				return x.verdict, true
			}
		}
	}
	return Allowed, false
}
