package mail_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/mail"
	"github.com/heddle-im/heddle/pkg/testkit/smtptest"
)

func sender(t *testing.T, s *smtptest.Server, change func(*mail.Config)) *mail.Sender {
	t.Helper()
	c := mail.Config{Host: s.Host, Port: s.Port, CAFile: s.CAFile}.WithDefaults()
	if change != nil {
		change(&c)
	}
	require.NoError(t, c.Validate())
	out, err := mail.New(c, "Example <noreply@example.org>", "matrix.example.org")
	require.NoError(t, err)
	return out
}

var hello = mail.Message{To: "alice@example.org", Subject: "Grüße", Text: "A text\nof lines.\n", HTML: "<p>A text</p>"}

func TestEachKindOfSecurity(t *testing.T) {
	for security, o := range map[string]smtptest.Options{
		mail.StartTLS:    {Username: "heddle", Password: "secret"},
		mail.ImplicitTLS: {Username: "heddle", Password: "secret", ImplicitTLS: true},
		mail.NoTLS:       {NoTLS: true},
	} {
		t.Run(security, func(t *testing.T) {
			s := smtptest.New(t, o)
			from := sender(t, s, func(c *mail.Config) { c.Security, c.Username, c.Password = security, o.Username, o.Password })
			require.NoError(t, from.Send(t.Context(), hello))
			l := s.Last("alice@example.org")
			require.Equal(t, "noreply@example.org", l.From)
			require.Equal(t, "Grüße", l.Subject)
			require.Equal(t, "A text\r\nof lines.\r\n", l.Text)
			require.Equal(t, "<p>A text</p>", l.HTML)
			require.Equal(t, "auto-generated", l.Header.Get("Auto-Submitted"))
			require.NotEmpty(t, l.Header.Get("Message-Id"))
			require.NotEmpty(t, l.Header.Get("Date"))
		})
	}
}

func TestWhatIsNotSent(t *testing.T) {
	s := smtptest.New(t, smtptest.Options{Username: "heddle", Password: "secret"})
	open := smtptest.New(t, smtptest.Options{NoTLS: true})
	for name, c := range map[string]struct {
		to     *smtptest.Server
		change func(*mail.Config)
	}{
		"a wrong password":            {s, func(c *mail.Config) { c.Username, c.Password = "heddle", "wrong" }},
		"nobody logged in":            {s, nil},
		"an unknown authority":        {s, func(c *mail.Config) { c.CAFile, c.Username, c.Password = "", "heddle", "secret" }},
		"a server that knows no TLS":  {open, nil},
		"TLS where there is STARTTLS": {s, func(c *mail.Config) { c.Security = mail.ImplicitTLS }},
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, sender(t, c.to, c.change).Send(t.Context(), hello))
		})
	}
	from := sender(t, open, func(c *mail.Config) { c.Security = mail.NoTLS })
	open.Refuse(errors.New("full"))
	require.Error(t, from.Send(t.Context(), hello))
	open.Refuse(nil)
	bad := hello
	bad.To = "alice@example.org\r\nBcc: bob@example.org"
	require.Error(t, from.Send(t.Context(), bad), "one address, and no header")
	bad = hello
	bad.Subject = "x\r\nBcc: bob@example.org"
	require.NoError(t, from.Send(t.Context(), bad))
	require.Empty(t, open.Last("alice@example.org").Header.Get("Bcc"), "a subject is no header")
	require.Len(t, open.Letters(), 1)
	require.Empty(t, s.Letters())
}

// A server that says nothing holds nobody for longer than the timeout, and no more than a few.
func TestASilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	from, err := mail.New(mail.Config{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Security: mail.NoTLS, Timeout: time.Second}, "a@example.org", "")
	require.NoError(t, err)
	require.Error(t, from.Send(t.Context(), hello))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, from.Send(ctx, hello))
}

func TestValidate(t *testing.T) {
	good := mail.Config{Host: "mail.example.org"}.WithDefaults()
	require.NoError(t, good.Validate())
	for name, change := range map[string]func(*mail.Config){
		"security": func(c *mail.Config) { c.Security = "ssl" },
		"port":     func(c *mail.Config) { c.Port = 70000 },
		"timeout":  func(c *mail.Config) { c.Timeout = time.Millisecond },
		"half":     func(c *mail.Config) { c.Username = "a" },
		"open":     func(c *mail.Config) { c.Security, c.Username, c.Password = mail.NoTLS, "a", "b" },
	} {
		c := good
		change(&c)
		require.Error(t, c.Validate(), name)
	}
	_, err := mail.New(good, "nobody", "")
	require.Error(t, err)
}
