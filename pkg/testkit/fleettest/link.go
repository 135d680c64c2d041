package fleettest

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// Link is what one process reaches another by: a TCP proxy that can be broken, so that the two are apart while both live.
// It is safe for concurrent use.
type Link struct {
	// Name is who is reached by whom: "master-1>postgres".
	Name string
	// Addr is where it listens.
	Addr string

	dial func() (net.Conn, error)
	ln   net.Listener
	wg   sync.WaitGroup

	mu    sync.Mutex // guards all below
	open  chan struct{}
	state linkState
	conns map[net.Conn]struct{}
}

type linkState int

const (
	linkUp linkState = iota
	linkSilent
	linkRefused
	linkGone
)

// NewLink makes a link by itself that listens at host, a name or address of this machine; it ends with the test.
func NewLink(t testing.TB, host string, dial func() (net.Conn, error)) *Link {
	t.Helper()
	return newLink(t, host, host, dial)
}

func newLink(t testing.TB, name, host string, dial func() (net.Conn, error)) *Link {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	require.NoError(t, err)
	l := &Link{Name: name, Addr: ln.Addr().String(), dial: dial, ln: ln, open: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	close(l.open)
	l.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.set(linkGone)
		_ = ln.Close()
		l.wg.Wait()
	})
	return l
}

// Silence has nothing pass any more, in either direction, and nobody told: as when packets are dropped. What was on its way arrives
// when the link is healed, as TCP would see to it.
func (l *Link) Silence() { l.set(linkSilent) }

// Refuse breaks all connections and takes no new ones.
func (l *Link) Refuse() { l.set(linkRefused) }

// Heal undoes both.
func (l *Link) Heal() { l.set(linkUp) }

func (l *Link) set(s linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == s || l.state == linkGone {
		return
	}
	if l.state == linkSilent {
		close(l.open)
	}
	l.state = s
	switch s {
	case linkSilent:
		l.open = make(chan struct{})
	case linkRefused, linkGone:
		for c := range l.conns {
			_ = c.Close()
		}
	case linkUp:
	}
}

// keep remembers a connection; false if it must not be.
func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == linkRefused || l.state == linkGone {
		_ = c.Close()
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// pass waits while the link is silent.
func (l *Link) pass() {
	for {
		l.mu.Lock()
		open, silent := l.open, l.state == linkSilent
		l.mu.Unlock()
		if !silent {
			return
		}
		<-open
	}
}

func (l *Link) serve(client net.Conn) {
	if !l.keep(client) {
		return
	}
	defer l.drop(client)
	l.pass()
	server, err := l.dial()
	if err != nil || !l.keep(server) {
		return
	}
	defer l.drop(server)
	back := make(chan struct{})
	go func() { // ends before serve does
		defer close(back)
		l.pump(client, server)
	}()
	l.pump(server, client)
	<-back
}

// pump copies until one end has closed, and then closes the other.
func (l *Link) pump(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.pass() // an end is not seen either
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// links are those of a deployment that was made with them.
type links struct {
	mu  sync.Mutex
	all []*Link
}

// Links gives all links, by name; none unless the deployment was made with them.
func (f *Fleet) Links() []*Link {
	f.links.mu.Lock()
	defer f.links.mu.Unlock()
	return slices.SortedFunc(slices.Values(f.links.all), func(a, b *Link) int { return strings.Compare(a.Name, b.Name) })
}

// Link gives one by its name.
func (f *Fleet) Link(name string) *Link {
	all := f.Links()
	i := slices.IndexFunc(all, func(l *Link) bool { return l.Name == name })
	require.NotEqual(f.t, -1, i, name)
	return all[i]
}

func (f *Fleet) link(by, to string, dial func() (net.Conn, error)) *Link {
	l := newLink(f.t, by+">"+to, "127.0.0.1", dial)
	f.links.mu.Lock()
	f.links.all = append(f.links.all, l)
	f.links.mu.Unlock()
	return l
}

func dialer(network, addr string) func() (net.Conn, error) {
	return func() (net.Conn, error) { return net.Dial(network, addr) }
}

// behindLinks gives the settings by which a worker reaches everything, and is reached by the other workers, through links.
func (f *Fleet) behindLinks(p *Process) []string {
	name := p.Name
	c, err := pgx.ParseConfig(f.Database.DSN)
	require.NoError(f.t, err)
	host, port, err := net.SplitHostPort(f.link(name, "postgres", dialer("unix", c.Host+"/.s.PGSQL.5432")).Addr)
	require.NoError(f.t, err)
	return []string{
		"HEDDLE_DATABASE_DSN=host=" + host + " port=" + port + " user=" + c.User + " dbname=" + c.Database + " sslmode=disable",
		"HEDDLE_NATS_URL=nats://" + f.link(name, "nats", dialer("tcp", f.natsAddr)).Addr,
		"HEDDLE_REDIS_URL=redis://" + f.link(name, "redis", dialer("unix", strings.TrimPrefix(f.Redis.URL, "unix://"))).Addr,
		"HEDDLE_LISTEN_ADVERTISE=" + f.link("workers", name, dialer("tcp", p.Addr)).Addr,
	}
}
