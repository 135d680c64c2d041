package shard_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

func TestHistoryHolds(t *testing.T) {
	h := shard.History{
		{Number: 10, Began: shard.Vector{1, 1}, First: true},
		{Number: 20, Began: shard.Vector{101, 51}},
	}
	require.True(t, h.Holds(10, shard.Vector{100, 50}), "all of it was there when the next began")
	require.False(t, h.Holds(10, shard.Vector{101, 50}), "has seen an entry that was undone")
	require.False(t, h.Holds(10, shard.Vector{1, 51}))
	require.True(t, h.Holds(20, shard.Vector{1 << 40, 51}), "the current one")
	require.False(t, h.Holds(15, shard.Vector{1, 1}), "an incarnation that was undone itself")
	require.False(t, h.Holds(10, shard.Vector{1}), "of another number of shards")
	require.Equal(t, shard.Pos(0), h[0].Start(0))
	require.Equal(t, 100+shard.Step, h[1].Start(0))
}
