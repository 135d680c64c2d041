package fleettest_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// alone starts one deployment that other servers reach, and gives it as they see it.
func alone(t testing.TB, ca *certtest.Authority, host string, spec fleettest.Spec) (*fleettest.Fleet, *fedtest.Homeserver) {
	t.Helper()
	cert, key := ca.Certificate(host)
	spec.Federation = &fleettest.Federation{Host: host, Cert: cert, Key: key, CA: ca.File}
	f := fleettest.Start(t, binaries(t), nats, spec)
	return f, &fedtest.Homeserver{Name: id.ServerName(f.Name)}
}

// BenchmarkInbound has ten servers (or one, of one room) send messages in transactions of 50, each one after the other, to one federation-reader with one
// master. It reports the events/s that come into their rooms, what each process spends on one, and what the bare verification of its
// signature takes.
func BenchmarkInbound(b *testing.B) {
	for _, rooms := range []int{1, 100} {
		b.Run(fmt.Sprintf("rooms=%d", rooms), func(b *testing.B) { benchmarkInbound(b, rooms) })
	}
}

func benchmarkInbound(b *testing.B, rooms int) {
	ca := certtest.NewAuthority(b)
	f, home := alone(b, ca, "localhost", one())
	alice, err := fleettest.Register(b.Context(), f.URL, "alice")
	require.NoError(b, err)
	var remotes []*fedtest.Remote
	for range min(rooms, 10) {
		remotes = append(remotes, fedtest.NewRemote(b, ca))
	}
	places := make([][]*fedtest.Place, len(remotes))
	for i := range rooms {
		var a struct {
			Room string `json:"room_id"`
		}
		require.NoError(b, alice.Do(b.Context(), http.MethodPost, "/createRoom", map[string]any{"preset": "public_chat", "room_version": "11"}, &a))
		by := i % len(remotes)
		places[by] = append(places[by], remotes[by].Enter(b, home, a.Room, "speaker"))
	}
	// What each server sends, and the last event of each room, by which it is known that all are there.
	sends := make([][]*event.Event, len(remotes))
	last := map[*fedtest.Place]*event.Event{}
	for i := range b.N {
		by := i % len(remotes)
		p := places[by][i/len(remotes)%len(places[by])]
		after := p.Join
		if e := last[p]; e != nil {
			after = e
		}
		last[p] = p.Say(b, "weft and warp and weft and warp and weft and warp and weft and warp and weft and warp and weft", after)
		sends[by] = append(sends[by], last[p])
	}
	var ends []string
	for _, e := range last {
		ends = append(ends, string(e.EventID()))
	}
	db := f.Database.Open()
	cost := startCosts(b, f, 5*time.Second)
	b.ResetTimer()
	var group sync.WaitGroup
	for i, r := range remotes {
		group.Go(func() {
			for list := sends[i]; len(list) > 0; list = list[min(50, len(list)):] {
				for e, refused := range r.Send(b, home, list[:min(50, len(list))]...) {
					if refused != "" {
						b.Errorf("%s: %s", e, refused)
					}
				}
			}
		})
	}
	group.Wait()
	for there := 0; there < len(ends) && !b.Failed(); time.Sleep(2 * time.Millisecond) { //nolint:forbidigo // it is looked again, soon
		require.NoError(b, db.Pool.QueryRow(b.Context(), "SELECT count(*) FROM event WHERE ord IS NOT NULL AND event_id = ANY($1)", ends).Scan(&there))
	}
	b.StopTimer()
	cost.report(b, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(bareVerification(b, remotes[0], places[0][0]), "verify-µs/op")
}

// bareVerification gives the processor time of one check of a signature of what an event is long, in µs.
func bareVerification(b *testing.B, r *fedtest.Remote, p *fedtest.Place) float64 {
	b.Helper()
	const times = 2000
	message := p.Say(b, "weft and warp and weft and warp and weft and warp and weft and warp and weft and warp and weft").JSON()
	sig := r.Key.Sign(message)
	own := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := own()
	for range times {
		require.True(b, ed25519.Verify(r.Key.Public(), message, sig))
	}
	return float64((own() - before).Microseconds()) / times
}

// BenchmarkJoin has a user join a room of 20,000 members by way of another deployment, which has it from a third server. It reports how long the user
// waits, what each process spends on it, and the most memory that the processes of the two deployments had.
func BenchmarkJoin(b *testing.B) {
	members := number(b, "HEDDLE_TEST_MEMBERS", 20_000)
	ca := certtest.NewAuthority(b)
	near, _ := alone(b, ca, "localhost", one())
	far, _ := alone(b, ca, "127.0.0.1", one())
	remote := fedtest.NewRemote(b, ca)
	bob, err := fleettest.Register(b.Context(), near.URL, "bob")
	require.NoError(b, err)
	alice, err := fleettest.Register(b.Context(), far.URL, "alice")
	require.NoError(b, err)
	join := func(c *fleettest.Client, room id.RoomID, via string) {
		q := url.Values{"via": {via}, "server_name": {via}}
		require.NoError(b, c.Do(b.Context(), http.MethodPost, "/join/"+url.PathEscape(string(room))+"?"+q.Encode(), map[string]any{}, nil))
	}
	var first, second time.Duration
	n := 0
	for b.Loop() {
		b.StopTimer()
		p := remote.Host(b, roomver.V11, fmt.Sprint("host", n))
		p.Crowd(b, members)
		begun := time.Now()
		join(alice, p.Room, string(remote.Name))
		first += time.Since(begun)
		joining, serving := startCostsOf(b, near, "joining-", 5*time.Second), startCostsOf(b, far, "serving-", 5*time.Second)
		b.StartTimer()
		begun = time.Now()
		join(bob, p.Room, far.Name)
		second += time.Since(begun)
		b.StopTimer()
		joining.report(b, 1)
		serving.report(b, 1)
		var joined struct {
			Joined map[string]json.RawMessage `json:"joined"`
		}
		require.NoError(b, bob.Do(b.Context(), http.MethodGet, "/rooms/"+url.PathEscape(string(p.Room))+"/joined_members", nil, &joined))
		require.Len(b, joined.Joined, members+3)
		b.StartTimer()
		n++
	}
	b.ReportMetric(second.Seconds()/float64(n), "join-s")
	b.ReportMetric(first.Seconds()/float64(n), "join-of-generated-s")
	for name, p := range map[string]*fleettest.Process{
		"joining-master": near.Process("master-1"), "serving-master": far.Process("master-1"), "serving-reader": far.Process("federation-reader-1"),
	} {
		b.ReportMetric(float64(peak(b, p))/1e6, name+"-peak-MB")
	}
}
