package accountdb

import (
	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
)

// Report is what a user reports: an event of a room, a room, or a user. Of an event, UserID is the sender.
type Report struct {
	Reporter                string
	RoomID, EventID, UserID string
	Reason                  string
	At                      int64 // ms
}

// Cost implements entry.Row.
func (r *Report) Cost() int {
	return 64 + len(r.Reporter) + len(r.RoomID) + len(r.EventID) + len(r.UserID) + len(r.Reason)
}

// QueueReports stores reports.
func QueueReports(b *pgx.Batch, rows []entry.Placed[*Report]) {
	type placed = *entry.Placed[*Report]
	b.Queue(insertReports,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Reporter }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }),
		entry.Column(rows, func(p placed) string { return p.Row.EventID }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Reason }),
		entry.Column(rows, func(p placed) int64 { return p.Row.At }))
}
