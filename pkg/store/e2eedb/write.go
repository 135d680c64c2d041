package e2eedb

import (
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// The functions below queue the statements that write many rows of one type, in the order given. They are called by
// store/commitdb inside its transaction.

type key struct {
	shard         shard.ID
	user, a, b, c string
}

// QueueDeviceKeys sets identity keys.
func QueueDeviceKeys(b *pgx.Batch, rows []entry.Placed[*DeviceKey]) {
	type placed = *entry.Placed[*DeviceKey]
	rows = entry.LastByKey(rows, func(p entry.Placed[*DeviceKey]) key {
		return key{shard: p.Shard, user: p.Row.UserID, a: p.Row.DeviceID}
	})
	b.Queue(upsertDeviceKeys,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) []byte { return p.Row.JSON }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueOneTimeKeys adds one-time keys.
func QueueOneTimeKeys(b *pgx.Batch, rows []entry.Placed[*OneTimeKey]) {
	type placed = *entry.Placed[*OneTimeKey]
	b.Queue(insertOneTimeKeys,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) string { return p.Row.Algorithm }),
		entry.Column(rows, func(p placed) string { return p.Row.KeyID }),
		entry.Column(rows, func(p placed) []byte { return p.Row.JSON }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueOneTimeKeysGone removes one-time keys, and notes that they were handed out.
func QueueOneTimeKeysGone(b *pgx.Batch, rows []entry.Placed[*OneTimeKeyGone]) {
	type placed = *entry.Placed[*OneTimeKeyGone]
	b.Queue(spendOneTimeKeys,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) string { return p.Row.Algorithm }),
		entry.Column(rows, func(p placed) string { return p.Row.KeyID }))
}

// QueueSpentKeysForgotten removes what is noted of keys that were handed out.
func QueueSpentKeysForgotten(b *pgx.Batch, rows []entry.Placed[*SpentKeysForgotten]) {
	type placed = *entry.Placed[*SpentKeysForgotten]
	b.Queue(deleteSpentKeys,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }))
}

// QueueFallbackKeys sets fallback keys.
func QueueFallbackKeys(b *pgx.Batch, rows []entry.Placed[*FallbackKey]) {
	type placed = *entry.Placed[*FallbackKey]
	rows = entry.LastByKey(rows, func(p entry.Placed[*FallbackKey]) key {
		return key{shard: p.Shard, user: p.Row.UserID, a: p.Row.DeviceID, b: p.Row.Algorithm}
	})
	b.Queue(upsertFallbackKeys,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) string { return p.Row.Algorithm }),
		entry.Column(rows, func(p placed) string { return p.Row.KeyID }),
		entry.Column(rows, func(p placed) []byte { return p.Row.JSON }),
		entry.Column(rows, func(p placed) bool { return p.Row.Used }))
}

// QueueCrossSigningKeys sets cross-signing keys.
func QueueCrossSigningKeys(b *pgx.Batch, rows []entry.Placed[*CrossSigningKey]) {
	type placed = *entry.Placed[*CrossSigningKey]
	rows = entry.LastByKey(rows, func(p entry.Placed[*CrossSigningKey]) key {
		return key{shard: p.Shard, user: p.Row.UserID, a: p.Row.Usage}
	})
	b.Queue(upsertCrossSigningKeys,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Usage }),
		entry.Column(rows, func(p placed) []byte { return p.Row.JSON }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueKeySignatures sets signatures under keys of others.
func QueueKeySignatures(b *pgx.Batch, rows []entry.Placed[*KeySignature]) {
	type placed = *entry.Placed[*KeySignature]
	rows = entry.LastByKey(rows, func(p entry.Placed[*KeySignature]) key {
		return key{shard: p.Shard, user: p.Row.UserID, a: p.Row.Target, b: p.Row.TargetKey, c: p.Row.KeyID}
	})
	b.Queue(upsertKeySignatures,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.Target }),
		entry.Column(rows, func(p placed) string { return p.Row.TargetKey }),
		entry.Column(rows, func(p placed) string { return p.Row.KeyID }),
		entry.Column(rows, func(p placed) string { return p.Row.Signature }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueToDevice adds messages to devices.
func QueueToDevice(b *pgx.Batch, rows []entry.Placed[*ToDevice]) {
	type placed = *entry.Placed[*ToDevice]
	b.Queue(insertToDevice,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.JSON }))
}

// QueueToDeviceGone removes messages to devices.
func QueueToDeviceGone(b *pgx.Batch, rows []entry.Placed[*ToDeviceGone]) {
	type placed = *entry.Placed[*ToDeviceGone]
	b.Queue(deleteToDeviceUpTo,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Upto }))
}

// QueueDehydrated sets dehydrated devices.
func QueueDehydrated(b *pgx.Batch, rows []entry.Placed[*Dehydrated]) {
	type placed = *entry.Placed[*Dehydrated]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Dehydrated]) key {
		return key{shard: p.Shard, user: p.Row.UserID, a: ""}
	})
	b.Queue(upsertDehydrated,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Data }))
}

// QueueBackupVersions makes and changes versions of backups.
func QueueBackupVersions(b *pgx.Batch, rows []entry.Placed[*BackupVersion]) {
	type placed = *entry.Placed[*BackupVersion]
	rows = entry.LastByKey(rows, func(p entry.Placed[*BackupVersion]) key {
		return key{shard: p.Shard, user: p.Row.UserID, a: strconv.FormatInt(p.Row.Version, 10)}
	})
	b.Queue(upsertBackupVersions,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Version }),
		entry.Column(rows, func(p placed) string { return p.Row.Algorithm }),
		entry.Column(rows, func(p placed) []byte { return p.Row.AuthData }),
		entry.Column(rows, func(p placed) int64 { return p.Row.ETag }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Count }),
		entry.Column(rows, func(p placed) bool { return p.Row.Deleted }))
}

// QueueBackupKeys sets keys of backups.
func QueueBackupKeys(b *pgx.Batch, rows []entry.Placed[*BackupKey]) {
	type placed = *entry.Placed[*BackupKey]
	rows = entry.LastByKey(rows, func(p entry.Placed[*BackupKey]) key {
		return key{shard: p.Shard, user: p.Row.UserID, a: strconv.FormatInt(p.Row.Version, 10), b: p.Row.RoomID, c: p.Row.SessionID}
	})
	b.Queue(upsertBackupKeys,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Version }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }),
		entry.Column(rows, func(p placed) string { return p.Row.SessionID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.FirstIndex }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Forwarded }),
		entry.Column(rows, func(p placed) bool { return p.Row.Verified }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Data }))
}

// QueueBackupKeysGone removes keys of backups.
func QueueBackupKeysGone(b *pgx.Batch, rows []entry.Placed[*BackupKeysGone]) {
	for _, p := range rows {
		b.Queue(deleteBackupKeys, int16(p.Shard), p.Row.UserID, p.Row.Version, p.Row.RoomID, p.Row.SessionID, int32(p.Row.Most))
	}
}
