package e2ee

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// ReaderOptions are what a Reader needs. Without Remote, every other server fails.
type ReaderOptions struct {
	Server id.ServerName
	Shards shard.Map
	DB     *e2eedb.Reader
	Rooms  *readdb.Reader
	Remote Remote
}

// Reader answers what is read of keys and backups, from what is committed.
type Reader struct{ ReaderOptions }

// NewReader makes a Reader.
func NewReader(o ReaderOptions) *Reader { return &Reader{o} }

// RemoteKeys are the keys of users of one server.
type RemoteKeys struct {
	Devices     map[string]map[string]json.RawMessage `json:"device_keys"`
	Master      map[string]json.RawMessage            `json:"master_keys"`
	SelfSigning map[string]json.RawMessage            `json:"self_signing_keys"`
}

// Keys is the answer to a query.
type Keys struct {
	RemoteKeys
	UserSigning map[string]json.RawMessage `json:"user_signing_keys"`
	Failures    map[string]any             `json:"failures"`
}

func newKeys() *Keys {
	return &Keys{RemoteKeys: RemoteKeys{
		Devices: make(map[string]map[string]json.RawMessage), Master: make(map[string]json.RawMessage),
		SelfSigning: make(map[string]json.RawMessage),
	}, UserSigning: make(map[string]json.RawMessage), Failures: make(map[string]any)}
}

// Query is [Reader.QueryWithin] with the most patience.
func (r *Reader) Query(ctx context.Context, viewer id.UserID, q map[string][]string) (*Keys, error) {
	return r.QueryWithin(ctx, viewer, q, MaxWait)
}

