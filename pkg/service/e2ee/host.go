package e2ee

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

// HostOptions are what a Host needs.
type HostOptions struct {
	command.Options
	Shards shard.Map
	DB     *e2eedb.Reader
	Now    func() time.Time
}

// Host does commands on the shards that this worker holds.
type Host struct {
	HostOptions
	commands *command.Host[Answer]
	n        atomic.Uint64
}

// NewHost makes a Host.
func NewHost(o HostOptions) *Host {
	return &Host{HostOptions: o, commands: command.NewHost[Answer](o.Options)}
}

// change is what a command decided.
type change = command.Change[Answer]

// listChanged notes that what others see of a user's devices and keys changed.
func listChanged(c *change, user string, body *entry.DeviceListBody) error {
	e, err := entry.DeviceList(user, body)
	if err != nil {
		return err
	}
	c.Rows = append(c.Rows, &accountdb.DeviceList{UserID: user, Entry: len(c.Entries)})
	c.Entries = append(c.Entries, e)
	return nil
}

// Do does a command on a shard that this worker holds. The same key has its effect once. A refusal is an *mxerr.Error.
func (h *Host) Do(ctx context.Context, key []byte, cmd Command) (Answer, error) {
	s := cmd.Shard(h.Shards)
	r := command.Request{Name: cmd.Method(), Shard: s, Key: key, Turns: users(cmd)}
	return h.commands.Do(ctx, r, func(ctx context.Context) (change, error) { return h.decide(ctx, s, cmd) })
}

// users gives whose turn a command needs: nobody's, if it does not decide by what is stored.
func users(cmd Command) []string {
	switch c := cmd.(type) {
	case *UploadKeys:
		return []string{c.UserID}
	case *PutCrossSigning:
		return []string{c.UserID}
	case *PutSignatures:
		return []string{c.UserID}
	case *Dehydrate:
		return []string{c.UserID}
	case *Rehydrated:
		return []string{c.UserID}
	case *PutBackup:
		return []string{c.UserID}
	case *DeleteBackup:
		return []string{c.UserID}
	case *BackUp:
		return []string{c.UserID}
	case *DropBackedUp:
		return []string{c.UserID}
	case *Claim:
		list := make([]string, len(c.Wanted))
		for i, w := range c.Wanted {
			list[i] = w.UserID
		}
		return list
	}
	return nil
}

func (h *Host) decide(ctx context.Context, s shard.ID, cmd Command) (change, error) {
	switch c := cmd.(type) {
	case *UploadKeys:
		return h.uploadKeys(ctx, s, c)
	case *Claim:
		return h.claim(ctx, s, c)
	case *PutCrossSigning:
		return h.putCrossSigning(ctx, c)
	case *PutSignatures:
		return h.putSignatures(ctx, c)
	case *SendToDevice:
		return h.sendToDevice(ctx, s, c)
	case *SendAway:
		return h.sendAway(c)
	case *ListsChanged:
		return h.listsChangedAbroad(c)
	case *Acknowledge:
		return h.acknowledge(c)
	case *NoteSeen:
		return h.noteSeen(c)
	case *Dehydrate:
		return h.dehydrate(ctx, s, c)
	case *Rehydrated:
		return h.rehydrated(ctx, s, c)
	case *PutBackup:
		return h.putBackup(ctx, s, c)
	case *DeleteBackup:
		return h.deleteBackup(ctx, s, c)
	case *BackUp:
		return h.backUp(ctx, s, c)
	case *DropBackedUp:
		return h.dropBackedUp(ctx, s, c)
	}
	return change{}, fmt.Errorf("unknown command %T", cmd)
}

// sampled is true for one in queueCheck messages, or for more where they are large.
func (h *Host) sampled(bytes int) bool {
	weight := 1 + uint64(bytes)/queueCheckBytes
	n := h.n.Add(weight)
	return n/queueCheck != (n-weight)/queueCheck
}
