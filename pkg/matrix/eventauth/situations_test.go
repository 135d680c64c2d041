package eventauth_test

import (
	"fmt"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
)

// A situation is one rule and at least ten ways of running into it: every event in every room is refused by the rule whose
// number in each version want names, as in the columns of ruleCase. The rooms and events are chosen so that no rule which
// stands before it in the text applies.
type situation struct {
	name  string
	want  string
	rooms []room
	evs   []ev
}

// Numbers of rules, by column, that only the situations need.
const (
	createPrev   = "1.1 1.1 1.1 1.1 1.1 1.1 1.1 1.1"
	createVer    = "1.3 1.3 1.3 1.3 1.3 1.3 1.3 1.3"
	federate     = "3 3 3 3 3 3 3 4"
	tpiBanned    = "5.3.1.1 5.3.1.1 4.3.1.1 4.3.1.1 4.4.1.1 4.4.1.1 4.4.1.1 5.4.1.1"
	tpiUnsigned  = "5.3.1.2 5.3.1.2 4.3.1.2 4.3.1.2 4.4.1.2 4.4.1.2 4.4.1.2 5.4.1.2"
	tpiPartly    = "5.3.1.3 5.3.1.3 4.3.1.3 4.3.1.3 4.4.1.3 4.4.1.3 4.4.1.3 5.4.1.3"
	tpiUser      = "5.3.1.4 5.3.1.4 4.3.1.4 4.3.1.4 4.4.1.4 4.4.1.4 4.4.1.4 5.4.1.4"
	tpiUnknown   = "5.3.1.5 5.3.1.5 4.3.1.5 4.3.1.5 4.4.1.5 4.4.1.5 4.4.1.5 5.4.1.5"
	tpiSender    = "5.3.1.6 5.3.1.6 4.3.1.6 4.3.1.6 4.4.1.6 4.4.1.6 4.4.1.6 5.4.1.6"
	tpiSignature = "5.3.1.8 5.3.1.8 4.3.1.8 4.3.1.8 4.4.1.8 4.4.1.8 4.4.1.8 5.4.1.8"
	inviteSender = "5.3.2 5.3.2 4.3.2 4.3.2 4.4.2 4.4.2 4.4.2 5.4.2"
	inviteTarget = "5.3.3 5.3.3 4.3.3 4.3.3 4.4.3 4.4.3 4.4.3 5.4.3"
	invitePower  = "5.3.5 5.3.5 4.3.5 4.3.5 4.4.5 4.4.5 4.4.5 5.4.5"
	leaveSender  = "5.4.2 5.4.2 4.4.2 4.4.2 4.5.2 4.5.2 4.5.2 5.5.2"
	leaveBanned  = "5.4.3 5.4.3 4.4.3 4.4.3 4.5.3 4.5.3 4.5.3 5.5.3"
	banSender    = "5.5.1 5.5.1 4.5.1 4.5.1 4.6.1 4.6.1 4.6.1 5.6.1"
	knockOther   = "5.6 5.6 4.6 4.6.2 4.7.2 4.7.2 4.7.2 5.7.2"
	tpiPower     = "7.1 7.1 6.1 6.1 6.1 6.1 6.1 7.1"
	plLevel      = "10 10 9 9 9 9.1 9.1 10.1"
	plEvents     = "10 10 9 9 9 9.2 9.2 10.2"
)

// each makes one event of every value.
func each(build func(string) ev, values ...string) (evs []ev) {
	for _, v := range values {
		evs = append(evs, build(v))
	}
	return evs
}

// pairs makes one event of every sender and target, given as "sender>target".
func pairs(build func(sender, target string) ev, list ...string) (evs []ev) {
	for _, p := range list {
		sender, target, _ := strings.Cut(p, ">")
		evs = append(evs, build(sender, target))
	}
	return evs
}

func joinRules(rules ...string) (rooms []room) {
	for _, jr := range rules {
		rooms = append(rooms, room{jr: jr})
	}
	return rooms
}

func levels(contents ...string) (rooms []room) {
	for _, pl := range contents {
		rooms = append(rooms, room{pl: pl})
	}
	return rooms
}

func membership(m string) func(sender, target string) ev {
	return func(sender, target string) ev { return member(sender, target, m) }
}

