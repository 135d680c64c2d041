package e2eedb

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Reader reads the rows of this package. It works on whatever it is given: a pool of the primary or of a replica, or a
// transaction.
type Reader struct{ q *Queries }

// NewReader makes a Reader over a pool, connection or transaction.
func NewReader(db DBTX) *Reader { return &Reader{q: New(db)} }

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// Device is a device with its keys; JSON is nil if it has none.
type Device struct {
	UserID, DeviceID, DisplayName string
	JSON                          []byte
}

// where gives the shards of users, as a column.
func where(m shard.Map, users []string) []int16 {
	out := make([]int16, len(users))
	for i, u := range users {
		out[i] = int16(m.OfUser(u))
	}
	return out
}

// Devices reads the devices of users, in the order of users and devices.
func (r *Reader) Devices(ctx context.Context, m shard.Map, users []string) ([]Device, error) {
	rows, err := r.q.ListDevicesOf(ctx, ListDevicesOfParams{Shard: where(m, users), UserID: users})
	out := make([]Device, len(rows))
	for i, d := range rows {
		out[i] = Device{UserID: d.UserID, DeviceID: d.DeviceID, DisplayName: d.DisplayName, JSON: d.Json}
	}
	return out, failed("devices", err)
}

// CrossSigning reads the cross-signing keys of users.
func (r *Reader) CrossSigning(ctx context.Context, m shard.Map, users []string) ([]CrossSigningKey, error) {
	rows, err := r.q.ListCrossSigningOf(ctx, ListCrossSigningOfParams{Shard: where(m, users), UserID: users})
	out := make([]CrossSigningKey, len(rows))
	for i, c := range rows {
		out[i] = CrossSigningKey{UserID: c.UserID, Usage: c.Usage, JSON: c.Json}
	}
	return out, failed("cross-signing keys", err)
}

// SignaturesBy reads a user's signatures under the keys of others.
func (r *Reader) SignaturesBy(ctx context.Context, m shard.Map, user string, targets []string) ([]KeySignature, error) {
	rows, err := r.q.ListSignaturesBy(ctx, ListSignaturesByParams{Shard: int16(m.OfUser(user)), UserID: user, Targets: targets})
	out := make([]KeySignature, len(rows))
	for i, s := range rows {
		out[i] = KeySignature{UserID: user, Target: s.Target, TargetKey: s.TargetKey, KeyID: s.KeyID, Signature: s.Signature}
	}
	return out, failed("signatures", err)
}

// DeviceName is the name of a device, with its user's.
type DeviceName struct{ UserID, DeviceID string }

// DeviceNames reads which devices users of one shard have.
func (r *Reader) DeviceNames(ctx context.Context, s shard.ID, users []string) ([]DeviceName, error) {
	rows, err := r.q.ListDeviceNames(ctx, ListDeviceNamesParams{Shard: int16(s), Users: users})
	out := make([]DeviceName, len(rows))
	for i, d := range rows {
		out[i] = DeviceName(d)
	}
	return out, failed("devices", err)
}

// ListPos reads when a user's device list last changed; 0 if never.
func (r *Reader) ListPos(ctx context.Context, s shard.ID, user string) (shard.Pos, error) {
	pos, err := r.q.GetDeviceListPos(ctx, GetDeviceListPosParams{Shard: int16(s), UserID: user})
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return shard.Pos(pos), failed("device list", err)
}

// OneTimeKeys reads a device's one-time keys, and those that have been handed out since it last uploaded others.
func (r *Reader) OneTimeKeys(ctx context.Context, s shard.ID, user, device string) (left, spent []OneTimeKey, err error) {
	rows, err := r.q.ListOneTimeKeys(ctx, ListOneTimeKeysParams{Shard: int16(s), UserID: user, DeviceID: device})
	for _, k := range rows {
		key := OneTimeKey{UserID: user, DeviceID: device, Algorithm: k.Algorithm, KeyID: k.KeyID, JSON: k.Json}
		if k.Spent {
			spent = append(spent, key)
		} else {
			left = append(left, key)
		}
	}
	return left, spent, failed("one-time keys", err)
}

// KeyCount is how many one-time keys of an algorithm a device has.
type KeyCount struct {
	UserID, DeviceID, Algorithm string
	N                           int64
}

