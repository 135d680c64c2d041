package account

import (
	"context"
	"fmt"
	"time"

	"github.com/heddle-im/heddle/pkg/shardlog/command"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Host does commands on the shards that this worker holds.
type Host struct {
	shards   shard.Map
	commands *command.Host[Answer]
	db       *accountdb.Reader
	now      func() time.Time
}

// NewHost makes a Host. now is asked for creation times and expiry.
func NewHost(m shard.Map, o command.Options, db *accountdb.Reader, now func() time.Time) *Host {
	return &Host{shards: m, commands: command.NewHost[Answer](o), db: db, now: now}
}

// change is what a command decided.
type change = command.Change[Answer]

// Do does a command on a shard that this worker holds. The same key has its effect once. A refusal is an *mxerr.Error.
func (h *Host) Do(ctx context.Context, key []byte, cmd Command) (Answer, error) {
	who, _ := cmd.shardKey()
	s := ShardOf(h.shards, cmd)
	r := command.Request{Name: cmd.Method(), Shard: s, Key: key, Turns: []string{who}}
	return h.commands.Do(ctx, r, func(ctx context.Context) (change, error) { return h.decide(ctx, s, cmd) })
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
