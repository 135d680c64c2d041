package account

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/heddle-im/heddle/pkg/infra/turns"
	"github.com/heddle-im/heddle/pkg/shardlog/commit"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Committer takes proposals. It is *commit.Committer.
type Committer interface {
	Submit(p *entry.Proposal) *commit.Ticket
}

// Owners tells whether this worker holds a shard, and since which epoch.
type Owners interface {
	Epoch(s shard.ID) (shard.Epoch, bool)
}

// Done tells what an idempotency key's command was answered, if it was done.
type Done interface {
	Done(ctx context.Context, s shard.ID, key []byte) (result []byte, ok bool, err error)
}

// ErrNotOwner says that this worker does not hold the shard: ask the one that does.
var ErrNotOwner = errors.New("shard is not held here")

// Host does commands on the shards that this worker holds.
type Host struct {
	shards    shard.Map
	owners    Owners
	committer Committer
	db        *accountdb.Reader
	done      Done
	now       func() time.Time
	turns     *turns.Turns
}

// NewHost makes a Host. now is asked for creation times and expiry.
func NewHost(shards shard.Map, owners Owners, c Committer, db *accountdb.Reader, done Done, now func() time.Time) *Host {
	return &Host{shards: shards, owners: owners, committer: c, db: db, done: done, now: now, turns: turns.New()}
}

// change is what a command decided: log entries, rows, and what to answer.
type change struct {
	entries []entry.Entry
	rows    []entry.Row
	answer  Answer
}

// Do does a command on a shard that this worker holds. The same key has its effect once. A refusal is an *mxerr.Error.
func (h *Host) Do(ctx context.Context, key []byte, cmd Command) (Answer, error) {
	who, _ := cmd.shardKey()
	s := ShardOf(h.shards, cmd)
	leave, err := h.turns.Enter(ctx, who)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", cmd.Method(), err)
	}
	defer leave()
	for {
		a, err := h.try(ctx, s, key, cmd)
		if errors.Is(err, commit.ErrChain) { // somebody else's failure: ours was not tried
			continue
		}
		return a, err
	}
}

func (h *Host) try(ctx context.Context, s shard.ID, key []byte, cmd Command) (Answer, error) {
	epoch, ok := h.owners.Epoch(s)
	if !ok {
		return Answer{}, ErrNotOwner
	}
	if key != nil {
		// A repeat must find its answer before it is judged: its own effect would be held against it.
		if result, ok, err := h.done.Done(ctx, s, key); err != nil {
			return Answer{}, fmt.Errorf("%s: %w", cmd.Method(), err)
		} else if ok {
			return decodeAnswer(result)
		}
	}
	c, err := h.decide(ctx, s, cmd)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", cmd.Method(), err)
	}
	if len(c.rows) == 0 && len(c.entries) == 0 {
		if _, still := h.owners.Epoch(s); !still { // what we read may have been overtaken
			return Answer{}, ErrNotOwner
		}
		return c.answer, nil
	}
	result, err := json.Marshal(c.answer)
	if err != nil {
		return Answer{}, fmt.Errorf("%s: %w", cmd.Method(), err)
	}
	out, err := h.committer.Submit(&entry.Proposal{
		Shard: s, Epoch: epoch, Key: key, Result: result, Entries: c.entries, Rows: c.rows,
		Trace: trace.SpanContextFromContext(ctx),
	}).Wait(ctx)
	switch {
	case errors.Is(err, commit.ErrFenced):
		return Answer{}, ErrNotOwner
	case err != nil:
		return Answer{}, fmt.Errorf("%s: %w", cmd.Method(), err)
	case out.Repeated:
		return decodeAnswer(out.Result)
	}
	return c.answer, nil
}

func decodeAnswer(b []byte) (Answer, error) {
	var a Answer
	if len(b) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("decode stored answer: %w", err)
	}
	return a, nil
}

// ShardOf gives the shard that does a command.
func ShardOf(m shard.Map, cmd Command) shard.ID {
	key, isUser := cmd.shardKey()
	if isUser {
		return m.OfUser(key)
	}
	return m.Of(key)
}

func (h *Host) decide(ctx context.Context, s shard.ID, cmd Command) (change, error) {
	switch c := cmd.(type) {
	case *Register:
		return h.register(ctx, s, c)
	case *Login:
		return h.login(ctx, s, c)
	case *Refresh:
		return h.refresh(ctx, s, c)
	case *ConfirmRefresh:
		return h.confirmRefresh(ctx, s, c)
	case *PutLoginToken:
		return h.putLoginToken(ctx, s, c)
	case *LoginByToken:
		return h.loginByToken(ctx, s, c)
	case *Deactivate:
		return h.deactivate(ctx, s, c)
	case *SetStanding:
		return h.setStanding(ctx, s, c)
	case *Logout:
		return h.logout(ctx, s, c)
	case *SetPassword:
		return h.setPassword(ctx, s, c)
	case *SetDevice:
		return h.setDevice(ctx, s, c)
	case *SetProfile:
		return h.setProfile(ctx, s, c)
	case *SetAccountData:
		return h.setAccountData(c)
	case *Report:
		return h.report(c)
	case *FollowRoom:
		return h.followRoom(ctx, s, c)
	case *ChangePushRule:
		return h.changePushRule(ctx, s, c)
	case *SetPusher:
		return h.setPusher(ctx, s, c)
	case *PutDevice:
		return h.putDevice(ctx, s, c)
	case *SyncDevices:
		return h.syncDevices(ctx, s, c)
	case *AllowReset:
		return h.allowReset(ctx, s, c)
	case *Reactivate:
		return h.reactivate(ctx, s, c)
	case *SubscribeThread:
		return h.subscribeThread(ctx, s, c)
	case *SetTag:
		return h.setTag(ctx, s, c)
	case *PutFilter:
		return h.putFilter(c)
	case *BeginValidation:
		return h.beginValidation(ctx, s, c)
	case *ConfirmValidation:
		return h.confirmValidation(ctx, s, c)
	case *TakeValidation:
		return h.takeValidation(ctx, s, c)
	case *UndoValidation:
		return h.undoValidation(ctx, s, c)
	case *Claim:
		return h.claim(ctx, s, c)
	case *PassStage:
		return h.passStage(c)
	case *AddThreepid:
		return h.addThreepid(ctx, s, c)
	case *RemoveThreepid:
		return h.removeThreepid(c)
	case *NoteBind:
		return h.noteBind(ctx, s, c)
	case *Agree:
		return h.agree(ctx, s, c)
	case *LinkExternal:
		return h.linkExternal(ctx, s, c)
	case *UseRegistrationToken:
		return h.useRegistrationToken(ctx, s, c)
	case *PutRegistrationToken:
		return h.putRegistrationToken(ctx, s, c)
	}
	return change{}, fmt.Errorf("unknown command %T", cmd)
}
