package app

import (
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/route"
)

// TestEveryRateClassIsTold: whatever a client does too much of, it is told so, and when to try again.
func TestEveryRateClassIsTold(t *testing.T) {
	f := newFleet(t)
	limits := reflect.ValueOf(&f.cfg.RateLimits).Elem()
	for i := range limits.NumField() {
		if r, ok := limits.Field(i).Addr().Interface().(*config.Rate); ok {
			*r = config.Rate{Count: 0.001, Per: time.Second, Burst: 2}
		}
	}
	f.cfg.Log.Level = "error"
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	status, made, _ := w.call(t, "POST", "/_matrix/client/v3/register", "",
		`{"username":"alice","password":"correct horse","auth":{"type":"m.login.dummy"}}`)
	require.Equal(t, http.StatusOK, status, "%v", made)
	token := made["access_token"].(string)

	told, served := map[route.RateClass]bool{}, map[route.RateClass]bool{}
	for _, row := range route.Table() {
		if told[row.Rate] || row.Rate == route.RateNone || row.Auth == route.AuthFederation || row.Auth == route.AuthAdmin ||
			row.Auth == route.AuthAppservice || row.Timeout == route.LongPoll {
			continue
		}
		path := route.Fill(row.Paths[0], func(string) string { return url.PathEscape("!x:example.org") })
		for range 3 {
			status, a, header := w.call(t, row.Methods[0], path, token, `{}`)
			if served[row.Rate] = served[row.Rate] || a["errcode"] != "M_UNRECOGNIZED"; status != http.StatusTooManyRequests {
				continue
			}
			told[row.Rate] = true
			require.Equal(t, "M_LIMIT_EXCEEDED", a["errcode"], row.Name)
			ms, ok := a["retry_after_ms"].(float64)
			require.True(t, ok && ms > 0, "%v", a)
			seconds, err := strconv.Atoi(header.Get("Retry-After"))
			require.NoError(t, err)
			require.GreaterOrEqual(t, float64(seconds)*1000, ms)
		}
	}
	for _, row := range route.Table() {
		switch row.Rate {
		case route.RateNone, route.RateFederation, route.RateKeys, route.RateUpload, route.RateDownload: // asked by servers, or no JSON
		default:
			require.Equal(t, served[row.Rate], told[row.Rate], "nobody was told of %s", row.Rate)
		}
	}
	require.Greater(t, len(told), 10, "%v", told)
}
