package sso

import (
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNames(t *testing.T) {
	for from, want := range map[string]string{
		"alice": "alice", "Alice.Smith": "alice.smith", "a b": "a=20b", "a@b": "a=40b", "é": "=c3=a9", "a=b": "a=3db", "": "",
	} {
		require.Equal(t, want, localpart(from), from)
	}
}

func TestWithToken(t *testing.T) {
	for from, want := range map[string]string{
		"https://a.org":      "https://a.org?loginToken=T",
		"https://a.org/?x=1": "https://a.org/?x=1&loginToken=T",
		"https://a.org/?loginToken=a&x&login%54oken=b": "https://a.org/?x&loginToken=T",
		"https://a.org/#f?loginToken=kept":             "https://a.org/?loginToken=T#f?loginToken=kept",
		"org.a:/cb":                                    "org.a:/cb?loginToken=T",
	} {
		got, err := withToken(from, "T")
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func FuzzRedirectable(f *testing.F) {
	f.Add("https://a.org/?x=1#y")
	f.Add("javascript:alert(1)")
	f.Add("JavaScript:alert(1)")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Redirectable(s)
		if err != nil {
			return
		}
		require.NotEqual(t, "javascript", u.Scheme)
		to, err := withToken(s, "T")
		if err != nil {
			return
		}
		there, err := url.Parse(to)
		require.NoError(t, err)
		require.Equal(t, u.Scheme, there.Scheme)
		require.Equal(t, u.Host, there.Host, "a token goes where it was allowed to go")
	})
}
