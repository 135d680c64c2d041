package msync

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

const (
	maxMessages = 100 // to a device in one answer; the rest comes with the next
	maxHeld     = 256 // messages to the devices of one user that are held
	// maxAcks is how many devices may have received messages that are not acknowledged to their writers yet. What is beyond is
	// acknowledged by a later sync.
	maxAcks = 100_000
)

// Received says up to where a device has received its messages.
type Received struct {
	User, Device string
	Upto         shard.Pos
}

// Acknowledger has messages to devices removed that were received.
type Acknowledger interface {
	Acknowledge(ctx context.Context, list []Received) error
}

// message is a message to a device, which is held.
type message struct {
	pos    shard.Pos
	device string
	json   []byte
}

// device is what is held of a device that syncs here. Guarded by Engine.mu.
type device struct {
	loaded bool
	keyCounts
	// told is the latest message that was told, and acked up to where its receipt was noted.
	told, acked shard.Pos
}

// keyCounts is how many keys of a device can be claimed, as the answer shows it.
type keyCounts struct {
	pos    shard.Pos // of the entry that said so; 0 if it was read
	counts []byte    // {"algorithm":n}
	unused []byte    // ["algorithm"]
}

// commonKeys are the keys that every client has: it is told also that it has none of them, since some clients upload none before
// they hear of it.
const commonKeys = "signed_curve25519"

func newKeyCounts(pos shard.Pos, counts map[string]int64, unused []string) keyCounts {
	k := keyCounts{pos: pos, counts: []byte{'{'}, unused: []byte{'['}}
	if _, ok := counts[commonKeys]; !ok {
		counts[commonKeys] = 0
	}
	for i, a := range slices.Sorted(maps.Keys(counts)) {
		if i > 0 {
			k.counts = append(k.counts, ',')
		}
		k.counts = append(canonjson.AppendString(k.counts, a), ':')
		k.counts = strconv.AppendInt(k.counts, counts[a], 10)
	}
	slices.Sort(unused)
	for i, a := range unused {
		if i > 0 {
			k.unused = append(k.unused, ',')
		}
		k.unused = canonjson.AppendString(k.unused, a)
	}
	k.counts, k.unused = append(k.counts, '}'), append(k.unused, ']')
	return k
}

// append appends the members of the answer; without a device there are no keys.
func (k *keyCounts) append(b []byte) []byte {
	if k.counts == nil {
		return append(b, `"device_one_time_keys_count":{},"device_unused_fallback_key_types":[]`...)
	}
	b = append(append(b, `"device_one_time_keys_count":`...), k.counts...)
	return append(append(b, `,"device_unused_fallback_key_types":`...), k.unused...)
}

