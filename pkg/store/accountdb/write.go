package accountdb

import (
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// The functions below queue the statements that write many rows of one type, in the order given. They are called by
// store/commitdb inside its transaction.

// QueueAccounts writes accounts: new ones, which must not exist, and then changes.
func QueueAccounts(b *pgx.Batch, rows []entry.Placed[*Account]) {
	// An account that is made and changed in one transaction is still a new one, so the two kinds are separate statements.
	var made, changed []entry.Placed[*Account]
	for _, r := range rows {
		if r.Row.New {
			made = append(made, r)
			continue
		}
		changed = append(changed, r)
	}
	changed = entry.LastByKey(changed, func(p entry.Placed[*Account]) userKey { return userKey{p.Shard, p.Row.UserID} })
	queueAccounts(b, insertAccounts, made)
	queueAccounts(b, upsertAccounts, changed)
}

func queueAccounts(b *pgx.Batch, sql string, rows []entry.Placed[*Account]) {
	if len(rows) == 0 {
		return
	}
	type placed = *entry.Placed[*Account]
	b.Queue(sql,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.PasswordHash }),
		entry.Column(rows, func(p placed) int16 { return int16(p.Row.Kind) }),
		entry.Column(rows, func(p placed) bool { return p.Row.Admin }),
		entry.Column(rows, func(p placed) bool { return p.Row.Locked }),
		entry.Column(rows, func(p placed) bool { return p.Row.Suspended }),
		entry.Column(rows, func(p placed) bool { return p.Row.Deactivated }),
		entry.Column(rows, func(p placed) bool { return p.Row.Erased }),
		entry.Column(rows, func(p placed) int64 { return p.Row.ResetUntil }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Created }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

type userKey struct {
	shard shard.ID
	user  string
}

type deviceKey struct{ user, device string }

// QueueDevices makes devices or changes them.
func QueueDevices(b *pgx.Batch, rows []entry.Placed[*Device]) {
	type placed = *entry.Placed[*Device]
	rows = entry.LastByKey(rows, func(p entry.Placed[*Device]) deviceKey { return deviceKey{p.Row.UserID, p.Row.DeviceID} })
	b.Queue(upsertDevices,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) string { return p.Row.DisplayName }),
		entry.Column(rows, func(p placed) int64 { return p.Row.LastSeen }),
		entry.Column(rows, func(p placed) string { return p.Row.LastSeenIP }),
		entry.Column(rows, func(p placed) string { return p.Row.UserAgent }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Created }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueDevicesGone removes devices with all that belongs to them, of whatever aggregate.
func QueueDevicesGone(b *pgx.Batch, rows []entry.Placed[*DeviceGone]) {
	queueDevicesGone(b, rows, deleteDeviceTokens, deleteDeviceRefreshTokens, deleteDevicePushers)
	rows = slices.DeleteFunc(slices.Clone(rows), func(p entry.Placed[*DeviceGone]) bool { return p.Row.KeepKeys })
	if len(rows) > 0 {
		queueDevicesGone(b, rows, deleteDevices, deleteDeviceKeys, deleteDeviceOneTimeKeys, deleteDeviceSpentKeys, deleteDeviceFallbackKeys,
			deleteDeviceMessages, deleteDehydrated)
	}
}

func queueDevicesGone(b *pgx.Batch, rows []entry.Placed[*DeviceGone], statements ...string) {
	type placed = *entry.Placed[*DeviceGone]
	shards := entry.Column(rows, func(p placed) int16 { return int16(p.Shard) })
	users := entry.Column(rows, func(p placed) string { return p.Row.UserID })
	devices := entry.Column(rows, func(p placed) string { return p.Row.DeviceID })
	for _, sql := range statements {
		b.Queue(sql, shards, users, devices)
	}
}

// QueueDeviceLists notes changes of device lists.
func QueueDeviceLists(b *pgx.Batch, rows []entry.Placed[*DeviceList]) {
	type placed = *entry.Placed[*DeviceList]
	rows = entry.LastByKey(rows, func(p entry.Placed[*DeviceList]) userKey { return userKey{p.Shard, p.Row.UserID} })
	b.Queue(upsertDeviceLists,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueDevicesSeen notes when devices were last seen.
func QueueDevicesSeen(b *pgx.Batch, rows []entry.Placed[*DeviceSeen]) {
	type placed = *entry.Placed[*DeviceSeen]
	rows = entry.LastByKey(rows, func(p entry.Placed[*DeviceSeen]) deviceKey { return deviceKey{p.Row.UserID, p.Row.DeviceID} })
	b.Queue(seeDevices,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) int64 { return p.Row.Seen }),
		entry.Column(rows, func(p placed) string { return p.Row.IP }),
		entry.Column(rows, func(p placed) string { return p.Row.UserAgent }))
}

// QueueAccessTokens writes access tokens.
func QueueAccessTokens(b *pgx.Batch, rows []entry.Placed[*AccessToken]) {
	type placed = *entry.Placed[*AccessToken]
	b.Queue(insertAccessTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.DeviceID }),
		entry.Column(rows, func(p placed) *int64 {
			if p.Row.Expires == 0 {
				return nil
			}
			return &p.Row.Expires
		}),
		entry.Column(rows, func(p placed) int64 { return p.Row.Created }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueAccessTokensGone removes access tokens.
func QueueAccessTokensGone(b *pgx.Batch, rows []entry.Placed[*AccessTokenGone]) {
	type placed = *entry.Placed[*AccessTokenGone]
	b.Queue(deleteAccessTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) []byte { return p.Row.Hash[:] }))
}

