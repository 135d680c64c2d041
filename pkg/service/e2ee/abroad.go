package e2ee

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
)

// Devices of users of other servers are not kept: their keys are asked for when a client asks. What is kept is that a list has changed, so
// that clients who share a room with the user ask.

// maxListsChanged bounds the users of one command.
const maxListsChanged = 100

// listsChangedAbroad notes that device lists of users of another server changed.
func (h *Host) listsChangedAbroad(q *ListsChanged) (change, error) {
	var c change
	for _, u := range q.Users {
		if h.Shards.Local(u) {
			return change{}, invalid("A user of this server")
		}
		if err := listChanged(&c, u, &entry.DeviceListBody{}); err != nil {
			return change{}, err
		}
	}
	return c, nil
}

// ListsChanged notes that device lists of users of another server changed, or may have.
func (f *Front) ListsChanged(ctx context.Context, users ...id.UserID) error {
	for piece := range slices.Chunk(users, maxListsChanged) {
		cmds := make(map[id.ServerName]*ListsChanged)
		for _, u := range piece {
			if u.Server() == f.Server {
				continue
			}
			if cmds[u.Server()] == nil {
				cmds[u.Server()] = new(ListsChanged)
			}
			cmds[u.Server()].Users = append(cmds[u.Server()].Users, string(u))
		}
		for _, c := range cmds {
			if _, err := f.do(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// TakeDeviceList takes an m.device_list_update or m.signing_key_update of another server: the user's clients ask for the keys themselves.
func (f *Front) TakeDeviceList(ctx context.Context, origin id.ServerName, content []byte) error {
	var c struct {
		User    string          `json:"user_id"`
		Device  string          `json:"device_id"`
		Keys    json.RawMessage `json:"keys"`
		Deleted bool            `json:"deleted"`
	}
	if json.Unmarshal(content, &c) != nil {
		return badJSON("The update is not an object with a user_id")
	}
	u, err := id.ParseUserID(c.User)
	if err != nil || u.Server() != origin || u.Server() == f.Server {
		return mxerr.New(mxerr.Forbidden, "The update is not of a user of the server that sent it")
	}
	if c.Device != "" && !c.Deleted && (len(c.Keys) == 0 || string(c.Keys) == "null") {
		return nil // a device without keys is nothing to anybody else: to ask for the user's keys would give what it gave before
	}
	return f.ListsChanged(ctx, u)
}

// TakeToDevice takes an m.direct_to_device of another server, once, however often it is sent. Messages to others than users of this server
// are left out, and so are those that no client could send.
func (f *Front) TakeToDevice(ctx context.Context, origin id.ServerName, content []byte) error {
	var c struct {
		Sender   string                                `json:"sender"`
		Type     string                                `json:"type"`
		ID       string                                `json:"message_id"`
		Messages map[string]map[string]json.RawMessage `json:"messages"`
	}
	if json.Unmarshal(content, &c) != nil || c.ID == "" || c.Type == "" {
		return badJSON("The message to devices lacks a member, or has one of the wrong type")
	}
	if !storable(c.Type) {
		return invalid("The type of the message to devices is too long")
	}
	u, err := id.ParseUserID(c.Sender)
	if err != nil || u.Server() != origin || origin == f.Server {
		return mxerr.New(mxerr.Forbidden, "The message is not of a user of the server that sent it")
	}
	for user := range c.Messages {
		if p, err := id.ParseUserID(user); err != nil || p.Server() != f.Server {
			delete(c.Messages, user)
		}
		maps.DeleteFunc(c.Messages[user], func(_ string, m json.RawMessage) bool {
			_, err := compactObject(m)
			return err != nil || len(m) > maxContent
		})
	}
	return f.Send(ctx, &Sending{Sender: u, Type: c.Type, Txn: c.ID, Messages: c.Messages})
}

// ClaimFor hands out keys of users of this server to another server. It is told nothing of others.
func (f *Front) ClaimFor(ctx context.Context, wanted map[string]map[string]string) (map[string]map[string]map[string]json.RawMessage, error) {
	here := make(map[string]map[string]string)
	for user, w := range wanted {
		if u, err := id.ParseUserID(user); err == nil && u.Server() == f.Server {
			here[user] = w
		}
	}
	c, err := f.Claim(ctx, here)
	if err != nil {
		return nil, err
	}
	return c.Keys, nil
}

// QueryFor gives the keys of users of this server to another server.
func (r *Reader) QueryFor(ctx context.Context, q map[string][]string) (*RemoteKeys, error) {
	here := make(map[string][]string)
	for user, devices := range q {
		if u, err := id.ParseUserID(user); err == nil && u.Server() == r.Server {
			here[user] = devices
		}
	}
	k, err := r.Query(ctx, "", here)
	if err != nil {
		return nil, err
	}
	return &k.RemoteKeys, nil
}

// EDU is what another server is to be told.
type EDU struct {
	Type    string
	Content json.RawMessage
}

// Updates gives what other servers are to be told after an entry of a local user's device list at a position. What is told is as things are
// now. No update names one before it, so that whoever hears of one asks for the whole list.
func (r *Reader) Updates(ctx context.Context, user id.UserID, pos int64, body *entry.DeviceListBody) ([]EDU, error) {
	list, err := r.DB.Devices(ctx, r.Shards, []string{string(user)})
	if err != nil {
		return nil, err
	}
	type update struct {
		UserID   string          `json:"user_id"`
		DeviceID string          `json:"device_id"`
		Name     string          `json:"device_display_name,omitempty"`
		StreamID int64           `json:"stream_id"`
		PrevID   []int64         `json:"prev_id"`
		Deleted  bool            `json:"deleted,omitempty"`
		Keys     json.RawMessage `json:"keys,omitempty"`
	}
	var out []EDU
	add := func(typ string, content any) error {
		b, err := json.Marshal(content)
		out = append(out, EDU{typ, b})
		return err
	}
	for _, device := range append(slices.Clone(body.Changed), body.Gone...) {
		u := update{UserID: string(user), DeviceID: device, StreamID: pos, PrevID: []int64{}, Deleted: true}
		if i := slices.IndexFunc(list, func(d e2eedb.Device) bool { return d.DeviceID == device }); i >= 0 {
			u.Deleted, u.Name, u.Keys = false, list[i].DisplayName, list[i].JSON
		}
		if err := add("m.device_list_update", u); err != nil {
			return nil, err
		}
	}
	if !body.CrossSigning {
		return out, nil
	}
	cross, err := r.DB.CrossSigning(ctx, r.Shards, []string{string(user)})
	if err != nil {
		return nil, err
	}
	keys := map[string]any{"user_id": user}
	for _, k := range cross {
		switch k.Usage {
		case e2eedb.Master:
			keys["master_key"] = json.RawMessage(k.JSON)
		case e2eedb.SelfSigning:
			keys["self_signing_key"] = json.RawMessage(k.JSON)
		}
	}
	return out, add("m.signing_key_update", keys)
}

// Tell queues EDUs for other servers. key makes it safe to repeat.
func (f *Front) Tell(ctx context.Context, key string, servers []id.ServerName, edus []EDU) error {
	for _, server := range servers {
		for i, e := range edus {
			sum := sha256.Sum256(fmt.Appendf(nil, "edu\x00%s\x00%s\x00%d", key, server, i))
			if _, err := f.Do.Do(ctx, sum[:], &SendAway{Server: string(server), Type: e.Type, Content: e.Content}); err != nil {
				return err
			}
		}
	}
	return nil
}