// knowDevice sees to it that what is told of a device is held. upto is up to where it says that it has received its messages.
func (e *Engine) knowDevice(ctx context.Context, u *user, id string, upto shard.Pos) error {
	if id == "" {
		return nil
	}
	e.mu.Lock()
	d := u.devices[id]
	if d == nil {
		d = new(device)
		u.devices[id] = d
	}
	loaded := d.loaded
	e.mu.Unlock()
	if loaded {
		return nil
	}
	name := []e2eedb.DeviceName{{UserID: u.id, DeviceID: id}}
	rows, err := e.Keys.Counts(ctx, u.shard, name)
	if err != nil {
		return err
	}
	fallback, err := e.Keys.FallbackKeys(ctx, u.shard, name)
	if err != nil {
		return err
	}
	old, err := e.Keys.HasMessages(ctx, u.shard, u.id, id, upto)
	if err != nil {
		return err
	}
	counts := make(map[string]int64)
	for _, c := range rows {
		counts[c.Algorithm] = c.N
	}
	var unused []string
	for i := range fallback {
		if !fallback[i].Used {
			unused = append(unused, fallback[i].Algorithm)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if d.pos == 0 { // the log may have told of newer counts already
		d.keyCounts = newKeyCounts(0, counts, unused)
	}
	d.loaded = true
	if old { // told by another worker, or by an earlier process
		d.told = max(d.told, upto)
	}
	return nil
}

// received notes that a device has received its messages up to a position. Under mu.
func (e *Engine) received(u *user, id string, upto shard.Pos) {
	d := u.devices[id]
	if d == nil || upto <= d.acked {
		return
	}
	had := len(u.messages)
	u.messages = slices.DeleteFunc(u.messages, func(m message) bool {
		gone := m.device == id && m.pos <= upto
		if gone {
			e.credit(u, m)
		}
		return gone
	})
	if len(u.messages) == had && (d.told <= d.acked || d.told > upto) {
		return // none that it could have received since
	}
	if e.acks.note(ackKey{u.id, id}, upto) {
		d.acked = upto
	}
}

// credit gives back what a message takes. Under mu.
func (e *Engine) credit(u *user, m message) {
	u.bytes -= m.size()
	e.account.Release(m.size())
}

func (m message) at() shard.Pos { return m.pos }

func (m message) size() int64 { return int64(96 + len(m.json)) }

func (e *Engine) hearToDevice(at *entry.At, concerned map[*user]struct{}) error {
	u := e.users[at.Subject]
	if u == nil {
		return nil
	}
	body, err := entry.DecodeToDevice(&at.Entry)
	if err != nil {
		return err
	}
	for _, m := range body.Messages {
		x := message{at.Pos, m.DeviceId, m.Json}
		u.messages = append(u.messages, x)
		u.bytes += x.size()
		e.owed += x.size()
	}
	if over := len(u.messages) - maxHeld; over > 0 {
		e.trimMessages(u, over)
	}
	concerned[u] = struct{}{}
	return nil
}

// trimMessages lets go of the n oldest messages to a user's devices, and of all of the last one's entry. Under mu.
func (e *Engine) trimMessages(u *user, n int) int64 {
	if n <= 0 {
		return 0
	}
	for n < len(u.messages) && u.messages[n].pos <= u.messages[n-1].pos {
		n++
	}
	return letGo(e, &u.messages, n, &u.heldFrom, &u.bytes)
}

func (e *Engine) hearKeyCounts(at *entry.At, concerned map[*user]struct{}) error {
	u := e.users[at.Subject]
	if u == nil {
		return nil
	}
	body, err := entry.DecodeKeyCounts(&at.Entry)
	if err != nil {
		return err
	}
	d := u.devices[body.DeviceId]
	if d == nil {
		return nil
	}
	counts := make(map[string]int64, len(body.Counts))
	for _, c := range body.Counts {
		counts[c.Algorithm] = c.Count
	}
	d.keyCounts = newKeyCounts(at.Pos, counts, body.UnusedFallback)
	concerned[u] = struct{}{}
	return nil
}

// messagesAfter gives the position after which the client wants messages.
func (v *view) messagesAfter() shard.Pos {
	if v.since == nil {
		return 0
	}
	if p, ok := v.since.Place(token.SectionToDevice); ok {
		return p
	}
	since, _ := v.from(v.u.shard)
	return since
}

// planDevice takes in what is new for the device itself. Under mu.
func (v *view) planDevice(p *plan) {
	d := v.u.devices[string(v.Device)]
	if d == nil {
		return
	}
	p.keyCounts = d.keyCounts
	since, incremental := v.from(v.u.shard)
	p.keysChanged = incremental && d.pos > since && d.pos <= v.to(v.u.shard)
	after := v.messagesAfter()
	if after < v.u.heldFrom {
		p.readMessages = true
		return
	}
	for _, m := range v.u.messages {
		if m.device == string(v.Device) && m.pos > after && m.pos <= v.to(v.u.shard) {
			p.messages = append(p.messages, e2eedb.Message{Pos: m.pos, JSON: m.json})
		}
	}
}

// toDevice gives the messages that are told, with commas between them, and puts into the token where the client is to go on if there
// are more.
func (v *view) toDevice(ctx context.Context, p *plan) ([]byte, error) {
	list, most := p.messages, maxMessages
	if v.mostMessages > 0 {
		most = min(most, v.mostMessages)
	}
	if p.readMessages {
		var err error
		list, err = v.e.Keys.Messages(ctx, v.u.shard, v.u.id, string(v.Device), v.messagesAfter(), v.to(v.u.shard), most+1)
		if err != nil {
			return nil, err
		}
	}
	places := slices.DeleteFunc(slices.Clone(v.upper.Places), func(p token.Place) bool { return p.Section == token.SectionToDevice })
	if len(list) > most {
		list = list[:most]
		places = append([]token.Place{{Section: token.SectionToDevice, Position: list[most-1].Pos}}, places...)
	}
	v.upper.Places = places
	var out []byte
	for i, m := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, m.JSON...)
	}
	if n := len(list); n > 0 {
		v.e.mu.Lock()
		if d := v.u.devices[string(v.Device)]; d != nil {
			d.told = max(d.told, list[n-1].Pos)
		}
		v.e.mu.Unlock()
	}
	return out, nil
}

type ackKey struct{ user, device string }

// acks are the receipts that writers have not been told of yet.
type acks struct {
	mu   sync.Mutex
	upto map[ackKey]shard.Pos // guarded by mu
}

func (a *acks) note(k ackKey, upto shard.Pos) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.upto == nil {
		a.upto = make(map[ackKey]shard.Pos)
	}
	if _, ok := a.upto[k]; !ok && len(a.upto) >= maxAcks {
		return false
	}
	a.upto[k] = max(a.upto[k], upto)
	return true
}

func (a *acks) take() []Received {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]Received, 0, len(a.upto))
	for k, upto := range a.upto {
		list = append(list, Received{k.user, k.device, upto})
	}
	a.upto = nil
	return list
}

// acknowledge tells the writers what devices have received. What could not be told is told with the next.
func (e *Engine) acknowledge(ctx context.Context) {
	list := e.acks.take()
	if len(list) == 0 {
		return
	}
	if err := e.Acks.Acknowledge(ctx, list); err != nil {
		if ctx.Err() == nil {
			e.Log.Warn("messages that devices have received are not removed yet", "devices", len(list), "error", err)
		}
		for _, r := range list {
			e.acks.note(ackKey{r.User, r.Device}, r.Upto)
		}
	}
}
