package roomdb

import (
	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// The functions below queue the statements that write many rows of one type, in the order given. They are called by
// store/commitdb inside its transaction.

// QueueAtoms writes atoms.
func QueueAtoms(b *pgx.Batch, rows []entry.Placed[*Atom]) {
	type placed = *entry.Placed[*Atom]
	b.Queue(insertAtoms,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Nid) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Name }))
}

// QueueRooms writes rooms.
func QueueRooms(b *pgx.Batch, rows []entry.Placed[*Room]) {
	type placed = *entry.Placed[*Room]
	b.Queue(insertRooms,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Nid) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }),
		entry.Column(rows, func(p placed) string { return p.Row.Version }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueEvents writes events.
func QueueEvents(b *pgx.Batch, rows []entry.Placed[*Event]) {
	type placed = *entry.Placed[*Event]
	b.Queue(insertEvents,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Nid) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) *int64 { return p.Row.Order.at(p.Place) }),
		entry.Column(rows, func(p placed) string { return p.Row.EventID }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Type) }),
		entry.Column(rows, func(p placed) *int64 { return (*int64)(p.Row.StateKey) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Sender) }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Depth }),
		entry.Column(rows, func(p placed) int64 { return p.Row.TS }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Flags) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.StateBefore) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.StateAfter) }),
		entry.Column(rows, func(p placed) []byte { return PackNids(p.Row.Extremities) }),
		entry.Column(rows, func(p placed) []byte { return PackNids(p.Row.Prev) }),
		entry.Column(rows, func(p placed) []byte { return PackNids(p.Row.Auth) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Replaces) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.RedactedBy) }),
		entry.Column(rows, func(p placed) *string { return orNull(p.Row.RelatesTo) }),
		entry.Column(rows, func(p placed) *int64 { return (*int64)(orNull(p.Row.RelType)) }),
		entry.Column(rows, func(p placed) *string { return orNull(p.Row.SenderDevice) }),
		entry.Column(rows, func(p placed) *string { return orNull(p.Row.TxnID) }),
		entry.Column(rows, func(p placed) []byte { return notNull(p.Row.Counts) }),
		entry.Column(rows, func(p placed) []byte { return notNull(p.Row.JSON) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Relation) }))
}

// QueueThreadParts notes who takes part in threads.
func QueueThreadParts(b *pgx.Batch, rows []entry.Placed[*ThreadPart]) {
	type placed = *entry.Placed[*ThreadPart]
	type key struct {
		room, sender shard.Nid
		root         string
	}
	rows = entry.LastByKey(rows, func(p entry.Placed[*ThreadPart]) key { return key{p.Row.Room, p.Row.Sender, p.Row.Root} })
	b.Queue(upsertThreadParts,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.Root }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Sender) }),
		entry.Column(rows, func(p placed) *int64 { return p.Row.Order.at(p.Place) }))
}

// QueueEventsPlaced changes the places of stored events.
func QueueEventsPlaced(b *pgx.Batch, rows []entry.Placed[*EventPlaced]) {
	type placed = *entry.Placed[*EventPlaced]
	rows = entry.LastByKey(rows, func(p entry.Placed[*EventPlaced]) shard.Nid { return p.Row.Nid })
	b.Queue(placeEvents,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Nid) }),
		entry.Column(rows, func(p placed) *int64 { return p.Row.Order.at(p.Place) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Flags) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.StateBefore) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.StateAfter) }),
		entry.Column(rows, func(p placed) []byte { return PackNids(p.Row.Extremities) }),
		entry.Column(rows, func(p placed) []byte { return PackNids(p.Row.Prev) }))
}

// QueueRedactions marks events as redacted.
func QueueRedactions(b *pgx.Batch, rows []entry.Placed[*Redaction]) {
	type placed = *entry.Placed[*Redaction]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Redaction]) shard.Nid { return p.Row.Event })
	events := entry.Column(rows, func(p placed) int64 { return int64(p.Row.Event) })
	b.Queue(markRedacted, events, entry.Column(rows, func(p placed) int64 { return int64(p.Row.By) }))
	b.Queue(refreshThreadParts, events)
}

