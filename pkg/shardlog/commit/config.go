package commit

import (
	"errors"
	"time"
)

// Config bounds the committer. The zero value of a field means its default.
type Config struct {
	// MaxRows and MaxBytes bound a transaction; one proposal may not exceed MaxBytes. Defaults 4096 and 4 MiB.
	MaxRows  int `koanf:"max_rows"`
	MaxBytes int `koanf:"max_bytes"`
	// MaxQueue bounds the proposals that wait; more are refused with ErrUnavailable. Default 16384.
	MaxQueue int `koanf:"max_queue"`
	// AckTimeout is how long an answer waits for the acknowledgement of its publication. Default 100 ms.
	AckTimeout time.Duration `koanf:"-"`
	// PollInterval is how often followers read the database: an answer whose publication is not acknowledged is given so long
	// after its commit. Default 1 s.
	PollInterval time.Duration `koanf:"-"`
	// Patience is how long a batch is tried again when the database is not available. Default 5 s.
	Patience time.Duration `koanf:"-"`
	// MaxMessage bounds a message of the stream. Default 512 KiB.
	MaxMessage int `koanf:"-"`
}

// WithDefaults returns c with every unset field at its default.
func (c Config) WithDefaults() Config {
	setDefault(&c.MaxRows, 4096)
	setDefault(&c.MaxBytes, 4<<20)
	setDefault(&c.MaxQueue, 16384)
	setDefault(&c.AckTimeout, 100*time.Millisecond)
	setDefault(&c.PollInterval, time.Second)
	setDefault(&c.Patience, 5*time.Second)
	setDefault(&c.MaxMessage, 512<<10)
	return c
}

// Validate reports the first mistake, naming the key.
func (c Config) Validate() error {
	switch {
	case c.MaxRows < 0:
		return errors.New("max_rows: must not be negative")
	case c.MaxBytes < 0:
		return errors.New("max_bytes: must not be negative")
	case c.MaxQueue < 0:
		return errors.New("max_queue: must not be negative")
	}
	return nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