func memberWith(content string) ev {
	return ev{typ: "m.room.member", sender: "@bob:a", sk: "@bob:a", content: content}
}

// levelsWith is the power levels that @mod may send and in which part stands beside what is needed for that.
func levelsWith(part string) string {
	if part != "" {
		part = "," + part
	}
	return `{"users":{PL "@mod:a":50},"events":{"m.room.power_levels":50}` + part + `}`
}

var topLevels = []string{"users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"}

// topCases are changes of each level at the top of power levels from one value to others, "" for none.
func topCases(now string, next ...string) (list []situation) {
	entry := func(key, value string) string {
		if value == "" {
			return ""
		}
		return `"` + key + `":` + value
	}
	for _, key := range topLevels {
		list = append(list, situation{
			rooms: levels(levelsWith(entry(key, now))),
			evs:   each(func(v string) ev { return power("@mod:a", levelsWith(entry(key, v))) }, next...),
		})
	}
	return list
}

// mapCases are changes of one entry of users, events or notifications, sent by @mod.
func mapCases(kind, key, now string, next ...string) situation {
	content := func(value string) string {
		users, events, other := `PL "@mod:a":50`, `"m.room.power_levels":50`, ""
		if value != "" {
			entry := `,"` + key + `":` + value
			switch kind {
			case "users":
				users += entry
			case "events":
				events += entry
			default:
				other = `,"` + kind + `":{` + entry[1:] + `}`
			}
		}
		return `{"users":{` + users + `},"events":{` + events + `}` + other + `}`
	}
	return situation{rooms: levels(content(now)), evs: each(func(v string) ev { return power("@mod:a", content(v)) }, next...)}
}

// of gives a name and the rules' numbers to situations that were made without.
func of(name, want string, list ...situation) (out []situation) {
	for i, s := range list {
		s.name, s.want = fmt.Sprintf("%s %d", name, i), want
		out = append(out, s)
	}
	return out
}

