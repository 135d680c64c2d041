// Package contact is what this server does at identity servers for its users (spec: client-server API, "Adding account administrative contact
// information" and "Third-party invites"): it binds their addresses and unbinds them, finds who has an address that somebody is to be
// invited by, and has invitations kept for addresses that nobody has yet.
//
// Which identity server is asked is the client's choice among those that the configuration trusts. Where addresses were bound is remembered,
// so that they can be unbound when an address or the account goes. A [Desk] keeps nothing itself and is safe for concurrent use. It
// may be imported by api/ and the composition root; it knows no HTTP.
package contact

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/remote/identity"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// Servers are the identity servers. It is *identity.Client.
type Servers interface {
	Lookup(ctx context.Context, s identity.Server, a identity.Address) (id.UserID, error)
	Keep(ctx context.Context, s identity.Server, i identity.Invite) (identity.Kept, error)
	Bind(ctx context.Context, s identity.Server, session identity.Session, user id.UserID) (identity.Address, error)
	Unbind(ctx context.Context, server id.ServerName, a identity.Address, user id.UserID) error
}

// Accounts keeps where addresses are bound. It is *account.Front.
type Accounts interface {
	Binds(ctx context.Context, u id.UserID) ([]account.Bind, error)
	Deactivate(ctx context.Context, u id.UserID, erase bool) error
	Do(ctx context.Context, cmd account.Command) (account.Answer, error)
}

// Options are what a Desk needs.
type Options struct {
	// Enabled lets identity servers be asked.
	Enabled bool
	// Trusted are those that may be asked; none: all.
	Trusted  []id.ServerName
	Servers  Servers
	Accounts Accounts
	Log      *slog.Logger
}

// Desk deals with identity servers.
type Desk struct{ o Options }

// New makes a Desk.
func New(o Options) *Desk { return &Desk{o} }

// At is an identity server as a client names it, with the token that the server gave the user.
type At struct{ Server, Token string }

// server gives the server that a client names. Refused with M_MISSING_PARAM, M_INVALID_PARAM, and M_SERVER_NOT_TRUSTED.
func (d *Desk) server(name string) (id.ServerName, error) {
	if name == "" {
		return "", mxerr.New(mxerr.MissingParam, "The request names no id_server")
	}
	s, err := id.ParseServerName(name)
	if err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "id_server is no host name, with a port where it has one").WithCause(err)
	}
	if !d.o.Enabled || len(d.o.Trusted) > 0 && !slices.Contains(d.o.Trusted, s) {
		return "", mxerr.Newf(mxerr.ServerNotTrusted, "This server does not deal with the identity server %s", s)
	}
	return s, nil
}

func (d *Desk) at(at At) (identity.Server, error) {
	s, err := d.server(at.Server)
	if err == nil && at.Token == "" {
		err = mxerr.New(mxerr.MissingParam, "The request has no id_access_token")
	}
	return identity.Server{Name: s, Token: at.Token}, err
}

// Bind binds the address that a user has proven to an identity server. What that refuses is the refusal.
func (d *Desk) Bind(ctx context.Context, u id.UserID, at At, c account.Credentials) error {
	s, err := d.at(at)
	if err != nil {
		return err
	}
	if c.Session == "" || c.Secret == "" {
		return mxerr.New(mxerr.MissingParam, "The request needs sid and client_secret")
	}
	a, err := d.o.Servers.Bind(ctx, s, identity.Session{ID: c.Session, Secret: c.Secret}, u)
	if err != nil {
		return supported(err)
	}
	address, err := account.Address(a.Medium, a.Address)
	if err != nil {
		return mxerr.Newf(mxerr.Unknown, "The identity server %s has bound what is no address", s.Name).WithStatus(502).WithCause(err)
	}
	_, err = d.o.Accounts.Do(ctx, &account.NoteBind{UserID: string(u), Medium: a.Medium, Address: address, IDServer: string(s.Name)})
	if err != nil {
		// What is not remembered could not be unbound later.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return errors.Join(err, d.o.Servers.Unbind(undo, s.Name, a, u))
	}
	return nil
}

const (
	// undoTime is how long taking something back may take.
	undoTime = 10 * time.Second
	// unbindTime is how long unbinding all addresses of an account may take, so that a server that says nothing does not keep the account.
	unbindTime = 15 * time.Second
	// unbindAtOnce is how many addresses are unbound at once.
	unbindAtOnce = 10
)

// supported has a refusal that is not Matrix's be one that clients understand.
func supported(err error) error {
	if errors.Is(err, identity.ErrUnsupported) {
		return mxerr.New(mxerr.Unrecognized, "The identity server does not know this request").WithStatus(502).WithCause(err)
	}
	return err
}

