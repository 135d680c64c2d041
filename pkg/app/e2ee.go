package app

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/remote/fedclient"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
)

// e2eeDoer has commands on keys, messages to devices and backups done by whoever holds their shard.
type e2eeDoer struct {
	to     caller
	shards shard.Map
}

// Do implements e2ee.Doer.
func (d e2eeDoer) Do(ctx context.Context, key []byte, cmd e2ee.Command) (e2ee.Answer, error) {
	return callFor[e2ee.Answer](ctx, d.to, cmd.Shard(d.shards), key, cmd)
}

// e2eeFront is encryption as a worker sees it that has commands done.
func e2eeFront(s *shared) *e2ee.Front {
	return e2ee.NewFront(e2ee.FrontOptions{
		Server: s.base.server, Shards: s.shards, Do: e2eeDoer{to: s.to, shards: s.shards}, DB: s.e2ee, Remote: e2eeRemote{s.remote},
	})
}

// e2eeRemote asks other servers about keys of their users.
type e2eeRemote struct{ client *fedclient.Client }

const (
	userKeysPath  = "/_matrix/federation/v1/user/keys/"
	userKeysLimit = 16 << 20
	// userKeysTimeout is how long one server is asked for keys: a little less than clients wait at most (e2ee.MaxWait), so that one that says
	// nothing is known for it, and left alone for a while.
	userKeysTimeout = 9 * time.Second
)

// QueryKeys implements e2ee.Remote.
func (r e2eeRemote) QueryKeys(ctx context.Context, server id.ServerName, devices map[string][]string) (keys e2ee.RemoteKeys, err error) {
	err = r.ask(ctx, server, "query", map[string]any{"device_keys": devices}, &keys)
	return keys, err
}

// ClaimKeys implements e2ee.Remote.
func (r e2eeRemote) ClaimKeys(ctx context.Context, server id.ServerName, wanted map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
	var a struct {
		Keys map[string]map[string]map[string]json.RawMessage `json:"one_time_keys"`
	}
	err := r.ask(ctx, server, "claim", map[string]any{"one_time_keys": wanted}, &a)
	return a.Keys, err
}

func (r e2eeRemote) ask(ctx context.Context, server id.ServerName, what string, q, a any) error {
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("encode %s of keys: %w", what, err)
	}
	b, err := r.client.Do(ctx, server, fedclient.Request{
		Method: "POST", Path: userKeysPath + what, Body: body, Timeout: userKeysTimeout, Limit: userKeysLimit,
	})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, a); err != nil {
		return fmt.Errorf("%w: %s: keys of users: %w", fedclient.ErrMalformed, server, err)
	}
	return nil
}

// e2eeReader reads keys and backups.
func e2eeReader(s *shared, rooms *readdb.Reader) *e2ee.Reader {
	return e2ee.NewReader(e2ee.ReaderOptions{
		Server: s.base.server, Shards: s.shards, DB: s.e2ee, Rooms: rooms, Remote: e2eeRemote{s.remote},
	})
}

// acks tells the writers which messages devices have received.
type acks struct{ front *e2ee.Front }

// Acknowledge implements msync.Acknowledger.
func (a acks) Acknowledge(ctx context.Context, list []msync.Received) error {
	out := make([]e2ee.Received, len(list))
	for i, r := range list {
		out[i] = e2ee.Received{UserID: r.User, DeviceID: r.Device, Upto: int64(r.Upto)}
	}
	return a.front.Acknowledge(ctx, out)
}