func situations() (list []situation) {
	add := func(name, want string, rooms []room, evs ...[]ev) {
		s := situation{name: name, want: want, rooms: rooms}
		for _, e := range evs {
			s.evs = append(s.evs, e...)
		}
		list = append(list, s)
	}
	plain := []room{{}}
	anyJoinRule := joinRules("", "public", "invite", "knock", "private", "restricted", "knock_restricted")
	outsiders := []string{"@eve:a", "@dan:a", "@carol:a", "@kim:a", "@zed:a", "@new:b"}
	against := func(targets ...string) (list []string) {
		for _, o := range outsiders {
			for _, t := range targets {
				list = append(list, o+">"+t)
			}
		}
		return list
	}

	// 1: create.
	for _, prev := range [][]string{{"$x:a"}, {"$x:a", "$y:a"}, {createID}} {
		add("create with previous events", createPrev, plain, each(func(content string) ev {
			e := create(content)
			e.prev = prev
			return e
		}, `{"creator":"@alice:a"}`, `{"creator":"@alice:a","room_version":"11"}`, `{"creator":"@alice:a","room_version":"none"}`, `{}`))
	}
	add("create in a room of another domain", "1.2 1.2 1.2 1.2 1.2 1.2 1.2 -", plain, each(func(r string) ev {
		e := create(`{"creator":"@alice:a"}`)
		e.room = r
		return e
	}, "!room:b", "!room:a.b", "!room:b.a", "!room:aa", "!room:A", "!room:a:8448", "!room:1.2.3.4", "!room:[::1]", "!a:b", "!room:", "!room"))
	add("create with a room id", "- - - - - - - 1.2", plain, each(func(r string) ev {
		e := create(`{"creator":"@alice:a"}`)
		e.room, e.hasRoomID = r, true
		return e
	}, "!room:a", "!room:b", "!room", "!"+createID[1:44], "!"+createID[1:], createID, "!", "room", "!room:a:1", "!r:a.b"))
	add("create with an unknown version", createVer, plain, each(func(v string) ev {
		return create(`{"creator":"@alice:a","room_version":` + v + `}`)
	}, `"99"`, `"13"`, `"0"`, `"01"`, `"1.0"`, `" 1"`, `"v1"`, `""`, `"org.example.1"`, `1`, `12`, `true`, `null`, `[]`, `{}`, `["1"]`))
	add("create without creator", "1.4 1.4 1.4 1.4 1.4 1.4 - -", plain, each(create,
		`{}`, `{"room_version":"1"}`, `{"m.federate":true}`, `{"Creator":"@alice:a"}`, `{"creators":["@alice:a"]}`, `{"type":"m.space"}`,
		`{"predecessor":{"room_id":"!x:a"}}`, `{"additional_creators":["@alice:a"]}`, `{"creator ":"@alice:a"}`, `{"":"@alice:a"}`, `{"sender":"@alice:a"}`))
	add("additional creators", "- - - - - - - 1.4", plain, each(func(v string) ev {
		return create(`{"additional_creators":` + v + `}`)
	}, `"@bob:a"`, `7`, `null`, `true`, `{}`, `{"@bob:a":1}`, `[7]`, `[null]`, `[["@bob:a"]]`, `[{}]`, `["bob"]`, `["@bob"]`, `[""]`, `["#bob:a"]`, `["@bob:a","bob:a"]`))

	// m.federate.
	add("unfederated", federate, []room{{create: `"m.federate":false`}, {create: `"m.federate":false`, jr: "public"}}, []ev{
		msg("@far:b", "m.room.message"), msg("@new:b", "m.room.message"), state("@far:b", "m.room.topic", ""), state("@far:b", "x", "@far:b"),
		member("@new:b", "@new:b", "join"), member("@far:b", "@far:b", "leave"), member("@far:b", "@zed:a", "invite"),
		member("@far:b", "@bob:a", "ban"), member("@new:b", "@new:b", "knock"), state("@far:b", "m.room.aliases", "b"), power("@far:b", `{}`),
	})

	// m.room.aliases, up to version 5.
	add("aliases without state key", "4.1 4.1 - - - - - -", plain, each(func(s string) ev { return msg(s, "m.room.aliases") },
		"@alice:a", "@mod:a", "@eq:a", "@bob:a", "@far:b", "@carol:a", "@dan:a", "@eve:a", "@kim:a", "@zed:a", "@new:b"))
	add("aliases of another server", "4.2 4.2 - - - - - -", plain, each(func(k string) ev { return state("@mod:a", "m.room.aliases", k) },
		"b", "A", "aa", "a.b", "b.a", "a:8448", "", "@mod:a", " a", "a ", "#x:a"))

	// Members.
	add("member that is malformed", malformed, plain, each(func(m string) ev {
		return ev{typ: "m.room.member", sender: "@bob:a", sk: message, content: `{"membership":"` + m + `"}`}
	}, "join", "invite", "leave", "ban", "knock", "dance"), each(memberWith,
		`{}`, `{"displayname":"Bob"}`, `{"Membership":"join"}`, `{"membership ":"join"}`, `{"reason":"join"}`, `{"third_party_invite":{}}`))
	add("unknown membership", unknown, plain, each(func(m string) ev { return memberWith(`{"membership":` + m + `}`) },
		`"dance"`, `""`, `"Join"`, `"JOIN"`, `" join"`, `"joined"`, `"kick"`, `"invited"`, `"left"`, `"peek"`, `5`, `null`, `true`, `[]`, `{}`))
	add("authoriser's server has not signed", "- - - - 4.2.1 4.2.1 4.2.1 5.2.1", joinRules("public", "restricted", "invite"), each(func(by string) ev {
		return via("@zed:a", by, "a")
	}, `"@far:b"`, `"@bob:a.b"`, `"@bob:A"`, `"bob"`, `""`, `7`, `null`, `[]`, `{"@bob:a":1}`))
	add("authoriser's server has not signed, no join", "- - - - 4.2.1 4.2.1 4.2.1 5.2.1", plain, each(func(m string) ev {
		e := via("@bob:a", `"@far:b"`, "a")
		e.content = strings.Replace(e.content, `"join"`, `"`+m+`"`, 1)
		return e
	}, "leave", "invite", "ban", "knock", "dance"))

	// Join.
	add("join of another", joinOther, anyJoinRule, pairs(membership("join"), "@bob:a>@zed:a", "@alice:a>@carol:a", "@mod:a>@dan:a", "@far:b>@new:b"))
	add("banned", joinBan, anyJoinRule, []ev{member("@dan:a", "@dan:a", "join"), via("@dan:a", `"@bob:a"`)})
	add("not authorised", joinAuth, joinRules("restricted"), pairs(membership("join"), "@zed:a>@zed:a", "@new:b>@new:b", "@eve:a>@eve:a", "@kim:a>@kim:a"),
		each(func(by string) ev { return via("@zed:a", by) }, `"@eve:a"`, `"@dan:a"`, `"@carol:a"`, `"@kim:a"`, `"@zed:a"`, `"@nobody:a"`, `"@new:b"`))
	add("authoriser without power", joinAuth, []room{{jr: "restricted", pl: `{"invite":1}`}, {jr: "restricted", pl: `{"users_default":-1}`}},
		[]ev{via("@zed:a", `"@bob:a"`), via("@eve:a", `"@far:b"`), via("@new:b", `"@bob:a"`)})
	add("not invited", joinElse, joinRules("", "invite", "knock", "private", "Public", "", "INVITE"), pairs(membership("join"),
		"@zed:a>@zed:a", "@new:b>@new:b", "@eve:a>@eve:a", "@kim:a>@kim:a"))
	add("private", joinElse, joinRules("private", "public ", "made-up"), pairs(membership("join"), "@carol:a>@carol:a", "@bob:a>@bob:a"))

	// Third-party invitations.
	key := `{"public_key":"` + idPublic() + `"}`
	good := `{"signed":` + signedPart("@zed:a", "tok") + `}`
	bobs := []room{withThirdParty("@bob:a", key)}
	toZed := func(part string) ev { return invite3("@zed:a", part) }
	signed := func(part string) ev { return toZed(`{"signed":` + part + `}`) }
	add("3pid: banned", tpiBanned, append(bobs, room{}, withThirdParty("@mod:a", key)), each(func(part string) ev { return invite3("@dan:a", part) },
		good, `{"signed":`+signedPart("@dan:a", "tok")+`}`, `{}`, `null`))
	add("3pid: not signed", tpiUnsigned, bobs, each(toZed,
		`{}`, `null`, `[]`, `7`, `true`, `"signed"`, `{"Signed":{}}`, `{"signature":{}}`, `{"display_name":"zed"}`, `{"signed ":{}}`, `["signed"]`))
	add("3pid: incomplete", tpiPartly, bobs, each(signed,
		`{}`, `null`, `[]`, `7`, `"tok"`, `{"mxid":"@zed:a"}`, `{"token":"tok"}`, `{"mxid":"@zed:a","Token":"tok"}`, `{"MXID":"@zed:a","token":"tok"}`,
		`{"mxid":"@zed:a","token":7}`, `{"mxid":null,"token":"tok"}`))
	add("3pid: for another user", tpiUser, bobs, each(func(mxid string) ev { return signed(signedPart(mxid, "tok")) },
		"@new:a", "@bob:a", "@carol:a", "@ZED:a", "@zed:A", "@zed:b", "@zed", "zed:a", "zed", "", " @zed:a"))
	add("3pid: unknown token", tpiUnknown, append(bobs, room{}), each(func(token string) ev { return signed(signedPart("@zed:a", token)) },
		"", "to", "tokk", "TOK", " tok", "tok ", "other", "*", "null", "@zed:a"))
	for _, sender := range []string{"@alice:a", "@mod:a", "@eq:a", "@far:b", "@carol:a", "@dan:a", "@eve:a", "@kim:a", "@zed:a", "@Bob:a"} {
		add("3pid: sent by "+sender, tpiSender, []room{withThirdParty(sender, key)}, []ev{toZed(good)})
	}
	other := b64(make([]byte, 32))
	for _, keys := range []string{
		`{}`, `{"public_key":"` + other + `"}`, `{"public_key":7}`, `{"public_key":"` + idPublic()[:20] + `"}`, `{"public_keys":[]}`,
		`{"public_keys":[{}]}`, `{"public_keys":{"public_key":"` + idPublic() + `"}}`, `{"public_keys":["` + idPublic() + `"]}`,
	} {
		add("3pid: no key fits", tpiSignature, []room{withThirdParty("@bob:a", keys)}, []ev{toZed(good)})
	}
	add("3pid: not signed by the key", tpiSignature, bobs, each(toZed,
		strings.Replace(good, `"mxid"`, `"extra":1,"mxid"`, 1), strings.Replace(good, `"ed25519:0"`, `"rsa:0"`, 1),
		strings.Replace(good, `"ed25519:0":"`, `"ed25519:0":"AA`, 1), strings.Replace(good, `"signatures"`, `"signature"`, 1),
		`{"signed":{"mxid":"@zed:a","token":"tok"}}`, `{"signed":{"mxid":"@zed:a","token":"tok","signatures":{}}}`,
		`{"signed":{"mxid":"@zed:a","token":"tok","signatures":{"id":{"ed25519:0":"`+b64(make([]byte, 64))+`"}}}}`))

	// Invite, leave, ban, knock.
	add("invite from outside", inviteSender, joinRules("", "public"), pairs(membership("invite"), against("@nobody:a", "@bob:a")...))
	add("invite who is there or banned", inviteTarget, plain, pairs(membership("invite"), "@mod:a>@bob:a", "@mod:a>@eq:a", "@mod:a>@alice:a",
		"@mod:a>@dan:a", "@alice:a>@dan:a", "@alice:a>@bob:a", "@bob:a>@dan:a", "@far:b>@bob:a", "@eq:a>@mod:a", "@bob:a>@bob:a", "@bob:a>@far:b"))
	add("invite without power", invitePower, levels(`{"invite":1}`, `{"users_default":-1}`), pairs(membership("invite"), "@bob:a>@zed:a",
		"@bob:a>@new:b", "@bob:a>@carol:a", "@bob:a>@eve:a", "@bob:a>@kim:a", "@far:b>@zed:a", "@far:b>@new:b"))
	add("leave who is not there", leaveOwn, anyJoinRule, pairs(membership("leave"), "@zed:a>@zed:a", "@new:b>@new:b", "@dan:a>@dan:a", "@eve:a>@eve:a"))
	add("kick from outside", leaveSender, plain, pairs(membership("leave"), against("@bob:a", "@mod:a")...))
	add("lift a ban", leaveBanned, levels(defaultPower, `{"ban":1}`, `{"ban":1,"kick":0}`, `{"ban":100,"kick":0}`, `{"users_default":-1,"ban":0}`),
		pairs(membership("leave"), "@bob:a>@dan:a", "@far:b>@dan:a"))
	weaker := []string{
		"@bob:a>@far:b", "@bob:a>@carol:a", "@bob:a>@mod:a", "@bob:a>@alice:a", "@bob:a>@eve:a", "@far:b>@bob:a", "@far:b>@zed:a",
		"@mod:a>@eq:a", "@mod:a>@alice:a", "@eq:a>@mod:a", "@eq:a>@alice:a",
	}
	add("kick without power", leaveElse, joinRules("", "public"), pairs(membership("leave"), weaker...))
	add("ban from outside", banSender, plain, pairs(membership("ban"), against("@bob:a", "@zzz:a")...))
	add("ban without power", banElse, joinRules("", "public"), pairs(membership("ban"), append(weaker, "@mod:a>@mod:a", "@alice:a>@alice:a")...))
	add("knock where one cannot", knockRule, joinRules("", "public", "invite", "private", "restricted", "Knock"), pairs(membership("knock"),
		"@zed:a>@zed:a", "@eve:a>@eve:a", "@new:b>@new:b"))
	add("knock for another", knockOther, joinRules("knock"), pairs(membership("knock"), "@bob:a>@zed:a", "@bob:a>@kim:a", "@bob:a>@dan:a", "@mod:a>@eve:a",
		"@alice:a>@zed:a", "@alice:a>@new:b", "@far:b>@new:b", "@zed:a>@eve:a", "@zed:a>@new:b", "@kim:a>@zed:a"))
	add("knock though banned, invited or there", knockElse, []room{{jr: "knock"}, {jr: "knock", pl: "none"}}, pairs(membership("knock"),
		"@dan:a>@dan:a", "@carol:a>@carol:a", "@bob:a>@bob:a", "@mod:a>@mod:a", "@alice:a>@alice:a", "@far:b>@far:b"))

	// Membership and power of the sender.
	for _, o := range outsiders {
		add("from outside: "+o, notJoined, joinRules("", "public"), []ev{
			msg(o, "m.room.message"), state(o, "m.room.topic", ""), state(o, "x", o), power(o, `{}`), state(o, "m.room.third_party_invite", "tok"),
		})
	}
	add("third-party invite without power", tpiPower, levels(`{"invite":1}`, `{"invite":2}`, `{"invite":50}`, `{"invite":9007199254740991}`, `{"users_default":-1}`),
		each(func(s string) ev { return state(s, "m.room.third_party_invite", "tok") }, "@bob:a", "@far:b"))
	for _, sender := range []string{"@bob:a", "@far:b"} {
		add("required power of "+sender, required, plain, []ev{
			state(sender, "m.room.topic", ""), state(sender, "m.room.name", ""), state(sender, "m.room.encryption", ""), state(sender, "m.room.name", "x"),
			state(sender, "x", sender), power(sender, `{}`), msg(sender, "m.custom"), msg(sender, "m.room.name"), state(sender, "", ""),
		})
	}
	add("state key of another user", atKey, plain, each(func(k string) ev { return state("@mod:a", "org.example", k) },
		"@bob:a", "@alice:a", "@", "@mod", "@mod:", "@mod:A", "@mod:b", "@MOD:a", "@mod:a ", "@@mod:a", "@mod:a_call"))

	// Power levels.
	for _, key := range topLevels {
		add("power levels: "+key+" is no level", plLevel, plain, each(func(v string) ev {
			return power("@alice:a", `{"users":{PL "@mod:a":50},"`+key+`":`+v+`}`)
		}, `true`, `null`, `[]`, `{}`, `"high"`, `""`, `"1.5"`))
		add("power levels: "+key+" is a string", "ok ok ok ok ok 9.1 9.1 10.1", plain, each(func(v string) ev {
			return power("@alice:a", `{"users":{PL "@mod:a":50},"`+key+`":`+v+`}`)
		}, `"60"`, `" 060 "`, `"+60"`))
	}
	add("power levels: events", plEvents, plain, each(func(v string) ev { return power("@alice:a", `{"users":{PL "@mod:a":50},"events":`+v+`}`) },
		`[]`, `7`, `"x"`, `null`, `true`, `{"x":null}`, `{"x":true}`, `{"x":[]}`, `{"x":{}}`, `{"x":"ten"}`, `{"a":1,"x":""}`))
	add("power levels: notifications", "ok ok 9 9 9 9.2 9.2 10.2", plain, each(func(v string) ev {
		return power("@alice:a", `{"users":{PL "@mod:a":50},"notifications":`+v+`}`)
	}, `[]`, `7`, `"x"`, `null`, `true`, `{"room":null}`, `{"room":true}`, `{"room":[]}`, `{"room":{}}`, `{"room":"ten"}`))
	add("power levels: users", plUsers, plain, each(func(v string) ev { return power("@alice:a", `{"users":`+v+`}`) },
		`[]`, `7`, `"x"`, `null`, `true`, `{"bob":1}`, `{"@bob":1}`, `{"":1}`, `{"#bob:a":1}`, `{"@bob:a":null}`, `{"@bob:a":true}`, `{"@bob:a":"ten"}`))
	for _, sender := range []string{"@alice:a", "@mod:a"} {
		add("power levels: "+sender+" names creators", "- - - - - - - 10.4", []room{{create: `"additional_creators":["@bob:a"]`}}, each(func(u string) ev {
			return power(sender, `{"users":{`+u+`}}`)
		}, `"@alice:a":100`, `"@alice:a":0`, `"@alice:a":-1`, `"@alice:a":9007199254740991`, `"@bob:a":50`, `"@bob:a":0`, `"@alice:a":1,"@bob:a":1`))
	}
	list = append(list, of("power levels: a level above", plTopNow, topCases("75", "", "50", "74", "100")...)...)
	list = append(list, of("power levels: a level too high", plTopNew, topCases("", "51", "75", "9007199254740991")...)...)
	list = append(list, of("power levels: an event above", plEvNow, mapCases("events", "m.x", "51", "", "50", "0", "75"),
		mapCases("events", "m.room.name", "75", "", "74", "76"), mapCases("events", "", "100", "", "50", "99"))...)
	list = append(list, of("power levels: an event too high", plEvNew, mapCases("events", "m.x", "", "51", "75", "9007199254740991"),
		mapCases("events", "m.room.name", "50", "51", "100"), mapCases("events", "m.room.power_level", "-1", "51", "75", "100", "60"),
		mapCases("events", "", "", "51"))...)
	list = append(list, of("power levels: a notification above", "ok ok 9.4.1 9.4.1 9.4.1 9.6.1 9.6.1 10.7.1", mapCases("notifications", "room", "75", "", "50", "74", "76"))...)
	list = append(list, of("power levels: a notification too high", "ok ok 9.5.1 9.5.1 9.5.1 9.7.1 9.7.1 10.8.1", mapCases("notifications", "room", "", "51", "75"))...)
	list = append(list, of("power levels: a user not below", plUserNow, mapCases("users", "@eq:a", "50", "", "49", "0", "51", "-1"),
		mapCases("users", "@zed:a", "60", "", "50", "59", "61"), mapCases("users", "@new:b", "75", "", "0"))...)
	list = append(list, of("power levels: a user too high", plUserNew, mapCases("users", "@bob:a", "", "51", "75", "9007199254740991"),
		mapCases("users", "@new:b", "49", "51", "100", "60"), mapCases("users", "@dan:a", "-1", "51", "75", "100", "52"))...)

	// Redactions, versions 1 and 2.
	add("redaction of another server's event", "11.3 ok ok ok ok ok ok ok", plain, each(func(target string) ev {
		return ev{typ: "m.room.redaction", sender: "@bob:a", sk: message, redacts: target}
	}, "$x:b", "$x:A", "$x:aa", "$x:a.b", "$x:b.a", "$x:a:8448", "$x:", "$x", "$", "", "x:b"))
	return list
}

