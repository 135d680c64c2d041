package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// ToDevice makes the entry of messages to devices of a local user.
func ToDevice(userID string, body *ToDeviceBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode todevice entry: %w", err)
	}
	return Entry{Kind: KindToDevice, Subject: userID, Body: b}, nil
}

// DecodeToDevice gives the body of such an entry.
func DecodeToDevice(e *Entry) (*ToDeviceBody, error) {
	b := new(ToDeviceBody)
	return b, decode(e, KindToDevice, b)
}
