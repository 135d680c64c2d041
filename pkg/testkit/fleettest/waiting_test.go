package fleettest_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// BenchmarkWaiting has 10,000 users wait in a long poll of one synchrotron, each on a connection of its own and a hundred to a room.
// It reports the worker's memory while they wait, in all and for each, and what it was at most until then. That they do wait is
// shown by a message, which must come to the hundred whom it concerns.
func BenchmarkWaiting(b *testing.B) {
	const waiting, ofRoom = 10_000, 100
	f := fleettest.Start(b, binaries(b), nats, one())
	ctx := b.Context()
	users := crowd(b, f, waiting)
	rooms := gather(b, f, users, ofRoom)
	p := f.Process("synchrotron-1")
	idle := rss(b, p)

	polls := make([]*poll, waiting)
	together(b, 32, waiting, func(i int) error {
		c := &fleettest.Client{URL: "http://" + p.Addr, Token: users[i].token}
		first, err := c.Sync(ctx, "", 0)
		if err != nil {
			return err
		}
		polls[i], err = newPoll(p.Addr, users[i].token, first.Next)
		return err
	})
	most := peak(b, p)
	for b.Loop() {
		time.Sleep(20 * time.Second) //nolint:forbidigo // until what their first syncs took is given back
	}
	now := rss(b, p)
	for name, metric := range map[string]string{"stacks-MB": "go_memstats_stack_inuse_bytes", "heap-MB": "go_memstats_heap_inuse_bytes"} {
		b.ReportMetric(gauge(b, p, metric)/1e6, name)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(idle)/1e6, "idle-MB")
	b.ReportMetric(float64(now)/1e6, "waiting-MB")
	b.ReportMetric(float64(most)/1e6, "peak-MB")
	b.ReportMetric(float64(now-idle)/waiting/1024, "kB/waiting")

	if to := os.Getenv("BENCH_PROFILES"); to != "" {
		profile(b, p, "heap?gc=1", to+"/waiting.heap.pprof")
		profile(b, p, "goroutine?debug=1", to+"/waiting.goroutines")
	}
	for _, room := range []int{0, len(rooms) - 1} {
		say(b, f, users[room*ofRoom], rooms[room], "hear me")
		for i := range ofRoom {
			answer := polls[room*ofRoom+i].answer(b)
			require.Contains(b, answer, "hear me")
			require.Contains(b, answer, rooms[room])
		}
	}
	for _, q := range polls {
		_ = q.conn.Close()
	}
}

