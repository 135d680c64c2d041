package write

import (
	"context"
	"errors"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/contact"
	"github.com/heddle-im/heddle/pkg/service/account/letter"
)

// Letters sends letters by which people prove that an address is theirs. It is *letter.Office.
type Letters interface {
	Begin(ctx context.Context, p account.Purpose, r letter.Request) (session string, err error)
}

func noMail() *mxerr.Error {
	return mxerr.New(mxerr.ThreepidMediumNotSupported, "This server sends no e-mail")
}

// requestLetter answers the endpoints that have a letter sent.
func (a *Accounts) requestLetter(p account.Purpose) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var q struct {
			ClientSecret string `json:"client_secret"`
			Email        string `json:"email"`
			Attempt      *int64 `json:"send_attempt"`
			NextLink     string `json:"next_link"`
		}
		if err := httpx.Decode(r, &q); err != nil {
			return err
		}
		switch {
		case q.ClientSecret == "" || q.Email == "" || q.Attempt == nil:
			return mxerr.New(mxerr.MissingParam, "The request needs client_secret, email and send_attempt")
		case a.o.Letters == nil:
			return noMail()
		case p == account.PurposeRegister && !a.front.Config().Enabled:
			return mxerr.New(mxerr.Forbidden, "Registration has been disabled")
		}
		session, err := a.o.Letters.Begin(r.Context(), p, letter.Request{
			ClientSecret: q.ClientSecret, Email: q.Email, Attempt: *q.Attempt, NextLink: q.NextLink,
		})
		if err != nil {
			return err
		}
		return httpx.WriteJSON(w, http.StatusOK, map[string]string{"sid": session})
	}
}

// noPhones answers the endpoints for phone numbers: this server sends no text messages.
func noPhones(_ http.ResponseWriter, r *http.Request) error {
	var q map[string]any
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	return mxerr.New(mxerr.ThreepidMediumNotSupported, "This server sends no text messages")
}

func (a *Accounts) threepids(w http.ResponseWriter, r *http.Request) error {
	list, err := a.front.Threepids(r.Context(), auth.Must(r.Context()).UserID)
	if err != nil {
		return err
	}
	type threepid struct {
		Medium      string `json:"medium"`
		Address     string `json:"address"`
		ValidatedAt int64  `json:"validated_at"`
		AddedAt     int64  `json:"added_at"`
	}
	out := make([]threepid, len(list))
	for i, t := range list {
		out[i] = threepid{t.Medium, t.Address, t.ValidatedAt, t.AddedAt}
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string][]threepid{"threepids": out})
}

func (a *Accounts) addThreepid(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Auth         *authDict `json:"auth"`
		ClientSecret string    `json:"client_secret"`
		SID          string    `json:"sid"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.ClientSecret == "" || q.SID == "" {
		return mxerr.New(mxerr.MissingParam, "The request needs client_secret and sid")
	}
	if a.o.Letters == nil {
		return noMail()
	}
	ok, err := a.confirm(w, r, q.Auth, "addThreepid", q.SID)
	if err != nil || !ok {
		return err
	}
	creds := account.Credentials{Session: q.SID, Secret: q.ClientSecret}
	if err := a.front.AddThreepid(r.Context(), auth.Must(r.Context()).UserID, creds); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// Contacts bind addresses at identity servers. It is *contact.Desk.
type Contacts interface {
	Bind(ctx context.Context, u id.UserID, at contact.At, c account.Credentials) error
	Unbind(ctx context.Context, u id.UserID, server, medium, address string) (done bool, err error)
	// Deactivate ends an account, after its addresses were unbound.
	Deactivate(ctx context.Context, u id.UserID, server string, erase bool) (unbound bool, err error)
}

// bindRequest is how a client shows that an address was proven to an identity server.
type bindRequest struct {
	account.Credentials

	IDServer    string `json:"id_server"`
	AccessToken string `json:"id_access_token"`
}

func (a *Accounts) bind(r *http.Request, q *bindRequest) error {
	for _, m := range [...]struct{ name, value string }{
		{"client_secret", q.Secret}, {"id_server", q.IDServer}, {"id_access_token", q.AccessToken}, {"sid", q.Session},
	} {
		if m.value == "" {
			return mxerr.Newf(mxerr.MissingParam, "The request has no %s", m.name)
		}
	}
	return a.o.Contacts.Bind(r.Context(), auth.Must(r.Context()).UserID, contact.At{Server: q.IDServer, Token: q.AccessToken}, q.Credentials)
}

func (a *Accounts) bindThreepid(w http.ResponseWriter, r *http.Request) error {
	var q bindRequest
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if err := a.bind(r, &q); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// postThreepids is how clients of old bind an address. What an identity server says of the proof is told in one word here.
func (a *Accounts) postThreepids(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Creds *bindRequest `json:"three_pid_creds"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Creds == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no three_pid_creds")
	}
	err := a.bind(r, q.Creds)
	if mxerr.Is(err, mxerr.NoValidSession) || mxerr.Is(err, mxerr.SessionNotValidated) || mxerr.Is(err, mxerr.SessionExpired) {
		err = mxerr.New(mxerr.ThreepidAuthFailed, mxerr.From(err).Message).WithStatus(http.StatusForbidden).WithCause(err)
	}
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// unbinding is what clients say of an address that is to go.
type unbinding struct {
	IDServer string `json:"id_server"`
	Medium   string `json:"medium"`
	Address  string `json:"address"`
}

func decodeUnbinding(r *http.Request) (q unbinding, err error) {
	if err := httpx.Decode(r, &q); err != nil {
		return q, err
	}
	if q.Medium == "" || q.Address == "" {
		return q, mxerr.New(mxerr.MissingParam, "The request needs medium and address")
	}
	q.Address, err = account.Address(q.Medium, q.Address)
	return q, err
}

// unbound tells a client whether an identity server has let go of what it was asked to.
func unbound(w http.ResponseWriter, done bool) error {
	result := "no-support"
	if done {
		result = "success"
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"id_server_unbind_result": result})
}

func (a *Accounts) unbindThreepid(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeUnbinding(r)
	if err != nil {
		return err
	}
	done, err := a.o.Contacts.Unbind(r.Context(), auth.Must(r.Context()).UserID, q.IDServer, q.Medium, q.Address)
	if err != nil {
		return err
	}
	return unbound(w, done)
}

// deleteThreepid takes an address from the caller's account, and has it unbound. That an identity server is away, or will not, does not keep the
// address with the account.
func (a *Accounts) deleteThreepid(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeUnbinding(r)
	if err != nil {
		return err
	}
	u := auth.Must(r.Context()).UserID
	cmd := account.RemoveThreepid{UserID: string(u), Medium: q.Medium, Address: q.Address}
	if _, err := a.front.Do(r.Context(), &cmd); err != nil {
		return err
	}
	done, err := a.o.Contacts.Unbind(r.Context(), u, q.IDServer, q.Medium, q.Address)
	var refused *mxerr.Error
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	return unbound(w, done && err == nil)
}
