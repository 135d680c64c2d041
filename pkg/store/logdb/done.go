package logdb

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Done tells what an idempotency key's command was answered, if it was done.
func (d *DB) Done(ctx context.Context, s shard.ID, key []byte) (result []byte, ok bool, err error) {
	var one Done
	one.Add(s, key, nil)
	found, err := one.Find(ctx, d.db.Primary)
	if err != nil {
		return nil, false, fmt.Errorf("look for a command: %w", err)
	}
	for _, r := range found {
		return r, true, nil
	}
	return nil, false, nil
}
