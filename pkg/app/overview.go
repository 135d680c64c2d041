package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/fleet/members"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/fleetdb"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/store/logdb"
)

// Overview is a homeserver as its database shows it. Its JSON is what programs may rely on: fields are added and not changed.
type Overview struct {
	ServerName   string `json:"server_name"`
	FeatureLevel int32  `json:"feature_level"`
	// FeatureLevelHeldBy are the workers of an earlier release than others, without which the level would be higher.
	FeatureLevelHeldBy []string         `json:"feature_level_held_by"`
	Incarnation        IncarnationState `json:"incarnation"`
	Database           DatabaseState    `json:"database"`
	Workers            []WorkerState    `json:"workers"`
	Shards             []ShardState     `json:"shards"`
	// Roles are the leases on other things than shards.
	Roles []RoleState `json:"roles"`
	// Consumers are the durable followers of the log.
	Consumers []ConsumerState `json:"consumers"`
	// Problems says what is not as it should be, a line each.
	Problems []string `json:"problems"`
}

// IncarnationState is which history of the database this is; Number is 0 before anything was written.
type IncarnationState struct {
	Number uint32 `json:"number"`
	// Count is how many there have been: more than one after a failover or a restore.
	Count int `json:"count"`
}

// DatabaseState is the server that holds it all.
type DatabaseState struct {
	Version           string            `json:"version"`
	InRecovery        bool              `json:"in_recovery"`
	Bytes             int64             `json:"bytes"`
	SynchronousCommit string            `json:"synchronous_commit"`
	Standbys          []fleetdb.Standby `json:"standbys"`
	// Survives tells whether what was acknowledged survives the loss of the primary: yes, no, or unknown if the database does
	// not let us see.
	Survives string `json:"acknowledged_survives_failover"`
}

// WorkerState is a row of the register.
type WorkerState struct {
	Instance string   `json:"instance"`
	Kind     string   `json:"kind"`
	Address  string   `json:"address"`
	Version  string   `json:"version"`
	Protocol [2]int32 `json:"protocol"`
	Roles    []string `json:"roles"`
	// State is ready, not ready, draining, or silent if it did not renew while we looked.
	State      string `json:"state"`
	NATS       bool   `json:"nats"`
	UpSeconds  int64  `json:"up_seconds"`
	Lag        int64  `json:"lag_positions"`
	Memory     int64  `json:"memory_bytes"`
	CPUSeconds int64  `json:"cpu_seconds"`
	// Positions is how far it has followed each shard's log.
	Positions shard.Vector `json:"positions"`
	// StatusError is why the rest is not known, if it is not.
	StatusError string `json:"status_error,omitempty"`
}

// ShardState is who writes a shard, and how far its log reaches.
type ShardState struct {
	Shard   int         `json:"shard"`
	Owner   string      `json:"owner"` // empty: nobody
	Address string      `json:"address"`
	Epoch   shard.Epoch `json:"epoch"`
	Head    shard.Pos   `json:"head"`
	// Trimmed is the position up to which entries were removed.
	Trimmed shard.Pos `json:"trimmed"`
}

// RoleState is the lease on a role.
type RoleState struct {
	Role  string      `json:"role"`
	Slot  int         `json:"slot"`
	Owner string      `json:"owner"`
	Epoch shard.Epoch `json:"epoch"`
}

// ConsumerState is how far a durable consumer is.
type ConsumerState struct {
	Consumer  string       `json:"consumer"`
	Positions shard.Vector `json:"positions"`
	Lag       int64        `json:"lag_positions"`
}

// States of workers.
const (
	stateReady    = "ready"
	stateNotReady = "not ready"
	stateDraining = "draining"
	stateSilent   = "silent"
)

// How long a worker that does not renew is looked at before it is called silent: it renews twice a second.
const (
	lookFor   = 3 * time.Second
	lookEvery = 250 * time.Millisecond
)

