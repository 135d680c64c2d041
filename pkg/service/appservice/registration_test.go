package appservice_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/appservice"
)

// bridge is a registration as bridges write them, with keys that are theirs.
const bridge = `
id: irc
url: http://127.0.0.1:1234/base/
as_token: as-secret
hs_token: hs-secret
sender_localpart: _irc_bot
rate_limited: false
protocols: [irc]
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
io.element.msc4190: true
com.example.theirs: { anything: [1, 2] }
namespaces:
  users:
    - { exclusive: true, regex: '@_irc_.*:heddle\.test', group_id: "+irc:heddle.test" }
    - { exclusive: false, regex: "@guest-.*" }
  aliases: [{ exclusive: true, regex: "#irc_" }, { exclusive: false, regex: "#log_" }]
  rooms: [{ exclusive: false, regex: "!watched:heddle.test$" }]
`

func parsed(t *testing.T, text string) appservice.Registration {
	t.Helper()
	r, err := appservice.Parse([]byte(text))
	require.NoError(t, err)
	return r
}

func TestRegistration(t *testing.T) {
	r := parsed(t, bridge)
	require.Equal(t, "irc", r.ID)
	require.Equal(t, "http://127.0.0.1:1234/base", r.URL)
	require.Equal(t, "hs-secret", r.HSToken)
	require.Equal(t, []string{"irc"}, r.Protocols)
	require.False(t, r.RateLimited)
	require.True(t, r.Ephemeral)
	require.True(t, r.ToDevice)
	require.True(t, r.Encryption)

	quiet := parsed(t, "id: q\nurl: null\nas_token: a\nhs_token: h\nsender_localpart: q\nnamespaces: {}\nreceive_ephemeral: true\n")
	require.Empty(t, quiet.URL)
	require.True(t, quiet.RateLimited, "the usual")
	require.True(t, quiet.Ephemeral)
	require.False(t, quiet.ToDevice)
	require.False(t, quiet.Encryption)
}

