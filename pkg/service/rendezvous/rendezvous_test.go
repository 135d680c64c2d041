package rendezvous_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/rendezvous"
	"github.com/heddle-im/heddle/pkg/testkit/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func store(t *testing.T, c soft.Config) *soft.Store {
	s, err := soft.New(c, soft.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestSession(t *testing.T) {
	for name, c := range map[string]soft.Config{"in memory": {}, "in Redis": {URL: redistest.New(t).URL, Timeout: 5 * time.Second}} {
		t.Run(name, func(t *testing.T) { session(t, store(t, c)) })
	}
}

func session(t *testing.T, at *soft.Store) {
	now := time.Now()
	clock := func() time.Time { return now }
	here, there := rendezvous.New("text", at, clock), rendezvous.New("text", at, clock) // on two workers
	made, err := here.Create(t.Context(), []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, rendezvous.Lifetime, made.Left(now).Round(time.Second))
	got, err := there.Get(t.Context(), made.ID)
	require.NoError(t, err)
	require.Equal(t, made, got)

	next, done, err := there.Put(t.Context(), made.ID, got.Seq, []byte("and back"))
	require.NoError(t, err)
	require.True(t, done)
	require.NotEqual(t, got.Seq, next.Seq)
	_, done, err = here.Put(t.Context(), made.ID, got.Seq, []byte("not read yet"))
	require.NoError(t, err)
	require.False(t, done)
	got, err = here.Get(t.Context(), made.ID)
	require.NoError(t, err)
	require.Equal(t, next, got)

	_, err = rendezvous.New("json", at, clock).Get(t.Context(), made.ID)
	require.True(t, mxerr.Is(err, mxerr.NotFound), "another protocol's")
	_, _, err = here.Put(t.Context(), made.ID, got.Seq, make([]byte, rendezvous.MaxData+1))
	require.True(t, mxerr.Is(err, mxerr.TooLarge), "%v", err)

	// Of many who write at once, one does.
	var wins atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, done, err := here.Put(t.Context(), made.ID, got.Seq, fmt.Append(nil, i))
			if err == nil && done {
				wins.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, wins.Load())

	require.NoError(t, there.Delete(t.Context(), made.ID))
	require.True(t, mxerr.Is(here.Delete(t.Context(), made.ID), mxerr.NotFound))
	_, err = here.Get(t.Context(), made.ID)
	require.True(t, mxerr.Is(err, mxerr.NotFound), "%v", err)

	// Writing does not lengthen its life.
	short, err := here.Create(t.Context(), []byte("x"))
	require.NoError(t, err)
	now = now.Add(rendezvous.Lifetime - time.Second)
	_, done, err = here.Put(t.Context(), short.ID, short.Seq, []byte("y"))
	require.NoError(t, err)
	require.True(t, done)
	now = now.Add(time.Second)
	_, err = here.Get(t.Context(), short.ID)
	require.True(t, mxerr.Is(err, mxerr.NotFound), "%v", err)
}

// Anybody can make sessions, so there is an end to them; ids cannot be guessed.
func TestSessionsAreBounded(t *testing.T) {
	s := rendezvous.New("text", store(t, soft.Config{}), time.Now)
	seen := make(map[string]bool)
	for range 5000 {
		x, err := s.Create(t.Context(), bytes.Repeat([]byte("x"), rendezvous.MaxData))
		if err != nil {
			require.True(t, mxerr.Is(err, mxerr.LimitExceeded), "%v", err)
			break
		}
		require.Len(t, x.ID, 32)
		seen[x.ID] = true
	}
	require.Less(t, len(seen), 5000)
	require.Greater(t, len(seen), 400)
	_, err := s.Create(t.Context(), make([]byte, rendezvous.MaxData+1))
	require.True(t, mxerr.Is(err, mxerr.TooLarge), "%v", err)
}