// Unbind unbinds an address of a user: at a server, or "" where it was bound. It tells whether it is bound nowhere of that any more; false means
// that a server does not unbind, or that no server is known. What a server refuses in Matrix's words is the refusal.
func (d *Desk) Unbind(ctx context.Context, u id.UserID, server, medium, address string) (bool, error) {
	where, err := d.where(ctx, u, server, func(b *account.Bind) bool { return b.Medium == medium && b.Address == address })
	if err != nil {
		return false, err
	}
	if server != "" && len(where) == 0 {
		// The user may have bound it by way of another homeserver, or before this one remembered. It is the server's to say.
		s, err := d.server(server)
		if err != nil {
			return false, err
		}
		where = []account.Bind{{UserID: string(u), Medium: medium, Address: address, IDServer: string(s)}}
	}
	if len(where) == 0 {
		return false, nil
	}
	done := true
	for i := range where {
		switch err := d.unbind(ctx, u, &where[i]); {
		case errors.Is(err, identity.ErrUnsupported):
			done = false
		case err != nil:
			return false, err
		}
	}
	return done, nil
}

// Deactivate ends a user's account, after its addresses were unbound: at a server, or "" wherever they are bound, for that is forgotten with the
// account. It tells whether they all were. It does not fail for an identity server's sake.
func (d *Desk) Deactivate(ctx context.Context, u id.UserID, server string, erase bool) (unbound bool, err error) {
	if unbound, err = d.unbindAll(ctx, u, server); err != nil {
		return false, err
	}
	return unbound, d.o.Accounts.Deactivate(ctx, u, erase)
}

func (d *Desk) unbindAll(ctx context.Context, u id.UserID, server string) (bool, error) {
	where, err := d.where(ctx, u, server, func(*account.Bind) bool { return true })
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, unbindTime)
	defer cancel()
	failed := make([]error, len(where))
	var wg sync.WaitGroup
	places := make(chan struct{}, unbindAtOnce)
	for i := range where {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			failed[i] = d.unbind(ctx, u, &where[i])
		})
	}
	wg.Wait()
	err = errors.Join(failed...)
	if err != nil {
		d.o.Log.Warn("addresses of a user who goes stay bound", "user", string(u), "error", err)
	}
	return err == nil, nil
}

// where gives where addresses of a user are bound, at one server or "" at all of them.
func (d *Desk) where(ctx context.Context, u id.UserID, server string, which func(*account.Bind) bool) ([]account.Bind, error) {
	all, err := d.o.Accounts.Binds(ctx, u)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(b account.Bind) bool { return server != "" && b.IDServer != server || !which(&b) }), nil
}

func (d *Desk) unbind(ctx context.Context, u id.UserID, b *account.Bind) error {
	server, err := d.server(b.IDServer)
	if err != nil {
		return fmt.Errorf("%w: %w", identity.ErrUnsupported, err) // it was trusted once
	}
	if err := d.o.Servers.Unbind(ctx, server, identity.Address{Medium: b.Medium, Address: b.Address}, u); err != nil {
		return err
	}
	_, err = d.o.Accounts.Do(ctx, &account.NoteBind{
		UserID: string(u), Medium: b.Medium, Address: b.Address, IDServer: b.IDServer, Gone: true,
	})
	return err
}

// Invitee is somebody who is to be invited by an address.
type Invitee struct {
	At

	Medium, Address string
}

// Check refuses what cannot be asked for.
func (d *Desk) Check(i Invitee) error {
	_, _, err := d.check(i)
	return err
}

func (d *Desk) check(i Invitee) (identity.Server, identity.Address, error) {
	if i.Medium == "" || i.Address == "" {
		return identity.Server{}, identity.Address{}, mxerr.New(mxerr.MissingParam, "The invitation by address needs medium and address")
	}
	s, err := d.at(i.At)
	if err != nil {
		return s, identity.Address{}, err
	}
	address, err := account.Address(i.Medium, i.Address)
	return s, identity.Address{Medium: i.Medium, Address: address}, err
}

// Find tells whose an address is, "" for nobody's.
func (d *Desk) Find(ctx context.Context, i Invitee) (id.UserID, error) {
	s, a, err := d.check(i)
	if err != nil {
		return "", err
	}
	u, err := d.o.Servers.Lookup(ctx, s, a)
	return u, supported(err)
}

// Keep has an invitation kept for whoever shows that the address is theirs. Words are the invitation without address.
func (d *Desk) Keep(ctx context.Context, i Invitee, words identity.Invite) (identity.Kept, error) {
	s, a, err := d.check(i)
	if err != nil {
		return identity.Kept{}, err
	}
	words.Address = a
	k, err := d.o.Servers.Keep(ctx, s, words)
	if err != nil {
		return k, supported(err)
	}
	for n := range k.Keys {
		if k.Keys[n].ValidityURL == "" {
			k.Keys[n].ValidityURL = "https://" + string(s.Name) + "/_matrix/identity/v2/pubkey/isvalid"
		}
	}
	return k, nil
}
