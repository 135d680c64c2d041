package e2ee_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// bench is a server with users who have devices.
type bench struct {
	*roomtest.World
	front    *e2ee.Front
	reader   *e2ee.Reader
	accounts *account.Front
}

func newBench(t *testing.T) *bench {
	b := &bench{World: roomtest.New(t)}
	b.front, b.reader = b.E2EE()
	b.accounts = b.Accounts(account.Config{})
	return b
}

// user makes an account, and logs in with the devices.
func (b *bench) user(name string, devices ...string) id.UserID {
	b.T.Helper()
	u := roomtest.User(name)
	_, err := b.accounts.Register(b.Ctx(), account.NewUser{Localpart: name, Password: "secret", InhibitLogin: true})
	require.NoError(b.T, err)
	for _, d := range devices {
		b.login(u, d)
	}
	return u
}

func (b *bench) login(u id.UserID, device string) {
	b.T.Helper()
	_, err := b.accounts.LoginPassword(b.Ctx(), string(u), "secret", account.NewDevice{DeviceID: device})
	require.NoError(b.T, err)
}

func (b *bench) logout(u id.UserID, devices ...string) {
	b.T.Helper()
	_, err := b.accounts.Do(b.Ctx(), &account.Logout{UserID: string(u), Devices: devices})
	require.NoError(b.T, err)
}

// identity is a signing key.
type identity struct {
	public  string
	private ed25519.PrivateKey
}

func newIdentity(seed string) identity {
	k := ed25519.NewKeyFromSeed([]byte((seed + strings.Repeat(".", 32))[:32]))
	return identity{base64.RawStdEncoding.EncodeToString(k.Public().(ed25519.PublicKey)), k}
}

// sign signs an object.
func (i identity) sign(t testing.TB, u id.UserID, keyID string, object any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(object)
	require.NoError(t, err)
	var m map[string]any
	require.NoError(t, json.Unmarshal(raw, &m))
	signatures, _ := m["signatures"].(map[string]any)
	delete(m, "signatures")
	raw, err = json.Marshal(m)
	require.NoError(t, err)
	raw, err = canonjson.Canonical(raw, canonjson.Options{})
	require.NoError(t, err)
	if signatures == nil {
		signatures = make(map[string]any)
	}
	own, _ := signatures[string(u)].(map[string]any)
	if own == nil {
		own = make(map[string]any)
	}
	own[keyID] = base64.RawStdEncoding.EncodeToString(ed25519.Sign(i.private, raw))
	signatures[string(u)] = own
	m["signatures"] = signatures
	raw, err = json.Marshal(m)
	require.NoError(t, err)
	return raw
}

// deviceKeys makes the identity keys of a device.
func deviceKeys(t testing.TB, u id.UserID, device string) json.RawMessage {
	k := newIdentity(device)
	return k.sign(t, u, "ed25519:"+device, map[string]any{
		"user_id": u, "device_id": device, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
		"keys": map[string]string{"ed25519:" + device: k.public, "curve25519:" + device: "c" + device},
	})
}

func oneTime(from, n int) map[string]json.RawMessage {
	m := make(map[string]json.RawMessage)
	for i := from; i < from+n; i++ {
		m[fmt.Sprintf("signed_curve25519:k%03d", i)] = json.RawMessage(fmt.Sprintf(`{"key":"one-time %d"}`, i))
	}
	return m
}

var fallback = map[string]json.RawMessage{"signed_curve25519:f": json.RawMessage(`{"key":"fallback","fallback":true}`)}

func (b *bench) upload(u id.UserID, device string, q *e2ee.Upload) map[string]int64 {
	b.T.Helper()
	counts, err := b.front.UploadKeys(b.Ctx(), u, id.DeviceID(device), q)
	require.NoError(b.T, err)
	return counts
}

