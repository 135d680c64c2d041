package account

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// room gives a budget that holds about so many sessions.
func room(sessions int64) *cache.Budget {
	return cache.NewBudget(cache.BudgetConfig{Memory: 2 * (sessions*(sessionWeight+4) + 10)}, nil)
}

func TestSessionCacheForgetsWhatWasReadBeforeADrop(t *testing.T) {
	c := newSessionCache(room(10))
	h := HashToken("a")
	l := c.begin("@a:x")
	require.True(t, c.knows("@a:x"), "a load in progress must hear of drops")
	c.drop("@a:x")
	c.end(l, h, accountdb.Session{UserID: "@a:x"})
	_, ok := c.get(h)
	require.False(t, ok)
	require.Empty(t, c.users)
}

// Against a model: what is remembered is what was ended and not dropped since, and never more than the limit.
func TestSessionCacheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := room(4)
		c := newSessionCache(b)
		good := map[[32]byte]string{}
		type open struct {
			l    sessionLoad
			hash [32]byte
			void bool
		}
		var loads []*open
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				user := rapid.SampledFrom([]string{"@a:x", "@b:x"}).Draw(t, "user")
				hash := HashToken(fmt.Sprint(user, rapid.IntRange(0, 5).Draw(t, "token")))
				loads = append(loads, &open{l: c.begin(user), hash: hash})
			},
			"end": func(t *rapid.T) {
				if len(loads) == 0 {
					t.Skip()
				}
				o := loads[0]
				loads = loads[1:]
				c.end(o.l, o.hash, accountdb.Session{UserID: o.l.user})
				if !o.void {
					good[o.hash] = o.l.user
				}
			},
			"drop": func(t *rapid.T) {
				user := rapid.SampledFrom([]string{"@a:x", "@b:x"}).Draw(t, "user")
				c.drop(user)
				for h, u := range good {
					if u == user {
						delete(good, h)
					}
				}
				for _, o := range loads {
					o.void = o.void || o.l.user == user
				}
			},
			"": func(t *rapid.T) {
				require.LessOrEqual(t, c.recent.Len(), 4)
				require.Len(t, c.byHash, c.recent.Len())
				var weight int64
				for el := c.recent.Front(); el != nil; el = el.Next() {
					weight += el.Value.(*cachedSession).weight()
				}
				require.Equal(t, weight, b.Used(), "what is charged is what is held")
				for h := range c.byHash {
					require.Contains(t, good, h)
				}
				if len(loads) == 0 && c.recent.Len() == 0 {
					require.Empty(t, c.users)
				}
			},
		})
	})
}

// What was used last stays.
func TestSessionCacheEvicts(t *testing.T) {
	c := newSessionCache(room(3))
	put := func(name string) [32]byte {
		h := HashToken(name)
		c.end(c.begin("@"+name+":x"), h, accountdb.Session{UserID: "@" + name + ":x"})
		return h
	}
	a, b := put("a"), put("b")
	put("c")
	_, ok := c.get(a)
	require.True(t, ok)
	put("d")
	_, ok = c.get(b)
	require.False(t, ok, "used least recently")
	_, ok = c.get(a)
	require.True(t, ok)
	c.clear()
	require.Zero(t, c.account.Used())
}
