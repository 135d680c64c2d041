package appservice

import (
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/readdb"
)

// transaction is what an application service is told at once, while it is put together.
type transaction struct {
	p        *post
	n, size  int
	events   [][]byte
	soft     [][]byte // typing, receipts and presence
	toDevice [][]byte
	received []Received
	changed  map[string]struct{} // users whose devices changed
	counts   map[deviceName]*entry.KeyCountsBody
}

type deviceName struct{ user, device string }

func (t *transaction) empty() bool { return t.n == 0 }

func (t *transaction) full() bool { return t.n >= t.p.cfg.MaxEvents || t.size >= t.p.cfg.MaxBytes }

func (t *transaction) add(to *[][]byte, item []byte) {
	*to = append(*to, item)
	t.n, t.size = t.n+1, t.size+len(item)
}

// take takes in an entry, if it concerns the application service.
func (t *transaction) take(e *entry.At, s *seen) {
	if !t.p.wants(e.Kind) { // another one does
		return
	}
	switch e.Kind {
	case entry.KindEvent:
		t.takeEvent(e, s)
	case entry.KindReceipt:
		t.takeReceipt(e, s)
	case entry.KindToDevice:
		t.takeMessages(e)
	case entry.KindDeviceList:
		if s.shared[e.Subject] {
			if t.changed == nil {
				t.changed = map[string]struct{}{}
			}
			t.changed[e.Subject] = struct{}{}
			t.n++
		}
	case entry.KindKeyCounts:
		body, err := entry.DecodeKeyCounts(&e.Entry)
		if err == nil && t.p.service.ActsFor(id.UserID(e.Subject)) {
			if t.counts == nil {
				t.counts = map[deviceName]*entry.KeyCountsBody{}
			}
			t.counts[deviceName{e.Subject, body.DeviceId}] = body
			t.n++
		}
	}
}

func (t *transaction) takeEvent(e *entry.At, s *seen) {
	body := s.bodies[e.Pos]
	if body == nil || !t.p.concerns(e, body, s) {
		return
	}
	var ev *event.Event
	rules, ok := roomver.Get(roomver.Version(body.RoomVersion))
	var err error
	if ok {
		ev, err = event.ParseTrusted(rules, e.JSON, id.EventID(body.EventId))
	}
	if !ok || err != nil {
		t.p.log.Error("an event cannot be shown; an application service is not told of it", "event", body.EventId, "error", err)
		return
	}
	item := readdb.Item{Event: ev, Device: body.DeviceId, Txn: body.TxnId, Replaced: readdb.Replaced{
		Event: id.EventID(body.ReplacesEventId), Sender: id.UserID(body.ReplacesSender), Content: body.ReplacesContent,
	}}
	viewer := readdb.Viewer{Now: t.p.o.Now()}
	if body.TxnId != "" && t.p.service.ActsFor(id.UserID(body.Sender)) { // its own request
		viewer.User, viewer.Device = id.UserID(body.Sender), id.DeviceID(body.DeviceId)
	}
	t.add(&t.events, item.Append(nil, viewer, false))
}

// privateReceipt is a receipt that is for its user alone.
const privateReceipt = "m.read.private"

func (t *transaction) takeReceipt(e *entry.At, s *seen) {
	body, err := entry.DecodeReceipt(&e.Entry)
	r := t.p.rooms[e.Room]
	if err != nil || r == nil || !t.p.interested(r, s.named) {
		return
	}
	if body.Kind == privateReceipt && !t.p.service.ActsFor(id.UserID(body.UserId)) {
		return
	}
	b := canonjson.AppendString([]byte(`{"type":"m.receipt","room_id":`), body.RoomId)
	b = canonjson.AppendString(append(b, `,"content":{`...), body.EventId)
	b = canonjson.AppendString(append(b, `:{`...), body.Kind)
	b = canonjson.AppendString(append(b, `:{`...), body.UserId)
	b = canonjson.AppendInt(append(b, `:{"ts":`...), body.Ts)
	if body.Thread != "" {
		b = canonjson.AppendString(append(b, `,"thread_id":`...), body.Thread)
	}
	t.add(&t.soft, append(b, `}}}}}`...))
}

