package write

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
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

// deleteThreepid takes an address from the caller's account. This server binds none at identity servers, so it can unbind none either.
func (a *Accounts) deleteThreepid(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Medium  string `json:"medium"`
		Address string `json:"address"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Medium == "" || q.Address == "" {
		return mxerr.New(mxerr.MissingParam, "The request needs medium and address")
	}
	address, err := account.Address(q.Medium, q.Address)
	if err != nil {
		return err
	}
	cmd := account.RemoveThreepid{UserID: string(auth.Must(r.Context()).UserID), Medium: q.Medium, Address: address}
	if _, err := a.front.Do(r.Context(), &cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"id_server_unbind_result": "no-support"})
}
