package e2ee

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

// dehydrate makes a dehydrated device (MSC3814): a device with keys, which nobody is logged in with.
func (h *Host) dehydrate(ctx context.Context, s shard.ID, q *Dehydrate) (change, error) {
	c := change{Answer: Answer{DeviceID: q.DeviceID}}
	names, err := h.DB.DeviceNames(ctx, s, []string{q.UserID})
	if err != nil {
		return c, err
	}
	old, ok, err := h.DB.Dehydrated(ctx, s, q.UserID)
	if err != nil {
		return c, err
	}
	body := &entry.DeviceListBody{Changed: []string{q.DeviceID}}
	for _, n := range names {
		if n.DeviceID == q.DeviceID && (!ok || old.DeviceID != q.DeviceID) {
			return change{}, mxerr.New(mxerr.InvalidParam, "There is another device of that name")
		}
	}
	if ok {
		c.Rows = append(c.Rows, &accountdb.DeviceGone{UserID: q.UserID, DeviceID: old.DeviceID})
		if old.DeviceID != q.DeviceID {
			body.Gone = []string{old.DeviceID}
		}
	}
	now := h.Now().UnixMilli()
	c.Rows = append(c.Rows,
		&accountdb.Device{UserID: q.UserID, DeviceID: q.DeviceID, DisplayName: q.DisplayName, Created: now},
		&e2eedb.Dehydrated{UserID: q.UserID, DeviceID: q.DeviceID, Data: q.Data},
		&e2eedb.DeviceKey{UserID: q.UserID, DeviceID: q.DeviceID, JSON: q.Keys.Device})
	for _, k := range q.Keys.OneTime {
		c.Rows = append(c.Rows, &e2eedb.OneTimeKey{
			UserID: q.UserID, DeviceID: q.DeviceID, Algorithm: k.Algorithm, KeyID: k.KeyID, JSON: k.JSON,
		})
	}
	for _, k := range q.Keys.Fallback {
		c.Rows = append(c.Rows, &e2eedb.FallbackKey{
			UserID: q.UserID, DeviceID: q.DeviceID, Algorithm: k.Algorithm, KeyID: k.KeyID, JSON: k.JSON,
		})
	}
	return c, listChanged(&c, q.UserID, body)
}

func (h *Host) rehydrated(ctx context.Context, s shard.ID, q *Rehydrated) (change, error) {
	old, ok, err := h.DB.Dehydrated(ctx, s, q.UserID)
	switch {
	case err != nil:
		return change{}, err
	case !ok:
		return change{}, mxerr.New(mxerr.NotFound, "No dehydrated device")
	}
	c := change{Answer: Answer{DeviceID: old.DeviceID}}
	c.Rows = append(c.Rows, &accountdb.DeviceGone{UserID: q.UserID, DeviceID: old.DeviceID})
	return c, listChanged(&c, q.UserID, &entry.DeviceListBody{Gone: []string{old.DeviceID}})
}
