package room

import (
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/stateres"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// snapshots is the chain of stored states that the next one may be laid over: a full one, and then ever smaller steps up to
// the latest. The steps are those of a Fenwick tree: step k is laid over step k without its lowest set bit, so that a
// state is read by as many rows as its step has bits, and a change is written again in at most as many. The
// slice is never changed, only replaced.
type snapshots []roomdb.Snapshot

// state is the latest state; the empty one before the first.
func (s snapshots) state() stateres.State {
	if len(s) == 0 {
		return stateres.State{}
	}
	return s[len(s)-1].State
}

// nid is the latest state's, 0 for the empty state.
func (s snapshots) nid() shard.Nid {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].Nid
}

// fewestSteps is how many steps there are at least between full snapshots.
const fewestSteps = 16

// push adds a state, and gives the row that stores it: in full if as much as that was written in deltas since the last
// full one.
func (s snapshots) push(nid, room shard.Nid, state stateres.State) (snapshots, *roomdb.StateSnapshot) {
	row := &roomdb.StateSnapshot{Nid: nid, Room: room, Entries: int32(state.Len())}
	var base snapshots
	if len(s) > 0 {
		if step := s[len(s)-1].Step + 1; step < fewestSteps || written(step) <= int64(state.Len()) {
			row.Step = step
			parent := step & (step - 1)
			n := slices.IndexFunc(s, func(l roomdb.Snapshot) bool { return l.Step == parent })
			base = s[:n+1]
		}
	}
	var changes []stateres.Pair
	stateres.Diff(base.state(), state, func(k stateres.Key, _, now int64) {
		changes = append(changes, stateres.Pair{Key: k, Event: now})
	})
	row.Delta = roomdb.AppendDelta(nil, changes)
	for _, l := range base {
		row.Chain = append(row.Chain, l.Nid)
	}
	return append(slices.Clip(slices.Clone(base)), roomdb.Snapshot{Nid: nid, Step: row.Step, State: state}), row
}

// written gives how many changes the deltas of steps 1 to k hold together, if each step changes one entry: step i holds as many
// as the value of its lowest set bit.
func written(k int32) int64 {
	var sum int64
	for bit := int64(1); bit <= int64(k); bit <<= 1 {
		sum += (int64(k) + bit) / (2 * bit) * bit
	}
	return sum
}
