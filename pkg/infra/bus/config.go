package bus

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config says how to reach NATS. The zero value of every field except URL
// means its default.
type Config struct {
	// URL of the server, or several separated by commas: nats:// or tls://.
	// Unused with an embedded server.
	URL string `koanf:"url" secret:"true"`
	// Credentials is the path of a NATS credentials file.
	Credentials string `koanf:"credentials"`
	// CAFile is a PEM file of certificate authorities to trust in place of the system's. It makes TLS a must, also for nats://.
	CAFile string `koanf:"ca_file"`
	// CertFile is the certificate, in PEM, by which a server that asks for one knows this worker.
	CertFile string `koanf:"cert_file"`
	// KeyFile is the key of CertFile, in PEM.
	KeyFile string `koanf:"key_file"`
	// Name is shown in the server's list of connections.
	Name string `koanf:"-"`
	// AckTimeout is after how long a stream's acknowledgement is given up.
	// Default 2s.
	AckTimeout time.Duration `koanf:"-"`
	// PingInterval is how often an idle connection is tried; two pings without
	// an answer end it. Default 2s.
	PingInterval time.Duration `koanf:"-"`
}

// WithDefaults returns c with every unset field at its default.
func (c Config) WithDefaults() Config {
	if c.Name == "" {
		c.Name = "heddle"
	}
	if c.AckTimeout == 0 {
		c.AckTimeout = 2 * time.Second
	}
	if c.PingInterval == 0 {
		c.PingInterval = 2 * time.Second
	}
	return c
}

// Validate reports the first mistake, naming the key below "nats".
func (c Config) Validate() error {
	if c.URL == "" {
		return errors.New("url: must be set")
	}
	for _, s := range strings.Split(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil {
			return errors.New("url: not a URL") // the error would quote a password
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			return fmt.Errorf("url: scheme %q is not nats, tls, ws or wss", u.Scheme)
		}
		if u.Host == "" {
			return errors.New("url: has no host")
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file: goes with key_file")
	}
	return nil
}

// Stream is a JetStream stream: bounded, and the oldest messages go first.
type Stream struct {
	Name     string
	Subjects []string
	MaxAge   time.Duration
	MaxBytes int64
	// Memory keeps it in memory rather than in files.
	Memory bool
	// Replicas in a cluster of servers. Default 1.
	Replicas int
}
