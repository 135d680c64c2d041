package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// TypePushRules is the account data that holds a user's push rules: in the log and in the database as pushrule.Custom has them, and
// shown to clients by pushrule.Content.
const TypePushRules = "m.push_rules"

// The things that ChangePushRule does.
const (
	PutRule     = "put"
	DeleteRule  = "delete"
	EnableRule  = "enabled"
	RuleActions = "actions"
)

// ChangePushRule changes one push rule of a user. Refused with M_UNKNOWN for a rule that cannot be, and with M_NOT_FOUND for one that is
// not there.
type ChangePushRule struct {
	UserID string `json:"user_id"`
	Op     string `json:"op"`
	Kind   string `json:"kind"`
	// Rule has the id, and what Op sets of it.
	Rule   []byte `json:"rule"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

func (c *ChangePushRule) shardKey() (string, bool) { return c.UserID, true }

// Method implements [Command].
func (c *ChangePushRule) Method() string { return "account.change_push_rule" }

func (h *Host) changePushRule(ctx context.Context, s shard.ID, c *ChangePushRule) (change, error) {
	var r pushrule.Rule
	if err := json.Unmarshal(c.Rule, &r); err != nil {
		return change{}, mxerr.New(mxerr.BadJSON, "The push rule is malformed").WithCause(err)
	}
	stored, _, err := h.db.AccountData(ctx, s, c.UserID, "", TypePushRules)
	if err != nil {
		return change{}, err
	}
	custom, err := pushrule.ParseCustom(stored)
	if err != nil {
		return change{}, err
	}
	switch c.Op {
	case PutRule:
		err = custom.Put(c.Kind, r, c.Before, c.After)
	case DeleteRule:
		err = custom.Delete(c.Kind, r.ID)
	case EnableRule:
		err = custom.SetEnabled(c.Kind, r.ID, r.Enabled)
	case RuleActions:
		err = custom.SetActions(c.Kind, r.ID, r.Actions)
	default:
		err = fmt.Errorf("unknown change of a push rule %q", c.Op)
	}
	var bad *pushrule.InvalidError
	switch {
	case errors.As(err, &bad):
		return change{}, mxerr.New(mxerr.Unknown, bad.Problem).WithStatus(400)
	case errors.Is(err, pushrule.ErrUnknownRule):
		return change{}, mxerr.New(mxerr.NotFound, "The push rule was not found.")
	case err != nil:
		return change{}, err
	}
	content, err := json.Marshal(custom, json.Deterministic(true))
	switch {
	case err != nil:
		return change{}, err
	case bytes.Equal(content, stored):
		return change{Answer: Answer{Unchanged: true}}, nil
	case len(content) > MaxAccountData:
		return change{}, mxerr.Newf(mxerr.TooLarge, "Push rules may be %d bytes long", MaxAccountData)
	}
	return h.setAccountData(&SetAccountData{UserID: c.UserID, Type: TypePushRules, Content: content})
}

// PushRules gives a user's push rules.
func (r *Reader) PushRules(ctx context.Context, u string) (*pushrule.Ruleset, error) {
	stored, _, err := r.db.AccountData(ctx, r.shards.OfUser(u), u, "", TypePushRules)
	if err != nil {
		return nil, err
	}
	custom, err := pushrule.ParseCustom(stored)
	if err != nil {
		return nil, err
	}
	return custom.Rules(u), nil
}
