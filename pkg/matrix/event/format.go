package event

import (
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// ClientFormat says how an event is shown to a client.
type ClientFormat struct {
	// Unsigned is the object to show as unsigned, nil for none. What came with the event is not shown.
	Unsigned []byte
	// OmitRoomID leaves room_id out, as /sync does.
	OmitRoomID bool
}

// AppendClient appends the event as clients see it. A redaction names its target both at the top level
// and in content, whatever its room version, as the specification asks for clients' sake.
func (e *Event) AppendClient(dst []byte, format ClientFormat) []byte {
	dst = append(dst, `{"content":`...)
	redaction := e.typ == TypeRedaction && e.redacts != ""
	if redaction && !e.rules.RedactsInContent {
		dst = append(dst, withMember(e.Content(), "redacts", string(e.redacts))...)
	} else {
		dst = append(dst, e.Content()...)
	}
	dst = append(dst, `,"event_id":`...)
	dst = canonjson.AppendString(dst, string(e.id))
	dst = append(dst, `,"origin_server_ts":`...)
	dst = canonjson.AppendInt(dst, e.ts)
	if redaction {
		dst = append(dst, `,"redacts":`...)
		dst = canonjson.AppendString(dst, string(e.redacts))
	}
	if !format.OmitRoomID {
		dst = append(dst, `,"room_id":`...)
		dst = canonjson.AppendString(dst, string(e.room))
	}
	dst = e.appendTail(dst)
	if format.Unsigned != nil {
		dst = append(dst, `,"unsigned":`...)
		dst = append(dst, format.Unsigned...)
	}
	return append(dst, '}')
}

// AppendStripped appends the stripped state event: what somebody who is invited may see.
func (e *Event) AppendStripped(dst []byte) []byte {
	dst = append(dst, `{"content":`...)
	dst = append(dst, e.Content()...)
	return append(e.appendTail(dst), '}')
}

func (e *Event) appendTail(dst []byte) []byte {
	dst = append(dst, `,"sender":`...)
	dst = append(dst, e.value(fSender)...)
	if e.flags&flagState != 0 {
		dst = append(dst, `,"state_key":`...)
		dst = append(dst, e.value(fStateKey)...)
	}
	dst = append(dst, `,"type":`...)
	return append(dst, e.value(fType)...)
}

// AppendFederation appends the event as other servers see it, with an unsigned object unless that is
// nil.
func (e *Event) AppendFederation(dst, unsigned []byte) []byte {
	if unsigned == nil {
		return append(dst, e.json...)
	}
	dst = append(dst, e.json[:len(e.json)-1]...)
	dst = append(dst, `,"unsigned":`...)
	dst = append(dst, unsigned...)
	return append(dst, '}')
}
