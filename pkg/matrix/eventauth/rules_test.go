package eventauth_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// The columns of the tables below: room versions whose authorisation rules have the same text (or differ only in what is not
// a rule). Each cell is the number of the refusing rule, read by hand in that version's text, or ok; "-" is not tried.
var columns = [][]roomver.Version{{"1", "2"}, {"3", "4", "5"}, {"6"}, {"7"}, {"8", "9"}, {"10"}, {"11"}, {"12"}}

type ruleCase struct {
	name string
	want string // by column: 1-2, 3-5, 6, 7, 8-9, 10, 11, 12
	room room
	ev   ev
}

const (
	allOK     = "ok     ok     ok     ok     ok     ok     ok     ok"
	malformed = "5.1    5.1    4.1    4.1    4.1    4.1    4.1    5.1"
	cosign    = "5.2.6  5.2.6  4.2.6  4.2.6  4.2.1  4.2.1  4.2.1  5.2.1"
	joinOther = "5.2.2  5.2.2  4.2.2  4.2.2  4.3.2  4.3.2  4.3.2  5.3.2"
	joinBan   = "5.2.3  5.2.3  4.2.3  4.2.3  4.3.3  4.3.3  4.3.3  5.3.3"
	joinElse  = "5.2.6  5.2.6  4.2.6  4.2.6  4.3.7  4.3.7  4.3.7  5.3.7"
	joinAuth  = "5.2.6  5.2.6  4.2.6  4.2.6  4.3.5.2 4.3.5.2 4.3.5.2 5.3.5.2"
	unknown   = "5.6    5.6    4.6    4.7    4.8    4.8    4.8    5.8"
	leaveOwn  = "5.4.1  5.4.1  4.4.1  4.4.1  4.5.1  4.5.1  4.5.1  5.5.1"
	leaveElse = "5.4.5  5.4.5  4.4.5  4.4.5  4.5.5  4.5.5  4.5.5  5.5.5"
	banElse   = "5.5.3  5.5.3  4.5.3  4.5.3  4.6.3  4.6.3  4.6.3  5.6.3"
	knockRule = "5.6    5.6    4.6    4.6.1  4.7.1  4.7.1  4.7.1  5.7.1"
	knockElse = "5.6    5.6    4.6    4.6.4  4.7.4  4.7.4  4.7.4  5.7.4"
	notJoined = "6      6      5      5      5      5      5      6"
	required  = "8      8      7      7      7      7      7      8"
	atKey     = "9      9      8      8      8      8      8      9"
	plUsers   = "10.1   10.1   9.1    9.1    9.1    9.3    9.3    10.3"
	plTopNow  = "10.3.1 10.3.1 9.3.1  9.3.1  9.3.1  9.5.1  9.5.1  10.6.1"
	plTopNew  = "10.3.2 10.3.2 9.3.2  9.3.2  9.3.2  9.5.2  9.5.2  10.6.2"
	plEvNow   = "10.4.1 10.4.1 9.4.1  9.4.1  9.4.1  9.6.1  9.6.1  10.7.1"
	plEvNew   = "10.5.1 10.5.1 9.5.1  9.5.1  9.5.1  9.7.1  9.7.1  10.8.1"
	plUserNow = "10.6.1 10.6.1 9.6.1  9.6.1  9.6.1  9.8.1  9.8.1  10.9.1"
	plUserNew = "10.7.1 10.7.1 9.7.1  9.7.1  9.7.1  9.9.1  9.9.1  10.10.1"
)

func member(sender, target, membership string) ev {
	return ev{typ: "m.room.member", sender: sender, sk: target, content: `{"membership":"` + membership + `"}`}
}

func via(sender, by string, signers ...string) ev {
	e := member(sender, sender, "join")
	e.content = `{"membership":"join","join_authorised_via_users_server":` + by + `}`
	e.signers = signers
	return e
}

func firstJoin(sender, target string, prev ...string) ev {
	e := member(sender, target, "join")
	e.prev = append([]string{createID}, prev...)
	return e
}

func power(sender, content string) ev {
	return ev{typ: "m.room.power_levels", sender: sender, content: content}
}

func create(content string) ev {
	return ev{id: createID, typ: "m.room.create", sender: "@alice:a", content: content}
}

func msg(sender, typ string) ev { return ev{typ: typ, sender: sender, sk: message} }

func state(sender, typ, key string) ev { return ev{typ: typ, sender: sender, sk: key} }

func invite3(target, thirdParty string) ev {
	e := member("@bob:a", target, "invite")
	e.content = `{"membership":"invite","third_party_invite":` + thirdParty + `}`
	return e
}

func withThirdParty(sender, content string) room {
	return room{more: []ev{{typ: "m.room.third_party_invite", sender: sender, sk: "tok", content: content}}}
}

