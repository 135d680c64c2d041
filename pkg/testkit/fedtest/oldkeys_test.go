package fedtest_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/app"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// A server that signs with another key than before publishes what it signed with, and what it signed stays good: somebody who comes later from a
// server that has never heard of the old key gets in and reads it all. Who is not told of the old key does not believe it.
func TestSignedWithAnOldKey(t *testing.T) {
	ca := certtest.NewAuthority(t)
	one := fedtest.NewHomeserver(t, ca, "127.0.0.1")
	worker := one.Start(app.AllInOne, "one")
	alice := one.NewUser(t, "alice")
	keys := func() map[id.KeyID]signing.VerifyKey {
		status, raw := fetched(t, ca.Client(t), http.MethodGet, "https://"+string(one.Name)+"/_matrix/key/v2/server", "")
		require.Equal(t, 200, status)
		d, err := signing.ParseKeyDocument(raw, one.Name)
		require.NoError(t, err)
		return d.Keys(time.Now().UnixMilli())
	}
	before := keys()
	require.Len(t, before, 1)
	rooms := map[string][]string{} // by version, the room and what was said there
	for _, v := range versions {
		room := alice.Create(t, string(v), map[string]any{"preset": "public_chat"})
		rooms[string(v)] = []string{room, alice.Say(t, room, "signed with the first key")}
	}
	worker.Stop()

	one.Config.SigningKeyPath = filepath.Join(t.TempDir(), "second.key")
	_, err := app.CreateSigningKey(one.Config.SigningKeyPath)
	require.NoError(t, err)
	forgetful := one.Start(app.AllInOne, "two")
	alice.URL = one.URL
	require.NotContains(t, keys(), firstOf(before))
	early := fedtest.Run(t, ca, "localhost").NewUser(t, "early")
	status, _ := early.Refused(t, "POST", fedtest.JoinPath(rooms["11"][0], one), map[string]any{})
	require.NotEqual(t, http.StatusInternalServerError, status)
	forgetful.Stop()

	for name, k := range before {
		one.Config.Federation.OldKeys = []string{fmt.Sprintf("%s %s %d", name, base64.RawStdEncoding.EncodeToString(k.Key), time.Now().UnixMilli())}
	}
	one.Start(app.AllInOne, "three")
	alice.URL = one.URL
	require.Contains(t, keys(), firstOf(before))
	late := fedtest.Run(t, ca, "localhost").NewUser(t, "late")
	for _, v := range versions {
		room, said := rooms[string(v)][0], rooms[string(v)][1]
		late.Join(t, room, one)
		alice.SeesMember(t, room, late, "join")
		late.SeesRoom(t, room, "join")
		require.Contains(t, history(t, late, room, 50), said)
		late.Sees(t, room, alice.Say(t, room, "signed with the second key"))
		fedtest.Agree(t, room, alice, late)
	}
}

// firstOf gives the only name.
func firstOf(keys map[id.KeyID]signing.VerifyKey) id.KeyID {
	for name := range keys {
		return name
	}
	return ""
}
