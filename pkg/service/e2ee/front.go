package e2ee

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

// Doer has a command done by whoever holds its shard, until ctx ends. It is the router between [Host] and other workers.
type Doer interface {
	Do(ctx context.Context, key []byte, cmd Command) (Answer, error)
}

// Remote asks other servers about keys of their users. An error is that server's failure.
type Remote interface {
	// QueryKeys gives the server's answer to a query for devices of its users.
	QueryKeys(ctx context.Context, server id.ServerName, devices map[string][]string) (RemoteKeys, error)
	// ClaimKeys gives, by user, device and key id, the keys that the server handed out.
	ClaimKeys(ctx context.Context, server id.ServerName, wanted map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error)
}

// What a command may hold, so that it is no burden to carry nor to commit.
const (
	pieceBytes    = 192 << 10
	pieceMessages = 400
	pieceClaims   = 400
	inFlight      = 8 // commands of one request
	// mostDevices and usualDevices are what a message to all devices of a user is multiplied by: at most, and by the way.
	mostDevices  = 1000
	usualDevices = 16
	// maxContent bounds a message to a device: what a federated EDU can carry.
	maxContent = 64 << 10
)

// FrontOptions are what a Front needs. Without Remote, every other server fails.
type FrontOptions struct {
	Server id.ServerName
	Shards shard.Map
	Do     Doer
	DB     *e2eedb.Reader
	Remote Remote
}

// Front is encryption as an API worker sees it. It keeps nothing.
type Front struct{ FrontOptions }

// NewFront makes a Front.
func NewFront(o FrontOptions) *Front { return &Front{o} }

func (f *Front) do(ctx context.Context, cmd Command) (Answer, error) {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // it never fails
	return f.Do.Do(ctx, key, cmd)
}

// Upload is what a device uploads.
type Upload struct {
	Device   json.RawMessage            `json:"device_keys"`
	OneTime  map[string]json.RawMessage `json:"one_time_keys"`
	Fallback map[string]json.RawMessage `json:"fallback_keys"`
}

func (u *Upload) check(user, device string) (*UploadKeys, error) {
	cmd := &UploadKeys{UserID: user, DeviceID: device}
	var err error
	if len(u.Device) > 0 && string(u.Device) != "null" {
		if cmd.Device, err = checkDeviceKeys(user, device, u.Device); err != nil {
			return nil, err
		}
	}
	if cmd.OneTime, err = checkKeys(u.OneTime, false); err != nil {
		return nil, err
	}
	if cmd.Fallback, err = checkKeys(u.Fallback, true); err != nil {
		return nil, err
	}
	return cmd, nil
}

// UploadKeys stores keys of a device, and tells how many one-time keys it has.
func (f *Front) UploadKeys(ctx context.Context, user id.UserID, device id.DeviceID, u *Upload) (map[string]int64, error) {
	cmd, err := u.check(string(user), string(device))
	if err != nil {
		return nil, err
	}
	a, err := f.do(ctx, cmd)
	return a.Counts, err
}

// Claimed is the answer to a claim: keys by user, device and key id, and the servers that failed.
type Claimed struct {
	Keys     map[string]map[string]map[string]json.RawMessage `json:"one_time_keys"`
	Failures map[string]any                                   `json:"failures"`
}

func (c *Claimed) add(user, device, key string, json1 json.RawMessage) {
	if c.Keys[user] == nil {
		c.Keys[user] = make(map[string]map[string]json.RawMessage)
	}
	if c.Keys[user][device] == nil {
		c.Keys[user][device] = make(map[string]json.RawMessage)
	}
	c.Keys[user][device][key] = json1
}

// Claim is [Front.ClaimWithin] with the most patience.
func (f *Front) Claim(ctx context.Context, wanted map[string]map[string]string) (*Claimed, error) {
	return f.ClaimWithin(ctx, wanted, MaxWait)
}

