package lobby

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Bounds of what one walk asks of other servers.
const (
	// maxAsked is how many rooms other servers are asked for, of one hierarchy, and askedAbreast how many at a time.
	maxAsked     = 50
	askedAbreast = 8
	askPatience  = 15 * time.Second
	// maxVia is how many servers are asked for one room.
	maxVia = 3
	// maxToldChildren bounds the children of one room that another server may tell.
	maxToldChildren = 1000
)

// FederatedSpace is a space and its children as other servers are told of them.
type FederatedSpace struct {
	Room         SpaceRoom `json:"room"`
	Children     []Summary `json:"children"`
	Inaccessible []string  `json:"inaccessible_children"`
}

// Space gives a room and its children as far as another server's users may know of them. in tells which of rooms users of that server are in. What is not
// here, and what nobody of that server may know of, is M_NOT_FOUND.
func (l *Lobby) Space(
	ctx context.Context, room id.RoomID, suggested bool, in func(ctx context.Context, rooms []shard.Nid) (map[shard.Nid]bool, error),
) (*FederatedSpace, error) {
	t := &tree{rooms: map[string]*known{}, children: map[string][]child{}}
	rooms, err := l.forServer(ctx, []string{string(room)}, in)
	if err != nil {
		return nil, err
	}
	k := rooms[string(room)]
	if k == nil || !k.admitted {
		return nil, mxerr.New(mxerr.NotFound, "Room does not exist")
	}
	out := &FederatedSpace{Room: SpaceRoom{Summary: k.Summary, Children: []jsontext.Value{}}, Children: []Summary{}, Inaccessible: []string{}}
	if k.RoomType != roomTypeSpace {
		return out, nil
	}
	if err := l.readChildren(ctx, t, []*known{k.known}, suggested); err != nil {
		return nil, err
	}
	list := t.children[string(room)]
	ids := make([]string, 0, len(list))
	for _, c := range list {
		out.Room.Children = append(out.Room.Children, c.stripped)
		if len(ids) < maxToldChildren {
			ids = append(ids, c.room)
		}
	}
	if rooms, err = l.forServer(ctx, ids, in); err != nil {
		return nil, err
	}
	for _, r := range ids {
		switch k := rooms[r]; {
		case k == nil || !k.here: // others know better
		case k.admitted:
			out.Children = append(out.Children, k.Summary)
		default:
			out.Inaccessible = append(out.Inaccessible, r)
		}
	}
	return out, nil
}

type forServer struct {
	*known

	admitted bool
}

// forServer reads rooms, and tells which of them users of another server may know of.
func (l *Lobby) forServer(
	ctx context.Context, ids []string, in func(ctx context.Context, rooms []shard.Nid) (map[shard.Nid]bool, error),
) (map[string]*forServer, error) {
	refs, err := l.db.RoomsByID(ctx, l.shards, ids)
	if err != nil || len(refs) == 0 {
		return nil, err
	}
	rooms, err := l.read(ctx, refs, "")
	if err != nil {
		return nil, err
	}
	var asked []shard.Nid
	var allowed []string
	for n, k := range rooms {
		if k.here && !k.open() {
			asked = append(asked, n)
			if k.rule == eventauth.JoinRuleRestricted {
				allowed = append(allowed, k.allowed...)
			}
		}
	}
	byID := map[string]shard.Nid{}
	if len(allowed) > 0 {
		slices.Sort(allowed)
		others, err := l.db.RoomsByID(ctx, l.shards, slices.Compact(allowed))
		if err != nil {
			return nil, err
		}
		for _, o := range others {
			byID[o.RoomID] = o.Nid
			asked = append(asked, o.Nid)
		}
	}
	there := map[shard.Nid]bool{}
	if len(asked) > 0 {
		if there, err = in(ctx, asked); err != nil {
			return nil, err
		}
	}
	out := make(map[string]*forServer, len(rooms))
	for n, k := range rooms {
		f := &forServer{known: k}
		f.admitted = k.here && (k.open() || there[n] || k.rule == eventauth.JoinRuleRestricted && slices.ContainsFunc(k.allowed, func(s string) bool {
			return there[byID[s]]
		}))
		out[k.RoomID] = f
	}
	return out, nil
}

