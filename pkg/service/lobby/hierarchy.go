package lobby

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
)

// Bounds of one walk.
const (
	// MaxDepth is how deep a hierarchy is followed, and how deep it is without a wish.
	MaxDepth = 32
	// maxRooms is how many rooms of one hierarchy are looked at.
	maxRooms = 5000
)

// HierarchyQuery asks for a part of a space's hierarchy.
type HierarchyQuery struct {
	Room id.RoomID
	User id.UserID
	// Suggested leaves out what is not suggested.
	Suggested bool
	Depth     int // of rooms below the first
	Limit     int
	From      string // a token
}

// Hierarchy is a part of a space's hierarchy.
type Hierarchy struct {
	Rooms []SpaceRoom `json:"rooms"`
	Next  string      `json:"next_batch,omitempty"`
}

// SpaceRoom is a room in a hierarchy.
type SpaceRoom struct {
	Summary

	// Children are stripped state events with their times.
	Children []jsontext.Value `json:"children_state"`
}

// child is a valid m.space.child of a space.
type child struct {
	room      string
	order     string // "" for none
	ts        int64
	suggested bool
	via       []id.ServerName
	stripped  []byte
}

const roomTypeSpace = "m.space"

// Hierarchy gives the rooms of a space that a user may know of, each once, depth first. A space that is not there or that the user may
// not know of is M_FORBIDDEN. Of rooms that this server is not in others tell, those that the space names with them.
func (l *Lobby) Hierarchy(ctx context.Context, q HierarchyQuery) (*Hierarchy, error) {
	q.Depth = min(q.Depth, MaxDepth)
	var from token.Space
	if q.From != "" {
		var err error
		if from, err = token.DecodeSpace(q.From); err != nil {
			return nil, mxerr.New(mxerr.InvalidParam, "The from token is not one of this server").WithCause(err)
		}
		if from.Depth != q.Depth || from.Suggested != q.Suggested {
			return nil, mxerr.New(mxerr.InvalidParam, "max_depth and suggested_only may not change between pages")
		}
	}
	t, err := l.grow(ctx, &q)
	if err != nil {
		return nil, err
	}
	told := t.order(q.Room, q.Depth)
	start := 0
	if q.From != "" {
		last := slices.IndexFunc(told, func(k *known) bool { return int64(k.nid) == from.Last })
		if start = last + 1; last < 0 { // it is not there any more: about as far as that was
			start = min(from.Told, len(told))
		}
	}
	end := min(start+q.Limit, len(told))
	h := &Hierarchy{Rooms: make([]SpaceRoom, 0, end-start)}
	for _, k := range told[start:end] {
		r := SpaceRoom{Summary: k.Summary, Children: []jsontext.Value{}}
		for _, c := range t.children[k.RoomID] {
			r.Children = append(r.Children, c.stripped)
		}
		h.Rooms = append(h.Rooms, r)
	}
	if end < len(told) {
		h.Next = token.Space{Suggested: q.Suggested, Depth: q.Depth, Told: end, Last: int64(told[end-1].nid)}.Encode()
	}
	return h, nil
}

// tree is what a user may know of a hierarchy.
type tree struct {
	rooms    map[string]*known
	children map[string][]child
}

// grow reads a hierarchy level by level.
func (l *Lobby) grow(ctx context.Context, q *HierarchyQuery) (*tree, error) {
	t := &tree{rooms: map[string]*known{}, children: map[string][]child{}}
	seen := map[string]bool{string(q.Room): true}
	level := []string{string(q.Room)}
	far := newBeyond()
	if s := q.Room.Server(); s != "" {
		far.via[string(q.Room)] = []id.ServerName{s}
	}
	for depth := 0; len(level) > 0 && depth <= q.Depth; depth++ {
		spaces, here, err := l.level(ctx, t, level, q.User)
		if err != nil {
			return nil, err
		}
		if err := l.readChildren(ctx, t, spaces, q.Suggested); err != nil {
			return nil, err
		}
		if l.remote != nil {
			unknown := slices.DeleteFunc(slices.Clone(level), func(r string) bool { return here[r] })
			others, err := l.ask(ctx, t, far, unknown, q)
			if err != nil {
				return nil, err
			}
			spaces = append(spaces, others...)
		}
		if depth == 0 && t.rooms[string(q.Room)] == nil {
			return nil, mxerr.New(mxerr.Forbidden, "You are not in this room, and it is not open to others")
		}
		level = nil
		for _, s := range spaces {
			for _, c := range t.children[s.RoomID] {
				far.note(&c)
				if !seen[c.room] && len(seen) < maxRooms {
					seen[c.room] = true
					level = append(level, c.room)
				}
			}
		}
	}
	return t, nil
}

