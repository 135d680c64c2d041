package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Purpose is what somebody proves for that letters to an address are read. A proof for one is none for another.
type Purpose string

// The purposes.
const (
	PurposeRegister Purpose = "register"
	PurposeReset    Purpose = "reset"
	PurposeAdd      Purpose = "add"
)

// BeginValidation opens a session in which somebody proves that letters to an address are read, or goes on with it for another letter. The
// answer is Unchanged if no letter is to be sent: the client has asked with this attempt already, or has proven it.
type BeginValidation struct {
	Session string   `json:"session"`
	Secret  [32]byte `json:"secret"` // the hash of the client's secret
	Token   [32]byte `json:"token"`  // the hash of what the letter holds
	Purpose Purpose  `json:"purpose"`
	Medium  string   `json:"medium"`
	Address string   `json:"address"`
	Attempt int64    `json:"attempt"`
	// NextLink is where the browser goes after the letter's link.
	NextLink string `json:"next_link,omitempty"`
	Expires  int64  `json:"expires"` // ms
}

// ConfirmValidation is done by who has read a letter. Its token is good once. Refused with M_TOKEN_INCORRECT.
type ConfirmValidation struct {
	Session string   `json:"session"`
	Token   [32]byte `json:"token"`
	// Expires is until when the proof can be used then; ms.
	Expires int64 `json:"expires"`
}

// TakeValidation uses a proof up: nobody can use it again. Refused with M_THREEPID_AUTH_FAILED.
type TakeValidation struct {
	Session string   `json:"session"`
	Secret  [32]byte `json:"secret"`
	Purpose Purpose  `json:"purpose"`
}

// UndoValidation takes back the last [BeginValidation] of a session, whose letter could not be sent.
type UndoValidation struct {
	Session string   `json:"session"`
	Token   [32]byte `json:"token"`
}

// Claim reserves for an owner what only one may have (an address, somebody at a provider), until it is given to the owner or Expires; or gives
// it back. The answer is Held if another has it.
type Claim struct {
	Of      string `json:"of"`
	Owner   string `json:"owner"`
	Expires int64  `json:"expires"` // ms
	Release bool   `json:"release,omitempty"`
}

// PassStage notes that a user has passed a stage of an authentication on a page.
type PassStage struct {
	Session string `json:"session"`
	Stage   string `json:"stage"`
	UserID  string `json:"user_id,omitempty"`
	Note    string `json:"note,omitempty"`
	// Address is how an address was proven.
	Address *Credentials `json:"address,omitempty"`
	Expires int64        `json:"expires"` // ms
}

// Passed is a stage that was passed on a page: by whom, if that was asked, with which registration token, if that was, and by which proof of an
// address.
type Passed struct {
	Stage   string
	User    id.UserID
	Note    string
	Address *Credentials
}

func (c *BeginValidation) shardKey() (string, bool)   { return c.Session, false }
func (c *ConfirmValidation) shardKey() (string, bool) { return c.Session, false }
func (c *TakeValidation) shardKey() (string, bool)    { return c.Session, false }
func (c *UndoValidation) shardKey() (string, bool)    { return c.Session, false }
func (c *Claim) shardKey() (string, bool)             { return c.Of, false }
func (c *PassStage) shardKey() (string, bool)         { return c.Session, false }

// Method implements [Command].
func (c *BeginValidation) Method() string { return "account.begin_validation" }

// Method implements [Command].
func (c *ConfirmValidation) Method() string { return "account.confirm_validation" }

// Method implements [Command].
func (c *TakeValidation) Method() string { return "account.take_validation" }

// Method implements [Command].
func (c *UndoValidation) Method() string { return "account.undo_validation" }

// Method implements [Command].
func (c *Claim) Method() string { return "account.claim" }

// Method implements [Command].
func (c *PassStage) Method() string { return "account.pass_stage" }

// maxTokens is of how many letters of one session the links are good.
const maxTokens = 5

// validation is the body of a proof of an address.
type validation struct {
	Secret      []byte   `json:"s"`
	Tokens      [][]byte `json:"t,omitempty"`
	Purpose     Purpose  `json:"p"`
	Medium      string   `json:"m"`
	Address     string   `json:"a"`
	Attempt     int64    `json:"n"`
	NextLink    string   `json:"l,omitempty"`
	ValidatedAt int64    `json:"v,omitempty"` // ms
}

