package inbound

import (
	"context"
	"net/url"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/store/feddb"
)

// Asking other servers for what is missing takes as long as they like, so it is done beside the work on rooms: who is slow, or lies, holds up
// its own events and nobody else's.
const (
	// repairsAbreast bounds the repairs of one shard at a time, repairsOfServer those that wait for one server.
	repairsAbreast  = 64
	repairsOfServer = 4
	// repairPatience bounds the repair for one event.
	repairPatience = 2 * time.Minute
	// parked is for how long an event is not looked at that is being repaired; it is parked anew before each try. Should this process
	// die, the next one looks at it so much later.
	parked = 30 * time.Second
	// noPlace is how long an event waits for which there is no place to repair it.
	noPlace = time.Second
)

// repair begins to fetch what events lack, for each server's events in their order.
func (w *shardWork) repair(ctx context.Context, g *gap, lacking []feddb.StagedPDU) error {
	byServer := map[string][]feddb.StagedPDU{}
	for i := range lacking {
		byServer[lacking[i].Origin] = append(byServer[lacking[i].Origin], lacking[i])
	}
	for server, events := range byServer {
		if w.begin(ctx, g, server, events) {
			continue
		}
		if err := w.o.DB.Park(ctx, w.shard, seqsOf(events), noPlace); err != nil {
			return err
		}
	}
	return nil
}

// begin begins the repair for events of one server, unless there is no place for it.
func (w *shardWork) begin(ctx context.Context, g *gap, server string, events []feddb.StagedPDU) bool {
	place := string(g.room) + " " + server
	if !w.repairs.enter(place, 1) {
		return false
	}
	if !w.repairs.enter(server, repairsOfServer) {
		w.repairs.leave(place)
		return false
	}
	if err := w.o.DB.Park(ctx, w.shard, seqsOf(events), parked); err == nil && w.gapTasks.TryGo(func() error {
		defer w.repairs.leave(place)
		defer w.repairs.leave(server)
		w.fetch(ctx, g, events)
		return nil
	}) {
		return true
	}
	w.repairs.leave(server)
	w.repairs.leave(place)
	return false
}

// fetch repairs the gap before one event after the other. After the first that could be the others are looked at as if they had just come.
func (w *shardWork) fetch(ctx context.Context, g *gap, events []feddb.StagedPDU) {
	for i := range events {
		rest := events[i:]
		err := w.o.DB.Park(ctx, w.shard, seqsOf(rest), parked)
		if err == nil {
			try, cancel := context.WithTimeout(ctx, repairPatience)
			err = g.close(try, &rest[0])
			cancel()
		}
		if ctx.Err() != nil || err == nil { // whoever comes after this process shall not wait
			if err := w.o.DB.Park(context.WithoutCancel(ctx), w.shard, seqsOf(rest), 0); err != nil {
				w.o.Log.Warn("events could not be released", "room", string(g.room), "error", err)
			}
			w.lookAgain()
			return
		}
		w.o.Log.Info("what an event lacks could not be had", "room", string(g.room), "event", rest[0].EventID, "origin", rest[0].Origin, "error", err)
		w.postpone(ctx, w.shard, rest[:1], err)
	}
}

// remoteError is the failure of another server. It is none of ours, whatever is in it: a deadline of the server's, or its master that is away.
type remoteError struct{ err error }

// Error implements error.
func (e *remoteError) Error() string { return e.err.Error() }

// ask asks a server for what a room lacks.
func (g *gap) ask(ctx context.Context, from id.ServerName, method, path string, query url.Values, body []byte, limit int64, wait time.Duration) ([]byte, error) {
	raw, err := g.o.Remote.Ask(ctx, from, method, path, query, body, limit, wait, false)
	if err != nil {
		return nil, &remoteError{err}
	}
	return raw, nil
}