// QueueRegistrationTokens makes registration tokens or replaces them.
func QueueRegistrationTokens(b *pgx.Batch, rows []entry.Placed[*RegistrationToken]) {
	type placed = *entry.Placed[*RegistrationToken]
	rows = entry.LastByKey(rows, func(p entry.Placed[*RegistrationToken]) string { return p.Row.Token })
	b.Queue(upsertRegistrationTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Token }),
		entry.Column(rows, func(p placed) *int32 { return p.Row.UsesAllowed }),
		entry.Column(rows, func(p placed) int32 { return p.Row.Pending }),
		entry.Column(rows, func(p placed) int32 { return p.Row.Completed }),
		entry.Column(rows, func(p placed) *int64 { return p.Row.Expires }))
}

// QueueRegistrationTokensGone removes registration tokens.
func QueueRegistrationTokensGone(b *pgx.Batch, rows []entry.Placed[*RegistrationTokenGone]) {
	type placed = *entry.Placed[*RegistrationTokenGone]
	b.Queue(deleteRegistrationTokens,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.Token }))
}

// QueueProfiles sets and removes fields of profiles.
func QueueProfiles(b *pgx.Batch, rows []entry.Placed[*Profile]) {
	type placed = *entry.Placed[*Profile]
	type key struct{ user, field string }
	rows = entry.LastByKey(rows, func(p entry.Placed[*Profile]) key { return key{p.Row.UserID, p.Row.Field} })
	var set, gone []entry.Placed[*Profile]
	for _, r := range rows {
		if len(r.Row.Value) == 0 {
			gone = append(gone, r)
			continue
		}
		set = append(set, r)
	}
	if len(set) > 0 {
		b.Queue(upsertProfiles,
			entry.Column(set, func(p placed) int16 { return int16(p.Shard) }),
			entry.Column(set, func(p placed) string { return p.Row.UserID }),
			entry.Column(set, func(p placed) string { return p.Row.Field }),
			entry.Column(set, func(p placed) []byte { return p.Row.Value }),
			entry.Column(set, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
	}
	if len(gone) > 0 {
		b.Queue(deleteProfiles,
			entry.Column(gone, func(p placed) int16 { return int16(p.Shard) }),
			entry.Column(gone, func(p placed) string { return p.Row.UserID }),
			entry.Column(gone, func(p placed) string { return p.Row.Field }))
	}
}

// QueueAccountData sets account data.
func QueueAccountData(b *pgx.Batch, rows []entry.Placed[*AccountData]) {
	type placed = *entry.Placed[*AccountData]
	type key struct{ user, room, typ string }
	rows = entry.LastByKey(rows, func(p entry.Placed[*AccountData]) key {
		return key{p.Row.UserID, p.Row.RoomID, p.Row.Type}
	})
	b.Queue(upsertAccountData,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.RoomID }),
		entry.Column(rows, func(p placed) string { return p.Row.Type }),
		entry.Column(rows, func(p placed) []byte { return notNull(p.Row.Content) }),
		entry.Column(rows, func(p placed) int64 { return int64(p.Pos(p.Row.Entry)) }))
}

// QueueFilters stores filters.
func QueueFilters(b *pgx.Batch, rows []entry.Placed[*Filter]) {
	type placed = *entry.Placed[*Filter]
	b.Queue(insertFilters,
		entry.Column(rows, func(p placed) int16 { return int16(p.Shard) }),
		entry.Column(rows, func(p placed) string { return p.Row.UserID }),
		entry.Column(rows, func(p placed) string { return p.Row.FilterID }),
		entry.Column(rows, func(p placed) []byte { return notNull(p.Row.JSON) }))
}

// notNull stores no bytes as an empty value.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
