package sender

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// receipt is a user's read receipt.
type receipt struct {
	room, user, thread, event string
	ts                        int64
}

// presence is a user's.
type presence struct {
	user, presence, status string
	active                 bool
	lastActive             int64 // ms; 0: not told
}

// maxReceiptEDUs is in how many EDUs receipts of one transaction are told at most: one can tell of one thread for each user and room.
const maxReceiptEDUs = 10

// encode writes a transaction and names it after what it holds.
func (s *Sender) encode(p *parcel) error {
	alone := len(p.queued) == 1 && p.parts() == 1
	if alone {
		if e := p.queued[0].alone.Load(); e != nil {
			p.encoded = *e
			return nil
		}
	}
	size := 256
	for _, it := range p.queued {
		size += len(it.json) + 1
	}
	for i := range p.events {
		size += len(p.events[i].JSON) + 1
	}
	for _, e := range p.edus {
		size += int(e.size())
	}
	for i := range p.stored {
		size += len(p.stored[i].Content) + 64
	}
	b := make([]byte, 0, size)
	b = canonjson.AppendString(append(b, `{"origin":`...), string(s.o.Server))
	b = append(b, `,"origin_server_ts":`...)
	b = strconv.AppendInt(b, s.o.Now().UnixMilli(), 10)
	from := len(b)
	b = append(b, `,"pdus":[`...)
	n := 0
	for _, it := range p.queued {
		b = append(comma(b, n), it.json...)
		n++
	}
	for i := range p.events {
		b = append(comma(b, n), p.events[i].JSON...)
		n++
	}
	b = append(b, ']')
	if len(p.edus)+len(p.stored) > 0 {
		var err error
		if b, err = s.appendEDUs(append(b, `,"edus":[`...), p); err != nil {
			return err
		}
		b = append(b, ']')
	}
	sum := sha256.Sum256(b[from:])
	p.txn = base64.RawURLEncoding.EncodeToString(sum[:18])
	p.body = append(b, '}')
	if alone {
		p.queued[0].alone.Store(&p.encoded)
	}
	return nil
}

func comma(b []byte, n int) []byte {
	if n > 0 {
		b = append(b, ',')
	}
	return b
}

func appendEDU(b []byte, n int, typ string, content []byte) []byte {
	b = append(comma(b, n), `{"content":`...)
	b = append(b, content...)
	b = append(b, `,"edu_type":`...)
	return append(canonjson.AppendString(b, typ), '}')
}

func (s *Sender) appendEDUs(b []byte, p *parcel) ([]byte, error) {
	n := 0
	for i := range p.stored {
		b = appendEDU(b, n, p.stored[i].Type, p.stored[i].Content)
		n++
	}
	var receipts []*receipt
	var present []*presence
	for _, e := range p.edus {
		switch {
		case e.receipt != nil:
			receipts = append(receipts, e.receipt)
		case e.presence != nil:
			present = append(present, e.presence)
		default:
			b = appendEDU(b, n, e.typ, e.content)
			n++
		}
	}
	if len(present) > 0 {
		content, err := encodePresence(present, s.o.Now())
		if err != nil {
			return nil, err
		}
		b = appendEDU(b, n, "m.presence", content)
		n++
	}
	for _, r := range spread(receipts) {
		content, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encode receipts: %w", err)
		}
		b = appendEDU(b, n, "m.receipt", content)
		n++
	}
	return b, nil
}

func encodePresence(list []*presence, now time.Time) ([]byte, error) {
	type state struct {
		UserID    string `json:"user_id"`
		Presence  string `json:"presence"`
		Status    string `json:"status_msg,omitempty"`
		Ago       *int64 `json:"last_active_ago,omitempty"`
		Currently bool   `json:"currently_active,omitempty"`
	}
	push := make([]state, len(list))
	for i, p := range list {
		push[i] = state{UserID: p.user, Presence: p.presence, Status: p.status, Currently: p.active}
		if p.lastActive > 0 {
			ago := max(0, now.UnixMilli()-p.lastActive)
			push[i].Ago = &ago
		}
	}
	b, err := json.Marshal(map[string]any{"push": push})
	if err != nil {
		return nil, fmt.Errorf("encode presence: %w", err)
	}
	return b, nil
}

type receiptData struct {
	TS     int64  `json:"ts"`
	Thread string `json:"thread_id,omitempty"`
}

type receiptOf struct {
	Data   receiptData `json:"data"`
	Events []string    `json:"event_ids"`
}

// receiptEDU is receipts by room, kind and user.
type receiptEDU map[string]map[string]map[string]receiptOf

// spread puts receipts into as few EDUs as they fit in. What fits in none is left out: receipts may be lost.
func spread(list []*receipt) []receiptEDU {
	var out []receiptEDU
	for _, r := range list {
		for i := 0; ; i++ {
			if i == maxReceiptEDUs {
				break
			}
			if i == len(out) {
				out = append(out, receiptEDU{})
			}
			if out[i][r.room] == nil {
				out[i][r.room] = map[string]map[string]receiptOf{"m.read": {}}
			}
			if _, taken := out[i][r.room]["m.read"][r.user]; taken {
				continue
			}
			out[i][r.room]["m.read"][r.user] = receiptOf{receiptData{r.ts, r.thread}, []string{r.event}}
			break
		}
	}
	return out
}
