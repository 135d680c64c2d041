package web

import (
	"net/http"
	"slices"

	g "maragu.dev/gomponents"
	h "maragu.dev/gomponents/html"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/letter"
	"github.com/heddle-im/heddle/pkg/service/account/sso"
)

// Stages are the pages on which people pass stages of an authentication that their app does not know (spec: "Fallback").
type Stages struct {
	*shower
	front   *account.Front
	sso     *SSO           // nil: there are no providers
	letters *letter.Office // nil: there is no e-mail
}

// NewStages makes the handlers. s and letters may be nil.
func NewStages(server id.ServerName, front *account.Front, s *SSO, letters *letter.Office) *Stages {
	return &Stages{newShower(server), front, s, letters}
}

// Handlers gives the handlers by the names of their rows.
func (s *Stages) Handlers() httpx.Handlers { return httpx.Handlers{"authFallback": s.fallback} }

func (s *Stages) fallback(w http.ResponseWriter, r *http.Request) error {
	stage := httpx.Var(r, "stage")
	if stage == sso.Stage && s.sso != nil {
		return s.sso.fallback(w, r)
	}
	here := []string{account.StageDummy, account.StagePassword, account.StageToken, account.StageTerms}
	if s.letters != nil {
		here = append(here, account.StageEmail)
	}
	if !slices.Contains(here, stage) {
		return s.failed(w, r, mxerr.New(mxerr.NotFound, "There is no page for this"))
	}
	if r.Method == http.MethodGet {
		p, err := httpx.Query(r)
		session := ""
		if err == nil {
			session, err = p.Required("session")
		}
		if err == nil {
			_, err = s.look(session)
		}
		if err != nil {
			return s.failed(w, r, err)
		}
		return s.ask(w, http.StatusOK, &page{Path: r.URL.Path, Session: session, Action: stage})
	}
	v, err := form(r)
	if err != nil {
		return s.failed(w, r, err)
	}
	session := v.Get("session")
	u, err := s.look(session)
	if err != nil {
		return s.failed(w, r, err)
	}
	passed := account.Passed{Stage: stage}
	p := page{Path: r.URL.Path, Session: session, Action: stage, Email: v.Get("email"), Letter: v.Get("letter")}
	switch stage {
	case account.StagePassword:
		passed.User, err = s.front.Authenticate(r.Context(), v.Get("username"), v.Get("password"))
	case account.StageTerms:
		if v.Get("agree") != "yes" {
			err = mxerr.New(mxerr.TermsNotSigned, "To go on you must agree")
		}
	case account.StageToken:
		var ok bool
		if ok, err = s.front.TokenValid(r.Context(), v.Get("token")); err == nil && !ok {
			err = mxerr.New(mxerr.Forbidden, "This token lets nobody register")
		}
		passed.Note = v.Get("token")
	case account.StageEmail:
		if p.Letter == "" {
			if p.Letter, err = ask(r, s.letters, u.Purpose(), p.Email); err == nil {
				return s.ask(w, http.StatusOK, &p)
			}
			break
		}
		passed.Address = answered(p.Letter)
		_, err = s.front.Proven(r.Context(), *passed.Address, u.Purpose())
	}
	if err != nil {
		var status int
		if status, p.Problem = reason(err); status >= http.StatusInternalServerError || !wantsPage(r) {
			return s.refused(w, err)
		}
		return s.ask(w, status, &p)
	}
	if err := s.front.PassStage(r.Context(), u, passed); err != nil {
		return s.failed(w, r, err)
	}
	return s.showDone(w)
}

func (s *Stages) look(session string) (*account.UIASession, error) {
	u, err := s.front.UIA().Look(session)
	if err != nil {
		return nil, mxerr.New(mxerr.InvalidParam, "Unknown or expired authentication session").WithCause(err)
	}
	return u, nil
}

func (s *Stages) ask(w http.ResponseWriter, status int, p *page) error {
	p.Title = "Confirm"
	if p.Action == account.StageTerms {
		cfg := s.front.Config()
		p.Terms = documents(&cfg)
	}
	return s.show(w, status, passPage, *p)
}

// passPage asks for what a stage wants.
func passPage(p *page) g.Node {
	said := "An app asks you to confirm something that you have begun there. Go on only if you have just begun that yourself."
	return frame(p,
		h.P(g.Text(said)),
		h.Form(
			h.Method("post"), h.Action(p.Path), hidden("session", p.Session),
			g.If(p.Action == account.StagePassword, credentials(p)),
			g.If(p.Action == account.StageToken, h.Label(g.Text("Registration token"),
				h.Input(h.Name("token"), h.AutoComplete("off"), h.MaxLength("64"), h.Required()))),
			terms(p.Terms),
			g.If(p.Action == account.StageEmail && p.Letter == "", emailInput(p)),
			g.If(p.Letter != "", sent(p)),
			h.Button(g.Text("Go on")),
		),
	)
}
