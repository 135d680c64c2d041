package e2ee_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func newBenchOf(b *testing.B) *bench {
	w := &bench{World: roomtest.New(b)}
	w.front, w.reader = w.E2EE()
	w.accounts = w.Accounts(account.Config{})
	return w
}

// BenchmarkUpload uploads fifty one-time keys, as a new device does.
func BenchmarkUpload(b *testing.B) {
	w := newBenchOf(b)
	u := w.user("bob", "B")
	for i := 0; b.Loop(); i++ {
		if i%10 == 0 {
			w.Exec(`DELETE FROM one_time_key`)
		}
		w.upload(u, "B", &e2ee.Upload{OneTime: oneTime(i*50, 50)})
	}
}

// BenchmarkClaim claims one key of one device.
func BenchmarkClaim(b *testing.B) {
	w := newBenchOf(b)
	u := w.user("bob", "B")
	for i := 0; b.Loop(); i++ {
		if i%50 == 0 {
			w.Exec(`INSERT INTO one_time_key (shard, user_id, device_id, algorithm, key_id, json, pos)
				SELECT $1, $2, 'B', 'signed_curve25519', 'k' || n, '{"key":"x"}', n FROM generate_series($3::int, $3::int + 49) n`,
				int16(w.Shards.OfUser(string(u))), string(u), i)
		}
		c, err := w.front.Claim(w.Ctx(), map[string]map[string]string{string(u): {"B": "signed_curve25519"}})
		require.NoError(b, err)
		require.Len(b, c.Keys, 1)
	}
}

// crowd makes users with devices that have keys, and gives their ids.
func (b *bench) crowd(users, devices int) []id.UserID {
	out := make([]id.UserID, users)
	for i := range out {
		u := roomtest.User(fmt.Sprintf("c%d", i))
		out[i] = u
		s := int16(b.Shards.OfUser(string(u)))
		b.Exec(`INSERT INTO device (shard, user_id, device_id, created, last_seen, pos) SELECT $1, $2, 'D' || n, 0, 0, 0 FROM generate_series(1, $3::int) n`,
			s, string(u), devices)
		b.Exec(`INSERT INTO device_key (shard, user_id, device_id, json, pos) SELECT $1, $2, 'D' || n, $4, 0 FROM generate_series(1, $3::int) n`,
			s, string(u), devices, []byte(deviceKeys(b.T, u, "D")))
	}
	return out
}

// BenchmarkQuery asks for the keys of a room of a thousand users with three devices each.
func BenchmarkQuery(b *testing.B) {
	w := newBenchOf(b)
	viewer := w.user("viewer", "V")
	q := make(map[string][]string)
	for _, u := range w.crowd(1000, 3) {
		q[string(u)] = nil
	}
	b.ReportAllocs()
	ctx, tally := pg.WithTally(b.Context())
	n := 0
	for b.Loop() {
		k, err := w.reader.Query(ctx, viewer, q)
		require.NoError(b, err)
		require.Len(b, k.Devices, 1000)
		n++
	}
	b.ReportMetric(float64(tally.Count())/float64(n), "queries/op")
}

// BenchmarkFanOut sends one message to each of ten thousand devices.
func BenchmarkFanOut(b *testing.B) {
	w := newBenchOf(b)
	alice := w.user("alice", "A")
	users := w.crowd(1000, 10)
	for i := 0; b.Loop(); i++ {
		messages := make(map[string]map[string]json.RawMessage)
		for _, u := range users {
			messages[string(u)] = make(map[string]json.RawMessage)
			for d := 1; d <= 10; d++ {
				messages[string(u)][fmt.Sprintf("D%d", d)] = content("a megolm session, encrypted for one device, takes about as much as this and more")
			}
		}
		require.NoError(b, w.front.Send(w.Ctx(), &e2ee.Sending{Sender: alice, Device: "A", Type: "m.room.encrypted", Txn: fmt.Sprint(i), Messages: messages}))
	}
}
