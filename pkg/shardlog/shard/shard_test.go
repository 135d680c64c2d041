package shard_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// The assignment is stored in every database: these values may never change.
func TestAssignmentIsForEver(t *testing.T) {
	m := shard.NewMap("example.org", 16)
	for key, want := range map[string]shard.ID{
		"!room:example.org":                            13,
		"!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM": 13,
		"@alice:example.org":                           1,
		"@bob:example.org":                             0,
		"matrix.org":                                   4,
	} {
		require.Equal(t, want, m.Of(key), key)
	}
	require.Equal(t, m.Of("@a:example.org"), m.OfUser("@a:example.org"))
	require.Equal(t, m.Of("remote.example:8448"), m.OfUser("@a:remote.example:8448"))
}

func TestNid(t *testing.T) {
	n := shard.MakeNid(255, 1<<40)
	require.Equal(t, shard.ID(255), n.Shard())
	require.Equal(t, int64(1<<40), n.Seq())
}