func (t *transaction) takeMessages(e *entry.At) {
	if !t.p.service.ActsFor(id.UserID(e.Subject)) {
		return
	}
	body, err := entry.DecodeToDevice(&e.Entry)
	if err != nil {
		return
	}
	for _, m := range body.Messages {
		if len(m.Json) < 2 || m.Json[len(m.Json)-1] != '}' {
			continue
		}
		b := append([]byte(nil), m.Json[:len(m.Json)-1]...)
		b = canonjson.AppendString(append(b, `,"to_user_id":`...), e.Subject)
		b = canonjson.AppendString(append(b, `,"to_device_id":`...), m.DeviceId)
		t.add(&t.toDevice, append(b, '}'))
		t.received = append(t.received, Received{e.Subject, m.DeviceId, e.Pos})
	}
}

// body writes the transaction.
func (t *transaction) body() []byte {
	b := make([]byte, 0, t.size+1024)
	b = appendList(append(b, `{"events":`...), t.events)
	if len(t.soft) > 0 {
		b = appendList(append(b, `,"ephemeral":`...), t.soft)
		b = appendList(append(b, `,"de.sorunome.msc2409.ephemeral":`...), t.soft)
	}
	if len(t.toDevice) > 0 {
		b = appendList(append(b, `,"to_device":`...), t.toDevice)
		b = appendList(append(b, `,"de.sorunome.msc2409.to_device":`...), t.toDevice)
	}
	if len(t.changed) > 0 {
		b = append(b, `,"org.matrix.msc3202.device_lists":{"changed":[`...)
		for i, u := range slices.Sorted(maps.Keys(t.changed)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = canonjson.AppendString(b, u)
		}
		b = append(b, `],"left":[]}`...)
	}
	if len(t.counts) > 0 {
		counts := t.appendByDevice(nil, appendCounts)
		// Under both names that clients of this know.
		b = append(append(b, `,"org.matrix.msc3202.device_one_time_keys_count":`...), counts...)
		b = append(append(b, `,"org.matrix.msc3202.device_one_time_key_counts":`...), counts...)
		b = t.appendByDevice(append(b, `,"org.matrix.msc3202.device_unused_fallback_key_types":`...), appendFallback)
	}
	return append(b, '}')
}

// appendByDevice appends something of each device whose keys were counted, by user and device.
func (t *transaction) appendByDevice(b []byte, value func(b []byte, k *entry.KeyCountsBody) []byte) []byte {
	byUser := map[string][]string{}
	for d := range t.counts {
		byUser[d.user] = append(byUser[d.user], d.device)
	}
	b = append(b, '{')
	for i, user := range slices.Sorted(maps.Keys(byUser)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(canonjson.AppendString(b, user), ':', '{')
		slices.Sort(byUser[user])
		for j, device := range byUser[user] {
			if j > 0 {
				b = append(b, ',')
			}
			b = value(append(canonjson.AppendString(b, device), ':'), t.counts[deviceName{user, device}])
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// commonKeys are told of also when there are none.
const commonKeys = "signed_curve25519"

func appendCounts(b []byte, k *entry.KeyCountsBody) []byte {
	counts := map[string]int64{commonKeys: 0}
	for _, c := range k.Counts {
		counts[c.Algorithm] = c.Count
	}
	b = append(b, '{')
	for i, a := range slices.Sorted(maps.Keys(counts)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = canonjson.AppendInt(append(canonjson.AppendString(b, a), ':'), counts[a])
	}
	return append(b, '}')
}

func appendFallback(b []byte, k *entry.KeyCountsBody) []byte {
	b = append(b, '[')
	for i, a := range slices.Sorted(slices.Values(k.UnusedFallback)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = canonjson.AppendString(b, a)
	}
	return append(b, ']')
}

func appendList(b []byte, items [][]byte) []byte {
	b = append(b, '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, item...)
	}
	return append(b, ']')
}
