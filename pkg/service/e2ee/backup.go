package e2ee

import (
	"bytes"
	"context"
	"strconv"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

const (
	// backupPiece is how many keys of a backup are removed, or read, at a time.
	backupPiece = 1000
	// maxBackups is how many versions of a backup a user may have, and maxBackedUp how many keys one may hold.
	maxBackups  = 100
	maxBackedUp = 1_000_000
)

func noBackup() error { return mxerr.New(mxerr.NotFound, "No such key backup") }

func (h *Host) putBackup(ctx context.Context, s shard.ID, p *PutBackup) (change, error) {
	if p.Version == 0 {
		last, _, err := h.DB.LatestBackup(ctx, s, p.UserID, true) // a number is never used again
		if err != nil {
			return change{}, err
		}
		if n, err := h.DB.BackupVersions(ctx, s, p.UserID); err != nil {
			return change{}, err
		} else if n >= maxBackups {
			return change{}, mxerr.New(mxerr.ResourceLimitExceeded, "There are too many key backups; delete some first")
		}
		b := &e2eedb.BackupVersion{UserID: p.UserID, Version: last.Version + 1, Algorithm: p.Algorithm, AuthData: p.AuthData}
		c := change{Answer: Answer{Version: b.Version}}
		c.Rows = append(c.Rows, b)
		return c, nil
	}
	b, ok, err := h.DB.Backup(ctx, s, p.UserID, p.Version)
	switch {
	case err != nil:
		return change{}, err
	case !ok || b.Deleted:
		return change{}, noBackup()
	case b.Algorithm != p.Algorithm:
		return change{}, mxerr.New(mxerr.InvalidParam, "The algorithm of a key backup cannot change")
	}
	b.AuthData = p.AuthData
	var c change
	c.Rows = append(c.Rows, &b)
	return c, nil
}

func (h *Host) deleteBackup(ctx context.Context, s shard.ID, p *DeleteBackup) (change, error) {
	b, ok, err := h.DB.Backup(ctx, s, p.UserID, p.Version)
	switch {
	case err != nil:
		return change{}, err
	case !ok:
		return change{}, noBackup()
	}
	left, err := h.DB.CountBackupKeys(ctx, s, p.UserID, p.Version, "", "", backupPiece+1)
	switch {
	case err != nil:
		return change{}, err
	case b.Deleted && left == 0:
		return change{}, noBackup()
	}
	b.Deleted, b.Count, b.AuthData = true, 0, []byte("{}")
	c := change{Answer: Answer{More: left > backupPiece}}
	c.Rows = append(c.Rows, &b, &e2eedb.BackupKeysGone{UserID: p.UserID, Version: p.Version, Most: backupPiece})
	return c, nil
}

// current gives the version that is written to: none but the latest is.
func (h *Host) current(ctx context.Context, s shard.ID, user string, version int64) (e2eedb.BackupVersion, error) {
	b, ok, err := h.DB.LatestBackup(ctx, s, user, false)
	switch {
	case err != nil:
		return b, err
	case !ok:
		return b, noBackup()
	case b.Version != version:
		return b, mxerr.New(mxerr.WrongRoomKeysVersion, "Another key backup is the current one").WithStatus(403).
			With("current_version", strconv.FormatInt(b.Version, 10))
	}
	return b, nil
}

// better says which of two keys of a session a backup holds (spec: "Backup algorithm", on conflicts).
func better(old *e2eedb.BackupKey, k *BackedUp) bool {
	switch {
	case k.Verified != old.Verified:
		return k.Verified
	case k.FirstIndex != old.FirstIndex:
		return k.FirstIndex < old.FirstIndex
	}
	return k.Forwarded < old.Forwarded
}

func (h *Host) backUp(ctx context.Context, s shard.ID, q *BackUp) (change, error) {
	var c change
	b, err := h.current(ctx, s, q.UserID, q.Version)
	if err != nil {
		return c, err
	}
	var rooms, sessions []string
	for i := range q.Keys {
		rooms, sessions = append(rooms, q.Keys[i].RoomID), append(sessions, q.Keys[i].SessionID)
	}
	stored, err := h.DB.BackupKeysAmong(ctx, s, q.UserID, q.Version, rooms, sessions)
	if err != nil {
		return c, err
	}
	type name struct{ room, session string }
	have := make(map[name]*e2eedb.BackupKey, len(stored))
	for i := range stored {
		have[name{stored[i].RoomID, stored[i].SessionID}] = &stored[i]
	}
	for i := range q.Keys {
		k := &q.Keys[i]
		old := have[name{k.RoomID, k.SessionID}]
		if old == nil {
			if b.Count++; b.Count > maxBackedUp {
				return change{}, mxerr.New(mxerr.ResourceLimitExceeded, "The key backup is full")
			}
		} else if !better(old, k) || bytes.Equal(old.Data, k.Data) && old.Verified == k.Verified && old.FirstIndex == k.FirstIndex {
			continue
		}
		row := &e2eedb.BackupKey{
			UserID: q.UserID, Version: q.Version, RoomID: k.RoomID, SessionID: k.SessionID, FirstIndex: k.FirstIndex,
			Forwarded: k.Forwarded, Verified: k.Verified, Data: k.Data,
		}
		have[name{k.RoomID, k.SessionID}] = row
		c.Rows = append(c.Rows, row)
	}
	if len(c.Rows) > 0 {
		b.ETag++
		c.Rows = append(c.Rows, &b)
	}
	c.Answer = Answer{ETag: b.ETag, Count: b.Count}
	return c, nil
}

func (h *Host) dropBackedUp(ctx context.Context, s shard.ID, q *DropBackedUp) (change, error) {
	var c change
	b, ok, err := h.DB.Backup(ctx, s, q.UserID, q.Version)
	switch {
	case err != nil:
		return c, err
	case !ok || b.Deleted:
		return c, noBackup()
	}
	n, err := h.DB.CountBackupKeys(ctx, s, q.UserID, q.Version, q.RoomID, q.SessionID, backupPiece+1)
	if err != nil {
		return c, err
	}
	if n > 0 {
		b.ETag++
		b.Count -= min(n, backupPiece)
		c.Rows = append(c.Rows, &b, &e2eedb.BackupKeysGone{
			UserID: q.UserID, Version: q.Version, RoomID: q.RoomID, SessionID: q.SessionID, Most: backupPiece,
		})
	}
	c.Answer = Answer{ETag: b.ETag, Count: b.Count, More: n > backupPiece}
	return c, nil
}
