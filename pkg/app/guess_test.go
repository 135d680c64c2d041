package app

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/config"
)

// Whoever guesses passwords is held up by the address that they guess from, and by the account, from wherever; others are not.
func TestGuessingPasswordsIsBounded(t *testing.T) {
	f := newFleet(t)
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	alice := f.person(t, w, "alice")
	f.person(t, w, "bob")
	w.stop(t)
	f.cfg.RateLimits.Enabled = true
	f.cfg.RateLimits.Login = config.Rate{Count: 1, Per: time.Hour, Burst: 5}
	w = f.start(t, AllInOne, "two")
	f.owns(t, "two")
	alice.worker = w
	login := func(address, user, password string) int {
		t.Helper()
		a := ask(t, "POST", w.URL()+"/_matrix/client/v3/login",
			`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"`+user+`"},"password":"`+password+`"}`, "X-Forwarded-For", address)
		if a.status == http.StatusTooManyRequests {
			require.Equal(t, "M_LIMIT_EXCEEDED", a.member(t, "errcode"))
			require.NotEmpty(t, a.header.Get("Retry-After"))
		}
		return a.status
	}
	// From many addresses, one account.
	got := map[int]int{}
	for i := range 12 {
		got[login(fmt.Sprint("203.0.113.", i), "alice", "wrong")]++
	}
	require.Equal(t, map[int]int{403: 5, 429: 7}, got)
	require.Equal(t, 429, login("203.0.113.99", "alice", "correct horse"), "no guess is looked at any more, so that none is confirmed")
	require.Equal(t, 200, login("203.0.113.100", "bob", "correct horse"))
	// Where a password confirms something, it is the same password.
	require.Equal(t, 429, confirming(alice, "correct horse"))
	// From one address, many accounts.
	clear(got)
	for i := range 12 {
		got[login("198.51.100.7", fmt.Sprint("nobody", i), "wrong")]++
	}
	require.Equal(t, map[int]int{403: 5, 429: 7}, got)
	require.Equal(t, 200, login("198.51.100.8", "bob", "correct horse"))
}

// confirming tries to delete a device, and gives the status that the stage was refused with.
func confirming(p *person, password string) int {
	p.t.Helper()
	status, a := p.ask("DELETE", "/v3/devices/"+p.device, map[string]any{"auth": map[string]any{
		"type": "m.login.password", "identifier": map[string]string{"type": "m.id.user", "user": p.user}, "password": password,
	}})
	if status == http.StatusUnauthorized && a["errcode"] == "M_LIMIT_EXCEEDED" {
		return http.StatusTooManyRequests
	}
	return status
}
