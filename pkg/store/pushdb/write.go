package pushdb

import (
	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// The functions below queue the statements that write many rows of one type, in the order given. They are called by
// store/commitdb inside its transaction.

// QueueTallies writes running counts.
func QueueTallies(b *pgx.Batch, rows []entry.Placed[*Tally]) {
	type placed = *entry.Placed[*Tally]
	b.Queue(insertTallies,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.Thread }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Flags) }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Running.All.Notify }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Running.All.Highlight }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Running.Some.Notify }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Running.Some.Highlight }))
}

type threadKey struct {
	room         shard.Nid
	user, thread string
}

// QueueThreads notes the threads in which something counts.
func QueueThreads(b *pgx.Batch, rows []entry.Placed[*Thread]) {
	type placed = *entry.Placed[*Thread]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Thread]) threadKey { return threadKey{room: p.Row.Room, thread: p.Row.Thread} })
	b.Queue(upsertThreads,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.Thread }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueExceptions writes exceptions.
func QueueExceptions(b *pgx.Batch, rows []entry.Placed[*Exception]) {
	type placed = *entry.Placed[*Exception]
	b.Queue(insertExceptions,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }),
		entry.Column(rows, func(p placed) string { return p.Row.Thread }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Beyond.Notify) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Beyond.Highlight) }))
}

// QueueCorrections writes corrections; what is corrected stays as it is.
func QueueCorrections(b *pgx.Batch, rows []entry.Placed[*Correction]) {
	type placed = *entry.Placed[*Correction]
	b.Queue(insertCorrections,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) int64 {
			if p.Row.Back != 0 {
				return int64(p.Pos(p.Row.Entry - p.Row.Back))
			}
			return p.Row.Ord
		}),
		entry.Column(rows, func(p placed) string { return p.Row.Thread }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Flags) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueClasses sets users' classes.
func QueueClasses(b *pgx.Batch, rows []entry.Placed[*SetClass]) {
	type placed = *entry.Placed[*SetClass]
	type key struct {
		threadKey
		pos shard.Pos
	}
	rows = entry.LastByKey(rows, func(p entry.Placed[*SetClass]) key {
		return key{threadKey{room: p.Row.Room, user: p.Row.UserID}, p.Pos(p.Row.Entry)}
	})
	b.Queue(insertClasses,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Class) }))
}

// QueueSent notes where users have said something.
func QueueSent(b *pgx.Batch, rows []entry.Placed[*Sent]) {
	type placed = *entry.Placed[*Sent]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Sent]) threadKey { return threadKey{p.Row.Room, p.Row.UserID, p.Row.Thread} })
	b.Queue(upsertSent,
		entry.Column(rows, func(p placed) int64 { return int64(p.Row.Room) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Thread }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}
