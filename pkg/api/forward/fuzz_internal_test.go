package forward

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/route"
)

// FuzzKey gives what spreads the load anything that a stranger can write into a request.
func FuzzKey(f *testing.F) {
	f.Add(`X-Matrix origin="a.example",key="ed25519:1"`, "")
	f.Add(`Bearer hed_YQ.b.c`, "access_token=x&user_id=%40a")
	f.Add(`Bearer `, "access_token=hed_")
	rows := route.Table()
	f.Fuzz(func(t *testing.T, header, query string) {
		r := &http.Request{Header: http.Header{"Authorization": {header}}, URL: &url.URL{Path: "/", RawQuery: query}}
		for i := range rows {
			key := Key(&rows[i], r)
			require.Equal(t, key, Key(&rows[i], r), "the same request goes to the same worker")
			require.LessOrEqual(t, len(key), len(header)+2*len(query))
		}
	})
}
