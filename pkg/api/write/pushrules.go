package write

import (
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// changeRule has one push rule of the caller changed.
func (a *Accounts) changeRule(w http.ResponseWriter, r *http.Request, op string, rule pushrule.Rule, before, after string) error {
	rule.ID = httpx.Var(r, "ruleId")
	b, err := json.Marshal(&rule)
	if err != nil {
		return mxerr.New(mxerr.BadJSON, "The push rule is malformed").WithCause(err)
	}
	if _, err := a.front.Do(r.Context(), &account.ChangePushRule{
		UserID: string(auth.Must(r.Context()).UserID), Op: op, Kind: httpx.Var(r, "kind"), Rule: b, Before: before, After: after,
	}); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (a *Accounts) putPushRule(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Actions    []jsontext.Value     `json:"actions"`
		Conditions []pushrule.Condition `json:"conditions"`
		Pattern    string               `json:"pattern"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	if q.Actions == nil {
		return mxerr.New(mxerr.MissingParam, "The rule has no actions")
	}
	return a.changeRule(w, r, account.PutRule, pushrule.Rule{Actions: q.Actions, Conditions: q.Conditions, Pattern: q.Pattern},
		p.Get("before"), p.Get("after"))
}

func (a *Accounts) deletePushRule(w http.ResponseWriter, r *http.Request) error {
	return a.changeRule(w, r, account.DeleteRule, pushrule.Rule{}, "", "")
}

func (a *Accounts) setPushRuleEnabled(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Enabled *bool `json:"enabled"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Enabled == nil {
		return mxerr.New(mxerr.MissingParam, "The request does not say whether the rule is enabled")
	}
	return a.changeRule(w, r, account.EnableRule, pushrule.Rule{Enabled: *q.Enabled}, "", "")
}

func (a *Accounts) setPushRuleActions(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Actions []jsontext.Value `json:"actions"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Actions == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no actions")
	}
	return a.changeRule(w, r, account.RuleActions, pushrule.Rule{Actions: q.Actions}, "", "")
}
