// Package serveracl says which servers a room's m.room.server_acl lets take part.
//
// Guarantees: pure, without state; an [ACL] is immutable and safe for concurrent use; matching takes time in the order of the
// pattern's length times the name's. Imported by everything but infra/; imports matrix/*.
package serveracl

import (
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// ACL is a room's list. The zero value lets everybody in.
type ACL struct {
	set         bool
	denyIP      bool
	allow, deny []string
}

// Parse reads the content of an m.room.server_acl event, canonical JSON; nil is a room without one. Members of the wrong type are as if they
// were not there, and what allows nobody allows nobody.
func Parse(content []byte) ACL {
	if content == nil {
		return ACL{}
	}
	a := ACL{set: true}
	if ip, ok := canonjson.GetBool(content, "allow_ip_literals"); ok {
		a.denyIP = !ip
	}
	a.allow, a.deny = patterns(content, "allow"), patterns(content, "deny")
	return a
}

func patterns(content []byte, name string) []string {
	list, ok := canonjson.Get(content, name)
	if !ok || !canonjson.IsArray(list) {
		return nil
	}
	var out []string
	for it := canonjson.Walk(list); it.Next(); {
		if s, ok := canonjson.String(it.Value()); ok {
			out = append(out, strings.ToLower(s))
		}
	}
	return out
}

// Allows tells whether a server may take part. Its port does not matter.
func (a ACL) Allows(server id.ServerName) bool {
	if !a.set {
		return true
	}
	if a.denyIP && server.IsIP() {
		return false
	}
	host := strings.ToLower(server.Host())
	for _, p := range a.deny {
		if Match(p, host) {
			return false
		}
	}
	for _, p := range a.allow {
		if Match(p, host) {
			return true
		}
	}
	return false
}

// Match matches a glob: * stands for any characters, ? for one.
func Match(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
