package web

import (
	"net/http"

	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// Consent is the page on which people agree to the server's terms who have an account already.
type Consent struct {
	*shower
	agreements *account.Agreements
	front      *account.Front
}

// NewConsent makes the handlers.
func NewConsent(server id.ServerName, a *account.Agreements, front *account.Front) *Consent {
	return &Consent{newShower(server), a, front}
}

// Handlers gives the handlers by the names of their rows.
func (c *Consent) Handlers() httpx.Handlers { return httpx.Handlers{"consent": c.consent} }

func (c *Consent) consent(w http.ResponseWriter, r *http.Request) error {
	agrees, sealed := false, ""
	if r.Method == http.MethodGet {
		p, err := httpx.Query(r)
		if err == nil {
			sealed, err = p.Required("for")
		}
		if err != nil {
			return c.failed(w, r, err)
		}
	} else {
		v, err := form(r)
		if err != nil {
			return c.failed(w, r, err)
		}
		sealed, agrees = v.Get("for"), v.Get("agree") == "yes"
	}
	u, err := c.agreements.For(sealed)
	if err != nil {
		return c.failed(w, r, err)
	}
	if r.Method == http.MethodPost && agrees {
		if err := c.agreements.Agree(r.Context(), u); err != nil {
			return c.failed(w, r, err)
		}
	}
	done, err := c.agreements.Agreed(r.Context(), u)
	if err != nil {
		return c.failed(w, r, err)
	}
	if done {
		return c.show(w, http.StatusOK, messagePage, page{Title: "Thank you", Said: "You have agreed to the terms. Go back to your app."})
	}
	cfg := c.front.Config()
	p := page{Title: "Terms", Path: account.ConsentPath, Request: sealed, Username: string(u), Terms: documents(&cfg)}
	status := http.StatusOK
	if r.Method == http.MethodPost {
		var why string
		status, why = reason(mxerr.New(mxerr.TermsNotSigned, "To go on you must agree"))
		p.Problem = why
	}
	return c.show(w, status, consentPage, p)
}

// consentPage asks somebody who has an account to agree to the terms.
func consentPage(p *page) g.Node {
	return frame(p,
		h.P(g.Text("Before "+p.Username+" can go on, you must agree to the terms of this server, which are new or have changed.")),
		h.Form(h.Method("post"), h.Action(p.Path), hidden("for", p.Request), terms(p.Terms), button("", "agree", "Go on")),
	)
}
