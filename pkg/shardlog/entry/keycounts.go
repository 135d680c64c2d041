package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// KeyCounts makes the entry of how many keys of a device of a local user are left to be claimed.
func KeyCounts(userID string, body *KeyCountsBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode keycounts entry: %w", err)
	}
	return Entry{Kind: KindKeyCounts, Subject: userID, Body: b}, nil
}

// DecodeKeyCounts gives the body of such an entry.
func DecodeKeyCounts(e *Entry) (*KeyCountsBody, error) {
	b := new(KeyCountsBody)
	return b, decode(e, KindKeyCounts, b)
}
