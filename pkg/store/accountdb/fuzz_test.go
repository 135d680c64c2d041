package accountdb_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

func FuzzParseIgnored(f *testing.F) {
	f.Add([]byte(`{"ignored_users":{"@a:b":{},"@me:b":{}}}`))
	f.Add([]byte(`{"ignored_users":[]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		got := accountdb.ParseIgnored("@me:b", content)
		require.NotNil(t, got)
		require.NotContains(t, got, "@me:b")
	})
}
