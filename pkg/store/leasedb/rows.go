package leasedb

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Writer is the role whose slots are the shards. Its leases are rows of shard_lease, all others of role_lease.
const Writer = "writer"

var (
	// ErrSuperseded says that a later start of the same instance has registered: this one must end.
	ErrSuperseded = errors.New("another process has registered under this instance's name")
	// ErrTooOld says that the cluster has taken a feature level that the worker does not read.
	ErrTooOld = errors.New("a later release has taken the database past the point of no return")
	// ErrNotHolder says that the lease is not held under the epoch named.
	ErrNotHolder = errors.New("lease is not held under this epoch")
	// ErrNotPrimary says that the connection reaches a standby, or no longer the session that it began with.
	ErrNotPrimary = errors.New("not one unbroken session on the primary")
)

// Key names a lease: a slot of a role. A shard is a slot of the role [Writer].
type Key struct {
	Role string
	Slot int
}

// ShardKey names the lease of a shard's writer.
func ShardKey(s shard.ID) Key { return Key{Role: Writer, Slot: int(s)} }

// String gives role/slot.
func (k Key) String() string { return k.Role + "/" + strconv.Itoa(k.Slot) }

// Boot is one start of an instance: two processes under one name, one after the other or by mistake at once, are two.
type Boot struct {
	Instance string
	Started  time.Time // what the database gave to this start; only ever compared for equality
}

// String is the form in which a boot stands as holder on a lease row.
func (b Boot) String() string {
	return b.Instance + "#" + strconv.FormatInt(b.Started.UnixMicro(), 36)
}

// InstanceOf gives the instance of a holder; empty if nobody holds.
func InstanceOf(holder string) string {
	if i := strings.LastIndexByte(holder, '#'); i >= 0 {
		return holder[:i]
	}
	return holder
}

// Session names a database session: the start tells it from a later one with the same pid. The zero Session is none.
type Session struct {
	PID     int32
	Started time.Time
}

// Same tells whether both name one session.
func (s Session) Same(o Session) bool {
	return s.PID == o.PID && (s.PID == 0 || s.Started.Equal(o.Started))
}

// Worker is what a worker says of itself when it registers.
type Worker struct {
	Instance    string
	Kind        string
	Address     string
	Version     string
	ProtocolMin int
	ProtocolMax int
	// Roles are those it is there for; it is given leases of these only.
	Roles []string
}

// Status is what a worker says of itself with its renewals.
type Status struct {
	// Draining: it gives its leases away and takes none.
	Draining bool
	// NATS: it has a connection to NATS.
	NATS bool
	// Detail is a JSON object for `heddle status`, or empty.
	Detail json.RawMessage
}

// json gives the form in the row: the detail with two members more.
func (s Status) json() ([]byte, error) {
	m := map[string]any{}
	if len(s.Detail) > 0 {
		if err := json.Unmarshal(s.Detail, &m); err != nil {
			return nil, fmt.Errorf("detail of a worker's status: %w", err)
		}
		if m == nil {
			return nil, errors.New("detail of a worker's status: null is no object")
		}
	}
	m["draining"], m["nats"] = s.Draining, s.NATS
	return json.Marshal(m)
}

// Row is a lease as it stands.
type Row struct {
	Key
	Epoch   shard.Epoch
	Holder  string // a Boot; empty when nobody holds it
	Session Session
	Address string
}

// Life is what others need of a worker's row to tell whether it lives.
type Life struct {
	Boot
	Counter  int64
	Roles    []string
	Draining bool
	NATS     bool
}

// Snapshot is what one look at the database found.
type Snapshot struct {
	Leases  []Row // by role and slot
	Workers []Life
}

func timestamptz(t time.Time) pgtype.Timestamptz {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return pgtype.Timestamptz{Time: t, Valid: true}
}

func session(pid int32, started pgtype.Timestamptz) Session {
	if pid == 0 {
		return Session{}
	}
	return Session{PID: pid, Started: started.Time}
}