type claimBody struct {
	Owner string `json:"o"`
}

type stageBody struct {
	Stage   string       `json:"s"`
	User    string       `json:"u,omitempty"`
	Note    string       `json:"n,omitempty"`
	Address *Credentials `json:"a,omitempty"`
}

// proofHash is what is stored of what a proof is known by. Sessions hold 256 bits that nobody can guess.
func proofHash(kind accountdb.ProofKind, of string) [32]byte {
	return sha256.Sum256(append([]byte{byte(kind), 0}, of...))
}

// proofOf reads a proof that lives.
func proofOf(ctx context.Context, db *accountdb.Reader, s shard.ID, kind accountdb.ProofKind, of string, nowMs int64, body any) (p accountdb.Proof, ok bool, err error) {
	p, ok, err = db.Proof(ctx, s, proofHash(kind, of))
	if err != nil || !ok || p.Kind != kind || p.Expires <= nowMs {
		return p, false, err
	}
	return p, true, json.Unmarshal(p.Body, body)
}

func (h *Host) putProof(kind accountdb.ProofKind, of string, body any, expires int64) (change, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return change{}, err
	}
	p := accountdb.Proof{Hash: proofHash(kind, of), Kind: kind, Body: raw, Expires: expires, Before: h.now().UnixMilli()}
	return change{Rows: []entry.Row{&p}}, nil
}

func (h *Host) beginValidation(ctx context.Context, s shard.ID, b *BeginValidation) (change, error) {
	var v validation
	_, ok, err := proofOf(ctx, h.db, s, accountdb.ProofAddress, b.Session, h.now().UnixMilli(), &v)
	if err != nil {
		return change{}, err
	}
	if ok && (v.ValidatedAt > 0 || b.Attempt <= v.Attempt) {
		return change{Answer: Answer{Unchanged: true}}, nil
	}
	tokens := append(v.Tokens, b.Token[:])
	v = validation{
		Secret: b.Secret[:], Tokens: tokens[max(0, len(tokens)-maxTokens):], Purpose: b.Purpose, Medium: b.Medium, Address: b.Address,
		Attempt: b.Attempt, NextLink: b.NextLink,
	}
	return h.putProof(accountdb.ProofAddress, b.Session, &v, b.Expires)
}

func (h *Host) confirmValidation(ctx context.Context, s shard.ID, c *ConfirmValidation) (change, error) {
	var v validation
	_, ok, err := proofOf(ctx, h.db, s, accountdb.ProofAddress, c.Session, h.now().UnixMilli(), &v)
	if err != nil {
		return change{}, err
	}
	right := false
	for _, t := range v.Tokens {
		right = hmac.Equal(t, c.Token[:]) || right
	}
	if !ok || !right {
		return change{}, mxerr.New(mxerr.TokenIncorrect, "The link was used already, or is too old")
	}
	v.Tokens, v.ValidatedAt = nil, h.now().UnixMilli()
	out, err := h.putProof(accountdb.ProofAddress, c.Session, &v, c.Expires)
	out.Answer = Answer{NextLink: v.NextLink}
	return out, err
}

func (h *Host) takeValidation(ctx context.Context, s shard.ID, t *TakeValidation) (change, error) {
	v, err := validated(ctx, h.db, s, t.Session, t.Secret, t.Purpose, h.now().UnixMilli())
	if err != nil {
		return change{}, err
	}
	return change{
		Rows:   []entry.Row{&accountdb.ProofGone{Hash: proofHash(accountdb.ProofAddress, t.Session)}},
		Answer: Answer{Proven: &v},
	}, nil
}

func (h *Host) undoValidation(ctx context.Context, s shard.ID, u *UndoValidation) (change, error) {
	var v validation
	p, ok, err := proofOf(ctx, h.db, s, accountdb.ProofAddress, u.Session, h.now().UnixMilli(), &v)
	if err != nil || !ok || v.ValidatedAt > 0 {
		return change{Answer: Answer{Unchanged: true}}, err
	}
	v.Tokens = slices.DeleteFunc(v.Tokens, func(t []byte) bool { return hmac.Equal(t, u.Token[:]) })
	v.Attempt-- // so that the same attempt may be made again; links of letters before it stay good
	return h.putProof(accountdb.ProofAddress, u.Session, &v, p.Expires)
}

