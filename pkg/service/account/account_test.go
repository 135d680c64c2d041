package account_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/heddle-im/heddle/pkg/service/account"
)

func cheap(t *testing.T) *account.Passwords {
	t.Helper()
	p, err := account.NewPasswords(account.Argon2Params{MemoryKiB: 64, Time: 1, Threads: 1}, 2)
	require.NoError(t, err)
	return p
}

func TestPasswords(t *testing.T) {
	ctx, p := t.Context(), cheap(t)
	hash, err := p.Hash(ctx, "correct horse")
	require.NoError(t, err)
	again, err := p.Hash(ctx, "correct horse")
	require.NoError(t, err)
	require.NotEqual(t, hash, again, "salted")

	imported, err := bcrypt.GenerateFromPassword([]byte("correct horse"), bcrypt.MinCost)
	require.NoError(t, err)
	dearer, err := account.NewPasswords(account.Argon2Params{MemoryKiB: 128, Time: 1, Threads: 1}, 1)
	require.NoError(t, err)
	other, err := dearer.Hash(ctx, "correct horse")
	require.NoError(t, err)

	for name, c := range map[string]struct {
		hash, password string
		ok, stale, bad bool
	}{
		"right":              {hash, "correct horse", true, false, false},
		"wrong":              {hash, "correct hors", false, false, false},
		"empty":              {hash, "", false, false, false},
		"other cost":         {other, "correct horse", true, true, false},
		"bcrypt":             {string(imported), "correct horse", true, true, false},
		"bcrypt wrong":       {string(imported), "x", false, false, false},
		"no account":         {"", "correct horse", false, false, false},
		"too long":           {hash, strings.Repeat("x", 513), false, false, false},
		"unknown kind":       {"plain:correct horse", "correct horse", false, false, true},
		"huge memory":        {"$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$" + strings.Repeat("A", 43), "x", false, false, true},
		"no passes":          {"$argon2id$v=19$m=64,t=0,p=1$c2FsdHNhbHQ$" + strings.Repeat("A", 43), "x", false, false, true},
		"short key":          {"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$AAAA", "x", false, false, true},
		"malformed argon":    {"$argon2id$nonsense", "x", false, false, true},
		"malformed bcrypt":   {"$2b$12$short", "x", false, false, true},
		"prefix of the hash": {hash[:len(hash)-4], "correct horse", false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			ok, stale, err := p.Verify(ctx, c.hash, c.password)
			require.Equal(t, c.bad, err != nil, "%v", err)
			require.Equal(t, c.ok, ok)
			if ok {
				require.Equal(t, c.stale, stale)
			}
		})
	}
}

func TestUIA(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	u := account.NewUIA([]byte("secret"), func() time.Time { return now })
	bind := account.UIABind("POST", "/register", "alice")
	s := u.Begin(bind)
	flows := [][]string{{"m.login.registration_token", "m.login.dummy"}, {"m.login.password"}}
	require.False(t, s.Satisfies(flows))
	s.Complete("m.login.dummy")
	require.False(t, s.Satisfies(flows))
	id, err := u.ID(s)
	require.NoError(t, err)

	back, err := account.NewUIA([]byte("secret"), func() time.Time { return now }).Resume(id, bind)
	require.NoError(t, err)
	back.Complete("m.login.registration_token")
	require.True(t, back.Satisfies(flows))

	_, err = u.Resume(id, account.UIABind("POST", "/register", "bob"))
	require.ErrorIs(t, err, account.ErrUIASession, "bound to its request")
	_, err = account.NewUIA([]byte("other"), func() time.Time { return now }).Resume(id, bind)
	require.ErrorIs(t, err, account.ErrUIASession, "of another cluster")
	for i := range len(id) {
		forged := []byte(id)
		forged[i] ^= 1
		if got, err := u.Resume(string(forged), bind); err == nil {
			// the last character of a base64 part may carry bits that are not read
			require.Equal(t, s.Completed, got.Completed)
		}
	}
	now = now.Add(16 * time.Minute)
	_, err = u.Resume(id, bind)
	require.ErrorIs(t, err, account.ErrUIASession, "expired")
}

func FuzzUIAResume(f *testing.F) {
	u := account.NewUIA([]byte("secret"), time.Now)
	bind := account.UIABind("x")
	id, _ := u.ID(u.Begin(bind))
	f.Add(id)
	f.Add("")
	f.Add("a.b")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := u.Resume(s, bind); err == nil {
			require.Empty(t, got.Completed)
		}
	})
}

// FuzzDecodeCommand gives what reads the commands of other workers anything: what it takes is written again as it was meant.
func FuzzDecodeCommand(f *testing.F) {
	for _, m := range account.Methods() {
		f.Add(m, []byte(`{"user_id":"@a:b","device_id":"D"}`))
	}
	f.Fuzz(func(t *testing.T, method string, b []byte) {
		c, err := account.Decode(method, b)
		if err != nil {
			require.Nil(t, c)
			return
		}
		require.Equal(t, method, c.Method())
		again, err := json.Marshal(c)
		require.NoError(t, err)
		_, err = account.Decode(method, again)
		require.NoError(t, err)
	})
}
