package e2ee_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
)

// far is another server.
type far struct {
	keys e2ee.RemoteKeys
	otk  map[string]map[string]map[string]json.RawMessage
}

func (f far) QueryKeys(_ context.Context, server id.ServerName, _ map[string][]string) (e2ee.RemoteKeys, error) {
	if server != "far.test" {
		return e2ee.RemoteKeys{}, errors.New("no such server")
	}
	return f.keys, nil
}

func (f far) ClaimKeys(_ context.Context, server id.ServerName, _ map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
	if server != "far.test" {
		return nil, errors.New("no such server")
	}
	return f.otk, nil
}

// What another server says of users whom it was not asked about, or who are not its own, is left out; and its failure is told.
func TestOtherServersAreAsked(t *testing.T) {
	b := newBench(t)
	alice := b.user("alice", "A")
	device := map[string]json.RawMessage{"D": json.RawMessage(`{"x":1}`)}
	remote := far{
		keys: e2ee.RemoteKeys{Devices: map[string]map[string]json.RawMessage{"@bob:far.test": device, "@eve:far.test": device, string(alice): device}},
		otk: map[string]map[string]map[string]json.RawMessage{
			"@bob:far.test": {"D": {"alg:1": json.RawMessage(`{"key":"1"}`)}, "D2": {"alg:2": json.RawMessage(`{}`)}}, string(alice): {"A": device},
		},
	}
	b.front.Remote, b.reader.Remote = remote, remote
	k, err := b.reader.Query(b.Ctx(), alice, map[string][]string{"@bob:far.test": nil, "@x:gone.test": nil})
	require.NoError(t, err)
	require.Equal(t, map[string]map[string]json.RawMessage{"@bob:far.test": device}, k.Devices)
	require.Contains(t, k.Failures, "gone.test")
	c, err := b.front.Claim(b.Ctx(), map[string]map[string]string{"@bob:far.test": {"D": "alg"}, "@x:gone.test": {"D": "alg"}})
	require.NoError(t, err)
	require.Len(t, c.Keys, 1)
	require.Len(t, c.Keys["@bob:far.test"], 1)
	require.Contains(t, c.Failures, "gone.test")

	// And it is told of our users only, without the keys that are a user's own business.
	b.upload(alice, "A", &e2ee.Upload{Device: deviceKeys(t, alice, "A"), OneTime: oneTime(0, 1)})
	b.crossSign(alice)
	q, err := b.reader.QueryFor(b.Ctx(), map[string][]string{string(alice): nil, "@bob:far.test": nil, "nobody": nil})
	require.NoError(t, err)
	require.Len(t, q.Devices, 1)
	text, err := json.Marshal(q)
	require.NoError(t, err)
	require.NotContains(t, string(text), "user_signing")
	d, err := b.reader.DevicesOf(b.Ctx(), alice)
	require.NoError(t, err)
	require.Len(t, d.Devices, 1)
	require.Positive(t, d.StreamID)
	require.NotEmpty(t, d.Master)
	got, err := b.front.ClaimFor(b.Ctx(), map[string]map[string]string{string(alice): {"A": "signed_curve25519"}, "@bob:far.test": {"D": "alg"}})
	require.NoError(t, err)
	require.Len(t, got, 1)
}

// How long other servers are waited for is the client's choice, within bounds; one that says nothing has failed then, and the others' answers are there.
func TestWaitingForOtherServers(t *testing.T) {
	ms := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		ms   *int64
		want time.Duration
	}{{nil, e2ee.MaxWait}, {ms(0), 0}, {ms(1), time.Millisecond}, {ms(9_999), 9_999 * time.Millisecond}, {ms(10_001), e2ee.MaxWait}, {ms(math.MaxInt64), e2ee.MaxWait}} {
		got, err := e2ee.Wait(c.ms)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	_, err := e2ee.Wait(ms(-1))
	require.True(t, mxerr.Is(err, mxerr.InvalidParam))

	b := newBench(t)
	alice := b.user("alice", "A")
	b.upload(alice, "A", &e2ee.Upload{Device: deviceKeys(t, alice, "A"), OneTime: oneTime(0, 1)})
	b.front.Remote, b.reader.Remote = silent{}, silent{}
	k, err := b.reader.QueryWithin(b.Ctx(), alice, map[string][]string{string(alice): nil, "@x:silent.test": nil, "@y:silent.too.test": nil}, time.Millisecond)
	require.NoError(t, err)
	require.Len(t, k.Failures, 2)
	require.Contains(t, k.Devices, string(alice))
	c, err := b.front.ClaimWithin(b.Ctx(), map[string]map[string]string{string(alice): {"A": "signed_curve25519"}, "@x:silent.test": {"D": "alg"}}, time.Millisecond)
	require.NoError(t, err)
	require.Len(t, c.Failures, 1)
	require.Contains(t, c.Keys, string(alice))
}

