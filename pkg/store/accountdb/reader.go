package accountdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Reader reads the rows of accounts. It works on whatever it is given: a pool of the primary or of a replica, or a
// transaction. Methods that look for one thing tell by ok whether it is there. It is safe for concurrent use if what
// it was given is.
type Reader struct{ q *Queries }

// NewReader makes a Reader over a pool, connection or transaction.
func NewReader(db DBTX) *Reader { return &Reader{q: New(db)} }

// found turns "no rows" into ok = false, and says what was read in any other error.
func found(what string, err error) (ok bool, _ error) {
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read %s: %w", what, err)
	}
	return true, nil
}

// Session is whom an access token speaks for.
type Session struct {
	UserID, DeviceID string
	Expires          int64 // ms; 0: never
	Kind             Kind
	Admin            bool
	Locked           bool
	Suspended        bool
	Deactivated      bool
	// Unconfirmed: the token came with a refresh whose old tokens its first use revokes.
	Unconfirmed bool
}

// Account reads an account.
func (r *Reader) Account(ctx context.Context, s shard.ID, userID string) (a Account, ok bool, err error) {
	g, err := r.q.GetAccount(ctx, GetAccountParams{Shard: int16(s), UserID: userID})
	if ok, err = found("account", err); !ok {
		return a, false, err
	}
	return Account{
		UserID: g.UserID, PasswordHash: g.PasswordHash, Kind: Kind(g.Kind), Admin: g.Admin, Locked: g.Locked,
		Suspended: g.Suspended, Deactivated: g.Deactivated, Erased: g.Erased, ResetUntil: g.ResetUntil,
		Created: g.Created,
	}, true, nil
}

// AccountExists tells whether there is, or was, an account of the name.
func (r *Reader) AccountExists(ctx context.Context, s shard.ID, userID string) (bool, error) {
	ok, err := r.q.AccountExists(ctx, AccountExistsParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return false, fmt.Errorf("read account: %w", err)
	}
	return ok, nil
}

// SessionByToken reads whom an access token speaks for, by its hash.
func (r *Reader) SessionByToken(ctx context.Context, s shard.ID, hash [32]byte) (x Session, ok bool, err error) {
	g, err := r.q.GetSession(ctx, GetSessionParams{Shard: int16(s), Hash: hash[:]})
	if ok, err = found("access token", err); !ok {
		return x, false, err
	}
	x = Session{
		UserID: g.UserID, DeviceID: g.DeviceID, Kind: Kind(g.Kind), Admin: g.Admin, Locked: g.Locked,
		Suspended: g.Suspended, Deactivated: g.Deactivated, Unconfirmed: g.Unconfirmed,
	}
	if g.Expires != nil {
		x.Expires = *g.Expires
	}
	return x, true, nil
}

// TokenHashes reads the hashes of a user's tokens by device; the empty device's are of tokens without one.
func (r *Reader) TokenHashes(ctx context.Context, s shard.ID, userID string) (map[string][][]byte, error) {
	rows, err := r.q.ListTokenHashes(ctx, ListTokenHashesParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read access tokens: %w", err)
	}
	by := make(map[string][][]byte)
	for _, t := range rows {
		by[t.DeviceID] = append(by[t.DeviceID], t.Hash)
	}
	return by, nil
}

// Devices reads a user's devices, in the order of their ids.
func (r *Reader) Devices(ctx context.Context, s shard.ID, userID string) ([]Device, error) {
	rows, err := r.q.ListDevices(ctx, ListDevicesParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read devices: %w", err)
	}
	out := make([]Device, len(rows))
	for i, d := range rows {
		out[i] = Device{
			UserID: userID, DeviceID: d.DeviceID, DisplayName: d.DisplayName, Created: d.Created,
			LastSeen: d.LastSeen, LastSeenIP: d.LastSeenIp, UserAgent: d.UserAgent,
		}
	}
	return out, nil
}

// Device reads one device.
func (r *Reader) Device(ctx context.Context, s shard.ID, userID, deviceID string) (Device, bool, error) {
	d, err := r.q.GetDevice(ctx, GetDeviceParams{Shard: int16(s), UserID: userID, DeviceID: deviceID})
	if ok, err := found("device", err); !ok {
		return Device{}, false, err
	}
	return Device{
		UserID: userID, DeviceID: d.DeviceID, DisplayName: d.DisplayName, Created: d.Created,
		LastSeen: d.LastSeen, LastSeenIP: d.LastSeenIp, UserAgent: d.UserAgent,
	}, true, nil
}

// RegistrationToken reads a registration token.
func (r *Reader) RegistrationToken(ctx context.Context, s shard.ID, token string) (RegistrationToken, bool, error) {
	g, err := r.q.GetRegistrationToken(ctx, GetRegistrationTokenParams{Shard: int16(s), Token: token})
	if ok, err := found("registration token", err); !ok {
		return RegistrationToken{}, false, err
	}
	return RegistrationToken(g), true, nil
}

// Profile reads all fields of a profile as JSON values.
func (r *Reader) Profile(ctx context.Context, s shard.ID, userID string) (map[string][]byte, error) {
	rows, err := r.q.GetProfile(ctx, GetProfileParams{Shard: int16(s), UserID: userID})
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	out := make(map[string][]byte, len(rows))
	for _, f := range rows {
		out[f.Field] = f.Value
	}
	return out, nil
}

// ProfileField reads one field of a profile as JSON.
func (r *Reader) ProfileField(ctx context.Context, s shard.ID, userID, field string) ([]byte, bool, error) {
	v, err := r.q.GetProfileField(ctx, GetProfileFieldParams{Shard: int16(s), UserID: userID, Field: field})
	ok, err := found("profile", err)
	return v, ok, err
}

// AccountData reads account data of one type, of a room or global (roomID empty).
func (r *Reader) AccountData(ctx context.Context, s shard.ID, userID, roomID, typ string) ([]byte, bool, error) {
	v, err := r.q.GetAccountData(ctx, GetAccountDataParams{Shard: int16(s), UserID: userID, RoomID: roomID, Type: typ})
	ok, err := found("account data", err)
	return v, ok, err
}

// AccountDataSince reads all account data of a user that changed after a position of the user's shard, in that order.
func (r *Reader) AccountDataSince(ctx context.Context, s shard.ID, userID string, since shard.Pos) ([]ListAccountDataRow, error) {
	rows, err := r.q.ListAccountData(ctx, ListAccountDataParams{Shard: int16(s), UserID: userID, Pos: int64(since)})
	if err != nil {
		return nil, fmt.Errorf("read account data: %w", err)
	}
	return rows, nil
}

// AccountDataOfRooms reads all account data of a user that is of some rooms.
func (r *Reader) AccountDataOfRooms(ctx context.Context, s shard.ID, userID string, rooms []string) ([]ListAccountDataRow, error) {
	rows, err := r.q.ListAccountDataOfRooms(ctx, ListAccountDataOfRoomsParams{Shard: int16(s), UserID: userID, Rooms: rooms})
	if err != nil {
		return nil, fmt.Errorf("read account data of rooms: %w", err)
	}
	out := make([]ListAccountDataRow, len(rows))
	for i := range rows {
		out[i] = ListAccountDataRow(rows[i])
	}
	return out, nil
}

// Filter reads a stored filter.
func (r *Reader) Filter(ctx context.Context, s shard.ID, userID, filterID string) ([]byte, bool, error) {
	v, err := r.q.GetFilter(ctx, GetFilterParams{Shard: int16(s), UserID: userID, FilterID: filterID})
	ok, err := found("filter", err)
	return v, ok, err
}
