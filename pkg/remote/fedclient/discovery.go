package fedclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
)

// The specification's figures for .well-known: how long an answer without a word on it is good, how long any is at most, and how long
// it is not asked again for what could not be had.
const (
	wellKnownDefault = 24 * time.Hour
	wellKnownLongest = 48 * time.Hour
	wellKnownLeast   = 5 * time.Minute
	wellKnownMissing = time.Hour
	wellKnownBroken  = 2 * time.Minute
	wellKnownSize    = 50 << 10
	wellKnownTime    = 10 * time.Second
	wellKnownHops    = 5
)

// defaultPort is where a homeserver answers if nothing says otherwise.
const defaultPort = 8448

// target is how a server name is reached.
type target struct {
	// Host is the Host header: the name whose certificate is asked for, with the port if the name has one.
	Host string
	// TLS is the name or address that the certificate must be for, without brackets.
	TLS string
	// Port to connect to; 0: look for SRV records first.
	Port uint16
}

// dialed is the pseudo address under which connections are pooled. Port 0 says that SRV records lead on.
func (t target) dialed() string { return net.JoinHostPort(t.TLS, strconv.Itoa(int(t.Port))) }

// resolver finds out how server names are reached.
type resolver struct {
	o    *Options
	http *http.Client // for .well-known

	mu    sync.Mutex // guards known
	known map[id.ServerName]knownTarget
}

type knownTarget struct {
	target
	until time.Time
}

// maxKnown bounds the names that are remembered in this process; more are in the shared cache.
const maxKnown = 4096

// resolve follows the specification's steps, but for SRV records, which are looked up when a connection is made.
func (r *resolver) resolve(ctx context.Context, server id.ServerName) (target, error) {
	if !server.Valid() {
		return target{}, fmt.Errorf("%w: %q is no server name", ErrUnreachable, server)
	}
	if t, ok := direct(server); ok { // steps 1 and 2
		return t, nil
	}
	now := r.o.Now()
	r.mu.Lock()
	k, ok := r.known[server]
	r.mu.Unlock()
	if ok && now.Before(k.until) {
		return k.target, nil
	}
	delegated, until := r.wellKnown(ctx, server)
	if err := ctx.Err(); err != nil {
		return target{}, err
	}
	t := target{Host: server.Host(), TLS: server.Host()} // steps 4 to 6
	if delegated != "" {                                 // step 3
		if d, ok := direct(delegated); ok {
			t = d
		} else {
			t = target{Host: delegated.Host(), TLS: delegated.Host()}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.known) >= maxKnown {
		clear(r.known)
	}
	r.known[server] = knownTarget{t, until}
	return t, nil
}

// direct gives the target of a name with a port or an IP address, which needs no further look.
func direct(server id.ServerName) (target, bool) {
	port := server.Port()
	switch {
	case server.IsIP():
		if port == 0 {
			port = defaultPort
		}
		return target{Host: string(server), TLS: strings.Trim(server.Host(), "[]"), Port: port}, true
	case port != 0:
		return target{Host: string(server), TLS: server.Host(), Port: port}, true
	}
	return target{}, false
}

// storedWellKnown is what the shared cache holds of a server's .well-known. An empty Server is an answer too: there is none.
type storedWellKnown struct {
	Server string `json:"s"`
	Until  int64  `json:"u"` // ms
}

// wellKnown gives the name that a server delegates to, "" for none, and until when that is good. Whatever goes wrong is as if there was none.
func (r *resolver) wellKnown(ctx context.Context, server id.ServerName) (id.ServerName, time.Time) {
	key := "fed:wellknown:" + string(server)
	if raw, ok, err := r.o.Cache.Get(ctx, key); err == nil && ok {
		var s storedWellKnown
		if json.Unmarshal(raw, &s) == nil && r.o.Now().UnixMilli() < s.Until {
			return id.ServerName(s.Server), time.UnixMilli(s.Until)
		}
	}
	delegated, ttl := r.fetchWellKnown(ctx, server)
	until := r.o.Now().Add(ttl)
	if raw, err := json.Marshal(storedWellKnown{string(delegated), until.UnixMilli()}); err == nil && ctx.Err() == nil {
		_ = r.o.Cache.Set(ctx, key, raw, ttl) // it may be lost
	}
	return delegated, until
}

func (r *resolver) fetchWellKnown(ctx context.Context, server id.ServerName) (id.ServerName, time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wellKnownTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server.Host()+"/.well-known/matrix/server", http.NoBody)
	if err != nil {
		return "", wellKnownMissing
	}
	req.Header.Set("User-Agent", r.o.UserAgent)
	req.Header.Set("Accept", "application/json")
	resp, err := r.http.Do(req)
	if err != nil {
		return "", wellKnownBroken
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		if resp.StatusCode >= 500 {
			return "", wellKnownBroken
		}
		return "", wellKnownMissing
	}
	body, err := outhttp.ReadAll(resp.Body, wellKnownSize)
	if err != nil {
		return "", wellKnownMissing
	}
	delegated, err := parseWellKnown(body)
	if err != nil {
		return "", wellKnownMissing
	}
	return delegated, lifetime(resp.Header, r.o.Now())
}

