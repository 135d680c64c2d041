package fleettest_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// one is the smallest split deployment, so that the figures are of one process of a kind.
func one() fleettest.Spec { return fleettest.Spec{Masters: 1, Synchrotrons: 1, FederationReaders: 1} }

// BenchmarkSend sends messages over HTTP, straight to a master, 64 at a time. It reports events/s and PostgreSQL transactions per
// event, and what each process spends on one.
func BenchmarkSend(b *testing.B) {
	for _, rooms := range []int{1, 100} {
		b.Run(fmt.Sprintf("rooms=%d", rooms), func(b *testing.B) {
			f := fleettest.Start(b, binaries(b), nats, one())
			ctx := b.Context()
			c, err := fleettest.Register(ctx, f.URL, "sender")
			require.NoError(b, err)
			c.URL = "http://" + f.Process("master-1").Addr
			ids := make([]string, rooms)
			for i := range ids {
				var a struct {
					RoomID string `json:"room_id"`
				}
				require.NoError(b, c.Do(ctx, http.MethodPost, "/createRoom", map[string]string{}, &a))
				ids[i] = a.RoomID
			}
			body := []byte(`{"msgtype":"m.text","body":"` + strings.Repeat("warp and weft ", 40) + `"}`)
			db := f.Database.Open()
			before := transactions(b, db.Pool.QueryRow(ctx, transactionCount))
			var n atomic.Int64
			b.SetParallelism(32) // of each processor
			spent := startCosts(b, f, 5*time.Second)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				s, err := newSender(f.Process("master-1").Addr, c.Token)
				if err != nil {
					b.Error(err)
					return
				}
				defer s.close()
				for pb.Next() {
					i := n.Add(1)
					if err := s.send(ids[int(i)%rooms], i, body); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			spent.report(b, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			time.Sleep(1200 * time.Millisecond) //nolint:forbidigo // PostgreSQL counts once a second
			after := transactions(b, db.Pool.QueryRow(ctx, transactionCount))
			b.ReportMetric(float64(after-before)/float64(b.N), "tx/event")
		})
	}
}

const transactionCount = `SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()`

func transactions(b *testing.B, row interface{ Scan(...any) error }) (n int64) {
	b.Helper()
	require.NoError(b, row.Scan(&n))
	return n
}

// BenchmarkArrival measures from the sending of a message to its arrival at all who wait for it in a long poll, and what a
// synchrotron's memory grows by for each of them.
func BenchmarkArrival(b *testing.B) {
	for _, waiting := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			f := fleettest.Start(b, binaries(b), nats, one())
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			users := min(waiting, 100) // a user may wait with several devices
			var clients []*fleettest.Client
			for i := range users {
				c, err := fleettest.Register(ctx, f.URL, fmt.Sprintf("user%d", i))
				require.NoError(b, err)
				clients = append(clients, c)
			}
			var room struct {
				RoomID string `json:"room_id"`
			}
			require.NoError(b, clients[0].Do(ctx, http.MethodPost, "/createRoom", map[string]string{"preset": "public_chat"}, &room))
			for _, c := range clients[1:] {
				require.NoError(b, c.Do(ctx, http.MethodPost, "/join/"+room.RoomID, map[string]string{}, nil))
			}
			syncing := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: waiting}}
			idle := rss(b, f.Process("synchrotron-1"))
			arrived := make(chan time.Time, waiting)
			var since sync.WaitGroup
			for i := range waiting {
				c := *clients[i%users]
				c.URL, c.HTTP = "http://"+f.Process("synchrotron-1").Addr, syncing
				first, err := c.Sync(ctx, "", 0)
				require.NoError(b, err)
				since.Go(func() {
					token := first.Next
					for ctx.Err() == nil {
						a, err := c.Sync(ctx, token, time.Minute)
						if err != nil {
							return
						}
						token = a.Next
						for _, e := range a.Rooms.Join[room.RoomID].Timeline.Events {
							if e.Type == "m.room.message" {
								arrived <- time.Now()
							}
						}
					}
				})
			}
			time.Sleep(time.Second) //nolint:forbidigo // all of them are waiting then
			b.ReportMetric(float64(rss(b, f.Process("synchrotron-1"))-idle)/float64(waiting)/1024, "kB/waiting")
			var all []time.Duration
			for i := 0; b.Loop(); i++ {
				sent := time.Now()
				require.NoError(b, clients[0].Do(ctx, http.MethodPut, fmt.Sprintf("/rooms/%s/send/m.room.message/%d", room.RoomID, i),
					map[string]string{"msgtype": "m.text", "body": "now"}, nil))
				for range waiting {
					all = append(all, (<-arrived).Sub(sent))
				}
			}
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			cancel()
			since.Wait()
		})
	}
}

// BenchmarkIdle reports the memory of each kind of worker that has nothing to do, in MB.
func BenchmarkIdle(b *testing.B) {
	f := fleettest.Start(b, binaries(b), nats, one())
	time.Sleep(20 * time.Second) //nolint:forbidigo // until what the start took is given back
	for b.Loop() {
		for _, p := range f.Workers() {
			b.ReportMetric(float64(rss(b, p))/1e6, p.Name+"-MB")
			b.ReportMetric(float64(memory(b, p, "RssAnon:"))/1e6, p.Name+"-own-MB")
		}
	}
}

// rss gives the resident memory of a process, in bytes, and peak the most that it ever was.
func rss(b testing.TB, p *fleettest.Process) int64 { b.Helper(); return memory(b, p, "VmRSS:") }

func peak(b testing.TB, p *fleettest.Process) int64 { b.Helper(); return memory(b, p, "VmHWM:") }

func memory(b testing.TB, p *fleettest.Process, what string) int64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	require.NoError(b, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, what); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			require.NoError(b, err)
			return kb << 10
		}
	}
	b.Fatal("no " + what)
	return 0
}
