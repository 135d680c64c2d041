package e2ee_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
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

// counted reports how many statements an operation makes beside the transaction that all who are ready share.
func counted(b *testing.B) (ctx context.Context, report func(n int)) {
	ctx, tally := pg.WithTally(b.Context())
	b.ReportAllocs()
	return ctx, func(n int) { b.ReportMetric(float64(tally.Count())/float64(n), "queries/op") }
}

// BenchmarkUpload uploads identity keys and fifty one-time keys, as a new device does.
func BenchmarkUpload(b *testing.B) {
	w := newBenchOf(b)
	u := w.user("bob", "B")
	ctx, report := counted(b)
	n := 0
	for ; b.Loop(); n++ {
		if n%10 == 0 {
			b.StopTimer()
			w.Exec(`DELETE FROM one_time_key`)
			b.StartTimer()
		}
		_, err := w.front.UploadKeys(ctx, u, "B", &e2ee.Upload{Device: deviceKeys(b, u, "B"), OneTime: oneTime(n*50, 50), Fallback: fallback})
		require.NoError(b, err)
	}
	report(n)
}

// BenchmarkClaim claims one key of each of as many devices, as who speaks in a room with them does at first.
func BenchmarkClaim(b *testing.B) {
	for _, devices := range []int{1, 100} {
		b.Run(fmt.Sprint("devices=", devices), func(b *testing.B) { claims(b, devices) })
	}
}

func claims(b *testing.B, devices int) {
	w := newBenchOf(b)
	wanted := make(map[string]map[string]string)
	users := w.crowd(devices, 1)
	for _, u := range users {
		wanted[string(u)] = map[string]string{"D1": "signed_curve25519"}
	}
	ctx, report := counted(b)
	n := 0
	for ; b.Loop(); n++ {
		if n%50 == 0 {
			b.StopTimer()
			for _, u := range users {
				w.Exec(`INSERT INTO one_time_key (shard, user_id, device_id, algorithm, key_id, json, pos)
					SELECT $1, $2, 'D1', 'signed_curve25519', 'k' || n, '{"key":"x"}', n FROM generate_series($3::int, $3::int + 49) n`,
					int16(w.Shards.OfUser(string(u))), string(u), n)
			}
			b.StartTimer()
		}
		c, err := w.front.Claim(ctx, wanted)
		require.NoError(b, err)
		require.Len(b, c.Keys, devices)
	}
	report(n)
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
	ctx, report := counted(b)
	n := 0
	for ; b.Loop(); n++ {
		k, err := w.reader.Query(ctx, viewer, q)
		require.NoError(b, err)
		require.Len(b, k.Devices, 1000)
	}
	report(n)
}

// BenchmarkFanOut sends one message to each of ten thousand devices.
func BenchmarkFanOut(b *testing.B) {
	w := newBenchOf(b)
	alice := w.user("alice", "A")
	users := w.crowd(1000, 10)
	messages := make(map[string]map[string]json.RawMessage)
	for _, u := range users {
		messages[string(u)] = make(map[string]json.RawMessage)
		for d := 1; d <= 10; d++ {
			messages[string(u)][fmt.Sprintf("D%d", d)] = content(strings.Repeat("a megolm session, encrypted for one device ", 16))
		}
	}
	ctx, report := counted(b)
	n := 0
	for ; b.Loop(); n++ {
		require.NoError(b, w.front.Send(ctx, &e2ee.Sending{Sender: alice, Device: "A", Type: "m.room.encrypted", Txn: fmt.Sprint(n), Messages: messages}))
	}
	report(n)
}
