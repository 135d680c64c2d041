package app

import (
	"context"

	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// accountDoer has commands on accounts done by whoever holds their shard.
type accountDoer struct {
	to     caller
	shards shard.Map
	// everywhere may be nil: then nobody is waited for.
	everywhere *follow.Everywhere
}

// Do implements account.Doer.
func (d accountDoer) Do(ctx context.Context, key []byte, cmd account.Command) (account.Answer, error) {
	s := account.ShardOf(d.shards, cmd)
	a, err := callFor[account.Answer](ctx, d.to, s, key, cmd)
	if err != nil {
		return a, err
	}
	if d.everywhere != nil && account.Everywhere(cmd, &a) {
		d.everywhere.Await(ctx, s)
	}
	return a, nil
}
