package feddb

import (
	"context"
	"fmt"

	"github.com/heddle-im/heddle/pkg/infra/pg"
)

// DB reads and writes what is kept of other servers.
type DB struct {
	db *pg.DB
	q  *Queries
}

// NewDB makes a DB on the primary.
func NewDB(db *pg.DB) *DB { return &DB{db: db, q: New(db.Primary)} }

// Key is a signing key of another server. Times are in milliseconds.
type Key struct {
	ID         string
	Public     []byte
	ValidUntil int64
	Expired    int64
}

// KeyRow is a key as it is stored.
type KeyRow struct {
	Server string
	Key
	Got      int64
	Document []byte
}

// PutKeys stores the keys of one document of a server, over older copies.
func (d *DB) PutKeys(ctx context.Context, server string, got int64, document []byte, keys []Key) error {
	p := UpsertKeysParams{Server: server, Got: got, Document: document}
	for i := range keys {
		k := &keys[i]
		p.KeyIds, p.Keys = append(p.KeyIds, k.ID), append(p.Keys, k.Public)
		p.ValidUntils, p.Expired = append(p.ValidUntils, k.ValidUntil), append(p.Expired, k.Expired)
	}
	if err := d.q.UpsertKeys(ctx, p); err != nil {
		return fmt.Errorf("store keys of %s: %w", server, err)
	}
	return nil
}

// Keys reads all keys that are known of servers.
func (d *DB) Keys(ctx context.Context, servers []string) ([]KeyRow, error) {
	rows, err := d.q.KeysOf(ctx, servers)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	out := make([]KeyRow, len(rows))
	for i, r := range rows {
		out[i] = KeyRow{
			Server: r.Server, Key: Key{ID: r.KeyID, Public: r.Key, ValidUntil: r.ValidUntil, Expired: r.Expired},
			Got: r.Got, Document: r.Document,
		}
	}
	return out, nil
}