// QueueForkedStates notes the states of rooms that have forks.
func QueueForkedStates(b *pgx.Batch, rows []entry.Placed[*ForkedState]) {
	type placed = *entry.Placed[*ForkedState]
	rows = entry.LastByKey(rows, func(p entry.Placed[*ForkedState]) shard.Nid { return p.Row.Event })
	b.Queue(upsertForkedStates,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Event) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Snapshot) }))
}

// QueueStateSnapshots writes state snapshots.
func QueueStateSnapshots(b *pgx.Batch, rows []entry.Placed[*StateSnapshot]) {
	type placed = *entry.Placed[*StateSnapshot]
	b.Queue(insertStateSnapshots,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Nid) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) int32 { return p.Row.Step }),
		entry.Column(rows, func(p placed) int32 { return p.Row.Entries }),
		entry.Column(rows, func(p placed) []byte { return PackNids(p.Row.Chain) }),
		entry.Column(rows, func(p placed) []byte { return notNull(p.Row.Delta) }))
}

// QueueCurrentState sets and removes entries of current state.
func QueueCurrentState(b *pgx.Batch, rows []entry.Placed[*CurrentState]) {
	type placed = *entry.Placed[*CurrentState]
	type key struct{ room, typ, stateKey shard.Nid }
	rows = entry.LastByKey(rows, func(p entry.Placed[*CurrentState]) key {
		return key{p.Row.Room, p.Row.Type, p.Row.StateKey}
	})
	set := make([]entry.Placed[*CurrentState], 0, len(rows))
	var gone []entry.Placed[*CurrentState]
	for _, r := range rows {
		if r.Row.Event == 0 {
			gone = append(gone, r)
			continue
		}
		set = append(set, r)
	}
	if len(set) > 0 {
		b.Queue(upsertCurrentState,
			entry.Column(set, func(p placed) int64 { return int64(p.Row.Room) }),
			entry.Column(set, func(p placed) int64 { return int64(p.Row.Type) }),
			entry.Column(set, func(p placed) int64 { return int64(p.Row.StateKey) }),
			entry.Column(set, func(p placed) int64 { return int64(p.Row.Event) }),
			entry.Column(set, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
	}
	if len(gone) > 0 {
		b.Queue(deleteCurrentState,
			entry.Column(gone, func(p placed) int64 { return int64(p.Row.Room) }),
			entry.Column(gone, func(p placed) int64 { return int64(p.Row.Type) }),
			entry.Column(gone, func(p placed) int64 { return int64(p.Row.StateKey) }))
	}
}

type memberKey struct {
	room shard.Nid
	user string
}

// QueueMembers sets memberships.
func QueueMembers(b *pgx.Batch, rows []entry.Placed[*Member]) {
	type placed = *entry.Placed[*Member]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Member]) memberKey { return memberKey{p.Row.Room, p.Row.UserID} })
	b.Queue(upsertMembers,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Membership) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Event) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }),
		entry.Column(rows, func(p placed) bool { return p.Row.Local }),
		entry.Column(rows, func(p placed) int16 { return p.Row.PushClass }),
		entry.Column(rows, func(p placed) int64 { return p.Row.PushOffset }),
		entry.Column(rows, func(p placed) int64 {
			if base := p.Row.PushBase.at(p.Place); base != nil {
				return *base
			}
			return 0
		}))
}

// QueueMembersForgotten marks rooms as forgotten.
func QueueMembersForgotten(b *pgx.Batch, rows []entry.Placed[*MemberForgotten]) {
	type placed = *entry.Placed[*MemberForgotten]
	b.Queue(forgetMembers,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }))
}

