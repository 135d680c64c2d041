package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// DeviceList makes the entry of what others see of a user's devices and keys, which changed.
func DeviceList(userID string, body *DeviceListBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode devicelist entry: %w", err)
	}
	return Entry{Kind: KindDeviceList, Subject: userID, Body: b}, nil
}

// DecodeDeviceList gives the body of such an entry.
func DecodeDeviceList(e *Entry) (*DeviceListBody, error) {
	b := new(DeviceListBody)
	return b, decode(e, KindDeviceList, b)
}