// beyond is what a walk knows of rooms that this server is not in.
type beyond struct {
	via map[string][]id.ServerName // by room
	// told are rooms that were told as children of others; final those of which no more is to be asked.
	told  map[string]*known
	gone  map[string]bool // nobody may know of them
	asked int
}

func newBeyond() *beyond {
	return &beyond{via: map[string][]id.ServerName{}, told: map[string]*known{}, gone: map[string]bool{}}
}

// note remembers whom a child can be asked for from.
func (b *beyond) note(c *child) {
	for _, s := range c.via {
		if len(b.via[c.room]) < maxVia && !slices.Contains(b.via[c.room], s) {
			b.via[c.room] = append(b.via[c.room], s)
		}
	}
}

// ask adds rooms to a tree that this server is not in, as far as others tell of them and the user may know of them, and gives the spaces among them.
func (l *Lobby) ask(ctx context.Context, t *tree, b *beyond, ids []string, q *HierarchyQuery) (spaces []*known, err error) {
	type answer struct {
		room     *known
		children []child
	}
	var mu sync.Mutex // guards what follows, and b
	var group errgroup.Group
	group.SetLimit(askedAbreast)
	found := map[string]*answer{}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	for _, r := range ids {
		told := b.told[r]
		if b.gone[r] || told != nil && told.RoomType != roomTypeSpace || len(b.via[r]) == 0 || b.asked >= maxAsked {
			if told != nil && !b.gone[r] {
				mu.Lock()
				found[r] = &answer{room: told}
				mu.Unlock()
			}
			continue
		}
		b.asked++
		servers := b.via[r]
		group.Go(func() error {
			raw, err := l.remote.Space(ctx, servers, id.RoomID(r))
			var a *answer
			if err == nil {
				a = &answer{}
				var more map[string]*known
				var gone []string
				a.room, a.children, more, gone = parseSpace(raw, r)
				mu.Lock()
				for n, k := range more {
					if b.told[n] == nil {
						b.told[n] = k
					}
				}
				for _, n := range gone {
					b.gone[n] = true
				}
				mu.Unlock()
			}
			if a == nil || a.room == nil {
				if told == nil {
					return nil
				}
				a = &answer{room: told}
			}
			mu.Lock()
			defer mu.Unlock()
			found[r] = a
			return nil
		})
	}
	_ = group.Wait() // nothing fails
	known := make(map[string]*known, len(found))
	for r, a := range found {
		known[r] = a.room
	}
	admitted, err := l.admitBeyond(context.WithoutCancel(ctx), known, q.User)
	if err != nil {
		return nil, err
	}
	for _, r := range ids {
		a := found[r]
		if a == nil || !admitted[r] {
			continue
		}
		t.rooms[r] = a.room
		for _, c := range a.children {
			if c.suggested || !q.Suggested {
				t.children[r] = append(t.children[r], c)
			}
		}
		slices.SortFunc(t.children[r], compareChildren)
		if a.room.RoomType == roomTypeSpace {
			spaces = append(spaces, a.room)
		}
	}
	return spaces, nil
}

// admitBeyond says which of rooms that others tell of a user may know of: what anybody may, what members of rooms may that the user is in, and what the
// user is invited to.
func (l *Lobby) admitBeyond(ctx context.Context, rooms map[string]*known, user id.UserID) (map[string]bool, error) {
	out := map[string]bool{}
	var asked, closed []string
	for r, k := range rooms {
		switch {
		case k.open():
			out[r] = true
		default:
			closed = append(closed, r)
			if k.rule == eventauth.JoinRuleRestricted {
				asked = append(asked, k.allowed...)
			}
		}
	}
	if len(closed) == 0 || user == "" {
		return out, nil
	}
	slices.Sort(asked)
	in, err := l.joined(ctx, slices.Compact(asked), user)
	if err != nil {
		return nil, err
	}
	refs, err := l.db.RoomsByID(ctx, l.shards, closed)
	if err != nil {
		return nil, err
	}
	nids := make([]shard.Nid, len(refs))
	for i := range refs {
		nids[i] = refs[i].Nid
	}
	memberships, err := l.db.MembershipsIn(ctx, nids, string(user))
	if err != nil {
		return nil, err
	}
	for _, ref := range refs {
		if memberships[ref.Nid] == roomdb.MembershipInvite {
			out[ref.RoomID] = true
		}
	}
	for _, r := range closed {
		k := rooms[r]
		if k.rule == eventauth.JoinRuleRestricted && slices.ContainsFunc(k.allowed, func(s string) bool { return in[s] }) {
			out[r] = true
		}
	}
	return out, nil
}