var ruleCases = []ruleCase{
	// 1: create.
	{"create", allOK, room{}, create(`{"creator":"@alice:a"}`)},
	{"create with previous events", "1.1 1.1 1.1 1.1 1.1 1.1 1.1 1.1", room{}, func() ev { e := create(`{"creator":"@alice:a"}`); e.prev = []string{"$x:a"}; return e }()},
	{"create in a room of another domain", "1.2 1.2 1.2 1.2 1.2 1.2 1.2 -", room{}, func() ev { e := create(`{"creator":"@alice:a"}`); e.room = "!room:b"; return e }()},
	{"create with a room id", "ok ok ok ok ok ok ok 1.2", room{}, func() ev { e := create(`{"creator":"@alice:a"}`); e.hasRoomID = true; return e }()},
	{"create with an unknown version", "1.3 1.3 1.3 1.3 1.3 1.3 1.3 1.3", room{}, create(`{"creator":"@alice:a","room_version":"99"}`)},
	{"create with a version that is a number", "1.3 1.3 1.3 1.3 1.3 1.3 1.3 1.3", room{}, create(`{"creator":"@alice:a","room_version":1}`)},
	{"create without creator", "1.4 1.4 1.4 1.4 1.4 1.4 ok ok", room{}, create(`{}`)},
	{"additional creators that are no list", "ok ok ok ok ok ok ok 1.4", room{}, create(`{"creator":"@alice:a","additional_creators":"@bob:a"}`)},
	{"additional creators that are no strings", "ok ok ok ok ok ok ok 1.4", room{}, create(`{"creator":"@alice:a","additional_creators":["@bob:a",7]}`)},
	{"additional creators that are no users", "ok ok ok ok ok ok ok 1.4", room{}, create(`{"creator":"@alice:a","additional_creators":["bob"]}`)},
	{"additional creators that are an object", "ok ok ok ok ok ok ok 1.4", room{}, create(`{"creator":"@alice:a","additional_creators":{}}`)},
	{"additional creators", allOK, room{}, create(`{"creator":"@alice:a","additional_creators":["@bob:a","@carol:b"]}`)},

	// m.federate.
	{"unfederated, from elsewhere", "3 3 3 3 3 3 3 4", room{create: `"m.federate":false`}, msg("@far:b", "m.room.message")},
	{"unfederated, join from elsewhere", "3 3 3 3 3 3 3 4", room{create: `"m.federate":false`, jr: "public"}, member("@far:b", "@far:b", "join")},
	{"unfederated, from here", allOK, room{create: `"m.federate":false`}, msg("@bob:a", "m.room.message")},
	{"m.federate that is no boolean", allOK, room{create: `"m.federate":"false"`}, msg("@far:b", "m.room.message")},

	// m.room.aliases has a rule of its own up to version 5.
	{"aliases of the own server", "ok ok 7 7 7 7 7 8", room{}, state("@bob:a", "m.room.aliases", "a")},
	{"aliases from outside of the room", "ok ok 5 5 5 5 5 6", room{}, state("@zed:a", "m.room.aliases", "a")},
	{"aliases without state key", "4.1 4.1 ok ok ok ok ok ok", room{}, msg("@bob:a", "m.room.aliases")},
	{"aliases of another server", "4.2 4.2 7 7 7 7 7 8", room{}, state("@bob:a", "m.room.aliases", "b")},

	// Member events.
	{"membership without state key", malformed, room{}, ev{typ: "m.room.member", sender: "@bob:a", sk: message, content: `{"membership":"join"}`}},
	{"member without membership", malformed, room{}, ev{typ: "m.room.member", sender: "@bob:a", sk: "@bob:a"}},
	{"unknown membership", unknown, room{}, member("@bob:a", "@bob:a", "dance")},
	{"membership that is no string", unknown, room{}, ev{typ: "m.room.member", sender: "@bob:a", sk: "@bob:a", content: `{"membership":5}`}},

	// Join.
	{"first join of the creator", allOK, room{more: []ev{{typ: "m.room.member", sk: "@alice:a", content: "gone"}}}, firstJoin("@alice:a", "@alice:a")},
	{"first join, sent by somebody else", allOK, room{}, firstJoin("@bob:a", "@alice:a")},
	{"first join of another", joinElse, room{}, firstJoin("@zed:a", "@zed:a")},
	{"first join of an additional creator", joinElse, room{create: `"additional_creators":["@zed:a"]`}, firstJoin("@zed:a", "@zed:a")},
	{"first join of content.creator", "ok ok ok ok ok ok 4.3.7 5.3.7", room{create: `"creator":"@zed:a"`}, firstJoin("@zed:a", "@zed:a")},
	{"creator's join with two previous events", joinElse, room{more: []ev{{typ: "m.room.member", sk: "@alice:a", content: "gone"}}}, firstJoin("@alice:a", "@alice:a", "$other:a")},
	{"join of another user", joinOther, room{jr: "public"}, member("@bob:a", "@zed:a", "join")},
	{"join of a banned user", joinBan, room{jr: "public"}, member("@dan:a", "@dan:a", "join")},
	{"public join", allOK, room{jr: "public"}, member("@zed:a", "@zed:a", "join")},
	{"public join from elsewhere", allOK, room{jr: "public"}, member("@new:b", "@new:b", "join")},
	{"invited join", allOK, room{jr: "invite"}, member("@carol:a", "@carol:a", "join")},
	{"join again", allOK, room{jr: "invite"}, member("@bob:a", "@bob:a", "join")},
	{"uninvited join", joinElse, room{jr: "invite"}, member("@zed:a", "@zed:a", "join")},
	{"join after leaving", joinElse, room{jr: "invite"}, member("@eve:a", "@eve:a", "join")},
	{"no join rules: invited", allOK, room{}, member("@carol:a", "@carol:a", "join")},
	{"no join rules: uninvited", joinElse, room{}, member("@zed:a", "@zed:a", "join")},
	{"private", joinElse, room{jr: "private"}, member("@carol:a", "@carol:a", "join")},
	{"made-up join rule", joinElse, room{jr: "Public"}, member("@zed:a", "@zed:a", "join")},
	{"knock rule: invited", "5.2.6 5.2.6 4.2.6 ok ok ok ok ok", room{jr: "knock"}, member("@carol:a", "@carol:a", "join")},
	{"knock rule: knocking", joinElse, room{jr: "knock"}, member("@kim:a", "@kim:a", "join")},
	{"restricted: invited", "5.2.6 5.2.6 4.2.6 4.2.6 ok ok ok ok", room{jr: "restricted"}, member("@carol:a", "@carol:a", "join")},
	{"restricted: joined", "5.2.6 5.2.6 4.2.6 4.2.6 ok ok ok ok", room{jr: "restricted"}, member("@bob:a", "@bob:a", "join")},
	{"restricted: not authorised", joinAuth, room{jr: "restricted"}, member("@zed:a", "@zed:a", "join")},
	{"restricted: authorised", "5.2.6 5.2.6 4.2.6 4.2.6 ok ok ok ok", room{jr: "restricted"}, via("@zed:a", `"@bob:a"`)},
	{"restricted: authorised by one elsewhere", "5.2.6 5.2.6 4.2.6 4.2.6 ok ok ok ok", room{jr: "restricted"}, via("@zed:a", `"@far:b"`, "a", "b")},
	{"restricted: authoriser without power", joinAuth, room{jr: "restricted", pl: `{"invite":1}`}, via("@zed:a", `"@bob:a"`)},
	{"restricted: authoriser not joined", joinAuth, room{jr: "restricted"}, via("@zed:a", `"@eve:a"`)},
	{"restricted: authoriser unknown", joinAuth, room{jr: "restricted"}, via("@zed:a", `"@nobody:a"`)},
	{"restricted: authoriser's server has not signed", cosign, room{jr: "restricted"}, via("@zed:a", `"@far:b"`, "a")},
	{"restricted: authoriser is no user", cosign, room{jr: "restricted"}, via("@zed:a", `7`)},
	{"public: authoriser's server has not signed", "ok ok ok ok 4.2.1 4.2.1 4.2.1 5.2.1", room{jr: "public"}, via("@zed:a", `"@far:b"`, "a")},
	{"restricted: banned", "5.2.3 5.2.3 4.2.3 4.2.3 4.3.3 4.3.3 4.3.3 5.3.3", room{jr: "restricted"}, via("@dan:a", `"@bob:a"`)},
	{"knock_restricted: authorised", "5.2.6 5.2.6 4.2.6 4.2.6 4.3.7 ok ok ok", room{jr: "knock_restricted"}, via("@zed:a", `"@bob:a"`)},
	{"knock_restricted: not authorised", "5.2.6 5.2.6 4.2.6 4.2.6 4.3.7 4.3.5.2 4.3.5.2 5.3.5.2", room{jr: "knock_restricted"}, member("@zed:a", "@zed:a", "join")},
	{"knock_restricted: invited", "5.2.6 5.2.6 4.2.6 4.2.6 4.3.7 ok ok ok", room{jr: "knock_restricted"}, member("@carol:a", "@carol:a", "join")},

	// Third-party invitations.
	{"3pid: by public_key", allOK, withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "tok")+`}`)},
	{"3pid: by public_keys", allOK, withThirdParty("@bob:a", `{"public_keys":[{"public_key":"AAAA"},{"public_key":"`+idPublic()+`"}]}`), invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "tok")+`}`)},
	{"3pid: sender need not be joined", allOK, withThirdParty("@eve:a", `{"public_key":"`+idPublic()+`"}`), func() ev {
		e := invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "tok")+`}`)
		e.sender = "@eve:a"
		return e
	}()},
	{"3pid: banned", "5.3.1.1 5.3.1.1 4.3.1.1 4.3.1.1 4.4.1.1 4.4.1.1 4.4.1.1 5.4.1.1", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@dan:a", `{"signed":`+signedPart("@dan:a", "tok")+`}`)},
	{"3pid: not signed", "5.3.1.2 5.3.1.2 4.3.1.2 4.3.1.2 4.4.1.2 4.4.1.2 4.4.1.2 5.4.1.2", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `{}`)},
	{"3pid: null", "5.3.1.2 5.3.1.2 4.3.1.2 4.3.1.2 4.4.1.2 4.4.1.2 4.4.1.2 5.4.1.2", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `null`)},
	{"3pid: no token", "5.3.1.3 5.3.1.3 4.3.1.3 4.3.1.3 4.4.1.3 4.4.1.3 4.4.1.3 5.4.1.3", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `{"signed":{"mxid":"@zed:a"}}`)},
	{"3pid: no mxid", "5.3.1.3 5.3.1.3 4.3.1.3 4.3.1.3 4.4.1.3 4.4.1.3 4.4.1.3 5.4.1.3", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `{"signed":{"token":"tok"}}`)},
	{"3pid: for another user", "5.3.1.4 5.3.1.4 4.3.1.4 4.3.1.4 4.4.1.4 4.4.1.4 4.4.1.4 5.4.1.4", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@new:a", `{"signed":`+signedPart("@zed:a", "tok")+`}`)},
	{"3pid: unknown token", "5.3.1.5 5.3.1.5 4.3.1.5 4.3.1.5 4.4.1.5 4.4.1.5 4.4.1.5 5.4.1.5", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "other")+`}`)},
	{"3pid: of another sender", "5.3.1.6 5.3.1.6 4.3.1.6 4.3.1.6 4.4.1.6 4.4.1.6 4.4.1.6 5.4.1.6", withThirdParty("@mod:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "tok")+`}`)},
	{"3pid: no key fits", "5.3.1.8 5.3.1.8 4.3.1.8 4.3.1.8 4.4.1.8 4.4.1.8 4.4.1.8 5.4.1.8", withThirdParty("@bob:a", `{"public_key":"`+b64(make([]byte, 32))+`"}`), invite3("@zed:a", `{"signed":`+signedPart("@zed:a", "tok")+`}`)},
	{"3pid: changed after signing", "5.3.1.8 5.3.1.8 4.3.1.8 4.3.1.8 4.4.1.8 4.4.1.8 4.4.1.8 5.4.1.8", withThirdParty("@bob:a", `{"public_key":"`+idPublic()+`"}`), invite3("@zed:a", `{"signed":`+strings.Replace(signedPart("@zed:a", "tok"), `"mxid"`, `"extra":1,"mxid"`, 1)+`}`)},

	// Invite.
	{"invite", allOK, room{}, member("@bob:a", "@zed:a", "invite")},
	{"invite who knocks", allOK, room{}, member("@bob:a", "@kim:a", "invite")},
	{"invite who was kicked", allOK, room{}, member("@bob:a", "@eve:a", "invite")},
	{"invite from outside", "5.3.2 5.3.2 4.3.2 4.3.2 4.4.2 4.4.2 4.4.2 5.4.2", room{}, member("@eve:a", "@zed:a", "invite")},
	{"invite who is joined", "5.3.3 5.3.3 4.3.3 4.3.3 4.4.3 4.4.3 4.4.3 5.4.3", room{}, member("@mod:a", "@bob:a", "invite")},
	{"invite who is banned", "5.3.3 5.3.3 4.3.3 4.3.3 4.4.3 4.4.3 4.4.3 5.4.3", room{}, member("@alice:a", "@dan:a", "invite")},
	{"invite without power", "5.3.5 5.3.5 4.3.5 4.3.5 4.4.5 4.4.5 4.4.5 5.4.5", room{pl: `{"invite":1}`}, member("@bob:a", "@zed:a", "invite")},

	// Leave.
	{"leave", allOK, room{}, member("@bob:a", "@bob:a", "leave")},
	{"reject an invitation", allOK, room{}, member("@carol:a", "@carol:a", "leave")},
	{"take back a knock", "5.4.1 5.4.1 4.4.1 ok ok ok ok ok", room{}, member("@kim:a", "@kim:a", "leave")},
	{"leave from outside", leaveOwn, room{}, member("@zed:a", "@zed:a", "leave")},
	{"leave though banned", leaveOwn, room{}, member("@dan:a", "@dan:a", "leave")},
	{"leave twice", leaveOwn, room{}, member("@eve:a", "@eve:a", "leave")},
	{"kick from outside", "5.4.2 5.4.2 4.4.2 4.4.2 4.5.2 4.5.2 4.5.2 5.5.2", room{}, member("@eve:a", "@bob:a", "leave")},
	{"lift a ban", allOK, room{}, member("@mod:a", "@dan:a", "leave")},
	{"lift a ban below the ban level", "5.4.3 5.4.3 4.4.3 4.4.3 4.5.3 4.5.3 4.5.3 5.5.3", room{pl: `{"users":{PL "@mod:a":50},"ban":60}`}, member("@mod:a", "@dan:a", "leave")},
	{"kick", allOK, room{}, member("@mod:a", "@bob:a", "leave")},
	{"take back an invitation", allOK, room{}, member("@mod:a", "@carol:a", "leave")},
	{"kick below the kick level", leaveElse, room{}, member("@bob:a", "@far:b", "leave")},
	{"kick an equal", leaveElse, room{}, member("@mod:a", "@eq:a", "leave")},
	{"kick the creator", leaveElse, room{}, member("@mod:a", "@alice:a", "leave")},
	{"creator kicks another creator", "ok ok ok ok ok ok ok 5.5.5", room{create: `"additional_creators":["@bob:a"]`}, member("@alice:a", "@bob:a", "leave")},

	// Ban.
	{"ban", allOK, room{}, member("@mod:a", "@bob:a", "ban")},
	{"ban who was never there", allOK, room{}, member("@mod:a", "@zed:a", "ban")},
	{"ban from outside", "5.5.1 5.5.1 4.5.1 4.5.1 4.6.1 4.6.1 4.6.1 5.6.1", room{}, member("@eve:a", "@bob:a", "ban")},
	{"ban without power", banElse, room{}, member("@bob:a", "@far:b", "ban")},
	{"ban an equal", banElse, room{}, member("@mod:a", "@eq:a", "ban")},
	{"ban oneself", banElse, room{}, member("@mod:a", "@mod:a", "ban")},
	{"ban a creator", "ok ok ok ok ok ok ok 5.6.3", room{create: `"additional_creators":["@bob:a"]`}, member("@mod:a", "@bob:a", "ban")},

	// Knock.
	{"knock", "5.6 5.6 4.6 ok ok ok ok ok", room{jr: "knock"}, member("@zed:a", "@zed:a", "knock")},
	{"knock again", "5.6 5.6 4.6 ok ok ok ok ok", room{jr: "knock"}, member("@kim:a", "@kim:a", "knock")},
	{"knock after leaving", "5.6 5.6 4.6 ok ok ok ok ok", room{jr: "knock"}, member("@eve:a", "@eve:a", "knock")},
	{"knock in an invite room", knockRule, room{jr: "invite"}, member("@zed:a", "@zed:a", "knock")},
	{"knock without join rules", knockRule, room{}, member("@zed:a", "@zed:a", "knock")},
	{"knock in a restricted room", knockRule, room{jr: "restricted"}, member("@zed:a", "@zed:a", "knock")},
	{"knock in a knock_restricted room", "5.6 5.6 4.6 4.6.1 4.7.1 ok ok ok", room{jr: "knock_restricted"}, member("@zed:a", "@zed:a", "knock")},
	{"knock for another", "5.6 5.6 4.6 4.6.2 4.7.2 4.7.2 4.7.2 5.7.2", room{jr: "knock"}, member("@bob:a", "@zed:a", "knock")},
	{"knock though banned", knockElse, room{jr: "knock"}, member("@dan:a", "@dan:a", "knock")},
	{"knock though invited", knockElse, room{jr: "knock"}, member("@carol:a", "@carol:a", "knock")},
	{"knock though joined", knockElse, room{jr: "knock"}, member("@bob:a", "@bob:a", "knock")},

	// The sender must be joined.
	{"message", allOK, room{}, msg("@bob:a", "m.room.message")},
	{"message after leaving", notJoined, room{}, msg("@eve:a", "m.room.message")},
	{"message when invited", notJoined, room{}, msg("@carol:a", "m.room.message")},
	{"message when banned", notJoined, room{}, msg("@dan:a", "m.room.message")},
	{"message from nowhere", notJoined, room{}, msg("@zed:a", "m.room.message")},
	{"creator who has left", notJoined, room{more: []ev{member("@alice:a", "@alice:a", "leave")}}, msg("@alice:a", "m.room.message")},

	// m.room.third_party_invite takes the invite level only.
	{"third-party invite", allOK, room{}, state("@bob:a", "m.room.third_party_invite", "tok")},
	{"third-party invite without power", "7.1 7.1 6.1 6.1 6.1 6.1 6.1 7.1", room{pl: `{"invite":1}`}, state("@bob:a", "m.room.third_party_invite", "tok")},

	// Required power.
	{"state by default", required, room{}, state("@bob:a", "m.room.topic", "")},
	{"state by default, with power", allOK, room{}, state("@mod:a", "m.room.topic", "")},
	{"listed type", required, room{}, state("@bob:a", "m.room.name", "")},
	{"listed message type", required, room{}, msg("@mod:a", "m.custom")},
	{"listed message type, with power", allOK, room{}, msg("@alice:a", "m.custom")},
	{"events_default", required, room{pl: `{"events_default":1}`}, msg("@bob:a", "m.room.message")},
	{"users_default", allOK, room{pl: `{"events_default":1,"users_default":1}`}, msg("@bob:a", "m.room.message")},
	{"negative levels", required, room{pl: `{"users":{"@bob:a":-1}}`}, msg("@bob:a", "m.room.message")},
	{"state_default", allOK, room{pl: `{"state_default":0}`}, state("@bob:a", "m.room.topic", "")},
	{"no power levels: message", allOK, room{pl: "none"}, msg("@bob:a", "m.room.message")},
	{"no power levels: state", required, room{pl: "none"}, state("@bob:a", "m.room.topic", "")},
	{"no power levels: state by the creator", allOK, room{pl: "none"}, state("@alice:a", "m.room.topic", "")},
	{"creator not among users", "8 8 7 7 7 7 7 ok", room{pl: `{"users":{"@mod:a":50}}`}, state("@alice:a", "m.room.topic", "")},
	{"additional creator", "8 8 7 7 7 7 7 ok", room{create: `"additional_creators":["@bob:a"]`}, state("@bob:a", "m.room.name", "")},
	{"levels as strings", "8 8 7 7 7 - - -", room{pl: `{"users":{"@mod:a":" +050 "},"state_default":"51"}`}, state("@mod:a", "m.room.topic", "")},

	// State keys that are users.
	{"state key of another user", atKey, room{}, state("@mod:a", "org.example", "@bob:a")},
	{"state key that begins with @", atKey, room{}, state("@mod:a", "org.example", "@")},
	{"own state key", allOK, room{}, state("@mod:a", "org.example", "@mod:a")},
	{"state key with an underscore before", allOK, room{}, state("@mod:a", "org.example", "_@bob:a")},

	// Power levels.
	{"power levels: users is a list", plUsers, room{}, power("@mod:a", `{"users":[]}`)},
	{"power levels: users names no user", plUsers, room{}, power("@mod:a", `{"users":{"bob":1}}`)},
	{"power levels: user without level", plUsers, room{}, power("@mod:a", `{"users":{"@bob:a":null}}`)},
	{"power levels: user with a boolean", plUsers, room{}, power("@mod:a", `{"users":{"@bob:a":true}}`)},
	{"power levels: user with words", plUsers, room{}, power("@mod:a", `{"users":{"@bob:a":"ten"}}`)},
	{"power levels: user with a float in a string", plUsers, room{}, power("@mod:a", `{"users":{"@bob:a":"1.5"}}`)},
	{"power levels: user with a string", "ok ok ok ok ok 9.3 9.3 10.3", room{}, power("@alice:a", `{"users":{PL "@mod:a":"50","@eq:a":"+50"}}`)},
	{"power levels: user with a float", "ok ok 9.1 9.1 9.1 9.3 9.3 10.3", room{}, power("@alice:a", `{"users":{PL "@mod:a":50.57}}`)},
	{"power levels: user with an exponent", "ok ok 9.1 9.1 9.1 9.3 9.3 10.3", room{}, power("@alice:a", `{"users":{PL "@mod:a":5.0E1}}`)},
	{"power levels: float beyond doubles", plUsers, room{}, power("@alice:a", `{"users":{PL "@mod:a":1e999}}`)},
	{"power levels: level with a string", "ok ok ok ok ok 9.1 9.1 10.1", room{}, power("@alice:a", `{"users":{PL "@mod:a":50},"ban":"60"}`)},
	{"power levels: level with words", "10 10 9 9 9 9.1 9.1 10.1", room{}, power("@alice:a", `{"users":{PL "@mod:a":50},"ban":"high"}`)},
	{"power levels: event with a string", "ok ok ok ok ok 9.2 9.2 10.2", room{}, power("@alice:a", `{"users":{PL "@mod:a":50},"events":{"x":"1"}}`)},
	{"power levels: events is a list", "10 10 9 9 9 9.2 9.2 10.2", room{}, power("@alice:a", `{"users":{PL "@mod:a":50},"events":[]}`)},
	{"power levels: notification with a string", "ok ok ok ok ok 9.2 9.2 10.2", room{}, power("@alice:a", `{"users":{PL "@mod:a":50},"notifications":{"room":"20"}}`)},
	{"power levels: notifications is a list", "ok ok 9 9 9 9.2 9.2 10.2", room{}, power("@alice:a", `{"users":{PL "@mod:a":50},"notifications":[]}`)},
	{"power levels: names the creator", "ok ok ok ok ok ok ok 10.4", room{}, power("@alice:a", `{"users":{"@alice:a":100,"@mod:a":50}}`)},
	{"power levels: names an additional creator", "ok ok ok ok ok ok ok 10.4", room{create: `"additional_creators":["@bob:a"]`}, power("@alice:a", `{"users":{PL "@bob:a":1}}`)},
	{"power levels: the first", allOK, room{pl: "none"}, power("@alice:a", `{"users":{"@mod:a":1000}}`)},
	{"power levels: the first, without power", required, room{pl: "none"}, power("@bob:a", `{"users":{"@bob:a":1000}}`)},
	{"power levels: changes a level above", plTopNow, room{pl: `{"users":{PL "@mod:a":50},"ban":75}`}, power("@mod:a", `{"users":{PL "@mod:a":50},"ban":50}`)},
	{"power levels: removes a level above", plTopNow, room{pl: `{"users":{PL "@mod:a":50},"redact":75}`}, power("@mod:a", `{"users":{PL "@mod:a":50}}`)},
	{"power levels: raises a level too high", plTopNew, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75},"kick":51}`)},
	{"power levels: writes down a default", allOK, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75},"kick":50,"invite":0}`)},
	{"power levels: state_default too high", plTopNew, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75},"state_default":60}`)},
	{"power levels: removes an event above", plEvNow, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50}}`)},
	{"power levels: lowers an event above", plEvNow, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50,"m.custom":50}}`)},
	{"power levels: adds an event above", plEvNew, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75,"m.x":51}}`)},
	{"power levels: raises an event above", plEvNew, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":51,"m.custom":75}}`)},
	{"power levels: changes an event", allOK, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.custom":75,"m.new":50}}`)},
	{"power levels: changes a notification above", "ok ok 9.4.1 9.4.1 9.4.1 9.6.1 9.6.1 10.7.1", room{pl: `{"users":{PL "@mod:a":50},"notifications":{"room":75}}`}, power("@mod:a", `{"users":{PL "@mod:a":50},"notifications":{"room":10}}`)},
	{"power levels: adds a notification above", "ok ok 9.5.1 9.5.1 9.5.1 9.7.1 9.7.1 10.8.1", room{pl: `{"users":{PL "@mod:a":50}}`}, power("@mod:a", `{"users":{PL "@mod:a":50},"notifications":{"room":75}}`)},
	{"power levels: removes an equal", plUserNow, room{}, power("@mod:a", `{"users":{PL "@mod:a":50},"events":{"m.room.name":50,"m.custom":75}}`)},
	{"power levels: lowers an equal", plUserNow, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":1},"events":{"m.room.name":50,"m.custom":75}}`)},
	{"power levels: lowers oneself", allOK, room{}, power("@mod:a", `{"users":{PL "@mod:a":1,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75}}`)},
	{"power levels: removes oneself", allOK, room{}, power("@mod:a", `{"users":{PL "@eq:a":50},"events":{"m.room.name":50,"m.custom":75}}`)},
	{"power levels: adds a user above", plUserNew, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50,"@bob:a":51},"events":{"m.room.name":50,"m.custom":75}}`)},
	{"power levels: raises oneself", plUserNew, room{}, power("@mod:a", `{"users":{PL "@mod:a":51,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75}}`)},
	{"power levels: adds an equal", allOK, room{}, power("@mod:a", `{"users":{PL "@mod:a":50,"@eq:a":50,"@bob:a":50},"events":{"m.room.name":50,"m.custom":75}}`)},
	{"power levels: the creator lowers others", allOK, room{}, power("@alice:a", `{"users":{PL "@mod:a":1}}`)},
	{"power levels: as high as JSON goes", "10.3.2 10.3.2 9.3.2 9.3.2 9.3.2 9.5.2 9.5.2 ok", room{}, power("@alice:a", `{"users":{PL "@mod:a":50},"ban":9007199254740991}`)},
	{"power levels: as messages", allOK, room{}, ev{typ: "m.room.power_levels", sender: "@mod:a", sk: message, content: `{"users":{PL "@mod:a":50,"@eq:a":50},"events":{"m.room.name":50,"m.custom":75}}`}},

	// Redactions have a rule of their own in versions 1 and 2.
	{"redaction of another server's event", "11.3 ok ok ok ok ok ok ok", room{}, ev{typ: "m.room.redaction", sender: "@bob:a", sk: message, redacts: "$x:b"}},
	{"redaction of an own event", allOK, room{}, ev{typ: "m.room.redaction", sender: "@bob:a", sk: message, redacts: "$x:a"}},
	{"redaction with power", allOK, room{}, ev{typ: "m.room.redaction", sender: "@mod:a", sk: message, redacts: "$x:b"}},
	{"redaction of nothing", "11.3 ok ok ok ok ok ok ok", room{}, ev{typ: "m.room.redaction", sender: "@bob:a", sk: message}},
	{"redaction below its required level", required, room{pl: `{"events":{"m.room.redaction":1}}`}, ev{typ: "m.room.redaction", sender: "@bob:a", sk: message, redacts: "$x:a"}},
}

func TestRules(t *testing.T) {
	for _, c := range allRuleCases() {
		wants := strings.Fields(c.want)
		require.Len(t, wants, len(columns), c.name)
		for i, versions := range columns {
			for _, v := range versions {
				if wants[i] == "-" {
					continue
				}
				rules := roomver.MustGet(v)
				e := c.ev
				e.content = expand(rules, e.content)
				event := reduce(t, rules, e)
				st, auth := eventauth.Select(rules, event, lookup(c.room.state(t, rules)))
				requireRule(t, wants[i], eventauth.Check(rules, event, &st), "%s in version %s", c.name, v)

				// What the selection picks passes the rules on auth events, and gives the same state and decision.
				var list []eventauth.AuthEvent
				for _, a := range auth {
					list = append(list, eventauth.AuthEvent{Event: a})
				}
				create := c.room.state(t, rules)[eventauth.TypeKey{Type: "m.room.create"}]
				st, err := eventauth.CheckAuthEvents(rules, event, list, eventauth.AuthEvent{Event: create})
				require.NoError(t, err, "%s in version %s", c.name, v)
				requireRule(t, wants[i], eventauth.Check(rules, event, &st), "%s in version %s, by auth events", c.name, v)
			}
		}
	}
}

func requireRule(t require.TestingT, want string, err error, format string, args ...any) {
	if want == "ok" {
		require.NoErrorf(t, err, format, args...)
		return
	}
	require.Errorf(t, err, "want a refusal by rule "+want+": "+format, args...)
	var refusal *eventauth.RefusalError
	require.ErrorAs(t, err, &refusal)
	require.Equalf(t, want, refusal.Number, format+": "+err.Error(), args...)
	require.NotEmpty(t, refusal.Rule.Reason())
}

// Every numbered rule of every version refuses at least ten cases of the tables.
func TestEveryRuleIsTried(t *testing.T) {
	for i, versions := range columns {
		tried := map[string]int{}
		for _, c := range allRuleCases() {
			tried[strings.Fields(c.want)[i]]++
		}
		for _, c := range allAuthCases() {
			tried[strings.Fields(c.want)[i]]++
		}
		for _, v := range versions {
			rules := roomver.MustGet(v)
			for r := eventauth.Allowed + 1; r.Reason() != ""; r++ {
				if n := r.Number(rules); n != "" && has(rules, r) {
					require.GreaterOrEqual(t, tried[n], 10, "cases of rule %s (%s) in version %s", n, r.Reason(), v)
				}
			}
		}
	}
}

// has says whether a version has a rule at all.
func has(rules *roomver.Rules, r eventauth.Rule) bool {
	switch r {
	case eventauth.CreateCreator:
		return rules.Creator == roomver.CreatorInContent || rules.PrivilegedCreators
	case eventauth.RoomCreate, eventauth.PowerCreators:
		return rules.PrivilegedCreators
	case eventauth.AuthNoCreate:
		return !rules.RoomIDIsHash
	case eventauth.AliasesStateKey, eventauth.AliasesDomain:
		return rules.AliasesAuth
	case eventauth.MemberAuthoriserSignature, eventauth.JoinAuthoriser:
		return rules.Restricted
	case eventauth.KnockJoinRule, eventauth.KnockSender, eventauth.KnockMembership:
		return rules.Knock
	case eventauth.PowerNotInteger, eventauth.PowerMapNotInteger:
		return rules.PowerLevels == roomver.PowerInt
	case eventauth.PowerMalformed:
		return rules.PowerLevels != roomver.PowerInt
	case eventauth.RedactionPower:
		return rules.RedactionAuth
	default:
		return true
	}
}
