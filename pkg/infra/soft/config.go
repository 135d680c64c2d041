package soft

import (
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// Config is the key "redis". The zero value of every field means its default.
type Config struct {
	// URL of the server: redis://, rediss:// (TLS) or unix://. Empty: none, the
	// process's own memory is used.
	URL string `koanf:"url" secret:"true"`
	// Timeout bounds each step of a call: connecting, sending, receiving.
	// Default 250ms.
	Timeout time.Duration `koanf:"timeout"`
	// LocalBytes bounds what is kept in this process. Default 16 MiB.
	LocalBytes int64 `koanf:"-"`
}

// WithDefaults returns c with every unset field at its default.
func (c Config) WithDefaults() Config {
	if c.Timeout == 0 {
		c.Timeout = 250 * time.Millisecond
	}
	if c.LocalBytes == 0 {
		c.LocalBytes = 16 << 20
	}
	return c
}

// Validate reports the first mistake, naming the key below "redis".
func (c Config) Validate() error {
	if c.URL != "" {
		if _, err := redis.ParseURL(c.URL); err != nil {
			return errors.New("url: not a redis://, rediss:// or unix:// URL") // the error may quote a password
		}
	}
	if c.Timeout < 0 {
		return errors.New("timeout: must not be negative")
	}
	return nil
}
