package id_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/id"
)

var long = strings.Repeat("a", 255)

func TestServerName(t *testing.T) {
	for s, want := range map[string]struct {
		host string
		port uint16
		ip   bool
	}{
		"matrix.org": {"matrix.org", 0, false}, "matrix.org:8888": {"matrix.org", 8888, false}, "localhost": {"localhost", 0, false},
		"1.2.3.4": {"1.2.3.4", 0, true}, "1.2.3.4:1234": {"1.2.3.4", 1234, true},
		"[1234:5678::abcd]": {"[1234:5678::abcd]", 0, true}, "[1234:5678::abcd]:5678": {"[1234:5678::abcd]", 5678, true},
		"[::1]": {"[::1]", 0, true}, "[::ffff:1.2.3.4]:1": {"[::ffff:1.2.3.4]", 1, true},
		"MATRIX.org": {"MATRIX.org", 0, false}, "a-b.c": {"a-b.c", 0, false}, "1.2.3": {"1.2.3", 0, false}, "1.2.3.4.5": {"1.2.3.4.5", 0, false},
		"-a": {"-a", 0, false}, "a..b": {"a..b", 0, false}, // the grammar allows them
	} {
		n, err := id.ParseServerName(s)
		require.NoError(t, err, s)
		require.Equal(t, want.host, n.Host())
		require.Equal(t, want.port, n.Port())
		require.Equal(t, want.ip, n.IsIP())
	}
	for _, s := range []string{
		"", ":", ":80", "a:", "a:b", "a:123456", "a:65536", "a:-1", "a:80:80", "a b", "a/b", "a_b", "é.org", "a\x00", "@a", "[", "[]", "[::1", "::1", "[::1]x",
		"[1.2.3.4]", "[fe80::1%eth0]", "[g::]", "[::1]:", "256.1.1.1", "1.2.3.4444", "1..2.3", "a\n", " a", long + "a",
	} {
		_, err := id.ParseServerName(s)
		require.ErrorIs(t, err, id.ErrServerName, "%q", s)
	}
	for _, s := range []string{"matrix.org", "a-b.c:80", "1.2.3.4", "[::1]:80"} {
		_, err := id.ParseServerNameStrict(s)
		require.NoError(t, err, s)
	}
	for _, s := range []string{"Matrix.org", "a..b", "-a", "a-", ".a", "a.", strings.Repeat("abcdefgh.", 26) + "a", strings.Repeat("a", 64)} {
		_, err := id.ParseServerNameStrict(s)
		require.ErrorIs(t, err, id.ErrServerName, s)
	}
}

func TestUserID(t *testing.T) {
	u, err := id.ParseUserIDStrict("@al-ice.0_=/+:example.org:8448")
	require.NoError(t, err)
	require.Equal(t, "al-ice.0_=/+", u.Localpart())
	require.EqualValues(t, "example.org:8448", u.Server())
	require.True(t, u.Compliant())

	for s, compliant := range map[string]bool{
		"@Alice:a": true, "@!:a": true, "@:a": false, "@a b:a": false, "@é:a": false, "@\x01:a": false, "@аlice:a": false, // Cyrillic а
	} {
		u, err := id.ParseUserID(s)
		require.NoError(t, err, s)
		require.Equal(t, compliant, u.Compliant(), s)
		_, err = id.ParseUserIDStrict(s)
		require.ErrorIs(t, err, id.ErrLocalpart, s)
	}
	for s, want := range map[string]error{
		"": id.ErrEmpty, "alice": id.ErrSigil, "!a:b": id.ErrSigil, "@a": id.ErrNoServer, "@a:": id.ErrServerName, "@a:b c": id.ErrServerName,
		"@a\x00:b": id.ErrLocalpart, "@\xff:b": id.ErrLocalpart, "@\xed\xa0\x80:b": id.ErrLocalpart, "@" + long + ":b": id.ErrTooLong,
	} {
		_, err := id.ParseUserID(s)
		require.ErrorIs(t, err, want, "%q", s)
	}
	// 255 bytes are enough, 256 are not, however few code points they are.
	_, err = id.ParseUserID("@" + long[:252] + ":b")
	require.NoError(t, err)
	_, err = id.ParseUserID("@" + strings.Repeat("é", 126) + ":b")
	require.NoError(t, err)
	_, err = id.ParseUserID("@" + strings.Repeat("é", 126) + "a:b")
	require.ErrorIs(t, err, id.ErrTooLong)

	// Look-alikes and case are left alone.
	require.NotEqual(t, id.UserID("@alice:a"), id.UserID("@аlice:a"))
	_, err = id.NewUserID("Alice", "a")
	require.Error(t, err)
	u, err = id.NewUserID("alice", "a")
	require.NoError(t, err)
	require.EqualValues(t, "@alice:a", u)
	require.Empty(t, id.UserID("").Localpart())
	require.Empty(t, id.UserID("x").Server())
}

