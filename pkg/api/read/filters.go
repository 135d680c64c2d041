package read

import (
	"context"
	"errors"
	"strings"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/filter"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// filters gives the filters of syncs. A client names or spells the same one in every request, and clients of one make all have the
// same: a text is read once, and one that is stored is not asked of the database again, for what its id names never changes.
type filters struct {
	accounts *account.Reader
	texts    *cache.Cache[string, *filter.Filter]
	stored   *cache.Cache[storedFilter, *filter.Filter]
}

type storedFilter struct {
	user id.UserID
	id   string
}

// parsedFilter is about what a filter takes beside its texts, in bytes.
const parsedFilter = 1400

// maxKeptFilter bounds the text of a filter that is kept, in bytes.
const maxKeptFilter = 8 << 10

func newFilters(accounts *account.Reader, b *cache.Budget, m *telemetry.Metrics) *filters {
	return &filters{
		accounts: accounts,
		texts: cache.New("filters", b, m, func(text string, _ *filter.Filter) int64 {
			return 3*int64(len(text)) + parsedFilter
		}),
		stored: cache.New("stored_filters", b, m, func(k storedFilter, _ *filter.Filter) int64 { return int64(len(k.user) + len(k.id)) }),
	}
}

var errNoFilter = errors.New("no such filter")

// of gives the filter that a user's request spells or names; nil for none. Refused with M_INVALID_PARAM.
func (f *filters) of(ctx context.Context, u id.UserID, text string) (*filter.Filter, error) {
	if text == "" {
		return nil, nil
	}
	if strings.HasPrefix(text, "{") {
		return f.parse(text)
	}
	got, err := f.stored.Load(ctx, storedFilter{u, text}, func(ctx context.Context, k storedFilter) (*filter.Filter, error) {
		stored, ok, err := f.accounts.Filter(ctx, k.user, k.id)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, errNoFilter
		}
		return f.parse(string(stored))
	})
	if errors.Is(err, errNoFilter) {
		err = mxerr.New(mxerr.InvalidParam, "Unknown filter")
	}
	return got, err
}

func (f *filters) parse(text string) (*filter.Filter, error) {
	if got, ok := f.texts.Get(text); ok {
		return got, nil
	}
	got, err := filter.Parse([]byte(text))
	if err != nil {
		return nil, mxerr.New(mxerr.InvalidParam, "Invalid filter").WithCause(err)
	}
	if len(text) <= maxKeptFilter {
		f.texts.Set(strings.Clone(text), got)
	}
	return got, nil
}
