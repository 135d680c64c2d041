package config

import "errors"

// Database is PostgreSQL.
type Database struct {
	// DSN is the primary, as a URL or a list of key=value. Required, but for the all-in-one, which brings its own server.
	// It must not lead through a transaction pooler.
	DSN string `koanf:"dsn" secret:"true"`
	// ReadDSN is a replica for reads that can tell whether it is far enough. Empty: the primary.
	ReadDSN string `koanf:"read_dsn" secret:"true"`
	// MaxConns is the most connections that this process holds to each.
	MaxConns int32 `koanf:"max_conns"`
}

func defaultDatabase() Database { return Database{MaxConns: 20} }

// Validate reports the first mistake, as "key: problem".
func (d Database) Validate() error {
	if d.MaxConns < 4 {
		return errors.New("max_conns: must be at least 4")
	}
	return nil
}
