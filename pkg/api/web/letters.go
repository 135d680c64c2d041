package web

import (
	"crypto/rand"
	"net/http"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/letter"
)

// Letters answers the links of letters.
type Letters struct {
	*shower
	office *letter.Office
}

// NewLetters makes the handlers.
func NewLetters(server id.ServerName, office *letter.Office) *Letters {
	return &Letters{newShower(server), office}
}

// Handlers gives the handlers by the names of their rows.
func (l *Letters) Handlers() httpx.Handlers { return httpx.Handlers{"emailConfirm": l.confirm} }

// ask has a letter sent to whoever looks at a page, and gives what the page shows when the letter's link was opened.
func ask(r *http.Request, office *letter.Office, p account.Purpose, email string) (string, error) {
	secret := rand.Text()
	session, err := office.Begin(r.Context(), p, letter.Request{ClientSecret: secret, Email: email, Attempt: 1, Client: "a:" + seen(r).IP})
	if err != nil {
		return "", err
	}
	return session + "." + secret, nil
}

// answered reads what ask gave.
func answered(shown string) *account.Credentials {
	session, secret, _ := strings.Cut(shown, ".")
	return &account.Credentials{Session: session, Secret: secret}
}

// confirm is where the link of a letter leads. The link alone shows a button and does nothing, for programs that look through people's mail open
// what is in it; the button takes the link back.
func (l *Letters) confirm(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		p, err := httpx.Query(r)
		if err != nil {
			return l.failed(w, r, err)
		}
		session, err := p.Required("session")
		if err != nil {
			return l.failed(w, r, err)
		}
		token, err := p.Required("token")
		if err != nil {
			return l.failed(w, r, err)
		}
		return l.show(w, http.StatusOK, letterPage, page{Title: "Confirm your e-mail address", Path: letter.Path, Session: session, Token: token})
	}
	v, err := form(r)
	if err != nil {
		return l.failed(w, r, err)
	}
	next, err := l.office.Confirm(r.Context(), v.Get("session"), v.Get("token"))
	if err != nil {
		return l.failed(w, r, err)
	}
	if next.Known {
		return leave(w, next.URL)
	}
	return l.show(w, http.StatusOK, confirmedPage, page{Title: "Thank you", Next: next.URL, NextHost: next.Host})
}
