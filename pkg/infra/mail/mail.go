// Package mail sends e-mail through an SMTP server.
//
// Guarantees: a message is handed over in one connection with TLS as the configuration wants it, or an error says why not; each send ends
// with its context or Config.Timeout; no more than a fixed number are under way at a time. A [Sender] is safe for concurrent use.
//
// It may be imported by the services that write to people, by config and by app. It knows no Matrix.
package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"os"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// Config is the key "email.smtp".
type Config struct {
	// Host of the SMTP server. Empty: no mail is sent, and what needs mail is refused.
	Host string `koanf:"host"`
	// Port of the SMTP server. 0: 587 with `starttls`, 465 with `tls`, 25 with `none`.
	Port int `koanf:"port"`
	// Security is `starttls` (a connection that is not encrypted goes no further), `tls` (from the first byte on), or `none`.
	Security string `koanf:"security"`
	// Username to log in with. Empty: the server asks for none.
	Username string `koanf:"username"`
	// Password to log in with.
	Password string `koanf:"password" secret:"true"`
	// CAFile has certificates to trust beside the system's, in PEM.
	CAFile string `koanf:"ca_file"`
	// Timeout is how long sending one message may take.
	Timeout time.Duration `koanf:"timeout"`
}

// The kinds of security.
const (
	StartTLS    = "starttls"
	ImplicitTLS = "tls"
	NoTLS       = "none"
)

// WithDefaults returns c with every unset field at its default.
func (c Config) WithDefaults() Config {
	if c.Security == "" {
		c.Security = StartTLS
	}
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	return c
}

// Validate reports the first mistake, naming the key below "email.smtp".
func (c Config) Validate() error {
	switch {
	case c.Security != StartTLS && c.Security != ImplicitTLS && c.Security != NoTLS:
		return errors.New("security: must be starttls, tls or none")
	case c.Port < 0 || c.Port > 65535:
		return errors.New("port: must be from 1 to 65535")
	case c.Timeout < time.Second:
		return errors.New("timeout: must be at least 1s")
	case (c.Username == "") != (c.Password == ""):
		return errors.New("password: must be set if username is, and only then")
	case c.Username != "" && c.Security == NoTLS && !local(c.Host):
		return errors.New("security: must be starttls or tls to log in at another machine")
	}
	return nil
}

// local tells whether a connection to a host stays on this machine.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Message is an e-mail to one address.
type Message struct {
	To, Subject string
	Text, HTML  string
}

// Sender sends.
type Sender struct {
	cfg   Config
	from  string
	helo  string
	tls   *tls.Config
	slots chan struct{}
}

// parallel is how many messages are sent at a time. Each is a connection to the SMTP server, which has limits of its own.
const parallel = 8

// New makes a Sender. from is the address on the letters, with a name if it has one; helo is how this server calls itself.
func New(cfg Config, from, helo string) (*Sender, error) {
	if _, err := netmail.ParseAddress(from); err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	s := &Sender{
		cfg: cfg.WithDefaults(), from: from, helo: helo, slots: make(chan struct{}, parallel),
		tls: &tls.Config{ServerName: cfg.Host, MinVersion: tls.VersionTLS12},
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate", cfg.CAFile)
		}
		s.tls.RootCAs = pool
	}
	return s, nil
}

// Send hands a message to the SMTP server.
func (s *Sender) Send(ctx context.Context, m Message) error {
	msg := gomail.NewMsg()
	if err := errors.Join(msg.From(s.from), msg.To(m.To)); err != nil {
		return fmt.Errorf("address a mail: %w", err)
	}
	msg.Subject(m.Subject)
	msg.SetDate()
	msg.SetMessageID()
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody's absence is to answer it
	msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return fmt.Errorf("wait to send a mail: %w", ctx.Err())
	}
	c, err := gomail.NewClient(s.cfg.Host, s.options()...)
	if err != nil {
		return fmt.Errorf("prepare a mail: %w", err)
	}
	if err := c.DialAndSendWithContext(ctx, msg); err != nil {
		return fmt.Errorf("send a mail through %s: %w", s.cfg.Host, err)
	}
	return nil
}

func (s *Sender) options() []gomail.Option {
	o := []gomail.Option{gomail.WithTimeout(s.cfg.Timeout), gomail.WithTLSConfig(s.tls.Clone()), gomail.WithoutNoop()}
	port := s.cfg.Port
	switch s.cfg.Security {
	case ImplicitTLS:
		o = append(o, gomail.WithSSL())
		port = orElse(port, 465)
	case NoTLS:
		o = append(o, gomail.WithTLSPolicy(gomail.NoTLS))
		port = orElse(port, 25)
	default:
		o = append(o, gomail.WithTLSPolicy(gomail.TLSMandatory))
		port = orElse(port, 587)
	}
	o = append(o, gomail.WithPort(port))
	if s.helo != "" {
		o = append(o, gomail.WithHELO(s.helo))
	}
	if s.cfg.Username != "" {
		auth := gomail.SMTPAuthAutoDiscover
		if s.cfg.Security == NoTLS { // to this machine
			auth = gomail.SMTPAuthPlainNoEnc
		}
		o = append(o, gomail.WithSMTPAuth(auth), gomail.WithUsername(s.cfg.Username), gomail.WithPassword(s.cfg.Password))
	}
	return o
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}