func (h *Host) claim(ctx context.Context, s shard.ID, c *Claim) (change, error) {
	var b claimBody
	_, ok, err := proofOf(ctx, h.db, s, accountdb.ProofClaim, c.Of, h.now().UnixMilli(), &b)
	switch {
	case err != nil:
		return change{}, err
	case ok && b.Owner != c.Owner:
		return change{Answer: Answer{Held: !c.Release}}, nil
	case c.Release:
		return change{Rows: []entry.Row{&accountdb.ProofGone{Hash: proofHash(accountdb.ProofClaim, c.Of)}}}, nil
	}
	return h.putProof(accountdb.ProofClaim, c.Of, &claimBody{c.Owner}, c.Expires)
}

func (h *Host) passStage(p *PassStage) (change, error) {
	return h.putProof(accountdb.ProofStage, p.Session, &stageBody{p.Stage, p.UserID, p.Note, p.Address}, p.Expires)
}

// Proven is an address of which somebody has proven that letters to it are read.
type Proven struct {
	Medium      string `json:"medium"`
	Address     string `json:"address"`
	ValidatedAt int64  `json:"validated_at"` // ms
}

// validated reads a session that has come to its end. Refused with M_THREEPID_AUTH_FAILED, whatever is wrong.
func validated(ctx context.Context, db *accountdb.Reader, s shard.ID, session string, secret [32]byte, p Purpose, nowMs int64) (Proven, error) {
	var v validation
	_, ok, err := proofOf(ctx, db, s, accountdb.ProofAddress, session, nowMs, &v)
	if err != nil {
		return Proven{}, err
	}
	if !ok || !hmac.Equal(v.Secret, secret[:]) || v.Purpose != p || v.ValidatedAt == 0 {
		return Proven{}, mxerr.New(mxerr.ThreepidAuthFailed, "The address has not been confirmed: open the link in the letter first")
	}
	return Proven{v.Medium, v.Address, v.ValidatedAt}, nil
}

// Credentials are how a client shows that an address was proven in a session that it began.
type Credentials struct {
	Session string `json:"sid"`
	Secret  string `json:"client_secret"`
}

// SessionFor names the session in which a client proves an address: always the same for the same, and for nobody to guess.
func (f *Front) SessionFor(p Purpose, medium, address, clientSecret string) string {
	mac := hmac.New(sha256.New, f.secret)
	for _, part := range []string{"validation", string(p), medium, address, clientSecret} {
		_, _ = mac.Write([]byte(part))
		_, _ = mac.Write([]byte{0})
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Proven tells which address was proven in a session, and leaves it as it is. Refused with M_THREEPID_AUTH_FAILED.
func (f *Front) Proven(ctx context.Context, c Credentials, p Purpose) (Proven, error) {
	return validated(ctx, f.db, f.shards.Of(c.Session), c.Session, sha256.Sum256([]byte(c.Secret)), p, f.now().UnixMilli())
}

// TakeProven is [Front.Proven], and uses the proof up.
func (f *Front) TakeProven(ctx context.Context, c Credentials, p Purpose) (Proven, error) {
	a, err := f.do.Do(ctx, newKey(), &TakeValidation{Session: c.Session, Secret: sha256.Sum256([]byte(c.Secret)), Purpose: p})
	if err != nil {
		return Proven{}, err
	}
	if a.Proven == nil {
		return Proven{}, mxerr.New(mxerr.ThreepidAuthFailed, "The address has not been confirmed")
	}
	return *a.Proven, nil
}

// PassedStage tells which stage of an authentication session was passed on a page last; nothing for none.
func (f *Front) PassedStage(ctx context.Context, s *UIASession) (Passed, error) {
	var b stageBody
	key := s.key()
	_, ok, err := proofOf(ctx, f.db, f.shards.Of(key), accountdb.ProofStage, key, f.now().UnixMilli(), &b)
	if err != nil || !ok {
		return Passed{}, err
	}
	return Passed{Stage: b.Stage, User: id.UserID(b.User), Note: b.Note, Address: b.Address}, nil
}

// PassStage notes that a stage of an authentication session was passed on a page.
func (f *Front) PassStage(ctx context.Context, s *UIASession, p Passed) error {
	_, err := f.do.Do(ctx, newKey(), &PassStage{
		Session: s.key(), Stage: p.Stage, UserID: string(p.User), Note: p.Note, Address: p.Address, Expires: s.Expires,
	})
	return err
}