// A hundred who claim at once get fifty one-time keys, each once, and then the fallback key.
func TestEachOneTimeKeyOnce(t *testing.T) {
	b := newBench(t)
	u := b.user("bob", "BOB")
	require.Equal(t, map[string]int64{"signed_curve25519": 50}, b.upload(u, "BOB", &e2ee.Upload{
		Device: deviceKeys(t, u, "BOB"), OneTime: oneTime(0, 50), Fallback: fallback,
	}))
	var mu sync.Mutex
	got := make(map[string]int)
	var g errgroup.Group
	for range 100 {
		g.Go(func() error {
			c, err := b.front.Claim(b.Ctx(), map[string]map[string]string{string(u): {"BOB": "signed_curve25519"}})
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for key := range c.Keys[string(u)]["BOB"] {
				got[key]++
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.Equal(t, 50, got["signed_curve25519:f"])
	delete(got, "signed_curve25519:f")
	require.Len(t, got, 50)
	for key, n := range got {
		require.Equal(t, 1, n, key)
	}
	require.Equal(t, map[string]int64{"signed_curve25519": 5}, b.upload(u, "BOB", &e2ee.Upload{OneTime: oneTime(100, 5)}))
}

// A device that had no answer to its upload sends it again: a key that was handed out meanwhile is not handed out a second time. Nothing is
// kept of such keys once the device goes on to others, and with the device it all goes.
func TestUploadThatIsSentAgain(t *testing.T) {
	b := newBench(t)
	u := b.user("bob", "BOB")
	claim := func() (id string) {
		t.Helper()
		c, err := b.front.Claim(b.Ctx(), map[string]map[string]string{string(u): {"BOB": "signed_curve25519"}})
		require.NoError(t, err)
		for key := range c.Keys[string(u)]["BOB"] {
			id = key
		}
		return id
	}
	spent := func() (n int) {
		t.Helper()
		require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT count(*) FROM spent_key WHERE user_id = $1`, string(u)).Scan(&n))
		return n
	}
	first := &e2ee.Upload{OneTime: oneTime(0, 3)}
	b.upload(u, "BOB", first)
	got := []string{claim()}
	require.Equal(t, map[string]int64{"signed_curve25519": 2}, b.upload(u, "BOB", first))
	got = append(got, claim())
	require.Equal(t, map[string]int64{"signed_curve25519": 1}, b.upload(u, "BOB", first))
	got = append(got, claim())
	require.Empty(t, b.upload(u, "BOB", first))
	require.Empty(t, claim())
	require.ElementsMatch(t, []string{"signed_curve25519:k000", "signed_curve25519:k001", "signed_curve25519:k002"}, got)
	require.Equal(t, 3, spent())

	// Another key of the same name is another key.
	require.Equal(t, map[string]int64{"signed_curve25519": 1}, b.upload(u, "BOB", &e2ee.Upload{
		OneTime: map[string]json.RawMessage{"signed_curve25519:k000": json.RawMessage(`{"key":"another"}`)},
	}))
	require.Zero(t, spent(), "the device has gone on")
	require.Equal(t, "signed_curve25519:k000", claim())
	require.Equal(t, 1, spent())
	b.logout(u, "BOB")
	require.Zero(t, spent())
}

// Keys are handed out in the order in which they were uploaded, whatever they are called (spec: "POST /keys/claim").
func TestOldestOneTimeKeysFirst(t *testing.T) {
	b := newBench(t)
	u := b.user("bob", "BOB")
	want := []string{"signed_curve25519:k900", "signed_curve25519:k100", "signed_curve25519:k500", "signed_curve25519:f", "signed_curve25519:f"}
	for _, n := range []int{900, 100, 500} {
		b.upload(u, "BOB", &e2ee.Upload{OneTime: oneTime(n, 1), Fallback: fallback})
	}
	var got []string
	for range want {
		c, err := b.front.Claim(b.Ctx(), map[string]map[string]string{string(u): {"BOB": "signed_curve25519"}})
		require.NoError(t, err)
		for key := range c.Keys[string(u)]["BOB"] {
			got = append(got, key)
		}
	}
	require.Equal(t, want, got)
}

func TestUploadIsChecked(t *testing.T) {
	b := newBench(t)
	u := b.user("bob", "BOB")
	good := deviceKeys(t, u, "BOB")
	for name, q := range map[string]*e2ee.Upload{
		"another user":       {Device: deviceKeys(t, roomtest.User("eve"), "BOB")},
		"another device":     {Device: deviceKeys(t, u, "EVE")},
		"no object":          {Device: json.RawMessage(`[]`)},
		"nothing in it":      {Device: json.RawMessage(`{}`)},
		"a name without id":  {OneTime: map[string]json.RawMessage{"signed_curve25519": json.RawMessage(`{"key":"x"}`)}},
		"a number for a key": {OneTime: map[string]json.RawMessage{"signed_curve25519:x": json.RawMessage(`1`)}},
		"a key without key":  {OneTime: map[string]json.RawMessage{"signed_curve25519:x": json.RawMessage(`{}`)}},
		"two fallback keys": {Fallback: map[string]json.RawMessage{
			"signed_curve25519:x": json.RawMessage(`{"key":"x"}`), "signed_curve25519:y": json.RawMessage(`{"key":"y"}`),
		}},
	} {
		_, err := b.front.UploadKeys(b.Ctx(), u, "BOB", q)
		require.Error(t, err, name)
		require.Equal(t, 400, mxerr.From(err).HTTPStatus, name)
	}
	b.upload(u, "BOB", &e2ee.Upload{Device: good, OneTime: oneTime(0, 3)})
	b.upload(u, "BOB", &e2ee.Upload{Device: good, OneTime: oneTime(0, 3)}) // the same again is no mistake
	_, err := b.front.UploadKeys(b.Ctx(), u, "BOB", &e2ee.Upload{OneTime: map[string]json.RawMessage{
		"signed_curve25519:k001": json.RawMessage(`{"key":"another"}`),
	}})
	require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%v", err)
}

// What is read of keys: the devices that have some, with their names, and nobody else's user-signing key.
func TestQuery(t *testing.T) {
	b := newBench(t)
	alice, bob := b.user("alice", "A"), b.user("bob", "B1", "B2", "B3")
	for _, d := range []string{"B1", "B2"} {
		b.upload(bob, d, &e2ee.Upload{Device: deviceKeys(t, bob, d)})
	}
	_, err := b.accounts.Do(b.Ctx(), &account.SetDevice{UserID: string(bob), DeviceID: "B1", DisplayName: `Bob's "phone"`})
	require.NoError(t, err)
	b.crossSign(bob)

	k, err := b.reader.Query(b.Ctx(), alice, map[string][]string{string(bob): nil, string(alice): {}, "@nobody:heddle.test": {}, "@x:elsewhere.test": {}})
	require.NoError(t, err)
	require.Len(t, k.Devices[string(bob)], 2, "B3 has no keys")
	require.Empty(t, k.Devices[string(alice)])
	require.Contains(t, k.Failures, "elsewhere.test")
	require.NotContains(t, k.UserSigning, string(bob))
	require.Contains(t, k.Master, string(bob))
	var shown struct {
		Unsigned struct {
			Name string `json:"device_display_name"`
		} `json:"unsigned"`
	}
	require.NoError(t, json.Unmarshal(k.Devices[string(bob)]["B1"], &shown))
	require.Equal(t, `Bob's "phone"`, shown.Unsigned.Name)

	k, err = b.reader.Query(b.Ctx(), bob, map[string][]string{string(bob): {"B2"}})
	require.NoError(t, err)
	require.Len(t, k.Devices[string(bob)], 1)
	require.Contains(t, k.UserSigning, string(bob))

	b.logout(bob, "B1")
	k, err = b.reader.Query(b.Ctx(), alice, map[string][]string{string(bob): nil})
	require.NoError(t, err)
	require.Len(t, k.Devices[string(bob)], 1, "the keys go with the device")
	b.login(bob, "B1")
	k, err = b.reader.Query(b.Ctx(), alice, map[string][]string{string(bob): nil})
	require.NoError(t, err)
	require.Len(t, k.Devices[string(bob)], 1, "and do not come back with its name")
	_, err = b.reader.Query(b.Ctx(), alice, map[string][]string{"bob": nil})
	require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%v", err)
}

func crossKey(usage string, u id.UserID, k identity) map[string]any {
	return map[string]any{"user_id": u, "usage": []string{usage}, "keys": map[string]string{"ed25519:" + k.public: k.public}}
}

// crossKeys are a user's own cross-signing keys.
type crossKeys struct{ master, self, user identity }

func (b *bench) crossSign(u id.UserID) crossKeys {
	b.T.Helper()
	k := crossKeys{newIdentity(string(u) + "m"), newIdentity(string(u) + "s"), newIdentity(string(u) + "u")}
	done, err := b.front.PutCrossSigning(b.Ctx(), u, k.upload(b.T, u), false)
	require.NoError(b.T, err)
	require.True(b.T, done, "the first keys need no confirmation")
	return k
}

func (k crossKeys) upload(t testing.TB, u id.UserID) *e2ee.CrossSigning {
	master, err := json.Marshal(crossKey("master", u, k.master))
	require.NoError(t, err)
	return &e2ee.CrossSigning{
		Master:      master,
		SelfSigning: k.master.sign(t, u, "ed25519:"+k.master.public, crossKey("self_signing", u, k.self)),
		UserSigning: k.master.sign(t, u, "ed25519:"+k.master.public, crossKey("user_signing", u, k.user)),
	}
}

func TestCrossSigning(t *testing.T) {
	b := newBench(t)
	alice, bob := b.user("alice", "A"), b.user("bob", "B")
	b.upload(bob, "B", &e2ee.Upload{Device: deviceKeys(t, bob, "B")})
	ak, bk := b.crossSign(alice), b.crossSign(bob)

	// The same again is nothing new; other keys need to be confirmed.
	done, err := b.front.PutCrossSigning(b.Ctx(), alice, ak.upload(t, alice), false)
	require.NoError(t, err)
	require.True(t, done)
	other := crossKeys{newIdentity("m2"), newIdentity("s2"), newIdentity("u2")}
	done, err = b.front.PutCrossSigning(b.Ctx(), alice, other.upload(t, alice), false)
	require.NoError(t, err)
	require.False(t, done)
	// A self-signing key that the master key has not signed is refused.
	forged := ak.upload(t, alice)
	forged.SelfSigning = other.upload(t, alice).SelfSigning
	_, err = b.front.PutCrossSigning(b.Ctx(), alice, forged, true)
	require.Error(t, err)

	// Bob signs his device; Alice signs Bob's master key, which she alone is shown.
	device := bk.self.sign(t, bob, "ed25519:"+bk.self.public, deviceKeys(t, bob, "B"))
	fails, err := b.front.PutSignatures(b.Ctx(), bob, map[string]map[string]json.RawMessage{string(bob): {"B": device}})
	require.NoError(t, err)
	require.Empty(t, fails)
	master := ak.user.sign(t, alice, "ed25519:"+ak.user.public, crossKey("master", bob, bk.master))
	fails, err = b.front.PutSignatures(b.Ctx(), alice, map[string]map[string]json.RawMessage{string(bob): {bk.master.public: master}})
	require.NoError(t, err)
	require.Empty(t, fails)
	for _, viewer := range []id.UserID{alice, bob} {
		k, err := b.reader.Query(b.Ctx(), viewer, map[string][]string{string(bob): nil})
		require.NoError(t, err)
		require.Contains(t, string(k.Devices[string(bob)]["B"]), "ed25519:"+bk.self.public)
		require.Contains(t, string(k.Devices[string(bob)]["B"]), "ed25519:B")
		require.Equal(t, viewer == alice, strings.Contains(string(k.Master[string(bob)]), ak.user.public), viewer)
	}
	// A signature by somebody else's key, and one under a key that is not stored, are refused.
	bad := ak.self.sign(t, bob, "ed25519:"+bk.self.public, deviceKeys(t, bob, "B"))
	fails, err = b.front.PutSignatures(b.Ctx(), bob, map[string]map[string]json.RawMessage{string(bob): {"B": bad, "NONE": device}})
	require.NoError(t, err)
	require.Len(t, fails[string(bob)], 2)
	// Keys of the device that are uploaded again keep what was signed.
	b.upload(bob, "B", &e2ee.Upload{Device: deviceKeys(t, bob, "B")})
	k, err := b.reader.Query(b.Ctx(), alice, map[string][]string{string(bob): nil})
	require.NoError(t, err)
	require.Contains(t, string(k.Devices[string(bob)]["B"]), "ed25519:"+bk.self.public)
}

// queue gives what waits for a device.
func (b *bench) queue(u id.UserID, device string) (out []string) {
	b.T.Helper()
	list, err := b.reader.DB.Messages(b.Ctx(), b.Shards.OfUser(string(u)), string(u), device, 0, 1<<62, 100000)
	require.NoError(b.T, err)
	for _, m := range list {
		var body struct {
			Content struct {
				N string `json:"n"`
			} `json:"content"`
		}
		require.NoError(b.T, json.Unmarshal(m.JSON, &body))
		out = append(out, body.Content.N)
	}
	return out
}

func content(n string) json.RawMessage { return json.RawMessage(`{"n":"` + n + `"}`) }

func TestToDevice(t *testing.T) {
	b := newBench(t)
	alice, bob := b.user("alice", "A"), b.user("bob", "B1", "B2")
	send := func(txn string, m map[string]map[string]json.RawMessage) error {
		return b.front.Send(b.Ctx(), &e2ee.Sending{Sender: alice, Device: "A", Type: "m.test", Txn: txn, Messages: m})
	}
	all := map[string]map[string]json.RawMessage{string(bob): {"*": content("all")}, string(alice): {"A": content("self"), "NONE": content("x")}}
	require.NoError(t, send("1", all))
	require.NoError(t, send("1", all), "the same transaction has its effect once")
	require.NoError(t, send("2", map[string]map[string]json.RawMessage{string(bob): {"B1": content("one")}}))
	require.Equal(t, []string{"all", "one"}, b.queue(bob, "B1"))
	require.Equal(t, []string{"all"}, b.queue(bob, "B2"))
	require.Equal(t, []string{"self"}, b.queue(alice, "A"))
	require.Empty(t, b.queue(alice, "NONE"), "nobody logs in to what was sent before")

	b.logout(bob, "B1")
	require.Empty(t, b.queue(bob, "B1"), "the queue goes with the device")
	big := map[string]map[string]json.RawMessage{string(bob): {"B2": content(strings.Repeat("x", 1<<20))}}
	require.True(t, mxerr.Is(send("3", big), mxerr.TooLarge))
	require.Error(t, send("4", map[string]map[string]json.RawMessage{string(bob): {"B2": json.RawMessage(`"text"`)}}))
	require.Error(t, send("5", map[string]map[string]json.RawMessage{"bob": {"B2": content("x")}}))
}

// counting notes what it has done.
type counting struct {
	e2ee.Doer
	mu   sync.Mutex // guards cmds
	cmds [][]byte
}

func (c *counting) Do(ctx context.Context, key []byte, cmd e2ee.Command) (e2ee.Answer, error) {
	b, err := json.Marshal(cmd)
	if err != nil {
		return e2ee.Answer{}, err
	}
	c.mu.Lock()
	c.cmds = append(c.cmds, b)
	c.mu.Unlock()
	return c.Doer.Do(ctx, key, cmd)
}

func (b *bench) devices(u id.UserID, n int) {
	b.Exec(`INSERT INTO device (shard, user_id, device_id, created, last_seen, pos) SELECT $1, $2, 'D' || n, 0, 0, 0 FROM generate_series(1, $3::int) n`,
		int16(b.Shards.OfUser(string(u))), string(u), n)
}

// Messages to ten thousand devices are cut into bounded commands, and each comes once, also if the request is repeated.
func TestFanOut(t *testing.T) {
	b := newBench(t)
	done := &counting{Doer: b.front.Do}
	b.front.Do = done
	alice := b.user("alice", "A")
	named, all := make(map[string]map[string]json.RawMessage), make(map[string]map[string]json.RawMessage)
	for i := range 100 {
		u := roomtest.User(fmt.Sprintf("u%d", i))
		b.devices(u, 100)
		named[string(u)] = make(map[string]json.RawMessage)
		for d := 1; d <= 100; d++ {
			named[string(u)][fmt.Sprintf("D%d", d)] = content("x")
		}
		all[string(u)] = map[string]json.RawMessage{"*": content("y")}
	}
	for range 2 {
		for txn, m := range map[string]map[string]map[string]json.RawMessage{"1": named, "2": all} {
			require.NoError(t, b.front.Send(b.Ctx(), &e2ee.Sending{Sender: alice, Device: "A", Type: "m.test", Txn: txn, Messages: m}))
		}
	}
	var n int
	require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT count(*) FROM to_device`).Scan(&n))
	require.Equal(t, 2*10_000, n)
	require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT count(DISTINCT (user_id, device_id)) FROM to_device`).Scan(&n))
	require.Equal(t, 10_000, n)
	for _, c := range done.cmds {
		require.Less(t, len(c), 512<<10)
	}
	t.Logf("%d commands for each", len(done.cmds)/2)
	require.Less(t, len(done.cmds)/2, 100)
}

// A large message to all of a user's devices goes by several commands, each to a part of them.
func TestLargeMessageToAllDevices(t *testing.T) {
	b := newBench(t)
	alice, bob := b.user("alice", "A"), roomtest.User("bob")
	b.devices(bob, 500)
	large := map[string]map[string]json.RawMessage{string(bob): {"*": content(strings.Repeat("x", 20<<10))}}
	for range 2 {
		require.NoError(t, b.front.Send(b.Ctx(), &e2ee.Sending{Sender: alice, Device: "A", Type: "m.test", Txn: "1", Messages: large}))
	}
	var n, devices int
	require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT count(*), count(DISTINCT device_id) FROM to_device`).Scan(&n, &devices))
	require.Equal(t, 500, n)
	require.Equal(t, 500, devices)
}

// What waits for a device that never comes ends somewhere, and the newest is kept; a device that is removed leaves nothing.
func TestDeadDevicesDoNotGrow(t *testing.T) {
	b := newBench(t)
	alice, bob := b.user("alice", "A"), b.user("bob", "DEAD")
	s := int16(b.Shards.OfUser(string(bob)))
	b.Exec(`INSERT INTO to_device (shard, user_id, device_id, pos, json) SELECT $1, $2, 'DEAD', n - 20000, '{"content":{"n":"old"}}' FROM generate_series(1, 11000) n`, s, string(bob))
	for i := range 300 {
		require.NoError(t, b.front.Send(b.Ctx(), &e2ee.Sending{
			Sender: alice, Device: "A", Type: "m.test", Txn: fmt.Sprint(i), Messages: map[string]map[string]json.RawMessage{string(bob): {"DEAD": content(fmt.Sprint(i))}},
		}))
	}
	var left int
	require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT count(*) FROM to_device`).Scan(&left))
	require.LessOrEqual(t, left, 10_000+128, "10,000, and what came since it was looked at")
	require.GreaterOrEqual(t, left, 10_000)
	require.Len(t, b.queue(bob, "DEAD"), 300, "the newest stay")
	// Few that are large are as much.
	b.Exec(`UPDATE to_device SET json = convert_to('{"content":{"n":"' || repeat('x', 60000) || '"}}', 'UTF8') WHERE pos > (SELECT pos FROM to_device ORDER BY pos DESC OFFSET 1500 LIMIT 1)`)
	for i := range 130 {
		require.NoError(t, b.front.Send(b.Ctx(), &e2ee.Sending{
			Sender: alice, Device: "A", Type: "m.test", Txn: fmt.Sprint("more", i), Messages: map[string]map[string]json.RawMessage{string(bob): {"DEAD": content("more")}},
		}))
	}
	var bytes int64
	require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT sum(length(json)) FROM to_device`).Scan(&bytes))
	require.Less(t, bytes, int64(65<<20))
	require.Greater(t, bytes, int64(60<<20))
	b.logout(bob, "DEAD")
	for _, table := range []string{"to_device", "device_key", "one_time_key", "fallback_key"} {
		var n int
		require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT count(*) FROM `+table+` WHERE device_id = 'DEAD'`).Scan(&n))
		require.Zero(t, n, table)
	}
}

