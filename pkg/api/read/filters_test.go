package read_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/read"
	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// A filter is read once, from the text or from the database, and is the same for all who spell it the same; one that another user has
// stored is nobody else's.
func TestFiltersAreKept(t *testing.T) {
	w := roomtest.New(t)
	front := w.Accounts(account.Config{})
	alice, bob := roomtest.User("alice"), roomtest.User("bob")
	const text = `{"room":{"timeline":{"limit":7}}}`
	a, err := front.Do(w.Ctx(), &account.PutFilter{UserID: string(alice), JSON: []byte(text)})
	require.NoError(t, err)
	f := read.NewFilters(account.NewReader(w.Shards, accountdb.NewReader(w.DB.Pool)), cache.NewBudget(cache.BudgetConfig{Memory: 64 << 20}, nil), nil)
	named, err := read.FilterOf(f, w.Ctx(), alice, a.FilterID)
	require.NoError(t, err)
	require.Equal(t, 7, named.TimelineLimit())
	_, err = read.FilterOf(f, w.Ctx(), bob, a.FilterID)
	require.True(t, mxerr.Is(err, mxerr.InvalidParam), err)

	w.Exec(`DELETE FROM filter`) // where nobody looks again
	again, err := read.FilterOf(f, w.Ctx(), alice, a.FilterID)
	require.NoError(t, err)
	spelled, err := read.FilterOf(f, w.Ctx(), bob, text)
	require.NoError(t, err)
	require.Same(t, named, again)
	require.Same(t, named, spelled)
	none, err := read.FilterOf(f, w.Ctx(), bob, "")
	require.NoError(t, err)
	require.Nil(t, none)
	for _, bad := range []string{`{`, `{"room":1}`, "unknown"} {
		_, err = read.FilterOf(f, w.Ctx(), bob, bad)
		require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%q: %v", bad, err)
	}
}
