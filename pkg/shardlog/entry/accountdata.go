package entry

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
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

// AccountDataType gives the type that such an entry is of, without decoding the rest; empty if it cannot be read.
func AccountDataType(e *Entry) []byte {
	const field = 2
	var typ []byte
	for b := e.Body; len(b) > 0; {
		num, wireType, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if num == field && wireType == protowire.BytesType {
			if typ, n = protowire.ConsumeBytes(b); n < 0 {
				return nil
			}
		} else if n = protowire.ConsumeFieldValue(num, wireType, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	return typ
}
