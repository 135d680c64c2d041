package app

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/route"
)

func TestEveryRateClassIsConfigured(t *testing.T) {
	l := limitsOf(config.Default(false).RateLimits)
	require.True(t, l.Enabled)
	for _, row := range route.Table() {
		if row.Rate == route.RateNone {
			continue
		}
		require.Contains(t, l.Client, row.Rate, "class of %s", row.Name)
		require.Positive(t, l.Client[row.Rate].Burst)
		require.Positive(t, l.Client[row.Rate].PerSecond)
	}
}

// Each key sets one class and no key is forgotten.
func TestEveryRateKeyCounts(t *testing.T) {
	var c config.RateLimits
	v := reflect.ValueOf(&c).Elem()
	keys := 0
	for i := range v.NumField() {
		if r, ok := v.Field(i).Addr().Interface().(*config.Rate); ok {
			keys++
			*r = config.Rate{Count: float64(keys), Per: time.Second, Burst: int64(keys)}
		}
	}
	l := limitsOf(c)
	require.Equal(t, keys, len(l.Client)+len(l.Room))
	seen := map[int64]bool{}
	for _, of := range []map[route.RateClass]int64{bursts(l.Client), bursts(l.Room)} {
		for class, b := range of {
			require.False(t, seen[b], "%s has another's figure", class)
			seen[b] = true
		}
	}
	require.Empty(t, limitsOf(config.RateLimits{Enabled: true}).Client, "none is no limit")
}

func bursts(of auth.Rates) map[route.RateClass]int64 {
	out := map[route.RateClass]int64{}
	for class, r := range of {
		out[class] = r.Burst
	}
	return out
}
