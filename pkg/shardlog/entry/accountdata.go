package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

// AccountData makes the entry of account data of a user that changed; a deletion has the content {}.
func AccountData(userID string, body *wire.AccountDataBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode accountdata entry: %w", err)
	}
	return Entry{Kind: KindAccountData, Subject: userID, Body: b}, nil
}

// DecodeAccountData gives the body of such an entry.
func DecodeAccountData(e *Entry) (*wire.AccountDataBody, error) {
	b := new(wire.AccountDataBody)
	return b, decode(e, KindAccountData, b)
}
