package msync

import (
	"cmp"
	"context"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const receiptPrivate = "m.read.private"

// receiptKey is of what there is one receipt in a room.
type receiptKey struct{ user, kind, thread string }

func keyOfReceipt(r *roomdb.ReceiptRow) receiptKey { return receiptKey{r.UserID, r.Kind, r.Thread} }

func (x *receipt) key() receiptKey { return keyOfReceipt(&x.ReceiptRow) }

// maySee tells whether a receipt is not somebody else's private one.
func (v *view) maySee(r *roomdb.ReceiptRow) bool {
	return r.Kind != receiptPrivate || r.UserID == v.u.id
}

// receiptsOf gives the receipts that moved and that the user may see, the filter aside.
func (v *view) receiptsOf(ctx context.Context, x *part) ([]roomdb.ReceiptRow, error) {
	var out []roomdb.ReceiptRow
	take := func(r *roomdb.ReceiptRow) {
		if v.maySee(r) {
			out = append(out, *r)
		}
	}
	if x.held && !x.fresh {
		for i := range x.receipts {
			take(&x.receipts[i].ReceiptRow)
		}
		return out, nil
	}
	if x.common != nil {
		rows := x.receiptsNow()
		for i := range rows {
			take(&rows[i])
		}
		return out, nil
	}
	since, incremental := v.from(x.ref.Nid.Shard())
	if !incremental || x.fresh {
		since = 0
	}
	rows, err := v.e.Rooms.ReceiptsSince(ctx, x.ref.Nid, since)
	if err != nil {
		return nil, err
	}
	upto := v.to(x.ref.Nid.Shard())
	for i := range rows {
		if rows[i].Pos <= upto || since == 0 { // one that has moved on is told again; one that is told whole is told as it is
			take(&rows[i])
		}
	}
	return out, nil
}

// appendEphemeral appends typing and receipts, with commas between them.
func (v *view) appendEphemeral(b []byte, x *part, receipts []roomdb.ReceiptRow) []byte {
	f := &v.Filter.Room.Ephemeral
	if x.typing != nil && f.PassRoom(x.ref.RoomID) && f.Pass("m.typing", "") {
		b = append(b, `{"type":"m.typing","content":{"user_ids":[`...)
		for i, u := range x.typing.users {
			if i > 0 {
				b = append(b, ',')
			}
			b = canonjson.AppendString(b, u)
		}
		b = append(b, `]}}`...)
	}
	if len(receipts) == 0 || !f.PassRoom(x.ref.RoomID) || !f.Pass("m.receipt", "") {
		return b
	}
	for _, layer := range layers(receipts) {
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"type":"m.receipt","content":{`...)
		b = appendReceipts(b, layer)
		b = append(b, `}}`...)
	}
	return b
}

// layers spreads receipts over events whose form has room for one receipt of a kind by a user at an event: who has read it in
// several threads is told several times. What belongs to no thread comes first, for clients that know no threads.
func layers(receipts []roomdb.ReceiptRow) (out [][]roomdb.ReceiptRow) {
	receipts = slices.Clone(receipts)
	slices.SortStableFunc(receipts, func(x, y roomdb.ReceiptRow) int {
		return cmp.Compare(min(len(x.Thread), 1), min(len(y.Thread), 1))
	})
	type place struct{ event, kind, user string }
	taken := make(map[place]int)
	for _, r := range receipts {
		at := place{r.EventID, r.Kind, r.UserID}
		n := taken[at]
		if taken[at]++; n == len(out) {
			out = append(out, nil)
		}
		out[n] = append(out[n], r)
	}
	return out
}

// appendReceipts groups receipts by event, kind and user.
func appendReceipts(b []byte, receipts []roomdb.ReceiptRow) []byte {
	type at struct{ event, kind string }
	var events []string
	kinds := make(map[string][]string)
	users := make(map[at][]roomdb.ReceiptRow)
	for _, r := range receipts {
		k := at{r.EventID, r.Kind}
		if kinds[r.EventID] == nil {
			events = append(events, r.EventID)
		}
		if users[k] == nil {
			kinds[r.EventID] = append(kinds[r.EventID], r.Kind)
		}
		users[k] = append(users[k], r)
	}
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(canonjson.AppendString(b, e), ':', '{')
		for j, k := range kinds[e] {
			if j > 0 {
				b = append(b, ',')
			}
			b = append(canonjson.AppendString(b, k), ':', '{')
			for n, r := range users[at{e, k}] {
				if n > 0 {
					b = append(b, ',')
				}
				b = append(canonjson.AppendString(b, r.UserID), `:{"ts":`...)
				b = canonjson.AppendInt(b, r.TS)
				if r.Thread != "" {
					b = canonjson.AppendString(append(b, `,"thread_id":`...), r.Thread)
				}
				b = append(b, '}')
			}
			b = append(b, '}')
		}
		b = append(b, '}')
	}
	return b
}

// roomData gives the room's account data events, with commas between them.
func (v *view) roomData(x *part) []byte {
	var out []byte
	f := &v.Filter.Room.AccountData
	if !f.PassRoom(x.ref.RoomID) {
		return nil
	}
	for _, d := range x.data {
		if f.Pass(d.typ, v.u.id) {
			out = appendDataEvent(out, d.typ, d.content)
		}
	}
	return out
}
