package e2ee

import (
	"context"
	"hash/fnv"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/feddb"
)

const (
	// maxEntryMessages bounds the bytes of messages in one log entry.
	maxEntryMessages = 64 << 10
	// maxFanOut bounds what one command comes to when messages to all devices of a user have been multiplied. A transaction may have 4 MiB, and a
	// message is in it twice: as a row, and in the log.
	maxFanOut = 1536 << 10
	// maxQueue is how many messages wait for a device, and maxQueueBytes what they take; the oldest go first. The queue of a device that never
	// syncs ends here.
	maxQueue      = 10_000
	maxQueueBytes = 64 << 20
	// queueCheck is one in how many messages has its device's queue looked at; a large one counts for several.
	queueCheck      = 128
	queueCheckBytes = 8 << 10
)

// sendToDevice delivers messages: those to devices that there are. A device that comes only now has no use for what was meant for others.
func (h *Host) sendToDevice(ctx context.Context, s shard.ID, q *SendToDevice) (change, error) {
	var c change
	list := make([]string, 0, len(q.Messages))
	for i := range q.Messages {
		list = append(list, q.Messages[i].UserID)
	}
	slices.Sort(list)
	names, err := h.DB.DeviceNames(ctx, s, slices.Compact(list))
	if err != nil {
		return c, err
	}
	devices := make(map[string][]string)
	for _, n := range names {
		devices[n.UserID] = append(devices[n.UserID], n.DeviceID)
	}
	var b bundle
	for i := range q.Messages {
		m := &q.Messages[i]
		to := devices[m.UserID]
		if m.DeviceID != "*" {
			if !slices.Contains(to, m.DeviceID) {
				continue
			}
			to = []string{m.DeviceID}
		}
		for _, d := range to {
			if !m.means(d) {
				continue
			}
			if b.total += len(m.JSON); b.total > maxFanOut {
				return change{}, mxerr.New(mxerr.TooLarge, "The message goes to too many devices for its size")
			}
			if err := b.add(&c, m, d); err != nil {
				return change{}, err
			}
		}
	}
	if err := b.flush(&c); err != nil {
		return change{}, err
	}
	return c, h.trimQueues(ctx, s, &c)
}

// means tells whether a message to all devices is to one of them by this command.
func (m *ToDevice) means(device string) bool {
	if m.Of == 0 {
		return true
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(device))
	return int(h.Sum32()%uint32(m.Of)) == m.Part
}

// bundle gathers messages to one user into log entries. An entry's position is the place of a message in its device's queue, so an entry has at
// most one for each device.
type bundle struct {
	user  string
	body  entry.ToDeviceBody
	size  int
	total int
}

func (b *bundle) add(c *change, m *ToDevice, device string) error {
	full := b.size+len(m.JSON) > maxEntryMessages || slices.ContainsFunc(b.body.Messages, func(x *entry.ToDeviceMessage) bool {
		return x.DeviceId == device
	})
	if b.user != m.UserID || full {
		if err := b.flush(c); err != nil {
			return err
		}
	}
	b.user = m.UserID
	b.size += len(m.JSON)
	b.body.Messages = append(b.body.Messages, &entry.ToDeviceMessage{DeviceId: device, Json: m.JSON})
	c.Rows = append(c.Rows, &e2eedb.ToDevice{UserID: m.UserID, DeviceID: device, JSON: m.JSON, Entry: len(c.Entries)})
	return nil
}

func (b *bundle) flush(c *change) error {
	if len(b.body.Messages) == 0 {
		return nil
	}
	e, err := entry.ToDevice(b.user, &b.body)
	if err != nil {
		return err
	}
	c.Entries = append(c.Entries, e)
	b.body.Messages, b.size = nil, 0
	return nil
}

// trimQueues removes the oldest messages to devices that have too many. Only some of the devices are looked at each time: over
// many messages it comes to the same, and costs little.
func (h *Host) trimQueues(ctx context.Context, s shard.ID, c *change) error {
	var looked []e2eedb.DeviceName
	for _, r := range c.Rows {
		if m, ok := r.(*e2eedb.ToDevice); ok && h.sampled(len(m.JSON)) {
			looked = append(looked, e2eedb.DeviceName{UserID: m.UserID, DeviceID: m.DeviceID})
		}
	}
	if len(looked) == 0 {
		return nil
	}
	gone, err := h.DB.Overflow(ctx, s, looked, maxQueue, maxQueueBytes)
	for i := range gone {
		c.Rows = append(c.Rows, &gone[i])
	}
	return err
}

// sendAway queues an EDU for another server, whose shard has them with everything else that it is owed.
func (h *Host) sendAway(q *SendAway) (change, error) {
	typ := q.Type
	if typ == "" {
		typ = "m.direct_to_device"
	}
	return change{
		Entries: []entry.Entry{entry.Outgoing(q.Server)},
		Rows:    []entry.Row{&feddb.EDU{Destination: q.Server, Type: typ, Content: q.Content}},
	}, nil
}

func (h *Host) acknowledge(q *Acknowledge) (change, error) {
	var c change
	for _, r := range q.Received {
		c.Rows = append(c.Rows, &e2eedb.ToDeviceGone{UserID: r.UserID, DeviceID: r.DeviceID, Upto: r.Upto})
	}
	return c, nil
}

func (h *Host) noteSeen(q *NoteSeen) (change, error) {
	var c change
	for _, x := range q.Seen {
		c.Rows = append(c.Rows, &accountdb.DeviceSeen{UserID: x.UserID, DeviceID: x.DeviceID, IP: x.IP, UserAgent: x.UserAgent, Seen: x.At})
	}
	return c, nil
}