func key(first int64, verified bool, data string) e2ee.SessionKey {
	zero := int64(0)
	return e2ee.SessionKey{FirstIndex: &first, Forwarded: &zero, Verified: &verified, Data: json.RawMessage(`{"d":"` + data + `"}`)}
}

func TestBackup(t *testing.T) {
	b := newBench(t)
	u := b.user("bob", "B")
	_, err := b.reader.Backup(b.Ctx(), u, 0)
	require.True(t, mxerr.Is(err, mxerr.NotFound), "%v", err)
	v1, err := b.front.PutBackup(b.Ctx(), u, 0, "alg", json.RawMessage(`{"k":1}`))
	require.NoError(t, err)
	put := func(v int64, room, session string, k e2ee.SessionKey) e2ee.Stored {
		t.Helper()
		s, err := b.front.BackUp(b.Ctx(), u, v, map[string]map[string]e2ee.SessionKey{room: {session: k}})
		require.NoError(t, err)
		return s
	}
	s1 := put(v1, "!a", "s", key(5, false, "first"))
	require.EqualValues(t, 1, s1.Count)
	require.Equal(t, s1, put(v1, "!a", "s", key(9, false, "worse")))
	s2 := put(v1, "!a", "s", key(3, false, "earlier"))
	require.NotEqual(t, s1.ETag, s2.ETag)
	s3 := put(v1, "!a", "s", key(9, true, "verified"))
	require.Equal(t, s3, put(v1, "!a", "s", key(0, false, "unverified")))
	sent := func(forwarded int64) e2ee.SessionKey {
		k := key(7, true, fmt.Sprint("forwarded ", forwarded))
		k.Forwarded = &forwarded
		return k
	}
	f2 := put(v1, "!c", "s", sent(2))
	require.Equal(t, f2, put(v1, "!c", "s", sent(3)), "forwarded more often is worse, if all else is the same")
	require.NotEqual(t, f2.ETag, put(v1, "!c", "s", sent(1)).ETag)
	require.NoError(t, b.reader.BackupKeys(b.Ctx(), u, v1, "!c", "s", func(k *e2ee.BackupKey) { require.JSONEq(t, `{"d":"forwarded 1"}`, string(k.Data)) }))
	_, err = b.front.Drop(b.Ctx(), u, v1, "!c", "s")
	require.NoError(t, err)
	put(v1, "!a", "s2", key(0, false, "x"))
	s4 := put(v1, "!b", "s", key(0, false, "y"))
	require.EqualValues(t, 3, s4.Count)
	require.NoError(t, b.reader.BackupKeys(b.Ctx(), u, v1, "!a", "s", func(k *e2ee.BackupKey) { require.JSONEq(t, `{"d":"verified"}`, string(k.Data)) }))

	dropped, err := b.front.Drop(b.Ctx(), u, v1, "!a", "")
	require.NoError(t, err)
	require.EqualValues(t, 1, dropped.Count)
	require.NotEqual(t, s4.ETag, dropped.ETag)

	v2, err := b.front.PutBackup(b.Ctx(), u, 0, "alg", json.RawMessage(`{"k":2}`))
	require.NoError(t, err)
	require.Greater(t, v2, v1)
	_, err = b.front.BackUp(b.Ctx(), u, v1, map[string]map[string]e2ee.SessionKey{"!a": {"s": key(0, true, "z")}})
	require.True(t, mxerr.Is(err, mxerr.WrongRoomKeysVersion), "%v", err)
	require.NoError(t, b.front.DeleteBackup(b.Ctx(), u, v2))
	_, err = b.reader.Backup(b.Ctx(), u, v2)
	require.True(t, mxerr.Is(err, mxerr.NotFound), "%v", err)
	latest, err := b.reader.Backup(b.Ctx(), u, 0)
	require.NoError(t, err)
	require.Equal(t, v1, latest.Version)
	v3, err := b.front.PutBackup(b.Ctx(), u, 0, "alg", json.RawMessage(`{"k":3}`))
	require.NoError(t, err)
	require.Greater(t, v3, v2, "a number is never used again")
	_, err = b.front.PutBackup(b.Ctx(), u, v3, "another", json.RawMessage(`{}`))
	require.True(t, mxerr.Is(err, mxerr.InvalidParam), "%v", err)
}