// ClaimWithin hands out a key of each device that is named, with its algorithm. Other servers are waited for so long; who has not answered
// then has failed.
func (f *Front) ClaimWithin(ctx context.Context, wanted map[string]map[string]string, wait time.Duration) (*Claimed, error) {
	out := &Claimed{Keys: make(map[string]map[string]map[string]json.RawMessage), Failures: make(map[string]any)}
	local := make(map[shard.ID]*Claim)
	away := make(map[id.ServerName]map[string]map[string]string)
	var cmds []*Claim
	for _, user := range slices.Sorted(maps.Keys(wanted)) {
		u, err := id.ParseUserID(user)
		if err != nil {
			return nil, mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		if u.Server() != f.Server {
			if away[u.Server()] == nil {
				away[u.Server()] = make(map[string]map[string]string)
			}
			away[u.Server()][user] = wanted[user]
			continue
		}
		s := f.Shards.OfUser(user)
		for _, device := range slices.Sorted(maps.Keys(wanted[user])) {
			w := Wanted{UserID: user, DeviceID: device, Algorithm: wanted[user][device]}
			if !storable(w.DeviceID) || !storable(w.Algorithm) {
				continue // there is no such device, or no such key
			}
			c := local[s]
			if c == nil || len(c.Wanted) >= pieceClaims {
				c = &Claim{}
				local[s], cmds = c, append(cmds, c)
			}
			c.Wanted = append(c.Wanted, w)
		}
	}
	var mu sync.Mutex // guards out
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, c := range cmds {
		g.Go(func() error {
			a, err := f.do(gctx, c)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, k := range a.Keys {
				out.add(k.UserID, k.DeviceID, k.KeyID, k.JSON)
			}
			return nil
		})
	}
	asked, done := asking(gctx, wait)
	defer done()
	for server, q := range away {
		g.Go(func() error {
			keys, err := f.claimAway(asked, server, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Failures[string(server)] = failure(err)
				return nil
			}
			for user := range q { // of others it may say what it likes
				for device := range q[user] {
					for key, j := range keys[user][device] {
						out.add(user, device, key, j)
					}
				}
			}
			return nil
		})
	}
	return out, g.Wait()
}

func (f *Front) claimAway(ctx context.Context, server id.ServerName, q map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
	if f.Remote == nil {
		return nil, errNoFederation()
	}
	return f.Remote.ClaimKeys(ctx, server, q)
}

func errNoFederation() error {
	return mxerr.New(mxerr.Unknown, "Other servers are not asked for keys").WithStatus(503)
}

// failure is how a server's failure is told.
func failure(err error) any {
	e, ok := errors.AsType[*mxerr.Error](err)
	if !ok {
		return map[string]any{"status": 503, "message": "The server could not be reached"}
	}
	return map[string]any{"status": e.HTTPStatus, "errcode": e.Code, "error": e.Message, "message": e.Message}
}

// Sending is a request to send messages to devices.
type Sending struct {
	Sender id.UserID
	Device id.DeviceID
	Type   string
	// Txn, with sender, device and type, makes the request safe to repeat.
	Txn      string
	Messages map[string]map[string]json.RawMessage
}

// Send delivers messages to devices: to users of this server, and into the queues for others. It is cut into commands of bounded size, each with
// a key of its own that a repeat of the request has again.
func (f *Front) Send(ctx context.Context, q *Sending) error {
	pieces, err := f.pieces(q)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for i, cmd := range pieces {
		key := sha256.Sum256(fmt.Appendf(nil, "todevice\x00%s\x00%s\x00%s\x00%s\x00%d", q.Sender, q.Device, q.Type, q.Txn, i))
		g.Go(func() error {
			_, err := f.Do.Do(ctx, key[:], cmd)
			return err
		})
	}
	return g.Wait()
}

func (f *Front) pieces(q *Sending) ([]Command, error) {
	var cmds []Command
	local := make(map[shard.ID]*SendToDevice)
	sizes := make(map[*SendToDevice]int)
	away := make(map[id.ServerName]map[string]map[string]json.RawMessage)
	for _, user := range slices.Sorted(maps.Keys(q.Messages)) {
		u, err := id.ParseUserID(user)
		if err != nil {
			return nil, mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		for _, device := range slices.Sorted(maps.Keys(q.Messages[user])) {
			content := q.Messages[user][device]
			if len(content) > maxContent {
				return nil, mxerr.New(mxerr.TooLarge, "A message to a device is too large")
			}
			compact, err := compactObject(content)
			if err != nil {
				return nil, err
			}
			if u.Server() != f.Server {
				if away[u.Server()] == nil {
					away[u.Server()] = make(map[string]map[string]json.RawMessage)
				}
				if away[u.Server()][user] == nil {
					away[u.Server()][user] = make(map[string]json.RawMessage)
				}
				away[u.Server()][user][device] = compact
				continue
			}
			s := f.Shards.OfUser(user)
			for _, m := range cutUp(user, device, Message(q.Sender, q.Type, compact)) {
				c := local[s]
				if c == nil || sizes[c]+m.cost() > pieceBytes || len(c.Messages) >= pieceMessages {
					c = &SendToDevice{}
					local[s], cmds = c, append(cmds, c)
				}
				sizes[c] += m.cost()
				c.Messages = append(c.Messages, m)
			}
		}
	}
	for _, server := range slices.Sorted(maps.Keys(away)) {
		id := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%s", q.Sender, q.Device, q.Type, q.Txn, server))
		edus, err := directToDevice(q, fmt.Sprintf("%x", id[:12]), away[server])
		if err != nil {
			return nil, err
		}
		for _, e := range edus {
			cmds = append(cmds, &SendAway{Server: string(server), Content: e})
		}
	}
	return cmds, nil
}

// cutUp gives a message to a device, or the parts of one to all devices, such that each part, multiplied, is bounded whatever number of devices
// the user has. It depends on nothing but the message, so that a repeat of the request is cut alike.
func cutUp(user, device string, message []byte) []ToDevice {
	m := ToDevice{UserID: user, DeviceID: device, JSON: message}
	n := 1 + len(message)*mostDevices/maxFanOut
	if device != "*" || n == 1 {
		return []ToDevice{m}
	}
	out := make([]ToDevice, n)
	for i := range out {
		out[i] = m
		out[i].Part, out[i].Of = i, n
	}
	return out
}

// cost is about how many bytes the message comes to.
func (m *ToDevice) cost() int {
	switch {
	case m.Of > 0:
		return pieceBytes // it fills a command
	case m.DeviceID == "*":
		return len(m.JSON) * usualDevices
	}
	return len(m.JSON)
}

// directToDevice gives the contents of the EDUs that carry messages to another server: as many as it takes to keep each within bounds.
func directToDevice(q *Sending, messageID string, messages map[string]map[string]json.RawMessage) ([]json.RawMessage, error) {
	var out []json.RawMessage
	part, size := make(map[string]map[string]json.RawMessage), 0
	flush := func() error {
		if size == 0 {
			return nil
		}
		b, err := json.Marshal(map[string]any{
			"sender": q.Sender, "type": q.Type, "message_id": fmt.Sprintf("%s-%d", messageID, len(out)), "messages": part,
		})
		out, part, size = append(out, b), make(map[string]map[string]json.RawMessage), 0
		return err
	}
	for _, user := range slices.Sorted(maps.Keys(messages)) {
		for _, device := range slices.Sorted(maps.Keys(messages[user])) {
			m := messages[user][device]
			if size+len(m) > maxContent {
				if err := flush(); err != nil {
					return nil, err
				}
			}
			if part[user] == nil {
				part[user] = make(map[string]json.RawMessage)
			}
			part[user][device] = m
			size += len(m) + len(user) + len(device)
		}
	}
	return out, flush()
}

func compactObject(b []byte) (json.RawMessage, error) {
	var v map[string]json.RawMessage
	if json.Unmarshal(b, &v) != nil || v == nil {
		return nil, badJSON("A message to a device is not an object")
	}
	out, err := canonjson.Canonical(b, canonjson.Options{Mode: canonjson.Lax})
	if err != nil {
		return nil, badJSON("A message to a device is not JSON")
	}
	return out, nil
}

// Message gives a message as its device is shown it.
func Message(sender id.UserID, typ string, content []byte) []byte {
	b := append(make([]byte, 0, len(content)+len(typ)+len(sender)+40), `{"content":`...)
	b = append(b, content...)
	b = append(b, `,"sender":`...)
	b = canonjson.AppendString(b, string(sender))
	b = append(b, `,"type":`...)
	b = canonjson.AppendString(b, typ)
	return append(b, '}')
}

// Acknowledge removes messages that devices have received.
func (f *Front) Acknowledge(ctx context.Context, list []Received) error {
	return doInPieces(ctx, f, list, func(r *Received) string { return r.UserID }, func(piece []Received) Command { return &Acknowledge{Received: piece} })
}

// doInPieces has something done about many users: in commands for the shards that they are of, each about no more than pieceMessages.
func doInPieces[T any](ctx context.Context, f *Front, list []T, user func(*T) string, command func([]T) Command) error {
	byShard := make(map[shard.ID][]T)
	for i := range list {
		s := f.Shards.OfUser(user(&list[i]))
		byShard[s] = append(byShard[s], list[i])
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	for _, of := range byShard {
		for piece := range slices.Chunk(of, pieceMessages) {
			g.Go(func() error {
				_, err := f.do(ctx, command(piece))
				return err
			})
		}
	}
	return g.Wait()
}
