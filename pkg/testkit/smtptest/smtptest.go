// Package smtptest is a real SMTP server for tests, which keeps the letters it is given. It speaks TLS with a certificate of its own authority,
// from the first byte, after STARTTLS, or not at all, and asks for a name and a password if it is told to.
//
// Every _test file may import it.
package smtptest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/testkit/certtest"
)

// Letter is a letter as it came.
type Letter struct {
	From, To string
	Subject  string
	Text     string
	HTML     string
	Header   mail.Header
}

// Options are what the server is to be.
type Options struct {
	// ImplicitTLS speaks TLS from the first byte on; NoTLS never.
	ImplicitTLS, NoTLS bool
	// Username and Password are asked for, if set.
	Username, Password string
}

// Server is the server.
type Server struct {
	Host   string
	Port   int
	CAFile string

	o       Options
	t       testing.TB
	mu      sync.Mutex // guards what follows
	letters []Letter
	refuse  error
}

// New starts a server, which stops when the test ends.
func New(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{o: o, t: t}
	ca := certtest.NewAuthority(t)
	s.CAFile = ca.File
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{s: s, c: c}, nil }))
	srv.Domain, srv.AllowInsecureAuth = "localhost", o.NoTLS
	srv.ReadTimeout, srv.WriteTimeout = 30*time.Second, 30*time.Second
	config := ca.TLS("127.0.0.1")
	if !o.NoTLS {
		srv.TLSConfig = config
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	at, ok := l.Addr().(*net.TCPAddr)
	require.True(t, ok)
	s.Host, s.Port = "127.0.0.1", at.Port
	if o.ImplicitTLS {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return s
}

// Refuse has every letter from now on refused with an error; nil ends that.
func (s *Server) Refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

// Letters gives the letters so far.
func (s *Server) Letters() []Letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Letter(nil), s.letters...)
}

// Last gives the last letter to an address.
func (s *Server) Last(to string) Letter {
	s.t.Helper()
	all := s.Letters()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].To == to {
			return all[i]
		}
	}
	require.Fail(s.t, "no letter", "to %s among %d", to, len(all))
	return Letter{}
}

type session struct {
	s        *Server
	c        *smtp.Conn
	loggedIn bool
	from, to string
}

// AuthMechanisms implements smtp.AuthSession.
func (x *session) AuthMechanisms() []string {
	if x.s.o.Username == "" {
		return nil
	}
	return []string{sasl.Plain}
}

// Auth implements smtp.AuthSession.
func (x *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != x.s.o.Username || password != x.s.o.Password {
			return errors.New("wrong name or password")
		}
		x.loggedIn = true
		return nil
	}), nil
}

// Mail implements smtp.Session.
func (x *session) Mail(from string, _ *smtp.MailOptions) error {
	if x.s.o.Username != "" && !x.loggedIn {
		return smtp.ErrAuthRequired
	}
	x.from = from
	return nil
}

// Rcpt implements smtp.Session.
func (x *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	x.to = to
	return nil
}

// Data implements smtp.Session.
func (x *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	l, err := read(raw)
	if err != nil {
		return err
	}
	l.From, l.To = x.from, x.to
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.s.refuse != nil {
		return x.s.refuse
	}
	x.s.letters = append(x.s.letters, l)
	return nil
}

// Reset implements smtp.Session.
func (x *session) Reset() {}

// Logout implements smtp.Session.
func (x *session) Logout() error { return nil }

// read takes a letter apart.
func read(raw []byte) (Letter, error) {
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		return Letter{}, err
	}
	l := Letter{Header: m.Header}
	if l.Subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		return l, err
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return l, err
	}
	if !strings.HasPrefix(kind, "multipart/") {
		b, err := io.ReadAll(quotedprintable.NewReader(m.Body))
		l.Text = string(b)
		return l, err
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return l, nil
		}
		if err != nil {
			return l, err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return l, err
		}
		if strings.HasPrefix(p.Header.Get("Content-Type"), "text/html") {
			l.HTML = string(b)
		} else {
			l.Text = string(b)
		}
	}
}