// Counts counts the one-time keys of devices of one shard; what has none is left out.
func (r *Reader) Counts(ctx context.Context, s shard.ID, devices []DeviceName) ([]KeyCount, error) {
	p := CountOneTimeKeysParams{Shard: int16(s)}
	p.UserID, p.DeviceID = columns(devices)
	rows, err := r.q.CountOneTimeKeys(ctx, p)
	out := make([]KeyCount, len(rows))
	for i, c := range rows {
		out[i] = KeyCount(c)
	}
	return out, failed("one-time keys", err)
}

func columns(devices []DeviceName) (users, ids []string) {
	for _, d := range devices {
		users, ids = append(users, d.UserID), append(ids, d.DeviceID)
	}
	return users, ids
}

// FallbackKeys reads the fallback keys of devices of one shard.
func (r *Reader) FallbackKeys(ctx context.Context, s shard.ID, devices []DeviceName) ([]FallbackKey, error) {
	p := ListFallbackKeysParams{Shard: int16(s)}
	p.UserID, p.DeviceID = columns(devices)
	rows, err := r.q.ListFallbackKeys(ctx, p)
	out := make([]FallbackKey, len(rows))
	for i, k := range rows {
		out[i] = FallbackKey{
			UserID: k.UserID, DeviceID: k.DeviceID, Algorithm: k.Algorithm, KeyID: k.KeyID, JSON: k.Json, Used: k.Used,
		}
	}
	return out, failed("fallback keys", err)
}

// Wanted names an algorithm of which a key of a device is wanted.
type Wanted struct{ UserID, DeviceID, Algorithm string }

// Oldest reads the oldest one-time key of each that is wanted, as far as there is one. No two may be the same.
func (r *Reader) Oldest(ctx context.Context, s shard.ID, wanted []Wanted) ([]OneTimeKey, error) {
	p := OldestOneTimeKeysParams{Shard: int16(s)}
	for _, w := range wanted {
		p.UserID, p.DeviceID, p.Algorithm = append(p.UserID, w.UserID), append(p.DeviceID, w.DeviceID), append(p.Algorithm, w.Algorithm)
	}
	rows, err := r.q.OldestOneTimeKeys(ctx, p)
	out := make([]OneTimeKey, len(rows))
	for i, k := range rows {
		out[i] = OneTimeKey{UserID: k.UserID, DeviceID: k.DeviceID, Algorithm: k.Algorithm, KeyID: k.KeyID, JSON: k.Json}
	}
	return out, failed("one-time keys", err)
}

// Message is a message to a device.
type Message struct {
	Pos  shard.Pos
	JSON []byte
}

// Messages reads the oldest messages to a device after a position and up to another.
func (r *Reader) Messages(ctx context.Context, s shard.ID, user, device string, above, upto shard.Pos, most int) ([]Message, error) {
	rows, err := r.q.ListToDevice(ctx, ListToDeviceParams{
		Shard: int16(s), UserID: user, DeviceID: device, Above: int64(above), Upto: int64(upto), Most: int32(most),
	})
	out := make([]Message, len(rows))
	for i, m := range rows {
		out[i] = Message{shard.Pos(m.Pos), m.Json}
	}
	return out, failed("messages to a device", err)
}

// HasMessages tells whether there are messages to a device up to a position.
func (r *Reader) HasMessages(ctx context.Context, s shard.ID, user, device string, upto shard.Pos) (bool, error) {
	has, err := r.q.HasToDeviceUpTo(ctx, HasToDeviceUpToParams{Shard: int16(s), UserID: user, DeviceID: device, Pos: int64(upto)})
	return has, failed("messages to a device", err)
}

// Overflow tells up to where messages are to go for the rest to be at most keep, and keepBytes: of those of the devices that have too many.
func (r *Reader) Overflow(ctx context.Context, s shard.ID, devices []DeviceName, keep, keepBytes int64) ([]ToDeviceGone, error) {
	p := ToDeviceOverflowParams{Shard: int16(s), Keep: keep, KeepBytes: keepBytes}
	p.UserID, p.DeviceID = columns(devices)
	rows, err := r.q.ToDeviceOverflow(ctx, p)
	out := make([]ToDeviceGone, len(rows))
	for i, x := range rows {
		out[i] = ToDeviceGone{UserID: x.UserID, DeviceID: x.DeviceID, Upto: x.Pos}
	}
	return out, failed("messages to devices", err)
}

