package fleettest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// BenchmarkLively has 10,000 users wait in long polls of one synchrotron, ten to each of 1,000 rooms, in which 200 messages are sent each second, to
// one room after the other; each client asks again at once. It reports from sending to arrival (p50, p99), the share of a processor that
// the synchrotron takes, and how many incremental syncs it answers in a second of a processor. LIVELY_USERS makes it smaller; make profiles
// keeps the top of the synchrotron's profile.
func BenchmarkLively(b *testing.B) {
	const ofRoom, rate, senders, lasting = 10, 200, 10, 20 * time.Second
	waiting := number(b, "LIVELY_USERS", 10_000)
	f := fleettest.Start(b, binaries(b), nats, one())
	users := crowd(b, f, waiting)
	rooms := gather(b, f, users, ofRoom)
	p := f.Process("synchrotron-1")
	listeners := make([]*listener, waiting)
	together(b, 32, waiting, func(i int) (err error) {
		listeners[i], err = newListener(p.Addr, users[i].token)
		return err
	})
	var listening sync.WaitGroup
	for _, l := range listeners {
		listening.Go(l.listen)
	}
	defer func() {
		for _, l := range listeners {
			_ = l.conn.Close()
		}
		listening.Wait()
	}()
	answered := func() (n int64, delays []time.Duration) {
		for _, l := range listeners {
			l.mu.Lock()
			n, delays = n+l.answers, append(delays, l.delays...)
			l.answers, l.delays = 0, nil
			l.mu.Unlock()
		}
		return n, delays
	}
	for b.Loop() {
		var n atomic.Int64
		var load sync.WaitGroup
		answered() // what came until now
		costs := startCosts(b, f, lasting-time.Second)
		before, begun := spent(p.PID(), true), time.Now()
		for range senders {
			load.Go(func() {
				open := map[int]*sender{} // a room's creator sends
				defer func() {
					for _, s := range open {
						s.close()
					}
				}()
				for tick := begun; tick.Sub(begun) < lasting; tick = tick.Add(senders * time.Second / rate) {
					time.Sleep(time.Until(tick)) //nolint:forbidigo // the pace of the load
					i := n.Add(1)
					room := int(i) % len(rooms)
					if open[room] == nil {
						s, err := newSender(f.Process("master-1").Addr, users[room*ofRoom].token)
						if err != nil {
							b.Error(err)
							return
						}
						open[room] = s
					}
					body := fmt.Appendf(nil, `{"msgtype":"m.text","body":"%s%d."}`, sentAt, time.Now().UnixNano())
					if err := open[room].send(rooms[room], i, body); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		load.Wait()
		took := time.Since(begun)
		cpu := spent(p.PID(), true) - before
		syncs, delays := answered()
		require.NotEmpty(b, delays)
		slices.Sort(delays)
		costs.report(b, len(delays)) // for each arrival
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(float64(n.Load())/took.Seconds(), "events/s")
		b.ReportMetric(float64(len(delays))/float64(n.Load()*ofRoom), "arrived")
		b.ReportMetric(float64(delays[len(delays)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(delays[len(delays)*99/100].Microseconds())/1000, "p99-ms")
		b.ReportMetric(100*float64(cpu)/float64(took), "cpu-%")
		b.ReportMetric(float64(syncs)/cpu.Seconds(), "syncs/core-s")
		b.ReportMetric(float64(rss(b, p))/1e6, "MB")
	}
}

// sentAt stands in a message before the time at which it was sent.
const sentAt = "sent at "

// listener is a client that syncs on, on one connection, and notes when messages arrive. It does as little as possible beside.
type listener struct {
	conn        net.Conn
	in          *bufio.Reader
	host, token string
	since       []byte

	mu      sync.Mutex // guards what follows
	answers int64
	delays  []time.Duration
}

func newListener(addr, token string) (*listener, error) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	l := &listener{conn: conn, in: bufio.NewReaderSize(conn, 4<<10), host: addr, token: token}
	return l, l.sync()
}

// listen syncs until the connection is closed.
func (l *listener) listen() {
	for err := error(nil); err == nil; {
		err = l.sync()
	}
}

// sync asks once, waits for the answer and takes it in.
func (l *listener) sync() error {
	const filter = "%7B%22presence%22%3A%7B%22types%22%3A%5B%5D%7D%7D" // others who come online are not waited for
	since := ""
	if l.since != nil {
		since = "&since=" + string(l.since)
	}
	if _, err := fmt.Fprintf(l.conn, "GET /_matrix/client/v3/sync?timeout=300000&filter=%s%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n",
		filter, since, l.host, l.token); err != nil {
		return err
	}
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	switch now := time.Now(); {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return &fleettest.StatusError{Status: resp.StatusCode, Body: string(body)}
	default:
		return l.take(body, now)
	}
}

func (l *listener) take(body []byte, now time.Time) error {
	_, rest, _ := bytes.Cut(body, []byte(`"next_batch":"`))
	next, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok {
		return fmt.Errorf("an answer without a token: %.100s", body)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since != nil {
		l.answers++
	}
	l.since = bytes.Clone(next)
	for {
		_, rest, ok = bytes.Cut(body, []byte(sentAt))
		if !ok {
			return nil
		}
		at, _, _ := bytes.Cut(rest, []byte("."))
		ns, err := strconv.ParseInt(string(at), 10, 64)
		if err != nil {
			return err
		}
		l.delays = append(l.delays, now.Sub(time.Unix(0, ns)))
		body = rest
	}
}