// BenchmarkFollow lets a synchrotron that serves nobody follow 500 events/s in a hundred rooms, and reports the share of a processor that
// it takes, and its memory.
func BenchmarkFollow(b *testing.B) {
	const rate, rooms, lasting = 500, 100, 20 * time.Second
	f := fleettest.Start(b, binaries(b), nats, one())
	ctx := b.Context()
	c, err := fleettest.Register(ctx, f.URL, "sender")
	require.NoError(b, err)
	c.URL = "http://" + f.Process("master-1").Addr
	ids := make([]string, rooms)
	for i := range ids {
		ids[i] = create(b, c)
	}
	body := []byte(`{"msgtype":"m.text","body":"` + strings.Repeat("warp and weft ", 40) + `"}`)
	p := f.Process("synchrotron-1")
	for b.Loop() {
		var n atomic.Int64
		var senders sync.WaitGroup
		before, begun := spent(p.PID(), true), time.Now()
		for range 10 {
			senders.Go(func() {
				s, err := newSender(f.Process("master-1").Addr, c.Token)
				if err != nil {
					b.Error(err)
					return
				}
				defer s.close()
				for tick := begun; tick.Sub(begun) < lasting; tick = tick.Add(10 * time.Second / rate) {
					time.Sleep(time.Until(tick)) //nolint:forbidigo // the pace of the load
					i := n.Add(1)
					if err := s.send(ids[int(i)%rooms], i, body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		senders.Wait()
		took := time.Since(begun)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(n.Load())/took.Seconds(), "events/s")
		b.ReportMetric(100*float64(spent(p.PID(), true)-before)/float64(took), "cpu-%")
		b.ReportMetric(float64(rss(b, p))/1e6, "MB")
		if to := os.Getenv("BENCH_PROFILES"); to != "" {
			profile(b, p, "heap?gc=1", to+"/follow.heap.pprof")
		}
	}
}

// member is a user of a crowd.
type member struct{ id, token string }

// crowd makes users as registration would, but without the time that their passwords take: straight in the database.
func crowd(b testing.TB, f *fleettest.Fleet, n int) []member {
	b.Helper()
	shards := shard.NewMap("fleet.test", 16)
	out := make([]member, n)
	var shardOf []int16
	var ids []string
	var hashes [][]byte
	for i := range out {
		localpart := fmt.Sprintf("user%d", i)
		out[i] = member{id: "@" + localpart + ":fleet.test", token: accessToken(localpart)}
		hash := sha256.Sum256([]byte(out[i].token))
		shardOf, ids, hashes = append(shardOf, int16(shards.OfUser(out[i].id))), append(ids, out[i].id), append(hashes, hash[:])
	}
	db := f.Database.Open()
	for _, sql := range []string{
		`INSERT INTO account (shard, user_id, created, pos) SELECT s, u, 0, 0 FROM unnest($1::smallint[], $2::text[], $3::bytea[]) x(s, u, h)`,
		`INSERT INTO device (shard, user_id, device_id, created, pos) SELECT s, u, 'D', 0, 0 FROM unnest($1::smallint[], $2::text[], $3::bytea[]) x(s, u, h)`,
		`INSERT INTO access_token (shard, hash, user_id, device_id, created, pos) SELECT s, h, u, 'D', 0, 0
			FROM unnest($1::smallint[], $2::text[], $3::bytea[]) x(s, u, h)`,
	} {
		_, err := db.Pool.Exec(b.Context(), sql, shardOf, ids, hashes)
		require.NoError(b, err)
	}
	return out
}

// accessToken makes a token as pkg/service/account does.
func accessToken(localpart string) string {
	var secret [32]byte
	_, _ = rand.Read(secret[:])
	enc := base64.RawURLEncoding
	t := "hed_" + enc.EncodeToString([]byte(localpart)) + "." + enc.EncodeToString(secret[:])
	return t + "." + enc.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(t))))
}

// gather puts users into rooms, so many into each, and gives the rooms.
func gather(b testing.TB, f *fleettest.Fleet, users []member, ofRoom int) []string {
	b.Helper()
	master := "http://" + f.Process("master-1").Addr
	pool := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	rooms := make([]string, len(users)/ofRoom)
	for i := range rooms {
		rooms[i] = create(b, &fleettest.Client{URL: master, Token: users[i*ofRoom].token, HTTP: pool})
	}
	together(b, 32, len(users), func(i int) error {
		// Neighbours are in different rooms, so that joins of one room do not wait for each other.
		i = i%len(rooms)*ofRoom + i/len(rooms)
		c := &fleettest.Client{URL: master, Token: users[i].token, HTTP: pool}
		return c.Do(b.Context(), http.MethodPost, "/join/"+url.PathEscape(rooms[i/ofRoom]), map[string]string{}, nil)
	})
	return rooms
}

func create(b testing.TB, c *fleettest.Client) string {
	b.Helper()
	var a struct {
		RoomID string `json:"room_id"`
	}
	require.NoError(b, c.Do(b.Context(), http.MethodPost, "/createRoom", map[string]string{"preset": "public_chat"}, &a))
	return a.RoomID
}

// together does do(0) to do(n-1), so many at a time.
func together(b testing.TB, at, n int, do func(i int) error) {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range at {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || b.Failed() {
					return
				}
				if err := do(i); err != nil {
					b.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	require.False(b, b.Failed())
}

// say sends a message.
func say(b testing.TB, f *fleettest.Fleet, by member, room, text string) {
	b.Helper()
	s, err := newSender(f.Process("master-1").Addr, by.token)
	require.NoError(b, err)
	defer s.close()
	body, err := json.Marshal(map[string]string{"msgtype": "m.text", "body": text})
	require.NoError(b, err)
	require.NoError(b, s.send(room, time.Now().UnixNano(), body))
}

// poll is a connection on which a sync waits. It holds next to nothing, for there are many of them beside what is measured.
type poll struct{ conn net.Conn }

func newPoll(addr, token, since string) (*poll, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	// Others who begin to wait come online: what is waited for is none of that.
	filter := url.QueryEscape(`{"presence":{"types":[]}}`)
	_, err = fmt.Fprintf(conn, "GET /_matrix/client/v3/sync?timeout=600000&filter=%s&since=%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n",
		filter, since, addr, token)
	return &poll{conn}, err
}

// answer waits for what the sync is answered with.
func (p *poll) answer(b testing.TB) string {
	b.Helper()
	require.NoError(b, p.conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(p.conn), nil)
	require.NoError(b, err)
	defer resp.Body.Close()
	var all strings.Builder
	_, err = bufio.NewReader(resp.Body).WriteTo(&all)
	require.NoError(b, err)
	require.Equal(b, http.StatusOK, resp.StatusCode, all.String())
	return all.String()
}

// gauge reads a metric of a worker.
func gauge(b testing.TB, p *fleettest.Process, name string) float64 {
	b.Helper()
	v, ok := lookUp(b, p, name)
	require.True(b, ok, "no metric %s", name)
	return v
}

// lookUp reads a metric of a worker, if there is one of the name and labels.
func lookUp(b testing.TB, p *fleettest.Process, name string) (float64, bool) {
	b.Helper()
	resp, err := http.Get("http://" + p.Ops + "/metrics")
	require.NoError(b, err)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			require.NoError(b, err)
			return f, true
		}
	}
	return 0, false
}

// profile writes a profile of a worker.
func profile(b *testing.B, p *fleettest.Process, what, to string) {
	b.Helper()
	resp, err := http.Get("http://" + p.Ops + "/debug/pprof/" + what)
	require.NoError(b, err)
	defer resp.Body.Close()
	out, err := os.Create(to)
	require.NoError(b, err)
	defer out.Close()
	_, err = out.ReadFrom(resp.Body)
	require.NoError(b, err)
}
