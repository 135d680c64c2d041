package authservice_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/remote/authservice"
)

const api = "urn:matrix:client:api:*"

func serve(t *testing.T, now func() time.Time, h http.HandlerFunc) *authservice.Service {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s, err := authservice.New(authservice.Config{Endpoint: server.URL + "/base", Secret: "s"}, now)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func TestIntrospect(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		status int
		body   string
		want   authservice.Token
		err    error
	}{
		"good": {
			200, `{"active":true,"username":"a","device_id":"D","scope":"openid ` + api + `","expires_in":5}`,
			authservice.Token{Localpart: "a", DeviceID: "D", API: true, ExpiresIn: 5 * time.Second},
			nil,
		},
		"device of the scope": {
			200, `{"active":true,"username":"a","scope":"urn:matrix:client:device:D ` + api + `"}`,
			authservice.Token{Localpart: "a", DeviceID: "D", API: true},
			nil,
		},
		"old scopes": {
			200, `{"active":true,"username":"a","scope":"urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:D"}`,
			authservice.Token{Localpart: "a", DeviceID: "D", API: true},
			nil,
		},
		"the same device in both": {
			200, `{"active":true,"username":"a","scope":"urn:matrix:client:device:D urn:matrix:org.matrix.msc2967.client:device:D"}`,
			authservice.Token{Localpart: "a", DeviceID: "D"},
			nil,
		},
		"administrator":             {200, `{"active":true,"username":"a","scope":"urn:synapse:admin:*"}`, authservice.Token{Localpart: "a", Admin: true}, nil},
		"a scope that begins alike": {200, `{"active":true,"username":"a","scope":"` + api + `x"}`, authservice.Token{Localpart: "a"}, nil},
		"an end in time":            {200, `{"active":true,"username":"a","exp":1700000060}`, authservice.Token{Localpart: "a", ExpiresIn: time.Minute}, nil},
		"ended":                     {200, `{"active":true,"username":"a","exp":1700000000}`, authservice.Token{}, authservice.ErrInactive},
		"not active":                {200, `{"active":false,"username":"a"}`, authservice.Token{}, authservice.ErrInactive},
		"no member":                 {200, `{}`, authservice.Token{}, authservice.ErrInactive},
		"no user":                   {200, `{"active":true}`, authservice.Token{}, authservice.ErrInactive},
		"two devices":               {200, `{"active":true,"username":"a","scope":"urn:matrix:client:device:D urn:matrix:client:device:E"}`, authservice.Token{}, authservice.ErrInactive},
		"long device":               {200, `{"active":true,"username":"a","device_id":"` + strings.Repeat("d", 256) + `"}`, authservice.Token{}, authservice.ErrInactive},
		"no JSON":                   {200, `<html>`, authservice.Token{}, authservice.ErrUnavailable},
		"wrong secret":              {401, `{}`, authservice.Token{}, authservice.ErrUnavailable},
		"fault":                     {500, `{"active":true,"username":"a"}`, authservice.Token{}, authservice.ErrUnavailable},
		"endless":                   {200, `{"active":true,"username":"a","x":"` + strings.Repeat("x", 300<<10) + `"}`, authservice.Token{}, authservice.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func() time.Time { return now }, func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPost || r.URL.Path != "/base/oauth2/introspect" || r.PostFormValue("token") != "secret token" ||
					r.Header.Get("Authorization") != "Bearer s" {
					w.WriteHeader(http.StatusTeapot)
					return
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			})
			got, err := s.Introspect(t.Context(), "secret token")
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.want, got)
		})
	}
}

// A redirect would carry the token and the secret to wherever it points.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var followed atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Store(true) }))
	defer other.Close()
	s := serve(t, time.Now, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	_, err := s.Introspect(t.Context(), "t")
	require.ErrorIs(t, err, authservice.ErrUnavailable)
	_, err = s.Metadata(t.Context())
	require.ErrorIs(t, err, authservice.ErrUnavailable)
	require.False(t, followed.Load())
}

func TestMetadata(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var asked atomic.Int32
	var answer atomic.Value
	answer.Store(`{}`)
	s := serve(t, func() time.Time { return now }, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/base/.well-known/openid-configuration" && r.Header.Get("Authorization") == "" {
			asked.Add(1)
			_, _ = w.Write([]byte(answer.Load().(string)))
		}
	})
	_, err := s.Metadata(t.Context())
	require.ErrorIs(t, err, authservice.ErrUnavailable, "no issuer")

	const good = `{"issuer":"https://i/","account_management_uri":"https://i/account","x":1}`
	answer.Store(good)
	want := authservice.Metadata{JSON: []byte(good), Issuer: "https://i/", AccountManagementURI: "https://i/account"}
	for range 3 {
		m, err := s.Metadata(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, m)
	}
	require.EqualValues(t, 2, asked.Load())

	// It is asked anew after some minutes; while it fails, what it said last goes on, and it is not asked at every turn.
	answer.Store(`oops`)
	now = now.Add(6 * time.Minute)
	for range 3 {
		m, err := s.Metadata(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, m)
	}
	require.EqualValues(t, 3, asked.Load())
	answer.Store(`{"issuer":"https://other/"}`)
	now = now.Add(6 * time.Second)
	m, err := s.Metadata(t.Context())
	require.NoError(t, err)
	require.Equal(t, "https://other/", m.Issuer)
}

func TestNew(t *testing.T) {
	for name, c := range map[string]authservice.Config{
		"no URL": {Secret: "s"}, "another scheme": {Endpoint: "ftp://a/", Secret: "s"}, "no host": {Endpoint: "https:///x", Secret: "s"},
		"no secret": {Endpoint: "https://a/"},
	} {
		_, err := authservice.New(c, time.Now)
		require.Error(t, err, name)
	}
}