// parseWellKnown reads the name that a server delegates to.
func parseWellKnown(body []byte) (id.ServerName, error) {
	var answer struct {
		Server string `json:"m.server"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", fmt.Errorf("%w: .well-known: %w", ErrMalformed, err)
	}
	delegated, err := id.ParseServerName(answer.Server)
	if err != nil {
		return "", fmt.Errorf("%w: .well-known: %w", ErrMalformed, err)
	}
	return delegated, nil
}

// lifetime reads from an answer's header how long it is good, within bounds.
func lifetime(h http.Header, now time.Time) time.Duration {
	d := wellKnownDefault
	maxAge := false
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			d, maxAge = 0, true
		case "max-age":
			if n, err := strconv.ParseInt(strings.Trim(value, `"`), 10, 64); err == nil && n >= 0 && !maxAge {
				d, maxAge = time.Duration(min(n, int64(wellKnownLongest/time.Second)))*time.Second, true
			}
		}
	}
	if e := h.Get("Expires"); e != "" && !maxAge {
		d = 0 // an invalid date is a date past
		if at, err := http.ParseTime(e); err == nil {
			d = at.Sub(now)
		}
	}
	return min(max(d, wellKnownLeast), wellKnownLongest)
}

// noLoop bounds the redirects of .well-known.
func noLoop(req *http.Request, via []*http.Request) error {
	if len(via) >= wellKnownHops {
		return errors.New("too many redirects")
	}
	if req.URL.Scheme != "https" {
		return errors.New("redirect leaves https")
	}
	return nil
}

// maxTargets bounds the SRV targets that are tried.
const maxTargets = 5

// dial connects to a pseudo address: the port 0 stands for what SRV records say, and for the default port if there are none. It is the
// transport's DialContext.
func (r *resolver) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	d := r.o.Guard.Dialer(dialTimeout)
	d.Resolver = r.o.Resolver
	if port != "0" {
		return d.DialContext(ctx, network, addr)
	}
	var failed error
	for _, a := range r.srv(ctx, host) {
		conn, err := d.DialContext(ctx, network, a)
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// srv gives the addresses that SRV records name, of the new service and else of the old one; without any, the default port.
func (r *resolver) srv(ctx context.Context, host string) []string {
	for _, service := range []string{"matrix-fed", "matrix"} {
		lookup, cancel := context.WithTimeout(ctx, dialTimeout)
		_, records, err := r.o.Resolver.LookupSRV(lookup, service, "tcp", host)
		cancel()
		if err != nil || len(records) == 0 {
			continue
		}
		var list []string
		for _, rec := range records[:min(len(records), maxTargets)] {
			if rec.Target == "." { // the service is decidedly not there
				continue
			}
			list = append(list, net.JoinHostPort(strings.TrimSuffix(rec.Target, "."), strconv.Itoa(int(rec.Port))))
		}
		if len(list) > 0 {
			return list
		}
	}
	return []string{net.JoinHostPort(host, strconv.Itoa(defaultPort))}
}