// QueryWithin gives the keys of users as one of them is shown them: for each user the devices named, all if none is. An empty viewer is
// another server. Other servers are waited for so long; who has not answered then has failed.
func (r *Reader) QueryWithin(ctx context.Context, viewer id.UserID, q map[string][]string, wait time.Duration) (*Keys, error) {
	out := newKeys()
	var local []string
	away := make(map[id.ServerName]map[string][]string)
	for user, devices := range q {
		u, err := id.ParseUserID(user)
		if err != nil {
			return nil, mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
		}
		if u.Server() == r.Server {
			local = append(local, user)
			continue
		}
		if away[u.Server()] == nil {
			away[u.Server()] = make(map[string][]string)
		}
		if devices == nil {
			devices = []string{}
		}
		away[u.Server()][user] = devices
	}
	slices.Sort(local)
	if err := r.local(ctx, out, viewer, local, q); err != nil {
		return nil, err
	}
	if viewer == "" {
		return out, nil
	}
	var mu sync.Mutex // guards out
	asked, done := asking(ctx, wait)
	defer done()
	var g errgroup.Group
	g.SetLimit(inFlight)
	for server, users := range away {
		g.Go(func() error {
			err := errNoFederation()
			var keys RemoteKeys
			if r.Remote != nil {
				keys, err = r.Remote.QueryKeys(asked, server, users)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				out.Failures[string(server)] = failure(err)
				return nil
			}
			out.take(&keys, users)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, r.sign(ctx, out, viewer)
}

// take takes in what another server says of the users that it was asked about.
func (k *Keys) take(from *RemoteKeys, users map[string][]string) {
	for u := range users {
		if d := from.Devices[u]; d != nil {
			k.Devices[u] = d
		}
		if m := from.Master[u]; m != nil {
			k.Master[u] = m
		}
		if s := from.SelfSigning[u]; s != nil {
			k.SelfSigning[u] = s
		}
	}
}

func (r *Reader) local(ctx context.Context, out *Keys, viewer id.UserID, users []string, q map[string][]string) error {
	if len(users) == 0 {
		return nil
	}
	devices, err := r.DB.Devices(ctx, r.Shards, users)
	if err != nil {
		return err
	}
	cross, err := r.DB.CrossSigning(ctx, r.Shards, users)
	if err != nil {
		return err
	}
	for _, u := range users {
		out.Devices[u] = make(map[string]json.RawMessage)
	}
	for i := range devices {
		d := &devices[i]
		if d.JSON == nil || len(q[d.UserID]) > 0 && !slices.Contains(q[d.UserID], d.DeviceID) {
			continue
		}
		out.Devices[d.UserID][d.DeviceID] = shown(d)
	}
	for i := range cross {
		k := &cross[i]
		switch k.Usage {
		case e2eedb.Master:
			out.Master[k.UserID] = k.JSON
		case e2eedb.SelfSigning:
			out.SelfSigning[k.UserID] = k.JSON
		case e2eedb.UserSigning:
			if k.UserID == string(viewer) { // it would tell whom the user has verified
				out.UserSigning[k.UserID] = k.JSON
			}
		}
	}
	return nil
}

// sign adds the viewer's own signatures under the keys of others.
func (r *Reader) sign(ctx context.Context, out *Keys, viewer id.UserID) error {
	var targets []string
	for u := range out.Master {
		if u != string(viewer) {
			targets = append(targets, u)
		}
	}
	if len(targets) == 0 {
		return nil
	}
	slices.Sort(targets)
	sigs, err := r.DB.SignaturesBy(ctx, r.Shards, string(viewer), targets)
	if err != nil {
		return err
	}
	for _, s := range sigs {
		k, err := checkCrossKey(s.Target, e2eedb.Master, out.Master[s.Target])
		if err != nil || k.public != s.TargetKey {
			continue // another key since
		}
		if b := withSignature(k.json, string(viewer), s.KeyID, s.Signature); b != nil {
			out.Master[s.Target] = b
		}
	}
	return nil
}

// DevicesOf is what another server is told of a user's devices.
type DevicesOf struct {
	UserID      string          `json:"user_id"`
	StreamID    int64           `json:"stream_id"`
	Devices     []DeviceOf      `json:"devices"`
	Master      json.RawMessage `json:"master_key,omitempty"`
	SelfSigning json.RawMessage `json:"self_signing_key,omitempty"`
}

// DeviceOf is one of them.
type DeviceOf struct {
	DeviceID    string          `json:"device_id"`
	Keys        json.RawMessage `json:"keys"`
	DisplayName string          `json:"device_display_name,omitempty"`
}

// DevicesOf gives a local user's devices that have keys. The stream id is read first, so that it is never ahead of the devices.
func (r *Reader) DevicesOf(ctx context.Context, user id.UserID) (*DevicesOf, error) {
	pos, err := r.DB.ListPos(ctx, r.Shards.OfUser(string(user)), string(user))
	if err != nil {
		return nil, err
	}
	out := &DevicesOf{UserID: string(user), StreamID: int64(pos), Devices: []DeviceOf{}}
	devices, err := r.DB.Devices(ctx, r.Shards, []string{string(user)})
	if err != nil {
		return nil, err
	}
	for _, d := range devices {
		if d.JSON != nil {
			out.Devices = append(out.Devices, DeviceOf{DeviceID: d.DeviceID, Keys: d.JSON, DisplayName: d.DisplayName})
		}
	}
	cross, err := r.DB.CrossSigning(ctx, r.Shards, []string{string(user)})
	for _, k := range cross {
		switch k.Usage {
		case e2eedb.Master:
			out.Master = k.JSON
		case e2eedb.SelfSigning:
			out.SelfSigning = k.JSON
		}
	}
	return out, err
}

// Changes tells whose device lists changed for a user after positions, and who shares no room with the user any more.
func (r *Reader) Changes(ctx context.Context, user id.UserID, above shard.Vector) (changed, left []string, err error) {
	rooms, err := r.Rooms.Memberships(ctx, string(user))
	if err != nil {
		return nil, nil, err
	}
	mine := make([]e2eedb.Mine, 0, len(rooms))
	for i := range rooms {
		mine = append(mine, e2eedb.Mine{
			Room: rooms[i].Nid, Joined: rooms[i].Membership == roomdb.MembershipJoin, Pos: rooms[i].Pos,
		})
	}
	return r.DB.Tracked(ctx, r.Shards, string(user), above, mine)
}

// Dehydrated is a dehydrated device as a client reads it.
type Dehydrated struct {
	DeviceID string          `json:"device_id"`
	Data     json.RawMessage `json:"device_data"`
}

// Dehydrated gives the user's dehydrated device. Refused with M_NOT_FOUND.
func (r *Reader) Dehydrated(ctx context.Context, user id.UserID) (*Dehydrated, error) {
	d, ok, err := r.DB.Dehydrated(ctx, r.Shards.OfUser(string(user)), string(user))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, mxerr.New(mxerr.NotFound, "No dehydrated device")
	}
	return &Dehydrated{DeviceID: d.DeviceID, Data: d.Data}, nil
}

// dehydratedPage is how many messages to a dehydrated device are given at a time.
const dehydratedPage = 100

// DehydratedMessages are some of the messages to a dehydrated device: those up to Next, and whether there are More.
type DehydratedMessages struct {
	Events []json.RawMessage
	Next   shard.Pos
	More   bool
}

// DehydratedMessages gives messages to the user's dehydrated device after a position. They stay until the device is removed: whoever
// takes it over may be interrupted.
func (r *Reader) DehydratedMessages(ctx context.Context, user id.UserID, device string, after shard.Pos) (DehydratedMessages, error) {
	out := DehydratedMessages{Events: []json.RawMessage{}, Next: after}
	d, err := r.Dehydrated(ctx, user)
	if err != nil {
		return out, err
	}
	if d.DeviceID != device {
		return out, mxerr.New(mxerr.Forbidden, "Not the dehydrated device")
	}
	list, err := r.DB.Messages(ctx, r.Shards.OfUser(string(user)), string(user), device, after, 1<<62, dehydratedPage+1)
	if err != nil {
		return out, err
	}
	for _, m := range list[:min(len(list), dehydratedPage)] {
		out.Events, out.Next = append(out.Events, m.JSON), m.Pos
	}
	out.More = len(list) > dehydratedPage
	return out, nil
}

// Backup gives a version of the user's key backup; 0 stands for the latest. Refused with M_NOT_FOUND.
func (r *Reader) Backup(ctx context.Context, user id.UserID, version int64) (e2eedb.BackupVersion, error) {
	return backupOf(ctx, r.DB, r.Shards, user, version)
}

func backupOf(ctx context.Context, db *e2eedb.Reader, m shard.Map, user id.UserID, version int64) (e2eedb.BackupVersion, error) {
	s := m.OfUser(string(user))
	var b e2eedb.BackupVersion
	var ok bool
	var err error
	if version == 0 {
		b, ok, err = db.LatestBackup(ctx, s, string(user), false)
	} else {
		b, ok, err = db.Backup(ctx, s, string(user), version)
	}
	if err == nil && (!ok || b.Deleted) {
		err = noBackup()
	}
	return b, err
}

// BackupKey is a session's key in a backup, as it is stored.
type BackupKey = e2eedb.BackupKey

// BackupKeys gives the keys of a version, of a room or session if these are set, one by one in the order of rooms and sessions; it holds some of
// them at a time. Refused with M_NOT_FOUND if there is no such version.
func (r *Reader) BackupKeys(ctx context.Context, user id.UserID, version int64, room, session string, take func(k *BackupKey)) error {
	if _, err := r.Backup(ctx, user, version); err != nil {
		return err
	}
	of, after := e2eedb.SessionName{Room: room, Session: session}, e2eedb.SessionName{}
	for {
		list, err := r.DB.BackupKeys(ctx, r.Shards.OfUser(string(user)), string(user), version, of, after, backupPiece)
		if err != nil {
			return err
		}
		for i := range list {
			take(&list[i])
		}
		if len(list) < backupPiece {
			return nil
		}
		last := &list[len(list)-1]
		after = e2eedb.SessionName{Room: last.RoomID, Session: last.SessionID}
	}
}

// shown gives a device's keys with what the server adds to them.
func shown(d *e2eedb.Device) json.RawMessage {
	if d.DisplayName == "" {
		return d.JSON
	}
	b := append([]byte{}, d.JSON[:len(d.JSON)-1]...)
	b = append(b, `,"unsigned":{"device_display_name":`...)
	b = canonjson.AppendString(b, d.DisplayName)
	return append(b, `}}`...)
}
