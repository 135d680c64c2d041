package msync

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const receiptPrivate = "m.read.private"

// receiptsOf gives the receipts that moved and that the user may see.
func (v *view) receiptsOf(ctx context.Context, x *part) ([]roomdb.ReceiptRow, error) {
	var out []roomdb.ReceiptRow
	if !v.Filter.Room.Ephemeral.PassRoom(x.ref.RoomID) {
		return nil, nil
	}
	take := func(r *roomdb.ReceiptRow) {
		if r.Kind == receiptPrivate && r.UserID != v.u.id {
			return
		}
		out = append(out, *r)
	}
	if x.held && !x.fresh {
		for i := range x.receipts {
			take(&x.receipts[i].ReceiptRow)
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
	if len(receipts) == 0 || !f.Pass("m.receipt", "") {
		return b
	}
	if len(b) > 0 {
		b = append(b, ',')
	}
	b = append(b, `{"type":"m.receipt","content":{`...)
	b = appendReceipts(b, receipts)
	return append(b, `}}`...)
}

// appendReceipts groups receipts by event, kind and user. Of one user's receipts of one kind at one event, of several threads, the
// last is told: the form has room for no more.
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
		list := users[k]
		for i := range list {
			if list[i].UserID == r.UserID {
				list = append(list[:i], list[i+1:]...)
				break
			}
		}
		users[k] = append(list, r)
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