// ReadOverview looks at the database of a homeserver, for as long as it takes to see each worker renew: 3 s at most.
func ReadOverview(ctx context.Context, cfg config.Config) (*Overview, error) {
	o, err := openOperator(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer o.close()
	v := &Overview{
		ServerName: cfg.ServerName, Workers: []WorkerState{}, Shards: []ShardState{}, Roles: []RoleState{},
		Consumers: []ConsumerState{}, Problems: []string{}, FeatureLevelHeldBy: []string{},
	}
	for _, read := range []func(context.Context, *Overview) error{o.readDatabase, o.readWorkers, o.readLog, o.readLeases} {
		if err := read(ctx, v); err != nil {
			return nil, err
		}
	}
	v.judge()
	return v, nil
}

func (o *operator) readDatabase(ctx context.Context, v *Overview) error {
	q := fleetdb.New(o.db.Primary)
	c, err := q.GetCluster(ctx)
	if err != nil {
		return fmt.Errorf("read the cluster: %w", err)
	}
	v.FeatureLevel = c.FeatureLevel
	s, err := q.ServerState(ctx)
	if err != nil {
		return fmt.Errorf("read the state of the database: %w", err)
	}
	standbys := []fleetdb.Standby{}
	if !s.InRecovery {
		if standbys, err = q.Standbys(ctx); err != nil {
			return err
		}
	}
	v.Database = DatabaseState{
		Version: s.Version, InRecovery: s.InRecovery, Bytes: s.SizeBytes, SynchronousCommit: s.SynchronousCommit,
		Standbys: standbys, Survives: survives(s.SynchronousCommit, s.SynchronousStandbyNames, standbys),
	}
	return nil
}

// survives tells whether a commit waits for a standby.
func survives(commit, names string, standbys []fleetdb.Standby) string {
	if strings.TrimSpace(names) == "" || commit == "off" || commit == "local" {
		return "no"
	}
	hidden := false
	for _, s := range standbys {
		if s.Sync == "sync" || s.Sync == "quorum" {
			return "yes"
		}
		hidden = hidden || s.Sync == ""
	}
	if hidden {
		return "unknown"
	}
	return "yes" // no standby is there, so commits wait for one
}

// readWorkers looks until each worker has renewed, or for lookFor.
func (o *operator) readWorkers(ctx context.Context, v *Overview) error {
	q := fleetdb.New(o.db.Primary)
	first := map[string]int64{}
	deadline := time.Now().Add(lookFor)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		rows, err := q.WorkersUp(ctx)
		if err != nil {
			return fmt.Errorf("read the register of workers: %w", err)
		}
		still := map[string]bool{}
		for _, r := range rows {
			before, seen := first[r.Instance]
			if !seen {
				first[r.Instance] = r.Counter
			}
			if !seen || before == r.Counter {
				still[r.Instance] = true
			}
		}
		if len(still) == 0 || time.Now().After(deadline) {
			for i := range rows {
				v.Workers = append(v.Workers, workerState(&rows[i], still[rows[i].Instance]))
			}
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func workerState(r *fleetdb.WorkersUpRow, silent bool) WorkerState {
	st, err := members.ParseStatus(r.Status)
	w := WorkerState{
		Instance: r.Instance, Kind: r.Kind, Address: r.Address, Version: r.Version, Protocol: [2]int32{r.ProtocolMin, r.ProtocolMax},
		Roles: r.Roles, State: stateReady, NATS: st.NATS, UpSeconds: int64(r.UpSeconds), Lag: st.Lag, Memory: st.Memory,
		CPUSeconds: int64(st.CPU), Positions: st.Positions,
	}
	if err != nil {
		w.StatusError = err.Error()
	}
	switch {
	case silent:
		w.State = stateSilent
	case st.Draining:
		w.State = stateDraining
	case st.NotReady:
		w.State = stateNotReady
	}
	return w
}

func (o *operator) readLog(ctx context.Context, v *Overview) error {
	logs := logdb.NewDB(o.db, o.shards.Count())
	history, err := logs.History(ctx)
	if err != nil {
		return err
	}
	now, _ := history.Current()
	v.Incarnation = IncarnationState{Number: now.Number, Count: len(history)}
	q := logdb.New(o.db.Primary)
	cursors, err := q.Cursors(ctx) // before the heads: what is behind is never more than it says
	if err != nil {
		return fmt.Errorf("read cursors: %w", err)
	}
	heads, err := logs.Heads(ctx)
	if err != nil {
		return err
	}
	for s, head := range heads.Positions {
		v.Shards = append(v.Shards, ShardState{Shard: s, Head: head})
	}
	floors, err := q.Floors(ctx)
	if err != nil {
		return fmt.Errorf("read floors: %w", err)
	}
	for _, f := range floors {
		if int(f.Shard) < len(v.Shards) {
			v.Shards[f.Shard].Trimmed = shard.Pos(f.Pos)
		}
	}
	for _, c := range cursors {
		if int(c.Shard) >= len(heads.Positions) {
			continue
		}
		n := len(v.Consumers)
		if n == 0 || v.Consumers[n-1].Consumer != c.Consumer {
			v.Consumers = append(v.Consumers, ConsumerState{Consumer: c.Consumer, Positions: make(shard.Vector, len(heads.Positions))})
			n++
		}
		at := &v.Consumers[n-1]
		at.Positions[c.Shard] = shard.Pos(c.Pos)
		from := shard.Pos(c.Pos)
		if int(c.Shard) < len(now.Began) { // nothing is between the end of one incarnation and the start of the next
			from = max(from, now.Start(shard.ID(c.Shard)))
		}
		at.Lag += int64(max(0, heads.Positions[c.Shard]-from))
	}
	return nil
}

func (o *operator) readLeases(ctx context.Context, v *Overview) error {
	rows, err := leasedb.New(o.db.Primary).AllLeases(ctx)
	if err != nil {
		return fmt.Errorf("read leases: %w", err)
	}
	for _, r := range rows {
		owner := leasedb.InstanceOf(r.Holder)
		switch {
		case r.Role != leasedb.Writer:
			v.Roles = append(v.Roles, RoleState{Role: r.Role, Slot: int(r.Slot), Owner: owner, Epoch: shard.Epoch(r.Epoch)})
		case int(r.Slot) < len(v.Shards):
			s := &v.Shards[r.Slot]
			s.Owner, s.Address, s.Epoch = owner, r.Address, shard.Epoch(r.Epoch)
		}
	}
	return nil
}

// laggard is from how many entries behind on a follower is worth a word.
const laggard = 1000

// judge says what is not as it should be.
func (v *Overview) judge() {
	say := func(format string, args ...any) { v.Problems = append(v.Problems, fmt.Sprintf(format, args...)) }
	if v.Database.InRecovery {
		say("database.dsn leads to a standby: nothing can be written")
	}
	newest := v.FeatureLevel
	for _, w := range v.Workers {
		newest = max(newest, w.Protocol[1])
	}
	for _, w := range v.Workers {
		switch reads := w.Protocol[1]; {
		case reads < v.FeatureLevel:
			say("worker %s reads feature level %d only", w.Instance, reads)
		case reads < newest && reads == v.FeatureLevel:
			v.FeatureLevelHeldBy = append(v.FeatureLevelHeldBy, w.Instance)
		}
		if w.StatusError != "" {
			say("worker %s: %s", w.Instance, w.StatusError)
			continue
		}
		if w.State != stateReady {
			say("worker %s is %s", w.Instance, w.State)
		}
		if !w.NATS && w.State != stateSilent {
			say("worker %s is not connected to NATS", w.Instance)
		}
		if w.Lag >= laggard {
			say("worker %s is %d entries behind the log", w.Instance, w.Lag)
		}
	}
	for _, k := range []string{string(Master), string(Synchrotron), string(FederationReader)} {
		if !slices.ContainsFunc(v.Workers, func(w WorkerState) bool {
			return (w.Kind == k || w.Kind == string(AllInOne)) && w.State != stateSilent
		}) {
			say("no %s lives", k)
		}
	}
	for _, s := range v.Shards {
		i := slices.IndexFunc(v.Workers, func(w WorkerState) bool { return w.Instance == s.Owner })
		switch {
		case s.Owner == "":
			say("nobody writes shard %d", s.Shard)
		case i < 0 || v.Workers[i].State == stateSilent:
			say("shard %d is held by %s, which is not there", s.Shard, s.Owner)
		}
	}
	for _, c := range v.Consumers {
		if c.Lag >= laggard {
			say("consumer %s is %d entries behind the log", c.Consumer, c.Lag)
		}
	}
}
