package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/heddle-im/heddle/pkg/api/httpx"
)

// lingering is how long a listener that is to stop still takes requests, asking each client to go elsewhere for the next: what
// balances in front learns of it in that time, and no request meets a closed door.
const lingering = 700 * time.Millisecond

// idleTime is how long a connection is kept without a request.
const idleTime = 2 * time.Minute

// listener is an HTTP server as a service.
type listener struct {
	name     string
	address  string
	tls      *tls.Config
	handler  http.Handler
	linger   time.Duration
	parking  *httpx.Parking // of those who wait on it; may be nil
	log      *slog.Logger
	server   *http.Server
	bound    net.Addr
	stopping atomic.Bool
	// parkingServed is closed when the parked ones' listener has ended.
	parkingServed chan struct{}
	served        chan struct{}
	failed        chan error
}

func newListener(name, address string, t *tls.Config, h http.Handler, linger time.Duration, log *slog.Logger) *listener {
	if t != nil {
		t = t.Clone()
		t.NextProtos = []string{"h2", "http/1.1"} // the server looks there for whether it is to speak HTTP/2
	}
	l := &listener{
		name: name, address: address, tls: t, handler: h, linger: linger, log: log,
		served: make(chan struct{}), failed: make(chan error, 1),
	}
	l.server = &http.Server{
		Handler: http.HandlerFunc(l.serve), ReadHeaderTimeout: 20 * time.Second, IdleTimeout: idleTime,
		MaxHeaderBytes: 64 << 10, TLSConfig: t, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return l
}

func (l *listener) serve(w http.ResponseWriter, r *http.Request) {
	if l.stopping.Load() {
		w.Header().Set("Connection", "close")
	}
	l.handler.ServeHTTP(w, r)
}

// Start implements lifecycle.Service.
func (l *listener) Start(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.address)
	if err != nil {
		return fmt.Errorf("listen.%s: %w", l.name, err)
	}
	l.bound = ln.Addr()
	if l.tls != nil {
		ln = tls.NewListener(ln, l.tls)
	}
	go func() { // ended and waited for by Stop
		defer close(l.served)
		if err := l.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			l.failed <- fmt.Errorf("listen.%s: %w", l.name, err)
		}
	}()
	if l.parking != nil {
		l.parkingServed = make(chan struct{})
		again := l.parking.Listener(l.bound)
		go func() { // as the other
			defer close(l.parkingServed)
			_ = l.server.Serve(again) // ends with the other, or with the parking
		}()
	}
	l.log.Info("listening", "listener", l.name, "address", l.bound.String())
	return nil
}

// Failed implements lifecycle.Failing.
func (l *listener) Failed() <-chan error { return l.failed }

// Stop implements lifecycle.Service: it finishes what has begun and takes nothing new.
func (l *listener) Stop(ctx context.Context) error {
	if l.bound == nil {
		return nil
	}
	first := !l.stopping.Swap(true)
	if l.parking != nil {
		l.parking.Refuse()
	}
	if first && l.linger > 0 {
		t := time.NewTimer(l.linger)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	err := l.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, l.server.Close())
	}
	<-l.served
	if l.parking != nil {
		err = errors.Join(err, l.parking.Stop(ctx))
		<-l.parkingServed
	}
	return err
}
