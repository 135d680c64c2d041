package delaydb

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
)

// Status says what has become of an event.
type Status int16

// The statuses, as they are stored.
const (
	Waits Status = iota
	BeingSent
	Sent
	Cancelled
	Refused
)

// Never is the due time where nothing waits.
const Never int64 = math.MaxInt64

// Event is an event that is to be sent later. Times are in milliseconds since 1970.
type Event struct {
	ID           string
	User, Device string
	// Txn tells requests of a device apart; "" if it did not say.
	Txn, Room, Type string
	StateKey        *string // nil: a message
	Content         []byte
	Delay           int64 // milliseconds
	Since, Due      int64
	Status          Status
}

// DB reads and writes them.
type DB struct{ q *Queries }

// NewDB makes a DB over the primary.
func NewDB(primary DBTX) *DB { return &DB{New(primary)} }

// Schedule stores an event, to wait from now on. It stores none, and says so, if the user has as many as most waiting, or has asked with the same
// Txn before.
func (d *DB) Schedule(ctx context.Context, e *Event, now int64, most int) (bool, error) {
	p := ScheduleParams{
		DelayID: e.ID, UserID: e.User, DeviceID: e.Device, Txn: e.Txn, RoomID: e.Room, Type: e.Type, IsState: e.StateKey != nil,
		Content: e.Content, DelayMs: e.Delay, Since: now, Due: now + e.Delay, Most: int64(most),
	}
	if e.StateKey != nil {
		p.StateKey = *e.StateKey
	}
	n, err := d.q.Schedule(ctx, p)
	if err != nil {
		return false, fmt.Errorf("schedule event: %w", err)
	}
	return n > 0, nil
}

// ByTxn gives the id of the event that a device asked for before.
func (d *DB) ByTxn(ctx context.Context, user, device, txn string) (delayID string, ok bool, err error) {
	delayID, err = d.q.ByTxn(ctx, ByTxnParams{UserID: user, DeviceID: device, Txn: txn})
	ok, err = found(err, "find delayed event")
	return delayID, ok, err
}

// Waiting gives the events of a user that are not sent yet, the next one first.
func (d *DB) Waiting(ctx context.Context, user string) ([]Event, error) {
	rows, err := d.q.Waiting(ctx, user)
	return events(rows, err, "read delayed events")
}

// NextDue tells when the next event is due, [Never] if none waits.
func (d *DB) NextDue(ctx context.Context) (int64, error) {
	due, err := d.q.NextDue(ctx, Never)
	if err != nil {
		return 0, fmt.Errorf("read when the next event is due: %w", err)
	}
	return due, nil
}

// Claim gives events that are due by now, and those that were claimed before stale and not settled since, for the caller to send.
func (d *DB) Claim(ctx context.Context, now, stale int64, most int) ([]Event, error) {
	rows, err := d.q.Claim(ctx, ClaimParams{Now: now, Stale: stale, Most: int32(most)})
	return events(rows, err, "claim delayed events")
}

// ClaimOne gives an event that waits, for the caller to send.
func (d *DB) ClaimOne(ctx context.Context, delayID string, now int64) (Event, bool, error) {
	row, err := d.q.ClaimOne(ctx, ClaimOneParams{DelayID: delayID, Now: now})
	ok, err := found(err, "claim delayed event")
	return event(&row), ok, err
}

// Restart has an event that waits do so from now on, as long as at first.
func (d *DB) Restart(ctx context.Context, delayID string, now int64) (bool, error) {
	n, err := d.q.Restart(ctx, RestartParams{DelayID: delayID, Since: now})
	if err != nil {
		return false, fmt.Errorf("restart delayed event: %w", err)
	}
	return n > 0, nil
}

// Cancel has an event that waits never be sent.
func (d *DB) Cancel(ctx context.Context, delayID string, now int64) (bool, error) {
	n, err := d.q.Cancel(ctx, CancelParams{DelayID: delayID, Now: now})
	if err != nil {
		return false, fmt.Errorf("cancel delayed event: %w", err)
	}
	return n > 0, nil
}

// Settle says what has become of an event that was claimed.
func (d *DB) Settle(ctx context.Context, delayID string, s Status, now int64) error {
	if err := d.q.Settle(ctx, SettleParams{DelayID: delayID, Status: int16(s), Now: now}); err != nil {
		return fmt.Errorf("settle delayed event: %w", err)
	}
	return nil
}

// Status tells what has become of an event.
func (d *DB) Status(ctx context.Context, delayID string) (Status, bool, error) {
	s, err := d.q.Status(ctx, delayID)
	ok, err := found(err, "read status of delayed event")
	return Status(s), ok, err
}

// Sweep forgets no more than most events that were settled before a time.
func (d *DB) Sweep(ctx context.Context, before int64, most int) (int64, error) {
	n, err := d.q.Sweep(ctx, SweepParams{Before: before, Most: int32(most)})
	if err != nil {
		return 0, fmt.Errorf("sweep delayed events: %w", err)
	}
	return n, nil
}

func found(err error, what string) (bool, error) {
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	}
	return false, fmt.Errorf("%s: %w", what, err)
}

func events(rows []DelayedEvent, err error, what string) ([]Event, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	out := make([]Event, len(rows))
	for i := range rows {
		out[i] = event(&rows[i])
	}
	return out, nil
}

func event(r *DelayedEvent) Event {
	e := Event{
		ID: r.DelayID, User: r.UserID, Device: r.DeviceID, Room: r.RoomID, Type: r.Type, StateKey: r.StateKey, Content: r.Content,
		Delay: r.DelayMs, Since: r.RunningSince, Due: r.Due, Status: Status(r.Status),
	}
	if r.Txn != nil {
		e.Txn = *r.Txn
	}
	return e
}