// A large backup is read some keys at a time, each once and in order; there is an end to how large it gets, and to how many there are.
func TestLargeBackup(t *testing.T) {
	b := newBench(t)
	u := b.user("bob", "B")
	v, err := b.front.PutBackup(b.Ctx(), u, 0, "alg", json.RawMessage(`{}`))
	require.NoError(t, err)
	keys := map[string]map[string]e2ee.SessionKey{}
	for room, n := range map[string]int{"!a": 999, "!b": 1, "!c": 1500} {
		keys[room] = map[string]e2ee.SessionKey{}
		for i := range n {
			keys[room][fmt.Sprintf("s%04d", i)] = key(0, false, room)
		}
	}
	stored, err := b.front.BackUp(b.Ctx(), u, v, keys)
	require.NoError(t, err)
	require.EqualValues(t, 2500, stored.Count)
	for room, want := range map[string]int{"": 2500, "!c": 1500, "!none": 0} {
		got, last := 0, ""
		require.NoError(t, b.reader.BackupKeys(b.Ctx(), u, v, room, "", func(k *e2ee.BackupKey) {
			require.Greater(t, k.RoomID+k.SessionID, last)
			last = k.RoomID + k.SessionID
			got++
		}))
		require.Equal(t, want, got, room)
	}
	b.Exec(`UPDATE backup_version SET count = 1000000`)
	more := map[string]map[string]e2ee.SessionKey{"!a": {"s0000": key(0, true, "better")}}
	_, err = b.front.BackUp(b.Ctx(), u, v, more)
	require.NoError(t, err, "a better key takes no room")
	more["!a"]["new"] = key(0, true, "x")
	_, err = b.front.BackUp(b.Ctx(), u, v, more)
	require.True(t, mxerr.Is(err, mxerr.ResourceLimitExceeded), "%v", err)
	for range 99 {
		_, err = b.front.PutBackup(b.Ctx(), u, 0, "alg", json.RawMessage(`{}`))
		require.NoError(t, err)
	}
	_, err = b.front.PutBackup(b.Ctx(), u, 0, "alg", json.RawMessage(`{}`))
	require.True(t, mxerr.Is(err, mxerr.ResourceLimitExceeded), "%v", err)
	require.NoError(t, b.front.DeleteBackup(b.Ctx(), u, v))
	_, err = b.front.PutBackup(b.Ctx(), u, 0, "alg", json.RawMessage(`{}`))
	require.NoError(t, err)
}