// level adds rooms to the tree, as far as the user may know of them, and gives the spaces among them; here are those that this server is in.
func (l *Lobby) level(ctx context.Context, t *tree, ids []string, user id.UserID) (spaces []*known, here map[string]bool, err error) {
	refs, err := l.db.RoomsByID(ctx, l.shards, ids)
	if err != nil {
		return nil, nil, err
	}
	rooms, err := l.read(ctx, refs, user)
	if err != nil {
		return nil, nil, err
	}
	admitted, err := l.admit(ctx, rooms, user)
	if err != nil {
		return nil, nil, err
	}
	here = map[string]bool{}
	for _, ref := range refs {
		k := rooms[ref.Nid]
		here[k.RoomID] = k.here
		if !admitted[ref.Nid] {
			continue
		}
		t.rooms[k.RoomID] = k
		if k.RoomType == roomTypeSpace {
			spaces = append(spaces, k)
		}
	}
	return spaces, here, nil
}

func (l *Lobby) readChildren(ctx context.Context, t *tree, spaces []*known, suggested bool) error {
	if len(spaces) == 0 {
		return nil
	}
	nids := make([]shard.Nid, len(spaces))
	byNid := make(map[shard.Nid]*known, len(spaces))
	for i, s := range spaces {
		nids[i], byNid[s.nid] = s.nid, s
	}
	rows, err := l.db.TypeOfRooms(ctx, nids, event.TypeSpaceChild)
	if err != nil {
		return err
	}
	for i := range rows {
		s := byNid[rows[i].Room]
		if rows[i].RedactedBy != 0 {
			continue
		}
		e, err := parse(s.Version, &rows[i])
		if err != nil {
			return err
		}
		if c, ok := parseChild(e); ok && (c.suggested || !suggested) {
			t.children[s.RoomID] = append(t.children[s.RoomID], c)
		}
	}
	for _, list := range t.children {
		slices.SortFunc(list, compareChildren)
	}
	return nil
}

// parseChild reads an m.space.child; ok is false for one that makes nothing a child: without servers to ask, above all.
func parseChild(e *event.Event) (c child, ok bool) {
	c.room, _ = e.StateKey()
	if !c.takeContent(e.Content()) {
		return c, false
	}
	c.ts = e.OriginServerTS()
	b := e.AppendStripped(nil)
	b = canonjson.AppendInt(append(b[:len(b)-1], `,"origin_server_ts":`...), c.ts)
	c.stripped = append(b, '}')
	return c, true
}

// takeContent reads the content of an m.space.child; false for one that makes nothing a child.
func (c *child) takeContent(content []byte) bool {
	if _, err := id.ParseRoomID(c.room); err != nil {
		return false
	}
	via, ok := canonjson.Get(content, "via")
	if !ok || !canonjson.IsArray(via) {
		return false
	}
	for it := canonjson.Walk(via); it.Next() && len(c.via) < maxVia; {
		if s, _ := canonjson.String(it.Value()); id.ServerName(s).Valid() {
			c.via = append(c.via, id.ServerName(s))
		}
	}
	if order, ok := canonjson.GetString(content, "order"); ok && validOrder(order) {
		c.order = order
	}
	c.suggested, _ = canonjson.GetBool(content, "suggested")
	return true
}

// validOrder tells whether an order counts: up to 50 printable ASCII characters.
func validOrder(s string) bool {
	return len(s) <= 50 && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// compareChildren is the order of the specification: by order, those without one last, by time, by room id.
func compareChildren(x, y child) int {
	if (x.order == "") != (y.order == "") {
		return cmp.Compare(y.order, x.order)
	}
	return cmp.Or(cmp.Compare(x.order, y.order), cmp.Compare(x.ts, y.ts), cmp.Compare(x.room, y.room))
}

// order gives the rooms of the tree depth first, each once.
func (t *tree) order(root id.RoomID, depth int) (out []*known) {
	type step struct {
		room  string
		depth int
	}
	done := map[string]bool{}
	for stack := []step{{string(root), 0}}; len(stack) > 0; {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		k := t.rooms[at.room]
		if k == nil || done[at.room] {
			continue
		}
		done[at.room] = true
		out = append(out, k)
		if at.depth == depth {
			continue
		}
		for _, c := range slices.Backward(t.children[at.room]) {
			stack = append(stack, step{c.room, at.depth + 1})
		}
	}
	return out
}
