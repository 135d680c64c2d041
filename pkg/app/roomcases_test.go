package app

// anybody says why an endpoint refuses nobody for lack of power.
var (
	anyMember = map[string]string{"denied": "every member may"}
	anybody   = map[string]string{"denied": "everybody may", "outside": "it is for those outside too"}
	noRoom    = map[string]string{"denied": "it is the user's own", "outside": "it is not of one room", "nowhere": "it is not of one room"}
	ownOfRoom = map[string]string{"outside": "it is the user's own, whatever the room", "nowhere": "the same"}
)

const message = `{"msgtype":"m.text","body":"x"}`

// reads gives the cases of an endpoint that reads from a room, for its members.
func reads(more ...roomCase) []roomCase {
	return append([]roomCase{
		{done, "alice", "", ``, 200, ""},
		{done, "bob", "", ``, 200, ""},
	}, more...)
}

// roomEndpoints is the table. See [roomEndpoint].
func roomEndpoints() map[string]roomEndpoint {
	room := "/v3/rooms/{room}"
	none := "/v3/rooms/{nowhere}"
	thread := "/unstable/io.element.msc4306/rooms/{room}/thread/{event}/subscription"
	noThread := "/unstable/io.element.msc4306/rooms/{nowhere}/thread/{event}/subscription"
	return map[string]roomEndpoint{
		"sendMessage": {method: "PUT", path: room + "/send/m.room.message/{n}", spec: "400 M_DUPLICATE_ANNOTATION", cases: []roomCase{
			{done, "bob", "", message, 200, ""},
			{done, "bob", "", message, 200, ""},
			{done, "alice", room + "/send/m.room.redaction/r{n}", `{"redacts":"{reply}"}`, 200, ""},
			{denied, "bob", room + "/send/m.room.redaction/s{n}", `{"redacts":"{event}"}`, 403, "M_FORBIDDEN"},
			{outside, "carol", "", message, 403, "M_FORBIDDEN"},
			{bad, "bob", room + "/send/m.room.message/t{n}", `[]`, 400, "M_BAD_JSON"},
			{bad, "bob", room + "/send/m.room.message/t{n}", ``, 400, "M_NOT_JSON"},
			{bad, "bob", room + "/send/m.room.message/t{n}", `{"body":1.5}`, 400, "M_BAD_JSON"},
			{bad, "bob", room + "/send/m.room.message/t{n}", `{"body":"{long}"}`, 413, "M_TOO_LARGE"},
			{nowhere, "bob", none + "/send/m.room.message/{n}", message, 404, "M_NOT_FOUND"},
			{setup, "bob", room + "/send/m.reaction/u{n}", `{"m.relates_to":{"rel_type":"m.annotation","event_id":"{event}","key":"x"}}`, 200, ""},
			{other, "bob", room + "/send/m.reaction/v{n}", `{"m.relates_to":{"rel_type":"m.annotation","event_id":"{event}","key":"x"}}`, 400, "M_DUPLICATE_ANNOTATION"},
		}},
		"redactEvent": {method: "PUT", path: room + "/redact/{reply}/{n}", cases: []roomCase{
			{denied, "bob", room + "/redact/{event}/{n}", `{}`, 403, "M_FORBIDDEN"},
			{outside, "carol", "", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
			{bad, "bob", "", `{"reason":1}`, 400, "M_BAD_JSON"},
			{bad, "bob", room + "/redact/{malformed}/{n}", `{}`, 400, "M_INVALID_PARAM"},
			{other, "bob", room + "/redact/{none}/{n}", `{}`, 404, "M_NOT_FOUND"},
			{nowhere, "bob", none + "/redact/{reply}/{n}", `{}`, 404, "M_NOT_FOUND"},
			{done, "bob", "", `{"reason":"slip"}`, 200, ""},
		}},
		"setRoomStateWithKey": {method: "PUT", path: room + "/state/m.room.topic/", spec: "400 M_BAD_ALIAS, 400 M_INVALID_PARAM, 403 M_FORBIDDEN, 403 M_INVITE_BLOCKED", cases: []roomCase{
			{done, "alice", "", `{"topic":"t"}`, 200, ""},
			{done, "alice", room + "/state/m.room.topic", `{"topic":"t"}`, 200, ""},
			{done, "alice", room + "/state/x/key", `{}`, 200, ""},
			{denied, "bob", "", `{"topic":"t"}`, 403, "M_FORBIDDEN"},
			{outside, "carol", "", `{"topic":"t"}`, 403, "M_FORBIDDEN"},
			{bad, "alice", "", `null`, 400, "M_BAD_JSON"},
			{bad, "alice", "", `{`, 400, "M_NOT_JSON"},
			{nowhere, "alice", none + "/state/m.room.topic/", `{}`, 404, "M_NOT_FOUND"},
			{other, "alice", room + "/state/m.room.canonical_alias/", `{"alias":"#nothing:example.org"}`, 400, "M_BAD_ALIAS"},
			{other, "alice", room + "/state/m.room.canonical_alias/", `{"alias":"nothing"}`, 400, "M_INVALID_PARAM"},
			{setup, "carol", "PUT /v3/user/{carol}/account_data/m.invite_permission_config", `{"default_action":"block"}`, 200, ""},
			{other, "alice", room + "/state/m.room.member/{carol}", `{"membership":"invite"}`, 403, "M_INVITE_BLOCKED"},
			{setup, "carol", "PUT /v3/user/{carol}/account_data/m.invite_permission_config", `{}`, 200, ""},
		}},
		"getRoomEvents": {method: "GET", path: room + "/messages?dir=b", lacks: anyMember, spec: "403 M_FORBIDDEN", cases: reads(
			roomCase{done, "guest", "/v3/rooms/{readable}/messages?dir=f", ``, 200, ""},
			roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			roomCase{bad, "bob", room + "/messages", ``, 400, "M_MISSING_PARAM"},
			roomCase{bad, "bob", room + "/messages?dir=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", room + "/messages?dir=b&from=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", room + "/messages?dir=b&limit=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", room + "/messages?dir=b&filter=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{nowhere, "bob", none + "/messages?dir=b", ``, 403, "M_FORBIDDEN"},
		)},
		"getOneRoomEvent": {method: "GET", path: room + "/event/{event}", lacks: anyMember, spec: "404 M_NOT_FOUND", cases: reads(
			roomCase{done, "guest", "/v3/rooms/{readable}/event/{said}", ``, 200, ""},
			roomCase{outside, "carol", "", ``, 404, "M_NOT_FOUND"},
			roomCase{other, "bob", room + "/event/{none}", ``, 404, "M_NOT_FOUND"},
			roomCase{bad, "bob", room + "/event/{malformed}", ``, 404, "M_NOT_FOUND"},
			roomCase{nowhere, "bob", none + "/event/{event}", ``, 404, "M_NOT_FOUND"},
		)},
		"getRoomStateWithKey": {method: "GET", path: room + "/state/m.room.name/", lacks: anyMember, spec: "403 M_FORBIDDEN, 404 M_NOT_FOUND", cases: reads(
			roomCase{done, "bob", room + "/state/m.room.name", ``, 200, ""},
			roomCase{done, "bob", room + "/state/m.room.member/{alice}?format=event", ``, 200, ""},
			roomCase{done, "guest", "/v3/rooms/{readable}/state/m.room.create/", ``, 200, ""},
			roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			roomCase{bad, "bob", "?format=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{other, "bob", room + "/state/nothing/", ``, 404, "M_NOT_FOUND"},
			roomCase{nowhere, "bob", none + "/state/m.room.name/", ``, 403, "M_FORBIDDEN"},
		)},
		"getRoomState": {
			method: "GET", path: room + "/state", spec: "403 M_FORBIDDEN",
			lacks: map[string]string{"denied": "every member may", "bad": "it has no parameter but the room"}, cases: reads(
				roomCase{done, "guest", "/v3/rooms/{readable}/state", ``, 200, ""},
				roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
				roomCase{nowhere, "bob", none + "/state", ``, 403, "M_FORBIDDEN"},
			),
		},
		"getMembersByRoom": {method: "GET", path: room + "/members", lacks: anyMember, spec: "403 M_FORBIDDEN", cases: reads(
			roomCase{done, "bob", "?membership=join", ``, 200, ""},
			roomCase{done, "bob", "?not_membership=join", ``, 200, ""},
			roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			roomCase{outside, "carol", "/v3/rooms/{readable}/members", ``, 403, "M_FORBIDDEN"},
			roomCase{bad, "bob", "?membership=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", "?not_membership=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", "?at=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{nowhere, "bob", none + "/members", ``, 403, "M_FORBIDDEN"},
		)},
		"getJoinedMembersByRoom": {
			method: "GET", path: room + "/joined_members", spec: "403 M_FORBIDDEN",
			lacks: map[string]string{"denied": "every member may", "bad": "it has no parameter but the room"}, cases: reads(
				roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
				roomCase{outside, "carol", "/v3/rooms/{readable}/joined_members", ``, 403, "M_FORBIDDEN"},
				roomCase{nowhere, "bob", none + "/joined_members", ``, 403, "M_FORBIDDEN"},
			),
		},
		"getEventContext": {method: "GET", path: room + "/context/{event}", lacks: anyMember, cases: reads(
			roomCase{done, "guest", "/v3/rooms/{readable}/context/{said}", ``, 200, ""},
			roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			roomCase{bad, "bob", "?limit=-1", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", "?filter=%7B", ``, 400, "M_INVALID_PARAM"},
			roomCase{other, "bob", room + "/context/{none}", ``, 404, "M_NOT_FOUND"},
			roomCase{nowhere, "bob", none + "/context/{event}", ``, 403, "M_FORBIDDEN"},
		)},
		"getRelatingEvents":                        related(""),
		"getRelatingEventsWithRelType":             related("/m.thread"),
		"getRelatingEventsWithRelTypeAndEventType": related("/m.thread/m.room.message"),
		"getThreadRoots": {method: "GET", path: "/v1/rooms/{room}/threads", lacks: anyMember, spec: "400 M_INVALID_PARAM, 403 M_FORBIDDEN", cases: reads(
			roomCase{done, "bob", "?include=participated", ``, 200, ""},
			roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			roomCase{bad, "bob", "?include=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", "?limit=0", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", "?from=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{nowhere, "bob", "/v1/rooms/{nowhere}/threads", ``, 403, "M_FORBIDDEN"},
		)},
		"postReceipt": {method: "POST", path: room + "/receipt/m.read/{event}", lacks: anyMember, spec: "400 M_INVALID_PARAM", cases: []roomCase{
			{done, "bob", "", `{}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{done, "bob", room + "/receipt/m.read.private/{event}", `{"thread_id":"main"}`, 200, ""},
			{done, "bob", room + "/receipt/m.fully_read/{event}", `{}`, 200, ""},
			{outside, "carol", "", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", room + "/receipt/x/{event}", `{}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "", `{"thread_id":""}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", room + "/receipt/m.fully_read/{event}", `{"thread_id":"main"}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
			{nowhere, "bob", none + "/receipt/m.read/{event}", `{}`, 404, "M_NOT_FOUND"},
		}},
		"setReadMarker": {method: "POST", path: room + "/read_markers", lacks: anyMember, cases: []roomCase{
			{done, "bob", "", `{"m.fully_read":"{event}","m.read":"{event}","m.read.private":"{event}"}`, 200, ""},
			{done, "bob", "", `{}`, 200, ""},
			{outside, "carol", "", `{"m.fully_read":"{event}"}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `{"m.read":"x"}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "", `{"m.read":1}`, 400, "M_BAD_JSON"},
			{bad, "bob", "", ``, 400, "M_NOT_JSON"},
			{nowhere, "bob", none + "/read_markers", `{"m.read":"{event}"}`, 404, "M_NOT_FOUND"},
		}},
		"setTyping": {method: "PUT", path: room + "/typing/{bob}", cases: []roomCase{
			{done, "bob", "", `{"typing":true,"timeout":1000}`, 200, ""},
			{done, "bob", "", `{"typing":false}`, 200, ""},
			{denied, "alice", "", `{"typing":true}`, 403, "M_FORBIDDEN"},
			{outside, "carol", room + "/typing/{carol}", `{"typing":true}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
			{bad, "bob", "", `{"typing":true,"timeout":-1}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "", `{"typing":"x"}`, 400, "M_BAD_JSON"},
			{nowhere, "bob", none + "/typing/{bob}", `{"typing":true}`, 404, "M_NOT_FOUND"},
		}},
		"createRoom": {
			method: "POST", path: "/v3/createRoom", spec: "400 M_BAD_JSON, 400 M_INVALID_ROOM_STATE, 400 M_NOT_JSON, 400 M_ROOM_IN_USE, 400 M_UNSUPPORTED_ROOM_VERSION, 403 M_INVITE_BLOCKED",
			lacks: map[string]string{"denied": "everybody may", "outside": "there is no room yet", "nowhere": "the same"}, cases: []roomCase{
				{done, "alice", "", `{}`, 200, ""},
				{bad, "alice", "", `{`, 400, "M_NOT_JSON"},
				{bad, "alice", "", `{"preset":"x"}`, 400, "M_BAD_JSON"},
				{bad, "alice", "", `{"visibility":"x"}`, 400, "M_BAD_JSON"},
				{bad, "alice", "", `{"creation_content":1}`, 400, "M_BAD_JSON"},
				{bad, "alice", "", `{"initial_state":[{"content":{}}]}`, 400, "M_BAD_JSON"},
				{bad, "alice", "", `{"invite":["bob"]}`, 400, "M_INVALID_PARAM"},
				{bad, "alice", "", `{"room_alias_name":"a:b"}`, 400, "M_INVALID_PARAM"},
				{other, "alice", "", `{"power_level_content_override":{"users":{"@bob:example.org":"x"}}}`, 400, "M_INVALID_ROOM_STATE"},
				{other, "alice", "", `{"room_alias_name":"loom{n}"}`, 400, "M_ROOM_IN_USE"},
				{other, "alice", "", `{"room_version":"loom"}`, 400, "M_UNSUPPORTED_ROOM_VERSION"},
				{setup, "carol", "PUT /v3/user/{carol}/account_data/m.invite_permission_config", `{"default_action":"block"}`, 200, ""},
				{other, "alice", "", `{"invite":["{carol}"]}`, 403, "M_INVITE_BLOCKED"},
				{setup, "carol", "PUT /v3/user/{carol}/account_data/m.invite_permission_config", `{}`, 200, ""},
			},
		},
		"joinRoomById": {method: "POST", path: "/v3/rooms/{public}/join", spec: "403 M_FORBIDDEN", cases: []roomCase{
			{done, "bob", "", `{"reason":"why"}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{done, "guest", "/v3/rooms/{readable}/join", `{}`, 200, ""},
			{setup, "alice", "POST /v3/rooms/{public}/ban", `{"user_id":"{dave}"}`, 200, ""},
			{denied, "dave", "", `{}`, 403, "M_FORBIDDEN"},
			{denied, "guest", "", `{}`, 403, "M_FORBIDDEN"},
			{outside, "carol", room + "/join", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `{"reason":1}`, 400, "M_BAD_JSON"},
			{bad, "bob", "", `[`, 400, "M_NOT_JSON"},
			{nowhere, "bob", none + "/join", `{}`, 404, "M_NOT_FOUND"},
		}},
		"joinRoom": {method: "POST", path: "/v3/join/{public}", spec: "403 M_FORBIDDEN", cases: []roomCase{
			{done, "bob", "", `{}`, 200, ""},
			{done, "bob", "/v3/join/{alias}", ``, 200, ""},
			{setup, "alice", "POST /v3/rooms/{public}/ban", `{"user_id":"{dave}"}`, 200, ""},
			{denied, "dave", "", `{}`, 403, "M_FORBIDDEN"},
			{outside, "carol", "/v3/join/{alias}", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "/v3/join/{malformed}", `{}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "/v3/join/%23loom", `{}`, 400, "M_INVALID_PARAM"},
			{nowhere, "bob", "/v3/join/{nowhere}", `{}`, 404, "M_NOT_FOUND"},
			{nowhere, "bob", "/v3/join/%23nowhere:example.org", `{}`, 404, "M_NOT_FOUND"},
		}},
		"knockRoom": {
			method: "POST", path: "/v3/knock/{room}", spec: "403 M_FORBIDDEN, 404 M_NOT_FOUND",
			lacks: map[string]string{"outside": "it is for those outside"}, cases: []roomCase{
				{denied, "carol", "", `{}`, 403, "M_FORBIDDEN"},
				{setup, "alice", "PUT " + room + "/state/m.room.join_rules/", `{"join_rule":"knock"}`, 200, ""},
				{done, "carol", "", `{"reason":"please"}`, 200, ""},
				{done, "carol", "/v3/knock/{alias}", ``, 200, ""},
				{denied, "bob", "", `{}`, 403, "M_FORBIDDEN"},
				{bad, "carol", "/v3/knock/{malformed}", `{}`, 400, "M_INVALID_PARAM"},
				{bad, "carol", "", `{"reason":{}}`, 400, "M_BAD_JSON"},
				{nowhere, "carol", "/v3/knock/{nowhere}", `{}`, 404, "M_NOT_FOUND"},
				{nowhere, "carol", "/v3/knock/%23nowhere:example.org", `{}`, 404, "M_NOT_FOUND"},
			},
		},
		"inviteUser": {method: "POST", path: room + "/invite", spec: "400 M_BAD_JSON, 400 M_NOT_JSON, 403 M_FORBIDDEN, 403 M_INVITE_BLOCKED", cases: []roomCase{
			{denied, "bob", "", `{"user_id":"{carol}"}`, 403, "M_FORBIDDEN"},
			{outside, "carol", "", `{"user_id":"{dave}"}`, 403, "M_FORBIDDEN"},
			{bad, "alice", "", `{}`, 400, "M_MISSING_PARAM"},
			{bad, "alice", "", `{"user_id":"carol"}`, 400, "M_INVALID_PARAM"},
			{bad, "alice", "", `{"user_id":1}`, 400, "M_BAD_JSON"},
			{bad, "alice", "", ``, 400, "M_NOT_JSON"},
			{nowhere, "alice", none + "/invite", `{"user_id":"{carol}"}`, 404, "M_NOT_FOUND"},
			{setup, "carol", "PUT /v3/user/{carol}/account_data/m.invite_permission_config", `{"default_action":"block"}`, 200, ""},
			{other, "alice", "", `{"user_id":"{carol}"}`, 403, "M_INVITE_BLOCKED"},
			{setup, "carol", "PUT /v3/user/{carol}/account_data/m.invite_permission_config", `{}`, 200, ""},
			{done, "alice", "", `{"user_id":"{carol}","reason":"why"}`, 200, ""},
		}},
		"leaveRoom": {method: "POST", path: room + "/leave", cases: []roomCase{
			{outside, "carol", "", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `{"reason":1}`, 400, "M_BAD_JSON"},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
			{nowhere, "bob", none + "/leave", `{}`, 404, "M_NOT_FOUND"},
			{done, "bob", "", `{"reason":"bored"}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{setup, "alice", "POST " + room + "/ban", `{"user_id":"{bob}"}`, 200, ""},
			{denied, "bob", "", `{}`, 403, "M_FORBIDDEN"},
		}},
		"forgetRoom": {method: "POST", path: room + "/forget", spec: "400 M_UNKNOWN", cases: []roomCase{
			{denied, "bob", "", `{}`, 400, "M_UNKNOWN"},
			{outside, "carol", "", `{}`, 404, "M_NOT_FOUND"},
			{nowhere, "bob", none + "/forget", `{}`, 404, "M_NOT_FOUND"},
			{setup, "bob", "POST " + room + "/leave", `{}`, 200, ""},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
			{done, "bob", "", `{}`, 200, ""},
		}},
		"kick":  casts("kick", "dave", 403, "M_FORBIDDEN"),
		"ban":   casts("ban", "dave", 0, ""),
		"unban": casts("unban", "bob", 403, "M_BAD_STATE"),
		"getJoinedRooms": {
			method: "GET", path: "/v3/joined_rooms", lacks: map[string]string{
				"denied": "it is the user's own", "outside": "it is not of one room", "nowhere": "it is not of one room", "bad": "it has no parameters",
			}, cases: reads(),
		},
		"upgradeRoom": {method: "POST", path: room + "/upgrade", spec: "400 M_UNSUPPORTED_ROOM_VERSION, 403 M_FORBIDDEN", cases: []roomCase{
			{denied, "bob", "", `{"new_version":"11"}`, 403, "M_FORBIDDEN"},
			{outside, "carol", "", `{"new_version":"11"}`, 403, "M_FORBIDDEN"},
			{bad, "alice", "", `{}`, 400, "M_MISSING_PARAM"},
			{bad, "alice", "", `{"new_version":11}`, 400, "M_BAD_JSON"},
			{other, "alice", "", `{"new_version":"loom"}`, 400, "M_UNSUPPORTED_ROOM_VERSION"},
			{nowhere, "alice", none + "/upgrade", `{"new_version":"11"}`, 404, "M_NOT_FOUND"},
			{done, "alice", "", `{"new_version":"11"}`, 200, ""},
		}},
		"getEventByTimestamp": {method: "GET", path: "/v1/rooms/{room}/timestamp_to_event?ts=0&dir=f", lacks: anyMember, spec: "404 M_NOT_FOUND", cases: reads(
			roomCase{done, "bob", "/v1/rooms/{room}/timestamp_to_event?ts=9999999999999&dir=b", ``, 200, ""},
			roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			roomCase{bad, "bob", "/v1/rooms/{room}/timestamp_to_event?dir=f", ``, 400, "M_MISSING_PARAM"},
			roomCase{bad, "bob", "/v1/rooms/{room}/timestamp_to_event?ts=1", ``, 400, "M_MISSING_PARAM"},
			roomCase{bad, "bob", "/v1/rooms/{room}/timestamp_to_event?ts=x&dir=f", ``, 400, "M_INVALID_PARAM"},
			roomCase{bad, "bob", "/v1/rooms/{room}/timestamp_to_event?ts=1&dir=x", ``, 400, "M_INVALID_PARAM"},
			roomCase{other, "bob", "/v1/rooms/{room}/timestamp_to_event?ts=0&dir=b", ``, 404, "M_NOT_FOUND"},
			roomCase{nowhere, "bob", "/v1/rooms/{nowhere}/timestamp_to_event?ts=0&dir=f", ``, 403, "M_FORBIDDEN"},
		)},
		"getRoomSummary": {
			method: "GET", path: "/v1/room_summary/{room}", spec: "404 M_NOT_FOUND", lacks: map[string]string{"denied": "every member may"}, cases: reads(
				roomCase{done, "bob", "/v1/room_summary/{alias}", ``, 200, ""},
				roomCase{done, "", "/v1/room_summary/{public}", ``, 200, ""},
				roomCase{done, "guest", "/v1/room_summary/{public}", ``, 200, ""},
				roomCase{outside, "carol", "", ``, 404, "M_NOT_FOUND"},
				roomCase{outside, "", "", ``, 404, "M_NOT_FOUND"},
				roomCase{bad, "bob", "/v1/room_summary/{malformed}", ``, 400, "M_INVALID_PARAM"},
				roomCase{nowhere, "bob", "/v1/room_summary/{nowhere}", ``, 404, "M_NOT_FOUND"},
				roomCase{nowhere, "bob", "/v1/room_summary/%23nowhere:example.org", ``, 404, "M_NOT_FOUND"},
			),
		},
		"getSpaceHierarchy": {method: "GET", path: "/v1/rooms/{space}/hierarchy", lacks: anyMember, spec: "400 M_INVALID_PARAM, 403 M_FORBIDDEN", cases: []roomCase{
			{done, "alice", "", ``, 200, ""},
			{done, "alice", "?max_depth=0&limit=1&suggested_only=true", ``, 200, ""},
			{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			{bad, "alice", "?limit=0", ``, 400, "M_INVALID_PARAM"},
			{bad, "alice", "?max_depth=-1", ``, 400, "M_INVALID_PARAM"},
			{bad, "alice", "?suggested_only=x", ``, 400, "M_INVALID_PARAM"},
			{bad, "alice", "?from=x", ``, 400, "M_INVALID_PARAM"},
			{nowhere, "alice", "/v1/rooms/{nowhere}/hierarchy", ``, 403, "M_FORBIDDEN"},
		}},
		"getMutualRooms": {method: "GET", path: "/v1/mutual_rooms?user_id={bob}", lacks: noRoom, spec: "400 M_INVALID_PARAM", cases: []roomCase{
			{done, "alice", "", ``, 200, ""},
			{bad, "bob", "", ``, 400, "M_INVALID_PARAM"},
			{bad, "alice", "/v1/mutual_rooms", ``, 400, "M_MISSING_PARAM"},
			{bad, "alice", "/v1/mutual_rooms?user_id=bob", ``, 400, "M_INVALID_PARAM"},
			{bad, "alice", "/v1/mutual_rooms?user_id={bob}&from=x", ``, 400, "M_INVALID_PARAM"},
		}},
		"setThreadSubscription": {method: "PUT", path: thread, lacks: anyMember, spec: "400 IO.ELEMENT.MSC4306.M_NOT_IN_THREAD, 404 M_NOT_FOUND, 409 IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION", cases: []roomCase{
			{done, "bob", "", `{}`, 200, ""},
			{done, "bob", "", `{"automatic":"{reply}"}`, 200, ""},
			{setup, "bob", "DELETE " + thread, ``, 200, ""},
			{other, "bob", "", `{"automatic":"{reply}"}`, 409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION"},
			{other, "bob", "", `{"automatic":"{event}"}`, 400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD"},
			{outside, "carol", "", `{}`, 404, "M_NOT_FOUND"},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
			{bad, "bob", "", `{"automatic":1}`, 400, "M_BAD_JSON"},
			{nowhere, "bob", noThread, `{}`, 404, "M_NOT_FOUND"},
		}},
		"getThreadSubscription": {method: "GET", path: thread, lacks: anyMember, spec: "404 M_NOT_FOUND", cases: []roomCase{
			{other, "bob", "", ``, 404, "M_NOT_FOUND"},
			{setup, "bob", "PUT " + thread, `{}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{outside, "carol", "", ``, 404, "M_NOT_FOUND"},
			{bad, "bob", "/unstable/io.element.msc4306/rooms/{malformed}/thread/{event}/subscription", ``, 400, "M_INVALID_PARAM"},
			{nowhere, "bob", noThread, ``, 404, "M_NOT_FOUND"},
		}},
		"deleteThreadSubscription": {method: "DELETE", path: thread, lacks: anyMember, spec: "404 M_NOT_FOUND", cases: []roomCase{
			{setup, "bob", "PUT " + thread, `{}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{setup, "bob", "GET " + thread, ``, 404, "M_NOT_FOUND"},
			{outside, "carol", "", ``, 404, "M_NOT_FOUND"},
			{bad, "bob", "/unstable/io.element.msc4306/rooms/{room}/thread/{malformed}/subscription", ``, 400, "M_INVALID_PARAM"},
			{nowhere, "bob", noThread, ``, 404, "M_NOT_FOUND"},
		}},
		"getThreadSubscriptions": {method: "GET", path: "/unstable/io.element.msc4308/thread_subscriptions", lacks: noRoom, cases: []roomCase{
			{setup, "bob", "PUT " + thread, `{}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{done, "bob", "?dir=b&limit=1&from=9999999&to=0", ``, 200, ""},
			{bad, "bob", "?dir=f", ``, 400, "M_INVALID_PARAM"},
			{bad, "bob", "?from=x", ``, 400, "M_INVALID_PARAM"},
			{bad, "bob", "?limit=x", ``, 400, "M_INVALID_PARAM"},
		}},
		"setRoomAlias": {
			method: "PUT", path: "/v3/directory/room/%23weft{n}:example.org", spec: "400 M_INVALID_PARAM, 409 M_UNKNOWN", cases: []roomCase{
				{done, "bob", "", `{"room_id":"{room}"}`, 200, ""},
				{other, "bob", "", `{"room_id":"{room}"}`, 409, "M_UNKNOWN"},
				{denied, "carol", "/v3/directory/room/%23w{n}:elsewhere.org", `{"room_id":"{room}"}`, 400, "M_INVALID_PARAM"},
				{outside, "carol", "/v3/directory/room/%23x{n}:example.org", `{"room_id":"{room}"}`, 403, "M_FORBIDDEN"},
				{bad, "bob", "/v3/directory/room/weft", `{"room_id":"{room}"}`, 400, "M_INVALID_PARAM"},
				{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
				{bad, "bob", "", `{"room_id":"x"}`, 400, "M_INVALID_PARAM"},
				{nowhere, "bob", "/v3/directory/room/%23y{n}:example.org", `{"room_id":"{nowhere}"}`, 403, "M_FORBIDDEN"},
			},
		},
		"getRoomIdByAlias": {method: "GET", path: "/v3/directory/room/{alias}", lacks: anybody, spec: "400 M_INVALID_PARAM, 404 M_NOT_FOUND", cases: []roomCase{
			{done, "", "", ``, 200, ""},
			{done, "carol", "", ``, 200, ""},
			{bad, "", "/v3/directory/room/loom", ``, 400, "M_INVALID_PARAM"},
			{nowhere, "", "/v3/directory/room/%23nowhere:example.org", ``, 404, "M_NOT_FOUND"},
		}},
		"deleteRoomAlias": {method: "DELETE", path: "/v3/directory/room/{alias}", spec: "404 M_NOT_FOUND", cases: []roomCase{
			{denied, "bob", "", ``, 403, "M_FORBIDDEN"},
			{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			{bad, "alice", "/v3/directory/room/loom", ``, 400, "M_INVALID_PARAM"},
			{nowhere, "alice", "/v3/directory/room/%23nowhere:example.org", ``, 404, "M_NOT_FOUND"},
			{done, "alice", "", ``, 200, ""},
		}},
		"getLocalAliases": {
			method: "GET", path: room + "/aliases", spec: "400 M_INVALID_PARAM, 403 M_FORBIDDEN", lacks: anyMember, cases: reads(
				roomCase{done, "carol", "/v3/rooms/{readable}/aliases", ``, 200, ""},
				roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
				roomCase{bad, "bob", "/v3/rooms/{malformed}/aliases", ``, 400, "M_INVALID_PARAM"},
				roomCase{nowhere, "bob", none + "/aliases", ``, 403, "M_FORBIDDEN"},
			),
		},
		"getRoomVisibilityOnDirectory": {
			method: "GET", path: "/v3/directory/list/room/{room}", spec: "404 M_NOT_FOUND",
			lacks: map[string]string{"denied": "everybody may", "outside": "everybody may", "bad": "it has no parameter but the room"}, cases: []roomCase{
				{done, "", "", ``, 200, ""},
				{nowhere, "", "/v3/directory/list/room/{nowhere}", ``, 404, "M_NOT_FOUND"},
			},
		},
		"setRoomVisibilityOnDirectory": {method: "PUT", path: "/v3/directory/list/room/{room}", spec: "404 M_NOT_FOUND", cases: []roomCase{
			{done, "alice", "", `{"visibility":"public"}`, 200, ""},
			{done, "alice", "", `{"visibility":"private"}`, 200, ""},
			{denied, "bob", "", `{"visibility":"public"}`, 403, "M_FORBIDDEN"},
			{outside, "carol", "", `{"visibility":"public"}`, 403, "M_FORBIDDEN"},
			{bad, "alice", "", `{"visibility":"x"}`, 400, "M_BAD_JSON"},
			{bad, "alice", "", `{`, 400, "M_NOT_JSON"},
			{nowhere, "alice", "/v3/directory/list/room/{nowhere}", `{"visibility":"public"}`, 404, "M_NOT_FOUND"},
		}},
		"getPublicRooms": {method: "GET", path: "/v3/publicRooms", lacks: noRoom, cases: []roomCase{
			{done, "", "", ``, 200, ""},
			{done, "alice", "?limit=1&server=example.org", ``, 200, ""},
			{bad, "", "?limit=x", ``, 400, "M_INVALID_PARAM"},
			{bad, "", "?since=x", ``, 400, "M_INVALID_PARAM"},
			{bad, "", "?server=a%20b", ``, 400, "M_INVALID_PARAM"},
		}},
		"queryPublicRooms": {method: "POST", path: "/v3/publicRooms", lacks: noRoom, cases: []roomCase{
			{done, "alice", "", `{"limit":1,"filter":{"generic_search_term":"loom","room_types":[null]}}`, 200, ""},
			{done, "alice", "", ``, 200, ""},
			{bad, "alice", "", `{"limit":-1}`, 400, "M_INVALID_PARAM"},
			{bad, "alice", "", `{"limit":"x"}`, 400, "M_BAD_JSON"},
			{bad, "alice", "", `{"since":"x"}`, 400, "M_INVALID_PARAM"},
			{bad, "alice", "", `{"include_all_networks":true,"third_party_instance_id":"x"}`, 400, "M_INVALID_PARAM"},
		}},
		"reportRoom": {method: "POST", path: room + "/report", spec: "404 M_NOT_FOUND", lacks: anybody, cases: []roomCase{
			{done, "bob", "", `{"reason":"x"}`, 200, ""},
			{done, "carol", "", `{"reason":""}`, 200, ""},
			{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
			{bad, "bob", "", `{"reason":1}`, 400, "M_BAD_JSON"},
			{nowhere, "bob", none + "/report", `{"reason":"x"}`, 404, "M_NOT_FOUND"},
		}},
		"reportEvent": {method: "POST", path: room + "/report/{event}", spec: "404 M_NOT_FOUND", lacks: anyMember, cases: []roomCase{
			{done, "bob", "", `{"reason":"x"}`, 200, ""},
			{done, "bob", "", `{}`, 200, ""},
			{outside, "carol", "", `{"reason":"x"}`, 404, "M_NOT_FOUND"},
			{bad, "bob", "", `{"reason":1}`, 400, "M_BAD_JSON"},
			{bad, "bob", room + "/report/x", `{}`, 400, "M_INVALID_PARAM"},
			{other, "bob", room + "/report/{none}", `{}`, 404, "M_NOT_FOUND"},
			{nowhere, "bob", none + "/report/{event}", `{}`, 404, "M_NOT_FOUND"},
		}},
		"reportUser": {method: "POST", path: "/v3/users/{alice}/report", spec: "404 M_NOT_FOUND", lacks: map[string]string{
			"denied": "everybody may", "outside": "it is not of one room", "nowhere": "it is not of one room",
		}, cases: []roomCase{
			{done, "bob", "", `{"reason":"x"}`, 200, ""},
			{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
			{bad, "bob", "/v3/users/alice/report", `{"reason":"x"}`, 400, "M_INVALID_PARAM"},
			{other, "bob", "/v3/users/{nobody}/report", `{"reason":"x"}`, 404, "M_NOT_FOUND"},
		}},
		"search": {method: "POST", path: "/v3/search", spec: "400 M_MISSING_PARAM", lacks: noRoom, cases: []roomCase{
			{done, "bob", "", `{"search_categories":{"room_events":{"search_term":"warp","order_by":"recent"}}}`, 200, ""},
			{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
			{bad, "bob", "", `{"search_categories":{"room_events":{}}}`, 400, "M_MISSING_PARAM"},
			{bad, "bob", "", `{"search_categories":{"room_events":{"search_term":"x","keys":["y"]}}}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "?next_batch=%3F", `{"search_categories":{"room_events":{"search_term":"x"}}}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
		}},
		"sendDelayedEvent": {
			method: "PUT", path: "/unstable/org.matrix.msc4140/rooms/{room}/delayed_event/m.room.message/{n}", lacks: anyMember, cases: []roomCase{
				{done, "bob", "", `{"delay":60000,"content":{"body":"x"}}`, 200, ""},
				{outside, "carol", "", `{"delay":60000,"content":{}}`, 403, "M_FORBIDDEN"},
				{bad, "bob", "/unstable/org.matrix.msc4140/rooms/{room}/delayed_event/m.room.message/b{n}", `{"content":{}}`, 400, "M_MISSING_PARAM"},
				{bad, "bob", "/unstable/org.matrix.msc4140/rooms/{room}/delayed_event/m.room.message/b{n}", `{`, 400, "M_NOT_JSON"},
				{nowhere, "bob", "/unstable/org.matrix.msc4140/rooms/{nowhere}/delayed_event/m.room.message/{n}", `{"delay":60000,"content":{}}`, 403, "M_FORBIDDEN"},
			},
		},
		"getDelayedEvents": {
			method: "GET", path: "/unstable/org.matrix.msc4140/delayed_events", lacks: map[string]string{
				"denied": "it is the user's own", "outside": "it is not of one room", "nowhere": "it is not of one room", "bad": "it has no parameters",
			}, cases: reads(),
		},
		"updateDelayedEvent": {method: "POST", path: "/unstable/org.matrix.msc4140/delayed_events/{delay}", lacks: noRoom, cases: []roomCase{
			{setup, "bob", "PUT /unstable/org.matrix.msc4140/rooms/{room}/delayed_event/m.room.message/{n}", `{"delay":60000,"content":{"body":"x"}}`, 200, ""},
			{done, "bob", "", `{"action":"restart"}`, 200, ""},
			{bad, "bob", "", `{"action":"x"}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
			{other, "bob", "/unstable/org.matrix.msc4140/delayed_events/none", `{"action":"send"}`, 404, "M_NOT_FOUND"},
		}},
		"actOnDelayedEvent": {method: "POST", path: "/unstable/org.matrix.msc4140/delayed_events/{delay}/cancel", lacks: noRoom, cases: []roomCase{
			{setup, "bob", "PUT /unstable/org.matrix.msc4140/rooms/{room}/delayed_event/m.room.message/{n}", `{"delay":60000,"content":{"body":"x"}}`, 200, ""},
			{bad, "bob", "/unstable/org.matrix.msc4140/delayed_events/{delay}/x", `{}`, 404, "M_UNRECOGNIZED"},
			{done, "bob", "", `{}`, 200, ""},
			{other, "bob", "/unstable/org.matrix.msc4140/delayed_events/none/send", `{}`, 404, "M_NOT_FOUND"},
		}},

		// From before /sync.
		"getEvents": {method: "GET", path: "/v3/events?timeout=0", spec: "400 M_INVALID_PARAM", lacks: map[string]string{
			"denied": "it is the user's own", "outside": "a guest's is of one room, see there", "nowhere": "the same",
		}, cases: []roomCase{
			{done, "bob", "", ``, 200, ""},
			{bad, "bob", "/v3/events?timeout=x", ``, 400, "M_INVALID_PARAM"},
			{bad, "bob", "/v3/events?from=x", ``, 400, "M_INVALID_PARAM"},
		}},
		"initialSync": {method: "GET", path: "/v3/initialSync", lacks: noRoom, cases: []roomCase{
			{done, "bob", "", ``, 200, ""},
			{bad, "bob", "?limit=x", ``, 400, "M_INVALID_PARAM"},
		}},
		"getOneEvent": {method: "GET", path: "/v3/events/{event}", spec: "404 M_NOT_FOUND", lacks: map[string]string{
			"denied": "every member may", "nowhere": "it names no room",
		}, cases: reads(
			roomCase{outside, "carol", "", ``, 404, "M_NOT_FOUND"},
			roomCase{bad, "bob", "/v3/events/x", ``, 404, "M_NOT_FOUND"},
		)},
		"roomInitialSync": {method: "GET", path: room + "/initialSync", spec: "403 M_FORBIDDEN", lacks: map[string]string{"denied": "every member may", "bad": "it has no parameter but the room"}, cases: reads(
			roomCase{outside, "carol", "", ``, 403, "M_FORBIDDEN"},
			roomCase{nowhere, "bob", none + "/initialSync", ``, 403, "M_FORBIDDEN"},
		)},

		// People in rooms.
		"setAccountData": {method: "PUT", path: "/v3/user/{bob}/account_data/org.example.x", spec: "400 M_BAD_JSON, 400 M_NOT_JSON, 403 M_FORBIDDEN, 405 M_BAD_JSON", lacks: map[string]string{
			"outside": "it is not of a room", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{done, "bob", "", `{"a":1}`, 200, ""},
			{denied, "alice", "", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `[]`, 400, "M_BAD_JSON"},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
			{other, "bob", "/v3/user/{bob}/account_data/m.fully_read", `{}`, 405, "M_BAD_JSON"},
			{other, "bob", "/v3/user/{bob}/account_data/m.push_rules", `{}`, 405, "M_BAD_JSON"},
		}},
		"getAccountData": {method: "GET", path: "/v3/user/{bob}/account_data/org.example.y", spec: "403 M_FORBIDDEN, 404 M_NOT_FOUND", lacks: map[string]string{
			"outside": "it is not of a room", "nowhere": "it is not of a room", "bad": "any type is one",
		}, cases: []roomCase{
			{other, "bob", "/v3/user/{bob}/account_data/org.example.none", ``, 404, "M_NOT_FOUND"},
			{setup, "bob", "PUT /v3/user/{bob}/account_data/org.example.y", `{"a":1}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
		}},
		"setAccountDataPerRoom": {
			method: "PUT", path: "/v3/user/{bob}/rooms/{room}/account_data/org.example.x", lacks: ownOfRoom,
			spec: "400 M_BAD_JSON, 400 M_NOT_JSON, 400 M_INVALID_PARAM, 403 M_FORBIDDEN, 405 M_BAD_JSON", cases: []roomCase{
				{done, "bob", "", `{"a":1}`, 200, ""},
				{denied, "alice", "", `{}`, 403, "M_FORBIDDEN"},
				{bad, "bob", "", `[]`, 400, "M_BAD_JSON"},
				{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
				{bad, "bob", "/v3/user/{bob}/rooms/{malformed}/account_data/x", `{}`, 400, "M_INVALID_PARAM"},
				{other, "bob", "/v3/user/{bob}/rooms/{room}/account_data/m.fully_read", `{}`, 405, "M_BAD_JSON"},
			},
		},
		"getAccountDataPerRoom": {
			method: "GET", path: "/v3/user/{bob}/rooms/{room}/account_data/org.example.x", lacks: ownOfRoom,
			spec: "400 M_INVALID_PARAM, 403 M_FORBIDDEN, 404 M_NOT_FOUND", cases: []roomCase{
				{other, "bob", "", ``, 404, "M_NOT_FOUND"},
				{setup, "bob", "PUT /v3/user/{bob}/rooms/{room}/account_data/org.example.x", `{"a":1}`, 200, ""},
				{done, "bob", "", ``, 200, ""},
				{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
				{bad, "bob", "/v3/user/{bob}/rooms/{malformed}/account_data/x", ``, 400, "M_INVALID_PARAM"},
			},
		},
		"deleteAccountData": {method: "DELETE", path: "/unstable/org.matrix.msc3391/user/{bob}/account_data/org.example.z", lacks: map[string]string{
			"outside": "it is not of a room", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{setup, "bob", "PUT /v3/user/{bob}/account_data/org.example.z", `{"a":1}`, 200, ""},
			{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
			{done, "bob", "", ``, 200, ""},
			{setup, "bob", "GET /v3/user/{bob}/account_data/org.example.z", ``, 404, "M_NOT_FOUND"},
			{bad, "bob", "/unstable/org.matrix.msc3391/user/{bob}/account_data/m.push_rules", ``, 405, "M_BAD_JSON"},
		}},
		"deleteAccountDataPerRoom": {
			method: "DELETE", path: "/unstable/org.matrix.msc3391/user/{bob}/rooms/{room}/account_data/org.example.z", lacks: ownOfRoom, cases: []roomCase{
				{setup, "bob", "PUT /v3/user/{bob}/rooms/{room}/account_data/org.example.z", `{"a":1}`, 200, ""},
				{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
				{done, "bob", "", ``, 200, ""},
				{setup, "bob", "GET /v3/user/{bob}/rooms/{room}/account_data/org.example.z", ``, 404, "M_NOT_FOUND"},
				{bad, "bob", "/unstable/org.matrix.msc3391/user/{bob}/rooms/{room}/account_data/m.fully_read", ``, 405, "M_BAD_JSON"},
			},
		},
		"getRoomTags": {method: "GET", path: "/v3/user/{bob}/rooms/{room}/tags", lacks: map[string]string{
			"outside": "it is the user's own, whatever the room", "nowhere": "the same", "bad": "it has no parameter but the room",
		}, cases: []roomCase{
			{done, "bob", "", ``, 200, ""},
			{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
		}},
		"setRoomTag": {method: "PUT", path: "/v3/user/{bob}/rooms/{room}/tags/u.x", lacks: ownOfRoom, cases: []roomCase{
			{done, "bob", "", `{"order":0.5}`, 200, ""},
			{denied, "alice", "", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `[]`, 400, "M_BAD_JSON"},
			{bad, "bob", "", `{"order":"x"}`, 400, "M_BAD_JSON"},
		}},
		"deleteRoomTag": {method: "DELETE", path: "/v3/user/{bob}/rooms/{room}/tags/u.x", lacks: map[string]string{
			"outside": "it is the user's own, whatever the room", "nowhere": "the same", "bad": "any tag is one",
		}, cases: []roomCase{
			{done, "bob", "", ``, 200, ""},
			{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
		}},
		"defineFilter": {method: "POST", path: "/v3/user/{bob}/filter", lacks: map[string]string{
			"outside": "it is not of a room", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{done, "bob", "", `{"event_format":"federation","room":{"timeline":{"limit":1}}}`, 200, ""},
			{denied, "alice", "", `{}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `{"room":1}`, 400, "M_BAD_JSON"},
			{bad, "bob", "", `{"event_format":"x"}`, 400, "M_BAD_JSON"},
			{bad, "bob", "", `{`, 400, "M_NOT_JSON"},
		}},
		"getFilter": {method: "GET", path: "/v3/user/{bob}/filter/{filter}", spec: "404 M_NOT_FOUND", lacks: map[string]string{
			"outside": "it is not of a room", "nowhere": "it is not of a room", "bad": "any id is one",
		}, cases: []roomCase{
			{setup, "bob", "POST /v3/user/{bob}/filter", `{"room":{"timeline":{"limit":1}}}`, 200, ""},
			{done, "bob", "", ``, 200, ""},
			{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
			{other, "bob", "/v3/user/{bob}/filter/none", ``, 404, "M_NOT_FOUND"},
		}},
		"setProfileField": {
			method: "PUT", path: "/v3/profile/{bob}/displayname", spec: "400 M_BAD_JSON, 400 M_INVALID_PARAM, 400 M_KEY_TOO_LARGE, 400 M_MISSING_PARAM, 400 M_PROFILE_TOO_LARGE, 403 M_FORBIDDEN",
			lacks: map[string]string{"outside": "it is not of a room", "nowhere": "it is not of a room"}, cases: []roomCase{
				{done, "bob", "", `{"displayname":"Bob"}`, 200, ""},
				{done, "bob", "/v3/profile/{bob}/org.example.tz", `{"org.example.tz":{"any":"thing"}}`, 200, ""},
				{done, "bob", "/unstable/uk.tcpip.msc4133/profile/{bob}/m.tz", `{"m.tz":"UTC"}`, 200, ""},
				{denied, "alice", "", `{"displayname":"Bob"}`, 403, "M_FORBIDDEN"},
				{bad, "bob", "", `{"displayname":1}`, 400, "M_BAD_JSON"},
				{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
				{other, "bob", "/v3/profile/{bob}/Caps", `{"Caps":1}`, 400, "M_INVALID_PARAM"},
				{other, "bob", "/v3/profile/{bob}/{key}", `{}`, 400, "M_KEY_TOO_LARGE"},
				{other, "bob", "/v3/profile/{bob}/org.example.long", `{"org.example.long":"{long}"}`, 400, "M_PROFILE_TOO_LARGE"},
			},
		},
		"getProfileField": {method: "GET", path: "/v3/profile/{bob}/displayname", spec: "404 M_NOT_FOUND", lacks: map[string]string{
			"denied": "everybody may", "outside": "it is not of a room", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{setup, "bob", "PUT /v3/profile/{bob}/displayname", `{"displayname":"Bob"}`, 200, ""},
			{done, "", "", ``, 200, ""},
			{other, "", "/v3/profile/{nobody}/displayname", ``, 404, "M_NOT_FOUND"},
			{other, "", "/v3/profile/{bob}/org.example.none", ``, 404, "M_NOT_FOUND"},
			{bad, "", "/v3/profile/bob/displayname", ``, 400, "M_INVALID_PARAM"},
		}},
		"deleteProfileField": {method: "DELETE", path: "/v3/profile/{bob}/org.example.tz", spec: "400 M_INVALID_PARAM, 403 M_FORBIDDEN", lacks: map[string]string{
			"outside": "it is not of a room", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{done, "bob", "", ``, 200, ""},
			{done, "bob", "/v3/profile/{bob}/displayname", ``, 200, ""},
			{denied, "alice", "", ``, 403, "M_FORBIDDEN"},
			{bad, "bob", "/v3/profile/{bob}/Caps", ``, 400, "M_INVALID_PARAM"},
		}},
		"getUserProfile": {method: "GET", path: "/v3/profile/{bob}", spec: "404 M_NOT_FOUND", lacks: map[string]string{
			"denied": "everybody may", "outside": "it is not of a room", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{done, "", "", ``, 200, ""},
			{other, "", "/v3/profile/{nobody}", ``, 404, "M_NOT_FOUND"},
			{bad, "", "/v3/profile/bob", ``, 400, "M_INVALID_PARAM"},
		}},
		"setPresence": {method: "PUT", path: "/v3/presence/{bob}/status", lacks: map[string]string{
			"outside": "it is not of a room", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{done, "bob", "", `{"presence":"online","status_msg":"here"}`, 200, ""},
			{denied, "alice", "", `{"presence":"online"}`, 403, "M_FORBIDDEN"},
			{bad, "bob", "", `{"presence":"x"}`, 400, "M_INVALID_PARAM"},
			{bad, "bob", "", `{}`, 400, "M_MISSING_PARAM"},
		}},
		"getPresence": {method: "GET", path: "/v3/presence/{bob}/status", spec: "403 M_FORBIDDEN", lacks: map[string]string{
			"outside": "who shares no room is denied", "nowhere": "it is not of a room",
		}, cases: []roomCase{
			{done, "alice", "", ``, 200, ""},
			{denied, "alice", "/v3/presence/{nobody}/status", ``, 403, "M_FORBIDDEN"},
			{bad, "alice", "/v3/presence/bob/status", ``, 400, "M_INVALID_PARAM"},
		}},
		"searchUserDirectory": {method: "POST", path: "/v3/user_directory/search", lacks: noRoom, cases: []roomCase{
			{done, "alice", "", `{"search_term":"bob","limit":1}`, 200, ""},
			{bad, "alice", "", `{}`, 400, "M_MISSING_PARAM"},
			{bad, "alice", "", `{"search_term":"x","limit":-1}`, 400, "M_INVALID_PARAM"},
			{bad, "alice", "", `{`, 400, "M_NOT_JSON"},
		}},
		"getNotifications": {method: "GET", path: "/v3/notifications", lacks: noRoom, cases: []roomCase{
			{done, "bob", "", ``, 200, ""},
			{bad, "bob", "?limit=x", ``, 400, "M_INVALID_PARAM"},
			{bad, "bob", "?from=x", ``, 400, "M_INVALID_PARAM"},
		}},
	}
}

// related gives the cases of an endpoint that reads what relates to an event.
func related(rest string) roomEndpoint {
	return roomEndpoint{method: "GET", path: "/v1/rooms/{room}/relations/{event}" + rest, lacks: anyMember, spec: "404 M_NOT_FOUND", cases: reads(
		roomCase{done, "bob", "?recurse=true&dir=f&limit=1", ``, 200, ""},
		roomCase{outside, "carol", "", ``, 404, "M_NOT_FOUND"},
		roomCase{bad, "bob", "?dir=x", ``, 400, "M_INVALID_PARAM"},
		roomCase{bad, "bob", "?from=x", ``, 400, "M_INVALID_PARAM"},
		roomCase{bad, "bob", "?recurse=x", ``, 400, "M_INVALID_PARAM"},
		roomCase{other, "bob", "/v1/rooms/{room}/relations/{none}" + rest, ``, 404, "M_NOT_FOUND"},
		roomCase{nowhere, "bob", "/v1/rooms/{nowhere}/relations/{event}" + rest, ``, 404, "M_NOT_FOUND"},
	)}
}

// casts gives the cases of what one user does to another's membership. To somebody else it cannot be done: with which error; none if it can.
func casts(verb, somebody string, status int, code string) roomEndpoint {
	room, user := "/v3/rooms/{room}/"+verb, `{"user_id":"{bob}"}`
	e := roomEndpoint{method: "POST", path: room, spec: "403 M_FORBIDDEN", cases: []roomCase{
		{denied, "bob", "", `{"user_id":"{alice}"}`, 403, "M_FORBIDDEN"},
		{outside, "carol", "", user, 403, "M_FORBIDDEN"},
		{bad, "alice", "", `{}`, 400, "M_MISSING_PARAM"},
		{bad, "alice", "", `{"user_id":"bob"}`, 400, "M_INVALID_PARAM"},
		{bad, "alice", "", `{"user_id":1}`, 400, "M_BAD_JSON"},
		{bad, "alice", "", ``, 400, "M_NOT_JSON"},
		{nowhere, "alice", "/v3/rooms/{nowhere}/" + verb, user, 404, "M_NOT_FOUND"},
	}}
	if code != "" {
		e.cases = append(e.cases, roomCase{other, "alice", "", `{"user_id":"{` + somebody + `}"}`, status, code})
	}
	if verb == "unban" {
		e.cases = append(e.cases, roomCase{setup, "alice", "POST /v3/rooms/{room}/ban", user, 200, ""})
	}
	e.cases = append(e.cases, roomCase{done, "alice", "", `{"user_id":"{bob}","reason":"why"}`, 200, ""})
	return e
}