// cases are the single cases of a situation.
func (s situation) cases() (list []ruleCase) {
	for i, r := range s.rooms {
		for j, e := range s.evs {
			list = append(list, ruleCase{name: fmt.Sprintf("%s (room %d, event %d)", s.name, i, j), want: s.want, room: r, ev: e})
		}
	}
	return list
}

func allRuleCases() []ruleCase {
	list := append([]ruleCase(nil), ruleCases...)
	for _, s := range situations() {
		list = append(list, s.cases()...)
	}
	return list
}

// The same for the rules on an event's auth events: every list with every event.
func authSituations() (list []authCase) {
	events := []ev{
		msg("@bob:a", "m.room.message"), msg("@bob:a", "m.custom"), state("@bob:a", "m.room.topic", ""), state("@bob:a", "x", "@bob:a"),
	}
	for _, s := range []struct {
		want   string
		lists  []string
		create []string
	}{
		{duplicate, []string{"create,pl,pl", "pl,pl,create", "create,pl,@bob:a,pl", "create,@bob:a,again @bob:a", "create,@bob:a,@bob:a"}, nil},
		{unselected, []string{"create,jr", "create,topic", "create,@mod:a", "create,pl,@bob:a,@carol:a", "create,tok", "jr,create,pl"}, nil},
		{rejected, []string{"create,rejected pl", "create,rejected @bob:a", "create,rejected pl,rejected @bob:a", "rejected @bob:a,pl,create"}, nil},
		{noCreate, []string{"pl,@bob:a", "@bob:a", "pl", ""}, nil},
		{otherRoom, []string{"create,elsewhere pl", "create,elsewhere @bob:a", "elsewhere pl,create,elsewhere @bob:a", "create,elsewhere pl,@bob:a"}, nil},
		{roomID, []string{"create,pl,@bob:a", "create"}, []string{"none", "rejected", "elsewhere"}},
	} {
		if s.create == nil {
			s.create = []string{""}
		}
		for _, auth := range s.lists {
			for _, create := range s.create {
				for i, e := range events {
					var names []string
					if auth != "" {
						names = strings.Split(auth, ",")
					}
					list = append(list, authCase{fmt.Sprintf("%s for event %d", auth, i), s.want, e, names, create})
				}
			}
		}
	}
	return list
}

// elsewhere is a copy of an event that stands in another room.
func elsewhere(a eventauth.AuthEvent) eventauth.AuthEvent {
	x := *a.Event
	x.RoomID = "!elsewhere:a"
	a.Event = &x
	return a
}
