// Package letter has people prove that they read what is sent to an e-mail address: for a new account, for a forgotten password, for an address
// that is added to an account.
//
// A letter holds a link that is good once and for an hour; of it only a hash is stored. Whoever asks for a letter learns from the answer nothing
// about who has the address: where it does not fit, the letter says so, to its reader alone. Letters to one address, from wherever they are
// asked for, are bounded. An [Office] keeps nothing and is safe for concurrent use.
//
// It is imported by api/ and the composition root.
package letter

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/mail"
	"github.com/heddle-im/heddle/pkg/infra/soft"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// lifetime is how long a link is good, and after it the proof.
const lifetime = time.Hour

// Path is where the links of letters lead.
const Path = "/_matrix/email/confirm"

// Post takes letters away. It is *mail.Sender.
type Post interface {
	Send(ctx context.Context, m mail.Message) error
}

// Pace bounds the letters to one address. It is *soft.Store.
type Pace interface {
	Take(ctx context.Context, key string, rate soft.Rate, n int64) soft.Allowance
}

// Options are what an Office needs.
type Options struct {
	Server id.ServerName
	Front  *account.Front
	Post   Post
	Pace   Pace
	// Rate bounds the letters to one address; a zero one does not.
	Rate soft.Rate
	// ClientRate bounds what one client asks for, by Request.Client; a zero one does not.
	ClientRate soft.Rate
	// BaseURL is where people reach the server, without a slash at its end.
	BaseURL string
	// NextLinks are beginnings of addresses to which a browser may be sent on without asking.
	NextLinks []string
	Now       func() time.Time
}

// Office writes letters, and takes their links back.
type Office struct{ o Options }

// New makes an Office.
func New(o Options) *Office { return &Office{o} }

// Request is what a client asks a letter for.
type Request struct {
	ClientSecret string
	Email        string
	Attempt      int64
	NextLink     string // empty: none
	// Client is who asks, where nothing before has counted how often they do: an address, or "".
	Client string
}

// Begin sends a letter for a purpose, unless this client has asked with the same attempt already, and gives the session in which its link is
// awaited. Refused with M_INVALID_PARAM and M_LIMIT_EXCEEDED.
func (o *Office) Begin(ctx context.Context, p account.Purpose, r Request) (session string, err error) {
	address, err := account.EmailAddress(r.Email)
	if err != nil {
		return "", err
	}
	if !secretGood(r.ClientSecret) {
		return "", mxerr.New(mxerr.InvalidParam, "client_secret must be 1 to 255 of the characters 0-9 a-z A-Z . = _ -")
	}
	if r.Attempt < 1 {
		return "", mxerr.New(mxerr.InvalidParam, "send_attempt must be a positive number")
	}
	if r.NextLink != "" {
		if _, err := link(r.NextLink); err != nil {
			return "", err
		}
	}
	if r.Client != "" {
		if err := o.pace(ctx, "client:"+r.Client, o.o.ClientRate); err != nil {
			return "", err
		}
	}
	session = o.o.Front.SessionFor(p, account.MediumEmail, address, r.ClientSecret)
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails, by its documentation
	token := base64.RawURLEncoding.EncodeToString(raw[:])
	fits, err := o.fits(ctx, p, address)
	if err != nil {
		return "", err
	}
	stored := sha256.Sum256([]byte(token))
	if !fits {
		_, _ = rand.Read(stored[:]) // no link of this session will be good
	}
	a, err := o.o.Front.Do(ctx, &account.BeginValidation{
		Session: session, Secret: sha256.Sum256([]byte(r.ClientSecret)), Token: stored, Purpose: p, Medium: account.MediumEmail,
		Address: address, Attempt: r.Attempt, NextLink: r.NextLink, Expires: o.o.Now().Add(lifetime).UnixMilli(),
	})
	if err != nil || a.Unchanged {
		return session, err
	}
	if err := o.send(ctx, p, fits, address, session, token); err != nil {
		// Whoever asks once more, with the same attempt too, is to get a letter.
		_, undo := o.o.Front.Do(context.WithoutCancel(ctx), &account.UndoValidation{Session: session, Token: stored})
		return "", errors.Join(err, undo)
	}
	return session, nil
}

// fits tells whether an address can be used for a purpose.
func (o *Office) fits(ctx context.Context, p account.Purpose, address string) (bool, error) {
	_, owned, err := o.o.Front.AddressOwner(ctx, account.MediumEmail, address)
	return owned == (p == account.PurposeReset), err
}

func (o *Office) send(ctx context.Context, p account.Purpose, fits bool, address, session, token string) error {
	if err := o.pace(ctx, "to:"+address, o.o.Rate); err != nil {
		return err
	}
	t := textOf(p, fits, string(o.o.Server))
	if fits {
		t.link = o.o.BaseURL + Path + "?" + url.Values{"session": {session}, "token": {token}}.Encode()
	}
	err := o.o.Post.Send(ctx, mail.Message{To: address, Subject: t.subject, Text: t.plain(), HTML: t.html(string(o.o.Server))})
	if err != nil {
		return mxerr.New(mxerr.Unknown, "The letter could not be sent; try again later").WithCause(err)
	}
	return nil
}

// pace refuses what comes too often with M_LIMIT_EXCEEDED.
func (o *Office) pace(ctx context.Context, of string, rate soft.Rate) error {
	if rate.Burst == 0 {
		return nil
	}
	sum := sha256.Sum256([]byte(of))
	if a := o.o.Pace.Take(ctx, "ratelimit:letter:"+hex.EncodeToString(sum[:16]), rate, 1); !a.OK {
		return mxerr.Limited(a.RetryAfter.Milliseconds() + 1)
	}
	return nil
}

// Next is where a browser goes from the page of a link.
type Next struct {
	// URL is empty if the client named none. Known says that the browser may be sent there without asking.
	URL, Host string
	Known     bool
}

// Confirm takes a link back. Refused with M_TOKEN_INCORRECT.
func (o *Office) Confirm(ctx context.Context, session, token string) (Next, error) {
	if session == "" || len(session) > 64 || token == "" || len(token) > 64 {
		return Next{}, mxerr.New(mxerr.TokenIncorrect, "The link is not whole")
	}
	a, err := o.o.Front.Do(ctx, &account.ConfirmValidation{
		Session: session, Token: sha256.Sum256([]byte(token)), Expires: o.o.Now().Add(lifetime).UnixMilli(),
	})
	if err != nil || a.NextLink == "" {
		return Next{}, err
	}
	u, err := link(a.NextLink)
	if err != nil {
		return Next{}, nil //nolint:nilerr // it was good when it was stored, and the address is confirmed all the same
	}
	return Next{
		URL: a.NextLink, Host: u.Host,
		Known: slices.ContainsFunc(o.o.NextLinks, func(start string) bool { return account.Below(u, start) }),
	}, nil
}

// link reads where a client wants the browser to go on to. Refused with M_INVALID_PARAM unless it is a page of the web.
func link(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || len(s) > 2048 || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.Opaque != "" ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return nil, mxerr.New(mxerr.InvalidParam, "next_link must be an http or https URL")
	}
	return u, nil
}

// secretGood holds the specification's rule for client secrets.
func secretGood(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '.', c == '=', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
