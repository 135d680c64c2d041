package follow_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/follow"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/logdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

// resets counts how often it is told to begin anew.
type resets struct{ n atomic.Int64 }

func (r *resets) Apply(context.Context, follow.Batch) error { return nil }

func (r *resets) Reset(context.Context, shard.Heads) error {
	r.n.Add(1)
	return nil
}

// The first writer of all opens the first incarnation under followers that are there already: nothing was undone by that.
func TestTheFirstIncarnationUndoesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	db := pgtest.New(t)
	r := &resets{}
	f := follow.New(follow.Config{Poll: 10 * time.Millisecond}, follow.Options{Source: logdb.NewDB(db.DB, 2), Consumer: r})
	require.NoError(t, f.Start(ctx))
	defer func() { require.NoError(t, f.Stop(ctx)) }()
	require.Zero(t, f.Positions().Incarnation)
	begun := r.n.Load()

	conn, err := db.DB.Connect(ctx)
	require.NoError(t, err)
	defer conn.Close(ctx)
	now, err := logdb.OpenIncarnation(ctx, conn, 2)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Positions().Incarnation == now.Number }, timeout, 5*time.Millisecond)
	require.Equal(t, begun, r.n.Load())
}
