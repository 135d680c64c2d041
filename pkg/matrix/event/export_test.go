package event

import (
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// ParseVector places the members of an event without the checks of its format: the specification's test
// vectors lack members that every room version demands.
func ParseVector(rules *roomver.Rules, data []byte) (*Event, error) {
	buf, members, err := canonjson.AppendIndexed(nil, data, canonjson.Options{}, nil)
	if err != nil {
		return nil, err
	}
	e := &Event{rules: rules, json: buf}
	if err := e.place(members, true); err != nil {
		return nil, err
	}
	e.typ, _ = canonjson.String(e.value(fType))
	return e, nil
}

// SignVector signs such an event.
func (e *Event) SignVector(server id.ServerName, key signing.Key) []byte {
	signature := key.Sign(e.appendRedacted(nil, false))
	s := e.f[fSignatures]
	out := append([]byte(nil), e.json[:s.start]...)
	out = signing.AppendSignatures(out, e.value(fSignatures), server, key.ID(), signature)
	return append(out, e.json[s.end:]...)
}