func TestRoomID(t *testing.T) {
	hash := "Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg"
	r, err := id.ParseRoomID("!" + hash)
	require.NoError(t, err)
	require.True(t, r.IsHash())
	require.Empty(t, r.Server())
	e, ok := r.CreateEvent()
	require.True(t, ok)
	require.EqualValues(t, "$"+hash, e)
	require.Equal(t, r, id.RoomIDFromCreate(e))

	r, err = id.ParseRoomID("!opa que:example.org:1")
	require.NoError(t, err)
	require.False(t, r.IsHash())
	require.Equal(t, "opa que", r.Localpart())
	require.EqualValues(t, "example.org:1", r.Server())
	_, ok = r.CreateEvent()
	require.False(t, ok)

	for _, s := range []string{"", "!", "!abc", "#a:b", "!a:", "!" + hash + "x", "!" + hash[:42] + "+", "!\x00:b", "!" + long + ":b", "!a:b/c"} {
		_, err := id.ParseRoomID(s)
		require.Error(t, err, "%q", s)
	}
	_, err = id.NewRoomID("abcXYZ019", "example.org")
	require.NoError(t, err)
	for _, s := range []string{"", "a-b", "é", "@"} {
		_, err = id.NewRoomID(s, "example.org")
		require.Error(t, err, s)
	}
	_, ok = id.RoomID("").CreateEvent()
	require.False(t, ok)
}

func TestEventID(t *testing.T) {
	for _, s := range []string{"$a:b", "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", "$acR1l0raoZnm60CBwAVgqbZqoO/mYU81xysh1u7XcJk", "$" + long[:254]} {
		_, err := id.ParseEventID(s)
		require.NoError(t, err, s)
	}
	require.EqualValues(t, "b:80", id.EventID("$a:b:80").Server())
	require.Empty(t, id.EventID("$a").Server())
	for _, s := range []string{"", "$", "a", "$a:", "$\xff", "$a\x00", "$" + long} {
		_, err := id.ParseEventID(s)
		require.Error(t, err, "%q", s)
	}
}

