package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// AccountData makes the entry of account data of a user that changed; a deletion has the content {}.
func AccountData(userID string, body *AccountDataBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode accountdata entry: %w", err)
	}
	return Entry{Kind: KindAccountData, Subject: userID, Body: b}, nil
}

// DecodeAccountData gives the body of such an entry.
func DecodeAccountData(e *Entry) (*AccountDataBody, error) {
	b := new(AccountDataBody)
	return b, decode(e, KindAccountData, b)
}
