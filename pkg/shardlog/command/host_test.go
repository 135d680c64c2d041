package command_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const user = "@alice:test"

type answer struct{ N int }

// epochs says that shards are held under one epoch after the other, and then no more.
type epochs []shard.Epoch

func (e *epochs) Epoch(shard.ID) (shard.Epoch, bool) {
	if len(*e) == 0 {
		return 0, false
	}
	now := (*e)[0]
	*e = (*e)[1:]
	return now, true
}

// writes is a change that stores the count as account data.
func writes(t *testing.T, n int) command.Change[answer] {
	content, err := json.Marshal(answer{n})
	require.NoError(t, err)
	e, err := entry.AccountData(user, &entry.AccountDataBody{Type: "org.example.count", Content: content})
	require.NoError(t, err)
	return command.Change[answer]{
		Entries: []entry.Entry{e}, Rows: []entry.Row{&accountdb.AccountData{UserID: user, Type: "org.example.count", Content: content}}, Answer: answer{n},
	}
}

func TestDo(t *testing.T) {
	w := roomtest.New(t)
	at := w.Shards.OfUser(user)
	held, _ := w.Epoch(at)
	host := func(o command.Owners) *command.Host[answer] {
		return command.NewHost[answer](command.Options{Owners: o, Committer: w.Committer, Done: w.Log()})
	}
	decided := 0
	count := func(context.Context) (command.Change[answer], error) {
		decided++
		return writes(t, decided), nil
	}
	r := command.Request{Name: "count", Shard: at, Key: []byte("key")}

	a, err := host(w).Do(w.Ctx(), r, count)
	require.NoError(t, err)
	require.Equal(t, answer{1}, a)
	a, err = host(w).Do(w.Ctx(), r, count)
	require.NoError(t, err)
	require.Equal(t, answer{1}, a, "a repeat is answered as before")
	require.Equal(t, 1, decided, "and decided no more")
	r.Key = nil
	a, err = host(w).Do(w.Ctx(), r, count)
	require.NoError(t, err)
	require.Equal(t, answer{2}, a)

	refusal := errors.New("no")
	_, err = host(w).Do(w.Ctx(), r, func(context.Context) (c command.Change[answer], _ error) { return c, refusal })
	require.ErrorIs(t, err, refusal)
	require.ErrorContains(t, err, "count: no")

	_, err = host(&epochs{}).Do(w.Ctx(), r, count)
	require.ErrorIs(t, err, command.ErrNotOwner, "a shard that is not held")
	require.Equal(t, 2, decided)
	_, err = host(&epochs{held - 1}).Do(w.Ctx(), r, count)
	require.ErrorIs(t, err, command.ErrNotOwner, "one that another has taken since")

	reads := func(context.Context) (command.Change[answer], error) {
		return command.Change[answer]{Answer: answer{7}}, nil
	}
	a, err = host(&epochs{held, held}).Do(w.Ctx(), r, reads)
	require.NoError(t, err)
	require.Equal(t, answer{7}, a, "what changes nothing is answered")
	for name, o := range map[string]epochs{"lost": {held}, "lost and got again": {held, held + 1}} {
		_, err = host(&o).Do(w.Ctx(), r, reads)
		require.ErrorIs(t, err, command.ErrNotOwner, name)
	}
}

// Of commands that share a turn, each sees what those before it have done.
func TestTurns(t *testing.T) {
	w := roomtest.New(t)
	h := command.NewHost[answer](command.Options{Owners: w, Committer: w.Committer, Done: w.Log()})
	db := accountdb.NewReader(w.DB.Pool)
	at := w.Shards.OfUser(user)
	const many = 20
	var all sync.WaitGroup
	answers := make(chan int, many)
	for range many {
		all.Go(func() {
			a, err := h.Do(w.Ctx(), command.Request{Name: "count", Shard: at, Turns: []string{user}}, func(ctx context.Context) (command.Change[answer], error) {
				stored, err := db.DataOf(ctx, []shard.ID{at}, []string{user}, "org.example.count")
				if err != nil {
					return command.Change[answer]{}, err
				}
				var last answer
				if len(stored) > 0 {
					err = json.Unmarshal(stored[0].Content, &last)
				}
				return writes(t, last.N+1), err
			})
			if err == nil {
				answers <- a.N
			}
		})
	}
	all.Wait()
	close(answers)
	seen := map[int]bool{}
	for n := range answers {
		seen[n] = true
	}
	require.Len(t, seen, many, "each counted one further")
}

type named struct{ N int }

func (*named) Method() string { return "test.named" }

func TestDecode(t *testing.T) {
	all := []*named{{}}
	require.Equal(t, []string{"test.named"}, command.Methods(all))
	c, err := command.Decode(all, "test.named", []byte(`{"N":3}`))
	require.NoError(t, err)
	require.Equal(t, 3, c.N)
	_, err = command.Decode(all, "test.other", []byte(`{}`))
	require.ErrorContains(t, err, "unknown command")
	_, err = command.Decode(all, "test.named", []byte(`[]`))
	require.ErrorContains(t, err, "decode test.named")
}