// silent never answers.
type silent struct{}

func (silent) QueryKeys(ctx context.Context, _ id.ServerName, _ map[string][]string) (e2ee.RemoteKeys, error) {
	<-ctx.Done()
	return e2ee.RemoteKeys{}, ctx.Err()
}

func (silent) ClaimKeys(ctx context.Context, _ id.ServerName, _ map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestTakeFromOtherServers(t *testing.T) {
	b := newBench(t)
	alice := b.user("alice", "A1", "A2")
	edu := []byte(`{"sender":"@bob:far.test","type":"m.test","message_id":"1","messages":{"` + string(alice) + `":{"*":{"n":"hi"},"A1":7,"A2":{"n":"` +
		strings.Repeat("x", 65<<10) + `"}},"@x:other.test":{"*":{}},"nobody":{"*":{}}}}`)
	for range 3 {
		require.NoError(t, b.front.TakeToDevice(b.Ctx(), "far.test", edu))
	}
	require.Equal(t, []string{"hi"}, b.queue(alice, "A1"))
	require.Equal(t, []string{"hi"}, b.queue(alice, "A2"))
	require.True(t, mxerr.Is(b.front.TakeToDevice(b.Ctx(), "evil.test", edu), mxerr.Forbidden))
	require.Error(t, b.front.TakeToDevice(b.Ctx(), "far.test", []byte(`[]`)))
	require.Error(t, b.front.TakeToDevice(b.Ctx(), "far.test", []byte(strings.Replace(string(edu), "m.test", strings.Repeat("t", 300), 1))))

	update := []byte(`{"user_id":"@bob:far.test","device_id":"D","stream_id":1,"prev_id":[]}`)
	before := int64(0)
	for _, x := range []struct {
		content string
		news    bool
	}{
		{string(update), false}, // it has no keys, and so nobody asks for any
		{`{"user_id":"@bob:far.test","device_id":"D","stream_id":2,"prev_id":[],"keys":{}}`, true},
		{`{"user_id":"@bob:far.test","device_id":"D","stream_id":3,"prev_id":[],"deleted":true}`, true},
		{`{"user_id":"@bob:far.test","master_key":{}}`, true},
	} {
		require.NoError(t, b.front.TakeDeviceList(b.Ctx(), "far.test", []byte(x.content)))
		pos, err := b.reader.DB.ListPos(b.Ctx(), b.Shards.OfUser("@bob:far.test"), "@bob:far.test")
		require.NoError(t, err)
		require.Equal(t, x.news, int64(pos) > before, x.content)
		before = int64(pos)
	}
	require.True(t, mxerr.Is(b.front.TakeDeviceList(b.Ctx(), "evil.test", update), mxerr.Forbidden))
	require.Error(t, b.front.TakeDeviceList(b.Ctx(), "heddle.test", []byte(`{"user_id":"`+string(alice)+`"}`)), "our own users' lists are ours")
}

// What other servers are told of a change: each device as it is now, or that it is gone, and the cross-signing keys.
func TestUpdates(t *testing.T) {
	b := newBench(t)
	alice := b.user("alice", "A")
	b.upload(alice, "A", &e2ee.Upload{Device: deviceKeys(t, alice, "A")})
	k := b.crossSign(alice)
	edus, err := b.reader.Updates(b.Ctx(), alice, 7, &entry.DeviceListBody{Changed: []string{"A"}, Gone: []string{"B"}, CrossSigning: true})
	require.NoError(t, err)
	require.Len(t, edus, 3)
	require.Equal(t, "m.device_list_update", edus[0].Type)
	require.Contains(t, string(edus[0].Content), "curve25519:A")
	require.JSONEq(t, `{"user_id":"`+string(alice)+`","device_id":"B","stream_id":7,"prev_id":[],"deleted":true}`, string(edus[1].Content))
	require.Equal(t, "m.signing_key_update", edus[2].Type)
	require.Contains(t, string(edus[2].Content), k.self.public)
	require.NotContains(t, string(edus[2].Content), k.user.public)
	for range 2 {
		require.NoError(t, b.front.Tell(b.Ctx(), "x", []id.ServerName{"far.test"}, edus))
	}
	var n int
	require.NoError(t, b.DB.Pool.QueryRow(b.Ctx(), `SELECT count(*) FROM fed_edu WHERE destination = 'far.test'`).Scan(&n))
	require.Equal(t, 3, n, "a repeat queues nothing")
}
