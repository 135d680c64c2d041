package entry

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Receipt makes the entry of a receipt that moved. A private one has its user as subject, and concerns nobody else.
func Receipt(room shard.Nid, subject string, body *ReceiptBody) (Entry, error) {
	b, err := proto.Marshal(body)
	if err != nil {
		return Entry{}, fmt.Errorf("encode receipt entry: %w", err)
	}
	return Entry{Kind: KindReceipt, Room: room, Subject: subject, Body: b}, nil
}

// DecodeReceipt gives the body of such an entry.
func DecodeReceipt(e *Entry) (*ReceiptBody, error) {
	b := new(ReceiptBody)
	return b, decode(e, KindReceipt, b)
}
