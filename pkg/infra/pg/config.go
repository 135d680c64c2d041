package pg

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Config says how to reach PostgreSQL. The zero value of every field except
// DSN means its default.
type Config struct {
	// DSN is the primary, as a URL or key=value list. Several hosts may be
	// given; the one that accepts writes is used.
	DSN string `koanf:"dsn" secret:"true"`
	// ReadDSN is a hot standby, one server, that reads are done on which it is
	// known to have replayed the log for: first syncs, pages of rooms' history
	// and searches. All else, and what it has not, is read from the primary.
	// Empty: everything is.
	ReadDSN string `koanf:"read_dsn" secret:"true"`
	// MaxConns bounds each pool. Default 20.
	MaxConns int32 `koanf:"max_conns"`
	// ConnectTimeout bounds one attempt to connect. Default 5s.
	ConnectTimeout time.Duration `koanf:"connect_timeout"`
	// StatementTimeout is enforced by the server for each statement. Default 30s.
	StatementTimeout time.Duration `koanf:"statement_timeout"`
	// IdleInTransactionTimeout ends a session that holds a transaction open
	// without using it: the locks of a paused process must not outlive it by
	// long. Default 10s.
	IdleInTransactionTimeout time.Duration `koanf:"idle_in_transaction_timeout"`
	// TCPUserTimeout is after how long the server gives up a peer that does not
	// acknowledge data. Default 10s; without effect on unix sockets.
	TCPUserTimeout time.Duration `koanf:"tcp_user_timeout"`
	// ApplicationName is shown in pg_stat_activity. Default "heddle".
	ApplicationName string `koanf:"-"`
}

// WithDefaults returns c with every unset field at its default.
func (c Config) WithDefaults() Config {
	setDefault(&c.MaxConns, 20)
	setDefault(&c.ConnectTimeout, 5*time.Second)
	setDefault(&c.StatementTimeout, 30*time.Second)
	setDefault(&c.IdleInTransactionTimeout, 10*time.Second)
	setDefault(&c.TCPUserTimeout, 10*time.Second)
	setDefault(&c.ApplicationName, "heddle")
	return c
}

// Validate reports the first mistake, naming the key below "database".
func (c Config) Validate() error {
	if c.DSN == "" {
		return errors.New("dsn: must be set")
	}
	for key, dsn := range map[string]string{"dsn": c.DSN, "read_dsn": c.ReadDSN} {
		if dsn == "" {
			continue
		}
		if _, err := pgconn.ParseConfig(dsn); err != nil {
			return fmt.Errorf("%s: %w", key, err) // pgconn redacts passwords
		}
	}
	if c.MaxConns < 0 {
		return errors.New("max_conns: must not be negative")
	}
	for key, d := range map[string]time.Duration{
		"connect_timeout": c.ConnectTimeout, "statement_timeout": c.StatementTimeout,
		"idle_in_transaction_timeout": c.IdleInTransactionTimeout, "tcp_user_timeout": c.TCPUserTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("%s: must not be negative", key)
		}
	}
	return nil
}

func (c Config) poolConfig(dsn string) (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	pc.MaxConns = c.MaxConns
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.MaxConnLifetime = time.Hour
	pc.MaxConnLifetimeJitter = 10 * time.Minute
	pc.ConnConfig.ConnectTimeout = c.ConnectTimeout
	pc.ConnConfig.StatementCacheCapacity = 512
	params := map[string]string{
		"application_name":                    c.ApplicationName,
		"statement_timeout":                   millis(c.StatementTimeout),
		"idle_in_transaction_session_timeout": millis(c.IdleInTransactionTimeout),
		"tcp_user_timeout":                    millis(c.TCPUserTimeout),
		"tcp_keepalives_idle":                 "5",
		"tcp_keepalives_interval":             "2",
		"tcp_keepalives_count":                "3",
		"timezone":                            "UTC",
		// Compiling costs more than the short statements that Heddle runs.
		"jit": "off",
	}
	for k, v := range params {
		if _, set := pc.ConnConfig.RuntimeParams[k]; !set {
			pc.ConnConfig.RuntimeParams[k] = v
		}
	}
	return pc, nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
