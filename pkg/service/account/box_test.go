package account_test

import (
	"encoding/base64"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/service/account"
)

func TestBox(t *testing.T) {
	b := account.NewBox([]byte("secret"), "a")
	sealed, err := b.Seal("kind", map[string]string{"x": "hidden"})
	require.NoError(t, err)
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	require.NoError(t, err)
	require.NotContains(t, string(raw), "hidden")
	again, err := b.Seal("kind", map[string]string{"x": "hidden"})
	require.NoError(t, err)
	require.NotEqual(t, sealed, again)
	var v map[string]string
	require.True(t, account.NewBox([]byte("secret"), "a").Open("kind", sealed, &v))
	require.Equal(t, "hidden", v["x"])
	for name, open := range map[string]bool{
		"another kind":    b.Open("other", sealed, &v),
		"another purpose": account.NewBox([]byte("secret"), "b").Open("kind", sealed, &v),
		"another cluster": account.NewBox([]byte("other"), "a").Open("kind", sealed, &v),
		"nothing":         b.Open("kind", "", &v),
		"short":           b.Open("kind", "AAAA", &v),
	} {
		require.False(t, open, name)
	}
	for i := range len(sealed) {
		changed := []byte(sealed)
		changed[i] ^= 1
		require.False(t, b.Open("kind", string(changed), &v), i)
	}
}

func TestBelow(t *testing.T) {
	for at, below := range map[string]bool{
		"https://app.example.org/x": true, "https://app.example.org/x/y?z": true, "https://APP.example.org/x": true, "https://app.example.org/xy": false,
		"https://app.example.org/": false, "http://app.example.org/x": false, "https://app.example.org.evil.org/x": false,
		"https://u@app.example.org/x": false, "https://app.example.org:8443/x": false, "https://app.example.org/x/../y": false,
		"https://app.example.org/x/%2e%2e/y": false, "https:app.example.org/x": false,
	} {
		u, err := url.Parse(at)
		require.NoError(t, err)
		require.Equal(t, below, account.Below(u, "https://app.example.org/x/"), at)
	}
	u, err := url.Parse("org.example.app:/cb")
	require.NoError(t, err)
	require.True(t, account.Below(u, "org.example.app:/"))
}
