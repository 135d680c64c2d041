package push

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	dialTimeout = 10 * time.Second
	maxAnswer   = 64 << 10
	// tripAfter is after how many failures in a row a gateway is left alone by all of its pushers.
	tripAfter = 3
	// maxGateways is of how many gateways it is remembered how they are.
	maxGateways = 10_000
)

// errClosed says that a gateway is left alone for a while.
var errClosed = errors.New("the push gateway is left alone for a while")

// gateway is a host that notifications are sent to. Guarded by term.mu.
type gateway struct {
	origin  string
	fails   int // in a row
	until   time.Time
	proven  bool // it answered last time
	flying  int
	waiting []chan struct{} // for a place among those in flight
	used    time.Time
}

// open tells whether it may be asked. One that failed is asked by one at a time.
func (g *gateway) open(now time.Time) bool {
	return g.fails < tripAfter || !now.Before(g.until) && g.flying == 0
}

// originOf gives what two gateways differ in.
func originOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// gateway gives a pusher's. Under mu.
func (t *term) gateway(p *pusher) *gateway {
	g := t.gateways[p.target.origin]
	if g == nil {
		g = &gateway{origin: p.target.origin}
		t.gateways[p.target.origin] = g
	}
	g.used = t.o.Now()
	return g
}

// pruneGateways forgets those that nothing is sent to. Under mu.
func (t *term) pruneGateways() {
	if len(t.gateways) <= maxGateways {
		return
	}
	before := t.o.Now().Add(-t.cfg.MaxBackoff)
	for k, g := range t.gateways {
		if g.flying == 0 && len(g.waiting) == 0 && g.used.Before(before) {
			delete(t.gateways, k)
		}
	}
}

func transportFor(cfg Config, o Options) *http.Transport {
	return &http.Transport{
		DialContext: o.Guard.Dialer(dialTimeout).DialContext, ForceAttemptHTTP2: true,
		TLSClientConfig:     &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: dialTimeout, MaxIdleConns: 1000, MaxIdleConnsPerHost: 8, MaxConnsPerHost: cfg.PerGateway,
		IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 64 << 10, ExpectContinueTimeout: time.Second,
	}
}

// board waits for a place among those who ask a gateway; one that must be left alone has none.
func (t *term) board(ctx context.Context, p *pusher) (*gateway, error) {
	for {
		t.mu.Lock()
		g := t.gateway(p)
		if !g.open(t.o.Now()) {
			t.mu.Unlock()
			return nil, errClosed
		}
		limit := t.cfg.PerGateway
		if !g.proven {
			limit = t.cfg.Fresh
		}
		if g.flying < limit {
			g.flying++
			t.mu.Unlock()
			select {
			case t.lanes <- struct{}{}:
				return g, nil
			case <-ctx.Done():
				t.alight(g)
				return nil, ctx.Err()
			}
		}
		turn := make(chan struct{})
		g.waiting = append(g.waiting, turn)
		t.mu.Unlock()
		select {
		case <-turn:
		case <-ctx.Done():
			t.mu.Lock()
			g.waiting = slices.DeleteFunc(g.waiting, func(c chan struct{}) bool { return c == turn })
			t.mu.Unlock()
			return nil, ctx.Err()
		}
	}
}

// alight gives a place at a gateway back, and lets those who wait look again.
func (t *term) alight(g *gateway) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g.flying--
	for _, c := range g.waiting {
		close(c)
	}
	g.waiting = nil
}

// judge notes how a gateway is. When it is back, those who waited for it are tried.
func (t *term) judge(g *gateway, up bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if up {
		was := g.fails
		g.fails, g.proven, g.until = 0, true, time.Time{}
		if was < tripAfter {
			return
		}
		for p := range t.owed {
			if p.target.origin == g.origin {
				p.fails, p.due = 0, time.Time{}
				t.wake(p)
			}
		}
		return
	}
	g.proven = false
	if g.fails++; g.fails >= tripAfter {
		g.until = t.o.Now().Add(min(t.cfg.MinBackoff<<min(g.fails-tripAfter, 20), t.cfg.MaxBackoff))
	}
}

// post sends a notification to a pusher's gateway. What the gateway will never take is as good as sent.
func (t *term) post(ctx context.Context, p *pusher, tg *target, body []byte) error {
	g, err := t.board(ctx, p)
	if err != nil {
		return err
	}
	defer func() {
		<-t.lanes
		t.alight(g)
	}()
	began := time.Now()
	status, answer, err := t.ask(ctx, tg.url, body)
	t.metrics.took.Observe(time.Since(began).Seconds())
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		t.metrics.sent.WithLabelValues("failed").Inc()
		t.judge(g, false)
		return err
	case status >= 200 && status < 300:
		t.metrics.sent.WithLabelValues("taken").Inc()
		t.judge(g, true)
		return t.rejected(ctx, p, answer)
	case status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge || status == http.StatusUnprocessableEntity:
		t.metrics.sent.WithLabelValues("refused").Inc()
		t.judge(g, true)
		t.log.Warn("a push gateway has refused a notification, which is given up", "gateway", g.origin, "status", status)
		return nil
	default:
		t.metrics.sent.WithLabelValues("failed").Inc()
		t.judge(g, false)
		return fmt.Errorf("the push gateway %s answered %d", g.origin, status)
	}
}

func (t *term) ask(ctx context.Context, to string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", t.o.UserAgent)
	res, err := t.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return res.StatusCode, answer, err
}

// rejected removes a pusher whose key its gateway says is not valid.
func (t *term) rejected(ctx context.Context, p *pusher, answer []byte) error {
	var a struct {
		Rejected []string `json:"rejected"`
	}
	if json.Unmarshal(answer, &a) != nil || !slices.Contains(a.Rejected, p.key.Pushkey) {
		return nil // it took the notification, whatever it says of it
	}
	t.metrics.rejected.Inc()
	if err := t.o.Remove(ctx, p.key); err != nil {
		return fmt.Errorf("remove a rejected pusher: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(p)
	p.of.pushers = slices.DeleteFunc(p.of.pushers, func(o *pusher) bool { return o == p })
	return nil
}
