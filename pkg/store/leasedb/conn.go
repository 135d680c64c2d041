package leasedb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// lockTimeout is how long a change of a lease waits for the transactions that hold its fence. It is short, for behind
// it wait the other leases; whoever wanted the change tries again.
const lockTimeout = "400ms"

// closeTimeout bounds saying good-bye to a server that may be gone.
const closeTimeout = time.Second

// Conn is one session on the primary. An error of its connection, or a context that ends in the middle of a
// statement, closes it for good: whoever goes on does so on a new one, and knows that it is new.
type Conn struct {
	conn *pgx.Conn
	pid  int32
}

// Connect opens a session of its own on the primary.
func (d *DB) Connect(ctx context.Context) (*Conn, error) {
	conn, err := d.pg.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c := &Conn{conn: conn}
	if _, err = conn.Exec(ctx, "SET lock_timeout = '"+lockTimeout+"'"); err == nil {
		c.pid, err = c.primary(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("prepare a session: %w", err)
	}
	return c, nil
}

// Close ends the session.
func (c *Conn) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout) //nolint:forbidigo // whatever became of the caller
	defer cancel()
	_ = c.conn.Close(ctx) // the server ends the session by itself too
}

// Closed tells whether the session has ended, as far as is known here.
func (c *Conn) Closed() bool { return c.conn.IsClosed() }

// primary gives the session's pid, if it is on the primary.
func (c *Conn) primary(ctx context.Context) (int32, error) {
	p, err := New(c.conn).Primary(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for the primary: %w", err)
	}
	// A standby would show a past, and a pooler in between other sessions' present.
	if p.InRecovery || (c.pid != 0 && p.Pid != c.pid) {
		return 0, ErrNotPrimary
	}
	return p.Pid, nil
}

