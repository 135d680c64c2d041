package account

import (
	"context"
	"net/url"
	"slices"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Agree notes that a user agrees to versions of policies.
type Agree struct {
	UserID   string    `json:"user_id"`
	Consents []Consent `json:"consents"`
}

func (c *Agree) shardKey() (string, bool) { return c.UserID, true }

// Method implements [Command].
func (c *Agree) Method() string { return "account.agree" }

func (h *Host) agree(ctx context.Context, s shard.ID, a *Agree) (change, error) {
	if err := h.existing(ctx, s, a.UserID); err != nil {
		return change{}, err
	}
	var c change
	h.consents(&c, a.UserID, a.Consents)
	return c, nil
}

// consents adds the rows of policies that a user agrees to now.
func (h *Host) consents(c *change, user string, list []Consent) {
	for _, x := range list {
		c.Rows = append(c.Rows, &accountdb.Consent{UserID: user, Policy: x.Policy, Version: x.Version, At: h.now().UnixMilli()})
	}
}

// ConsentPath is where people agree, below the base URL.
const ConsentPath = "/_matrix/consent"

// Agreements knows who has agreed to the policies of the configuration in their present versions, and lets people agree on a page. Who has agreed is
// remembered, for it is asked at each message; who has not is looked up anew. It is safe for concurrent use.
type Agreements struct {
	front   *Front
	box     *Box
	baseURL string
	now     []Consent
	agreed  *cache.Cache[id.UserID, struct{}]
}

// NewAgreements makes an Agreements.
func NewAgreements(f *Front, baseURL string, b *cache.Budget, m *telemetry.Metrics) *Agreements {
	return &Agreements{
		front: f, box: NewBox(f.secret, "consent"), baseURL: baseURL, now: f.cfg.Consents(),
		agreed: cache.New("agreements", b, m, func(u id.UserID, _ struct{}) int64 { return int64(len(u)) }),
	}
}

// Agreed tells whether a user has agreed to all there is now.
func (a *Agreements) Agreed(ctx context.Context, u id.UserID) (bool, error) {
	if _, ok := a.agreed.Get(u); ok {
		return true, nil
	}
	to, err := a.front.db.Consents(ctx, a.front.shards.OfUser(string(u)), string(u))
	if err != nil {
		return false, err
	}
	for _, c := range a.now {
		if !slices.ContainsFunc(to, func(x accountdb.Consent) bool { return x.Policy == c.Policy && x.Version == c.Version }) {
			return false, nil
		}
	}
	a.agreed.Set(u, struct{}{})
	return true, nil
}

// Check refuses a user who has not agreed, with M_CONSENT_NOT_GIVEN and the link to the page.
func (a *Agreements) Check(ctx context.Context, u id.UserID) error {
	ok, err := a.Agreed(ctx, u)
	if err != nil || ok {
		return err
	}
	link, err := a.Link(u)
	if err != nil {
		return err
	}
	return mxerr.New(mxerr.ConsentNotGiven, "To go on you must agree to the terms of this server, at "+link).With("consent_uri", link)
}

// Link gives the address at which a user agrees. Whoever has it can agree for the user, and do nothing else.
func (a *Agreements) Link(u id.UserID) (string, error) {
	sealed, err := a.box.Seal("user", u)
	return a.baseURL + ConsentPath + "?" + url.Values{"for": {sealed}}.Encode(), err
}

// For tells whose link it is. Refused with M_INVALID_PARAM.
func (a *Agreements) For(sealed string) (u id.UserID, err error) {
	if !a.box.Open("user", sealed, &u) {
		return "", mxerr.New(mxerr.InvalidParam, "This link is not good: open the one that your app shows")
	}
	return u, nil
}

// Agree notes that a user agrees to all there is now.
func (a *Agreements) Agree(ctx context.Context, u id.UserID) error {
	_, err := a.front.Do(ctx, &Agree{UserID: string(u), Consents: a.now})
	return err
}
