package read

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
)

func (a *Accounts) pushRules(w http.ResponseWriter, r *http.Request) error {
	rules, err := a.o.Accounts.PushRules(r.Context(), string(auth.Must(r.Context()).UserID))
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]*pushrule.Ruleset{"global": rules})
}

func (a *Accounts) pushRulesGlobal(w http.ResponseWriter, r *http.Request) error {
	rules, err := a.o.Accounts.PushRules(r.Context(), string(auth.Must(r.Context()).UserID))
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, rules)
}

// theRule gives the rule that the path names.
func (a *Accounts) theRule(r *http.Request) (pushrule.Rule, error) {
	rules, err := a.o.Accounts.PushRules(r.Context(), string(auth.Must(r.Context()).UserID))
	if err != nil {
		return pushrule.Rule{}, err
	}
	rule, ok := rules.Find(httpx.Var(r, "kind"), httpx.Var(r, "ruleId"))
	if !ok {
		return pushrule.Rule{}, mxerr.New(mxerr.NotFound, "The push rule was not found.")
	}
	return rule, nil
}

func (a *Accounts) pushRule(w http.ResponseWriter, r *http.Request) error {
	rule, err := a.theRule(r)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, rule)
}

func (a *Accounts) pushRuleEnabled(w http.ResponseWriter, r *http.Request) error {
	rule, err := a.theRule(r)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]bool{"enabled": rule.Enabled})
}

func (a *Accounts) pushRuleActions(w http.ResponseWriter, r *http.Request) error {
	rule, err := a.theRule(r)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"actions": rule.Actions})
}