// Dehydrated reads a user's dehydrated device.
func (r *Reader) Dehydrated(ctx context.Context, s shard.ID, user string) (d Dehydrated, ok bool, err error) {
	row, err := r.q.GetDehydrated(ctx, GetDehydratedParams{Shard: int16(s), UserID: user})
	if errors.Is(err, pgx.ErrNoRows) {
		return d, false, nil
	}
	return Dehydrated{UserID: user, DeviceID: row.DeviceID, Data: row.Data}, err == nil, failed("dehydrated device", err)
}

// Backup reads a version of a user's key backup, also one that was deleted.
func (r *Reader) Backup(ctx context.Context, s shard.ID, user string, version int64) (b BackupVersion, ok bool, err error) {
	row, err := r.q.GetBackupVersion(ctx, GetBackupVersionParams{Shard: int16(s), UserID: user, Version: version})
	return backup(user, GetLatestBackupVersionRow(row), err)
}

// LatestBackup reads the latest version; alsoDeleted counts those that were deleted.
func (r *Reader) LatestBackup(ctx context.Context, s shard.ID, user string, alsoDeleted bool) (b BackupVersion, ok bool, err error) {
	row, err := r.q.GetLatestBackupVersion(ctx, GetLatestBackupVersionParams{Shard: int16(s), UserID: user, AlsoDeleted: alsoDeleted})
	return backup(user, row, err)
}

func backup(user string, row GetLatestBackupVersionRow, err error) (BackupVersion, bool, error) {
	if errors.Is(err, pgx.ErrNoRows) {
		return BackupVersion{}, false, nil
	}
	return BackupVersion{
		UserID: user, Version: row.Version, Algorithm: row.Algorithm, AuthData: row.AuthData, ETag: row.Etag, Count: row.Count,
		Deleted: row.Deleted,
	}, err == nil, failed("key backup", err)
}

// BackupVersions counts the versions of a user's key backup.
func (r *Reader) BackupVersions(ctx context.Context, s shard.ID, user string) (int64, error) {
	n, err := r.q.CountBackupVersions(ctx, CountBackupVersionsParams{Shard: int16(s), UserID: user})
	return n, failed("key backups", err)
}

// SessionName names a session of a room.
type SessionName struct{ Room, Session string }

// BackupKeys reads most keys of a backup after a session, in the order of rooms and sessions: of a room or session if these are not empty.
func (r *Reader) BackupKeys(ctx context.Context, s shard.ID, user string, version int64, of, after SessionName, most int) ([]BackupKey, error) {
	rows, err := r.q.ListBackupKeys(ctx, ListBackupKeysParams{
		Shard: int16(s), UserID: user, Version: version, RoomID: of.Room, SessionID: of.Session, AfterRoom: after.Room,
		AfterSession: after.Session, Most: int32(most),
	})
	out := make([]BackupKey, len(rows))
	for i, k := range rows {
		out[i] = backupKey(user, version, k)
	}
	return out, failed("key backup", err)
}

func backupKey(user string, version int64, k ListBackupKeysRow) BackupKey {
	return BackupKey{
		UserID: user, Version: version, RoomID: k.RoomID, SessionID: k.SessionID, FirstIndex: k.FirstIndex,
		Forwarded: k.Forwarded, Verified: k.Verified, Data: k.Data,
	}
}

// BackupKeysAmong reads those of the named sessions that are in a backup. Rooms and sessions go together by index.
func (r *Reader) BackupKeysAmong(ctx context.Context, s shard.ID, user string, version int64, rooms, sessions []string) ([]BackupKey, error) {
	rows, err := r.q.ListBackupKeysAmong(ctx, ListBackupKeysAmongParams{
		Shard: int16(s), UserID: user, Version: version, RoomID: rooms, SessionID: sessions,
	})
	out := make([]BackupKey, len(rows))
	for i, k := range rows {
		out[i] = backupKey(user, version, ListBackupKeysRow(k))
	}
	return out, failed("key backup", err)
}

// CountBackupKeys counts keys of a backup, up to most, of a room or session if these are not empty.
func (r *Reader) CountBackupKeys(ctx context.Context, s shard.ID, user string, version int64, room, session string, most int) (int64, error) {
	n, err := r.q.CountBackupKeys(ctx, CountBackupKeysParams{
		Shard: int16(s), UserID: user, Version: version, RoomID: room, SessionID: session, Most: int32(most),
	})
	return n, failed("key backup", err)
}