// parseSpace reads what another server tells of a room and its children; no room if it is of another one.
func parseSpace(raw []byte, want string) (room *known, children []child, more map[string]*known, gone []string) {
	var told struct {
		Room         json.RawMessage   `json:"room"`
		Children     []json.RawMessage `json:"children"`
		Inaccessible []string          `json:"inaccessible_children"`
	}
	if json.Unmarshal(raw, &told) != nil {
		return nil, nil, nil, nil
	}
	room = parseTold(told.Room)
	if room == nil || room.RoomID != want {
		return nil, nil, nil, nil
	}
	var state struct {
		Children []json.RawMessage `json:"children_state"`
	}
	if json.Unmarshal(told.Room, &state) == nil {
		for _, c := range state.Children[:min(len(state.Children), maxToldChildren)] {
			if c, ok := parseToldChild(c); ok {
				children = append(children, c)
			}
		}
	}
	more = map[string]*known{}
	for _, item := range told.Children[:min(len(told.Children), maxToldChildren)] {
		if k := parseTold(item); k != nil && slices.ContainsFunc(children, func(c child) bool { return c.room == k.RoomID }) {
			more[k.RoomID] = k
		}
	}
	for _, r := range told.Inaccessible[:min(len(told.Inaccessible), maxToldChildren)] {
		if slices.ContainsFunc(children, func(c child) bool { return c.room == r }) {
			gone = append(gone, r)
		}
	}
	return room, children, more, gone
}

func parseTold(raw []byte) *known {
	s, ok := parseSummary(raw)
	if !ok {
		return nil
	}
	return &known{
		Summary: s, nid: standIn(s.RoomID), rule: toldRule(s.JoinRule), allowed: s.AllowedRooms[:min(len(s.AllowedRooms), maxAllow)],
	}
}

// toldRule reads a join rule that is told; a room of which none is told is public.
func toldRule(s string) eventauth.JoinRule {
	switch s {
	case "", "public":
		return eventauth.JoinRulePublic
	case "knock":
		return eventauth.JoinRuleKnock
	case "restricted":
		return eventauth.JoinRuleRestricted
	case "knock_restricted":
		return eventauth.JoinRuleKnockRestricted
	case "invite":
		return eventauth.JoinRuleInvite
	}
	return eventauth.JoinRuleUnknown
}

// standIn is what stands for a room without a row in a token.
func standIn(room string) shard.Nid {
	h := fnv.New64a()
	_, _ = h.Write([]byte(room)) // never fails
	return shard.Nid(h.Sum64() >> 1)
}

// parseToldChild reads a stripped m.space.child.
func parseToldChild(raw []byte) (c child, ok bool) {
	b, err := canonjson.Canonical(raw, canonjson.Options{Mode: canonjson.Lax})
	if err != nil || !canonjson.IsObject(b) {
		return c, false
	}
	typ, _ := canonjson.GetString(b, "type")
	content, has := canonjson.Get(b, "content")
	if typ != event.TypeSpaceChild || !has || !canonjson.IsObject(content) {
		return c, false
	}
	c.room, _ = canonjson.GetString(b, "state_key")
	sender, _ := canonjson.GetString(b, "sender")
	c.ts, _ = canonjson.GetInt(b, "origin_server_ts")
	if !c.takeContent(content) {
		return c, false
	}
	out := append([]byte(`{"content":`), content...)
	out = canonjson.AppendInt(append(out, `,"origin_server_ts":`...), c.ts)
	out = canonjson.AppendString(append(out, `,"sender":`...), sender)
	out = canonjson.AppendString(append(out, `,"state_key":`...), c.room)
	c.stripped = append(out, `,"type":"m.space.child"}`...)
	return c, true
}