func TestDehydrated(t *testing.T) {
	b := newBench(t)
	alice, bob := b.user("alice", "A"), b.user("bob", "B")
	make1 := func(device string) {
		t.Helper()
		got, err := b.front.Dehydrate(b.Ctx(), bob, device, "asleep", json.RawMessage(`{"pickle":"`+device+`"}`), &e2ee.Upload{
			Device: deviceKeys(t, bob, device), OneTime: oneTime(0, 2), Fallback: fallback,
		})
		require.NoError(t, err)
		require.Equal(t, device, got)
	}
	_, err := b.reader.Dehydrated(b.Ctx(), bob)
	require.True(t, mxerr.Is(err, mxerr.NotFound), "%v", err)
	make1("D1")
	make1("D2")
	k, err := b.reader.Query(b.Ctx(), alice, map[string][]string{string(bob): nil})
	require.NoError(t, err)
	require.Contains(t, k.Devices[string(bob)], "D2")
	require.NotContains(t, k.Devices[string(bob)], "D1", "there is one at most")
	require.NoError(t, b.front.Send(b.Ctx(), &e2ee.Sending{
		Sender: alice, Device: "A", Type: "m.test", Txn: "1", Messages: map[string]map[string]json.RawMessage{string(bob): {"D2": content("hello")}},
	}))
	m, err := b.reader.DehydratedMessages(b.Ctx(), bob, "D2", 0)
	require.NoError(t, err)
	require.Len(t, m.Events, 1)
	require.False(t, m.More)
	m, err = b.reader.DehydratedMessages(b.Ctx(), bob, "D2", m.Next)
	require.NoError(t, err)
	require.Empty(t, m.Events)
	_, err = b.reader.DehydratedMessages(b.Ctx(), bob, "B", 0)
	require.True(t, mxerr.Is(err, mxerr.Forbidden), "%v", err)
	_, err = b.front.Dehydrate(b.Ctx(), bob, "B", "", json.RawMessage(`{}`), &e2ee.Upload{Device: deviceKeys(t, bob, "B")})
	require.Error(t, err, "a device that is in use")
	gone, err := b.front.Rehydrated(b.Ctx(), bob)
	require.NoError(t, err)
	require.Equal(t, "D2", gone)
	require.Empty(t, b.queue(bob, "D2"))
}
