package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Profile makes the entry of a profile field of a local user that changed.
func Profile(userID string, body *ProfileBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode profile entry: %w", err)
	}
	return Entry{Kind: KindProfile, Subject: userID, Body: b}, nil
}

// DecodeProfile gives the body of such an entry.
func DecodeProfile(e *Entry) (*ProfileBody, error) {
	b := new(ProfileBody)
	return b, decode(e, KindProfile, b)
}