func TestBadRegistrations(t *testing.T) {
	without := func(key string) string {
		var out []string
		for line := range strings.Lines(bridge) {
			if !strings.HasPrefix(line, key+":") {
				out = append(out, line)
			}
		}
		return strings.Join(out, "")
	}
	change := func(from, to string) string {
		require.Contains(t, bridge, from)
		return strings.Replace(bridge, from, to, 1)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"no id":            {without("id"), "id: must be set"},
		"empty token":      {change("as-secret", `""`), "as_token: must be set"},
		"no hs_token":      {without("hs_token"), "hs_token: must be set"},
		"no sender":        {without("sender_localpart"), "sender_localpart: must be set"},
		"no url":           {without("url"), "url: must be set; null if"},
		"url of a file":    {change("http://127.0.0.1:1234/base/", "file:///etc/passwd"), "url: must be a URL"},
		"url is a list":    {change("http://127.0.0.1:1234/base/", "[a]"), "url: must be a URL or null"},
		"url with a query": {change("/base/", "/?a=b"), "url: must have no query"},
		"token of words":   {change("as-secret", "'two words'"), "as_token, hs_token: must not hold a space"},
		"no namespaces":    {"id: q\nurl: null\nas_token: a\nhs_token: h\nsender_localpart: q\n", "namespaces: must be set"},
		"bad regex":        {change("@guest-.*", "@guest-(?!x)"), "namespaces.users: item 2: regex: error parsing regexp"},
		"no exclusive":     {change("{ exclusive: false, regex: \"#log_\" }", "{ regex: \"#log_\" }"), "namespaces.aliases: item 2: exclusive: must be"},
		"no regex":         {change(", regex: \"!watched:heddle.test$\"", ""), "namespaces.rooms: item 1: regex: must be set"},
		"a protocol":       {change("[irc]", "[\"a/b\"]"), "protocols: item 1"},
		"no map":           {"- a\n", "yaml: unmarshal errors"},
		"not YAML":         {"a: [", "yaml:"},
		"id is a list":     {change("id: irc", "id: [irc]"), "yaml: unmarshal errors"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := appservice.Parse([]byte(tc.text))
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	one := write("one.yaml", bridge)
	other := write("other.yaml", strings.NewReplacer("id: irc", "id: other", "as-secret", "as-other").Replace(bridge))
	list, err := appservice.Load([]string{one, other})
	require.NoError(t, err)
	require.Len(t, list, 2)

	_, err = appservice.Load([]string{one, write("id.yaml", strings.Replace(bridge, "as-secret", "as-third", 1))})
	require.ErrorContains(t, err, `id.yaml: id: "irc" is that of `)
	_, err = appservice.Load([]string{one, write("token.yaml", strings.Replace(bridge, "id: irc", "id: third", 1))})
	require.ErrorContains(t, err, "token.yaml: as_token: is that of ")
	require.NotContains(t, err.Error(), "as-secret")
	_, err = appservice.Load([]string{filepath.Join(dir, "none.yaml")})
	require.ErrorContains(t, err, "none.yaml: no such file")
	_, err = appservice.Load([]string{write("huge.yaml", strings.Repeat("#", 2<<20))})
	require.ErrorContains(t, err, "too large")
}

func TestNamespaces(t *testing.T) {
	other := parsed(t, "id: o\nurl: null\nas_token: as-other\nhs_token: h\nsender_localpart: other\nnamespaces: {users: [{exclusive: false, regex: '@_irc_.*'}]}\n")
	reg, err := appservice.NewRegistry("heddle.test", []appservice.Registration{parsed(t, bridge), other})
	require.NoError(t, err)
	irc, o := reg.ByID("irc"), reg.ByID("o")
	require.Same(t, irc, reg.ByToken(sha256.Sum256([]byte("as-secret"))))
	require.Nil(t, reg.ByToken(sha256.Sum256([]byte("hs-secret"))))
	require.Empty(t, irc.ASToken, "the token is not kept")
	require.Equal(t, id.UserID("@_irc_bot:heddle.test"), irc.Sender)

	for user, want := range map[id.UserID]struct{ acts, reserved, reservedForOthers, other bool }{
		"@_irc_bot:heddle.test":    {true, true, false, true},
		"@_irc_alice:heddle.test":  {true, true, false, true},
		"@_irc_alice:else.example": {false, false, false, false}, // of another server
		"@x_irc_alice:heddle.test": {false, false, false, false}, // namespaces begin where ids do
		"@guest-1:heddle.test":     {true, false, false, false},
		"@other:heddle.test":       {false, true, true, true}, // a sender is its service's alone
		"@alice:heddle.test":       {false, false, false, false},
	} {
		require.Equal(t, want.acts, irc.ActsFor(user), user)
		require.Equal(t, want.reserved, reg.UserReserved(user, nil), user)
		require.Equal(t, want.reservedForOthers, reg.UserReserved(user, irc), user)
		require.Equal(t, want.other, o.ActsFor(user), user)
	}
	require.True(t, reg.UserReserved("@_irc_alice:heddle.test", o), "the other has no exclusive claim")
	for alias, want := range map[id.RoomAlias][3]bool{
		"#irc_a:heddle.test": {true, true, false}, "#log_a:heddle.test": {true, false, false}, "#a_irc_:heddle.test": {false, false, false},
	} {
		require.Equal(t, want, [3]bool{irc.HasAlias(alias), reg.AliasReserved(alias, nil), reg.AliasReserved(alias, irc)}, alias)
	}
	require.True(t, irc.HasRoom("!watched:heddle.test"))
	require.False(t, irc.HasRoom("!watched:heddle.test.example"))

	var nobody *appservice.Registry
	require.False(t, nobody.Any())
	require.Nil(t, nobody.ByID("irc"))
	require.Nil(t, nobody.ByToken([32]byte{}))
	require.False(t, nobody.UserReserved("@_irc_alice:heddle.test", nil))

	_, err = appservice.NewRegistry("heddle.test", []appservice.Registration{{ID: "x", SenderLocalpart: strings.Repeat("x", 255)}})
	require.ErrorContains(t, err, `sender_localpart of "x"`)
}