func TestAliasDeviceKeyMXC(t *testing.T) {
	a, err := id.ParseRoomAliasStrict("#Heddle Raum:example.org")
	require.Error(t, err)
	require.Empty(t, a)
	a, err = id.ParseRoomAliasStrict("#Ünïcode:example.org")
	require.NoError(t, err)
	require.Equal(t, "Ünïcode", a.Localpart())
	require.EqualValues(t, "example.org", a.Server())
	for _, s := range []string{"#:a", "#a\tb:c", "#a\u2028:c", "@a:b", "#a"} {
		_, err := id.ParseRoomAliasStrict(s)
		require.Error(t, err, s)
	}

	for s, ok := range map[string]bool{"ABC": true, "a device": true, "": false, "\xff": false, "a\n": false, long + "a": false} {
		_, err := id.ParseDeviceID(s)
		require.Equal(t, ok, err == nil, "%q", s)
	}

	k, err := id.ParseServerKeyID("ed25519:a_1")
	require.NoError(t, err)
	require.Equal(t, "ed25519", k.Algorithm())
	require.Equal(t, "a_1", k.Version())
	for _, s := range []string{"", "ed25519", "ed25519:", ":a", "ed25519:a-b", "curve25519:a", "ed25519:a b"} {
		_, err := id.ParseServerKeyID(s)
		require.ErrorIs(t, err, id.ErrKeyID, s)
	}
	k, err = id.ParseKeyID("curve25519:DEV:ICE")
	require.NoError(t, err)
	require.Equal(t, "DEV:ICE", k.Version())

	m, err := id.ParseMXC("mxc://example.org:80/abc_-123")
	require.NoError(t, err)
	require.Equal(t, id.MXC{Server: "example.org:80", Media: "abc_-123"}, m)
	require.Equal(t, "mxc://example.org:80/abc_-123", m.String())
	for _, s := range []string{"", "mxc://", "mxc://a", "mxc://a/", "mxc:///b", "http://a/b", "mxc://a/b/c", "mxc://a/../b", "mxc://a/..", "mxc://a/b?c", "mxc://a/b#c", "mxc://a b/c", "mxc://a/" + long + "a"} {
		_, err := id.ParseMXC(s)
		require.ErrorIs(t, err, id.ErrMXC, s)
	}
}

// What is accepted comes apart into parts that make it again.
func check(t interface{ Fatalf(string, ...any) }, s string) {
	if u, err := id.ParseUserID(s); err == nil {
		if "@"+u.Localpart()+":"+string(u.Server()) != s || len(s) > id.MaxLength || !u.Server().Valid() {
			t.Fatalf("user id %q", s)
		}
	}
	if u, err := id.ParseUserIDStrict(s); err == nil && !u.Compliant() {
		t.Fatalf("strict user id %q is not compliant", s)
	}
	if r, err := id.ParseRoomID(s); err == nil {
		if e, ok := r.CreateEvent(); ok != r.IsHash() || (ok && id.RoomIDFromCreate(e) != r) || (!ok && "!"+r.Localpart()+":"+string(r.Server()) != s) {
			t.Fatalf("room id %q", s)
		}
	}
	if a, err := id.ParseRoomAlias(s); err == nil && "#"+a.Localpart()+":"+string(a.Server()) != s {
		t.Fatalf("alias %q", s)
	}
	if n, err := id.ParseServerName(s); err == nil && !strings.HasPrefix(s, n.Host()) {
		t.Fatalf("server name %q", s)
	}
	if _, err := id.ParseServerNameStrict(s); err == nil && !id.ServerName(s).Valid() {
		t.Fatalf("strict server name %q", s)
	}
	if m, err := id.ParseMXC(s); err == nil && m.String() != s {
		t.Fatalf("mxc %q", s)
	}
	if k, err := id.ParseKeyID(s); err == nil && id.NewKeyID(k.Algorithm(), k.Version()) != k {
		t.Fatalf("key id %q", s)
	}
	_, _ = id.ParseEventID(s)
	_, _ = id.ParseDeviceID(s)
	id.EventID(s).Server()
	id.RoomID(s).CreateEvent()
	id.ServerName(s).Port()
	id.ServerName(s).IsIP()
	id.UserID(s).Compliant()
}

func TestParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.StringMatching(`(mxc://|[@!#$]?)[a-zA-Z0-9é:/\[\]._=+-]{0,30}(:[a-z0-9.:]{1,12})?`).Draw(t, "s"))
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"@a:b", "!a:b", "!Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg", "$a", "#é:[::1]:80", "mxc://a/b", "ed25519:a", "1.2.3.4:5", "@\x00:", "@:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { check(t, s) })
}

func TestAccessorsDoNotAllocate(t *testing.T) {
	u := id.UserID("@alice:example.org:8448")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if u.Server().Host() == "" || u.Localpart() == "" || !u.Server().Valid() {
			panic("empty")
		}
		if _, err := id.ParseUserID(string(u)); err != nil {
			panic(err)
		}
	}))
}