// Register writes the worker's row and begins a new boot of its instance; an earlier one can renew no more. It fails with [ErrTooOld]
// if the worker does not read the cluster's feature level.
func (c *Conn) Register(ctx context.Context, w Worker, st Status) (Boot, error) {
	status, err := st.json()
	if err != nil {
		return Boot{}, fmt.Errorf("register: status: %w", err)
	}
	started, err := New(c.conn).Register(ctx, RegisterParams{
		Instance: w.Instance, Kind: w.Kind, Address: w.Address, Version: w.Version, ProtocolMin: int32(w.ProtocolMin),
		ProtocolMax: int32(w.ProtocolMax), Roles: roles(w), Status: status,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Boot{}, fmt.Errorf("register: %w", ErrTooOld)
	}
	if err != nil {
		return Boot{}, fmt.Errorf("register: %w", err)
	}
	return Boot{Instance: w.Instance, Started: started.Time}, nil
}

func roles(w Worker) []string {
	if w.Roles == nil {
		return []string{}
	}
	return w.Roles
}

// Renew moves the worker's counter, and writes its status if write is set. A row that somebody took for dead and removed is
// written again. It fails with [ErrSuperseded] if a later boot has registered.
func (c *Conn) Renew(ctx context.Context, w Worker, b Boot, st Status, write bool) error {
	status, err := st.json()
	if err != nil {
		return fmt.Errorf("renew: status: %w", err)
	}
	started := timestamptz(b.Started)
	var n int64
	if write {
		n, err = New(c.conn).RenewWithStatus(ctx, RenewWithStatusParams{Instance: b.Instance, Started: started, Status: status})
	} else {
		n, err = New(c.conn).Renew(ctx, RenewParams{Instance: b.Instance, Started: started})
	}
	if err != nil {
		return fmt.Errorf("renew: %w", err)
	}
	if n == 1 {
		return nil
	}
	n, err = New(c.conn).Reregister(ctx, ReregisterParams{
		Instance: w.Instance, Kind: w.Kind, Address: w.Address, Version: w.Version, ProtocolMin: int32(w.ProtocolMin),
		ProtocolMax: int32(w.ProtocolMax), Roles: roles(w), Status: status, Started: started,
	})
	if err != nil {
		return fmt.Errorf("register again: %w", err)
	}
	if n == 0 {
		return fmt.Errorf("renew %s: %w", b, ErrSuperseded)
	}
	return nil
}

// Withdraw removes the worker's row, if it is still this boot's.
func (c *Conn) Withdraw(ctx context.Context, b Boot) error {
	_, err := New(c.conn).Withdraw(ctx, WithdrawParams{Instance: b.Instance, Started: timestamptz(b.Started)})
	if err != nil {
		return fmt.Errorf("withdraw: %w", err)
	}
	return nil
}

// Ensure makes the rows of a role's slots, from 0 to slots-1, that do not exist yet.
func (c *Conn) Ensure(ctx context.Context, role string, slots int) error {
	var err error
	if role == Writer {
		err = New(c.conn).EnsureShards(ctx, int32(slots-1))
	} else {
		err = New(c.conn).EnsureRole(ctx, EnsureRoleParams{Role: role, LastSlot: int32(slots - 1)})
	}
	if err != nil {
		return fmt.Errorf("make the leases of %s: %w", role, err)
	}
	return nil
}

// Observe reads the leases of the roles, and all workers. It fails with [ErrNotPrimary] if this is not, or no longer, the
// session on the primary that it was.
func (c *Conn) Observe(ctx context.Context, roles []string) (Snapshot, error) {
	var s Snapshot
	if _, err := c.primary(ctx); err != nil {
		return s, err
	}
	q := New(c.conn)
	leases, err := q.Leases(ctx, roles)
	if err != nil {
		return s, fmt.Errorf("read leases: %w", err)
	}
	workers, err := q.Workers(ctx)
	if err != nil {
		return s, fmt.Errorf("read workers: %w", err)
	}
	for _, l := range leases {
		s.Leases = append(s.Leases, Row{
			Key: Key{Role: l.Role, Slot: int(l.Slot)}, Epoch: shard.Epoch(l.Epoch), Holder: l.Holder,
			Session: session(l.HolderPid, l.HolderStarted), Address: l.Address,
		})
	}
	for _, w := range workers {
		s.Workers = append(s.Workers, Life{
			Boot:    Boot{Instance: w.Instance, Started: w.Started.Time},
			Counter: w.Counter, Roles: w.Roles, Draining: w.Draining, NATS: w.Nats,
		})
	}
	return s, nil
}

// Claim takes a lease that stands as old says: it ends the old holder's session, for one that is paused in the middle of a
// transaction would keep the row locked, and then changes the row if its epoch is still the same. ok is false if it is
// not, or if the row stayed locked for longer than a claim waits.
func (c *Conn) Claim(ctx context.Context, old Row, holder string, s Session, address string) (epoch shard.Epoch, ok bool, err error) {
	if !old.Session.Same(s) {
		if err := terminate(ctx, c.conn, old.Session); err != nil {
			return 0, false, err
		}
	}
	var raised int64
	if old.Role == Writer {
		raised, err = New(c.conn).ClaimShard(ctx, ClaimShardParams{
			Slot: int16(old.Slot), Epoch: int64(old.Epoch), Holder: holder, Pid: s.PID, Started: timestamptz(s.Started), Address: address,
		})
	} else {
		raised, err = New(c.conn).ClaimRole(ctx, ClaimRoleParams{
			Role: old.Role, Slot: int16(old.Slot), Epoch: int64(old.Epoch), Holder: holder, Pid: s.PID, Started: timestamptz(s.Started),
			Address: address,
		})
	}
	if errors.Is(err, pgx.ErrNoRows) || pg.IsTimeout(err) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("claim %s: %w", old.Key, err)
	}
	return shard.Epoch(raised), true, nil
}

// Release gives a lease away: nobody holds it, and nothing commits any more under its epoch. ok is false if it was no
// longer held under this epoch. A release that waits too long for a transaction is an error, to be tried again.
func (c *Conn) Release(ctx context.Context, k Key, holder string, epoch shard.Epoch) (ok bool, err error) {
	var n int64
	if k.Role == Writer {
		n, err = New(c.conn).ReleaseShard(ctx, ReleaseShardParams{Slot: int16(k.Slot), Epoch: int64(epoch), Holder: holder})
	} else {
		n, err = New(c.conn).ReleaseRole(ctx, ReleaseRoleParams{Role: k.Role, Slot: int16(k.Slot), Epoch: int64(epoch), Holder: holder})
	}
	if err != nil {
		return false, fmt.Errorf("release %s: %w", k, err)
	}
	return n == 1, nil
}