// QueueReceipts sets receipts.
func QueueReceipts(b *pgx.Batch, rows []entry.Placed[*Receipt]) {
	type placed = *entry.Placed[*Receipt]
	type key struct {
		memberKey
		kind, thread string
	}
	rows = entry.LastByKey(rows, func(p entry.Placed[*Receipt]) key {
		return key{memberKey{p.Row.Room, p.Row.UserID}, p.Row.Kind, p.Row.Thread}
	})
	b.Queue(upsertReceipts,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Kind }),
		entry.Column(rows, func(p placed) string { return p.Row.Thread }),
		entry.Column(rows, func(p placed) string { return p.Row.EventID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.EventOrd }),
		entry.Column(rows, func(p placed) int64 { return p.Row.TS }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueAliases writes aliases.
func QueueAliases(b *pgx.Batch, rows []entry.Placed[*Alias]) {
	type placed = *entry.Placed[*Alias]
	b.Queue(insertAliases,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Alias }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }),
		entry.Column(rows, func(p placed) string { return p.Row.Creator }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueAliasesMoved has aliases lead to other rooms.
func QueueAliasesMoved(b *pgx.Batch, rows []entry.Placed[*AliasMoved]) {
	type placed = *entry.Placed[*AliasMoved]
	b.Queue(moveAliases,
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Alias }),
		entry.Column(rows, func(p placed) string { return p.Row.From }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }))
}

// QueueAliasesGone removes aliases.
func QueueAliasesGone(b *pgx.Batch, rows []entry.Placed[*AliasGone]) {
	type placed = *entry.Placed[*AliasGone]
	b.Queue(deleteAliases,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Alias }))
}

// QueuePublishedRooms lists rooms in the directory.
func QueuePublishedRooms(b *pgx.Batch, rows []entry.Placed[*PublishedRoom]) {
	type placed = *entry.Placed[*PublishedRoom]
	rows = entry.LastByKey(rows, func(p entry.Placed[*PublishedRoom]) shard.Nid { return p.Row.Room })
	b.Queue(upsertPublishedRooms,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueuePublishedRoomsGone takes rooms out of the directory.
func QueuePublishedRoomsGone(b *pgx.Batch, rows []entry.Placed[*PublishedRoomGone]) {
	type placed = *entry.Placed[*PublishedRoomGone]
	b.Queue(deletePublishedRooms, entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }))
}

// orNull stores the zero value as NULL.
func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// notNull stores no bytes as an empty value.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// QueueStateLoads sets many entries of current state each.
func QueueStateLoads(b *pgx.Batch, rows []entry.Placed[*StateLoad]) {
	for i := range rows {
		r := rows[i].Row
		n := len(r.Pairs)
		rooms, types, keys, events, positions := fill(n, int64(r.Room)), make([]int64, n), make([]int64, n), make([]int64, n),
			fill(n, int64(rows[i].Pos(r.Entry)))
		for j, p := range r.Pairs {
			types[j], keys[j], events[j] = p.Key.Type, p.Key.StateKey, p.Event
		}
		b.Queue(upsertCurrentState, rooms, types, keys, events, positions)
	}
}

// QueueMemberLoads sets many memberships each.
func QueueMemberLoads(b *pgx.Batch, rows []entry.Placed[*MemberLoad]) {
	for i := range rows {
		r := rows[i].Row
		n := len(r.Members)
		pos := int64(rows[i].Pos(r.Entry))
		users, memberships, events, local := make([]string, n), make([]int16, n), make([]int64, n), make([]bool, n)
		for j, m := range r.Members {
			users[j], memberships[j], events[j], local[j] = m.UserID, int16(m.Membership), int64(m.Event), m.Local
		}
		b.Queue(upsertMembers, fill(n, int64(r.Room)), users, memberships, events, fill(n, pos), local, make([]int16, n),
			make([]int64, n), fill(n, pos))
	}
}

func fill(n int, v int64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = v
	}
	return out
}
