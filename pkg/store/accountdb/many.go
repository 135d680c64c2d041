package accountdb

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

func shardNumbers(shards []shard.ID) []int16 {
	out := make([]int16, len(shards))
	for i, s := range shards {
		out[i] = int16(s)
	}
	return out
}

// DataOf reads the global account data of some types of many users, whose shards are given in their order.
func (r *Reader) DataOf(ctx context.Context, shards []shard.ID, users []string, types ...string) ([]ListDataOfRow, error) {
	rows, err := r.q.ListDataOf(ctx, ListDataOfParams{Shards: shardNumbers(shards), Users: users, Types: types})
	if err != nil {
		return nil, fmt.Errorf("read account data: %w", err)
	}
	return rows, nil
}

// ProfileFields reads some fields of the profiles of many users, whose shards are given in their order.
func (r *Reader) ProfileFields(ctx context.Context, shards []shard.ID, users []string, fields ...string) ([]ListProfileFieldsRow, error) {
	rows, err := r.q.ListProfileFields(ctx, ListProfileFieldsParams{Shards: shardNumbers(shards), Users: users, Fields: fields})
	if err != nil {
		return nil, fmt.Errorf("read profiles: %w", err)
	}
	return rows, nil
}

// OfKind gives those of many users whose accounts are of a kind and not deactivated. Their shards are given in their order.
func (r *Reader) OfKind(ctx context.Context, shards []shard.ID, users []string, k Kind) ([]string, error) {
	out, err := r.q.ListOfKind(ctx, ListOfKindParams{Shards: shardNumbers(shards), Users: users, Kind: int16(k)})
	if err != nil {
		return nil, fmt.Errorf("read accounts: %w", err)
	}
	return out, nil
}

// WithPushers gives those of many users who have pushers that are not switched off. Their shards are given in their order.
func (r *Reader) WithPushers(ctx context.Context, shards []shard.ID, users []string) ([]string, error) {
	out, err := r.q.ListPusherUsers(ctx, ListPusherUsersParams{Shards: shardNumbers(shards), Users: users})
	if err != nil {
		return nil, fmt.Errorf("read pushers: %w", err)
	}
	return out, nil
}

// PushersOf reads the pushers of many users that are not switched off, without what is for people in them. Their shards are given in their order.
func (r *Reader) PushersOf(ctx context.Context, shards []shard.ID, users []string) ([]Pusher, error) {
	rows, err := r.q.ListPushersOf(ctx, ListPushersOfParams{Shards: shardNumbers(shards), Users: users})
	if err != nil {
		return nil, fmt.Errorf("read pushers: %w", err)
	}
	out := make([]Pusher, len(rows))
	for i, g := range rows {
		out[i] = Pusher{UserID: g.UserID, AppID: g.AppID, Pushkey: g.Pushkey, Kind: g.Kind, Data: g.Data, Created: g.Created}
	}
	return out, nil
}
