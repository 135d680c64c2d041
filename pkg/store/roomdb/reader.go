package roomdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// Reader reads the rows of rooms. It works on whatever it is given: a pool of the primary or of a replica, or a transaction.
// Methods that look for one thing tell by ok whether it is there. It is safe for concurrent use if what it was given is.
type Reader struct{ q *Queries }

// NewReader makes a Reader over a pool, connection or transaction.
func NewReader(db DBTX) *Reader { return &Reader{q: New(db)} }

// found turns "no rows" into ok = false, and says what was read in any other error.
func found(what string, err error) (ok bool, _ error) {
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read %s: %w", what, err)
	}
	return true, nil
}

// each converts rows.
func each[R, T any](what string, rows []R, err error, f func(*R) T) ([]T, error) {
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	out := make([]T, len(rows))
	for i := range rows {
		out[i] = f(&rows[i])
	}
	return out, nil
}

func ints(nids []shard.Nid) []int64 {
	out := make([]int64, len(nids))
	for i, n := range nids {
		out[i] = int64(n)
	}
	return out
}

// RoomRef is a room's names and version.
type RoomRef struct {
	Nid     shard.Nid
	RoomID  string
	Version string
}

// Room reads a room by its id.
func (r *Reader) Room(ctx context.Context, s shard.ID, roomID string) (ref RoomRef, ok bool, err error) {
	g, err := r.q.GetRoom(ctx, GetRoomParams{Shard: int16(s), RoomID: roomID})
	if ok, err = found("room", err); !ok {
		return ref, false, err
	}
	return RoomRef{shard.Nid(g.Nid), g.RoomID, g.Version}, true, nil
}

// Rooms reads rooms by their nids, in ascending order; those that do not exist are left out.
func (r *Reader) Rooms(ctx context.Context, nids []shard.Nid) ([]RoomRef, error) {
	rows, err := r.q.ListRooms(ctx, ints(nids))
	return each("rooms", rows, err, func(g *ListRoomsRow) RoomRef {
		return RoomRef{shard.Nid(g.Nid), g.RoomID, g.Version}
	})
}

// Tip is a room and the last event that took its place in it.
type Tip struct {
	Room       shard.Nid
	Version    string
	Event      shard.Nid
	EventID    string
	Depth      int64
	StateAfter shard.Nid
	// Extremities are the room's forward extremities; none: just the event.
	Extremities []shard.Nid
	Ord         int64
}

// Tip reads what a room's writer goes on from.
func (r *Reader) Tip(ctx context.Context, s shard.ID, roomID string) (t Tip, ok bool, err error) {
	g, err := r.q.LoadRoom(ctx, LoadRoomParams{Shard: int16(s), RoomID: roomID})
	if ok, err = found("room", err); !ok {
		return t, false, err
	}
	ext, err := UnpackNids(g.Extremities)
	if err != nil {
		return t, false, fmt.Errorf("read room: %w", err)
	}
	t = Tip{
		Room: shard.Nid(g.Nid), Version: g.Version, Event: shard.Nid(g.LastNid), EventID: g.EventID, Depth: g.Depth,
		StateAfter: shard.Nid(g.StateAfter), Extremities: ext,
	}
	if g.Ord != nil {
		t.Ord = *g.Ord
	}
	return t, true, nil
}

// MaxSeq gives the largest number of a nid in use, of any shard.
func (r *Reader) MaxSeq(ctx context.Context) (int64, error) {
	n, err := r.q.MaxNid(ctx)
	if err != nil {
		return 0, fmt.Errorf("read largest nid: %w", err)
	}
	return shard.Nid(n).Seq(), nil
}

// AtomsByName reads the nids of names in a shard; those that have none are left out.
func (r *Reader) AtomsByName(ctx context.Context, s shard.ID, names []string) (map[string]shard.Nid, error) {
	rows, err := r.q.AtomsByName(ctx, AtomsByNameParams{Shard: int16(s), Names: storable(names)})
	if err != nil {
		return nil, fmt.Errorf("read atoms: %w", err)
	}
	m := make(map[string]shard.Nid, len(rows))
	for _, g := range rows {
		m[g.Name] = shard.Nid(g.Nid)
	}
	return m, nil
}

// storable leaves out names with NUL: nothing that is stored has one, and PostgreSQL refuses even the question.
func storable(names []string) []string {
	hasNUL := func(s string) bool { return strings.IndexByte(s, 0) >= 0 }
	if !slices.ContainsFunc(names, hasNUL) {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), hasNUL)
}

// AtomNames reads the names of nids.
func (r *Reader) AtomNames(ctx context.Context, nids []shard.Nid) (map[shard.Nid]string, error) {
	rows, err := r.q.AtomsByNid(ctx, ints(nids))
	if err != nil {
		return nil, fmt.Errorf("read atoms: %w", err)
	}
	m := make(map[shard.Nid]string, len(rows))
	for _, g := range rows {
		m[shard.Nid(g.Nid)] = g.Name
	}
	return m, nil
}

// MemberRow is a user's membership of a room.
type MemberRow struct {
	Room       shard.Nid
	UserID     string
	Membership Membership
	Event      shard.Nid
	// Pos is the log position of the last change of membership; a new profile is none.
	Pos       shard.Pos
	Local     bool
	Forgotten bool
}

// Member reads a user's membership of a room.
func (r *Reader) Member(ctx context.Context, room shard.Nid, userID string) (m MemberRow, ok bool, err error) {
	g, err := r.q.GetMember(ctx, GetMemberParams{RoomNid: int64(room), UserID: userID})
	if ok, err = found("member", err); !ok {
		return m, false, err
	}
	return memberRow(&g), true, nil
}

func memberRow(g *GetMemberRow) MemberRow {
	return MemberRow{
		Room: shard.Nid(g.RoomNid), UserID: g.UserID, Membership: Membership(g.Membership), Event: shard.Nid(g.EventNid),
		Pos: shard.Pos(g.Pos), Local: g.Local, Forgotten: g.Forgotten,
	}
}

// Members reads the members of a room as they are now, by user id: those with one of the memberships, or all.
func (r *Reader) Members(ctx context.Context, room shard.Nid, with ...Membership) ([]MemberRow, error) {
	if len(with) == 0 {
		rows, err := r.q.ListMembers(ctx, int64(room))
		return each("members", rows, err, func(g *ListMembersRow) MemberRow { return memberRow((*GetMemberRow)(g)) })
	}
	numbers := make([]int16, len(with))
	for i, m := range with {
		numbers[i] = int16(m)
	}
	rows, err := r.q.ListMembersWith(ctx, ListMembersWithParams{RoomNid: int64(room), Memberships: numbers})
	return each("members", rows, err, func(g *ListMembersWithRow) MemberRow { return memberRow((*GetMemberRow)(g)) })
}

// EachJoined gives the events by which users are in a room, as they were sent, and whether they were redacted since. There may be very many: they are
// not copied, and each is good until do returns.
func (r *Reader) EachJoined(ctx context.Context, room shard.Nid, do func(event []byte, redacted bool)) error {
	rows, err := r.q.db.Query(ctx, listJoined, int64(room))
	if err == nil {
		var event pgtype.DriverBytes
		var redacted bool
		_, err = pgx.ForEachRow(rows, []any{&event, &redacted}, func() error {
			do(event, redacted)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("read members: %w", err)
	}
	return nil
}

// LocalMembers reads the first few users of this server with a membership of a room.
func (r *Reader) LocalMembers(ctx context.Context, room shard.Nid, m Membership, count int) ([]string, error) {
	users, err := r.q.ListLocalMembers(ctx, ListLocalMembersParams{RoomNid: int64(room), Membership: int16(m), Count: int32(count)})
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return users, nil
}

// LocalMembersAfter reads users of this server with a membership of a room, in the order of their ids, after one of them.
func (r *Reader) LocalMembersAfter(ctx context.Context, room shard.Nid, m Membership, after string, count int) ([]string, error) {
	users, err := r.q.ListLocalMembersAfter(ctx, ListLocalMembersAfterParams{
		RoomNid: int64(room), Membership: int16(m), After: after, Count: int32(count),
	})
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return users, nil
}

// Senders are users of this server, each once.
type Senders struct {
	p    ListErasedParams
	seen map[string]bool
}

// Add adds a user, of a shard.
func (s *Senders) Add(of shard.ID, user string) {
	if s.seen[user] {
		return
	}
	if s.seen == nil {
		s.seen = make(map[string]bool)
	}
	s.seen[user] = true
	s.p.Shards, s.p.Users = append(s.p.Shards, int16(of)), append(s.p.Users, user)
}

// Empty tells whether there are none.
func (s *Senders) Empty() bool { return len(s.p.Users) == 0 }

// Erased gives those of some users who were erased.
func (r *Reader) Erased(ctx context.Context, s *Senders) (map[string]bool, error) {
	users, err := r.q.ListErased(ctx, s.p)
	if err != nil || len(users) == 0 {
		return nil, err
	}
	out := make(map[string]bool, len(users))
	for _, u := range users {
		out[u] = true
	}
	return out, nil
}

// MembershipRow is a membership of a user of this server, with the room's names.
type MembershipRow struct {
	RoomRef
	Membership Membership
	Event      shard.Nid
	Pos        shard.Pos
	Forgotten  bool
}

// Memberships reads the rooms of a user of this server, forgotten ones too.
func (r *Reader) Memberships(ctx context.Context, userID string) ([]MembershipRow, error) {
	rows, err := r.q.ListMemberships(ctx, userID)
	return each("memberships", rows, err, func(g *ListMembershipsRow) MembershipRow {
		return MembershipRow{
			RoomRef: RoomRef{shard.Nid(g.RoomNid), g.RoomID, g.Version}, Membership: Membership(g.Membership),
			Event: shard.Nid(g.EventNid), Pos: shard.Pos(g.Pos), Forgotten: g.Forgotten,
		}
	})
}

// Joined tells whether a user is joined to a room, whichever shard the room is in.
func (r *Reader) Joined(ctx context.Context, s shard.ID, roomID, userID string) (bool, error) {
	ok, err := r.q.IsJoined(ctx, IsJoinedParams{Shard: int16(s), RoomID: roomID, UserID: userID})
	if err != nil {
		return false, fmt.Errorf("read member: %w", err)
	}
	return ok, nil
}

// ReceiptRow is a receipt as it is stored.
type ReceiptRow struct {
	UserID, Kind, Thread, EventID string
	EventOrd, TS                  int64
	Pos                           shard.Pos
}

// ReceiptsSince reads a room's receipts that moved after a position, in the order of their moves.
func (r *Reader) ReceiptsSince(ctx context.Context, room shard.Nid, above shard.Pos) ([]ReceiptRow, error) {
	rows, err := r.q.ListReceipts(ctx, ListReceiptsParams{RoomNid: int64(room), Above: int64(above)})
	return each("receipts", rows, err, func(g *ListReceiptsRow) ReceiptRow {
		return receiptRow((*ListReceiptsOfUserRow)(g))
	})
}

// ReceiptsOf reads a user's receipts in a room.
func (r *Reader) ReceiptsOf(ctx context.Context, room shard.Nid, userID string) ([]ReceiptRow, error) {
	rows, err := r.q.ListReceiptsOfUser(ctx, ListReceiptsOfUserParams{RoomNid: int64(room), UserID: userID})
	return each("receipts", rows, err, receiptRow)
}

func receiptRow(g *ListReceiptsOfUserRow) ReceiptRow {
	return ReceiptRow{g.UserID, g.Kind, g.Thread, g.EventID, g.EventOrd, g.Ts, shard.Pos(g.Pos)}
}

// Alias reads an alias.
func (r *Reader) Alias(ctx context.Context, s shard.ID, alias string) (a Alias, ok bool, err error) {
	g, err := r.q.GetAlias(ctx, GetAliasParams{Shard: int16(s), Alias: alias})
	if ok, err = found("alias", err); !ok {
		return a, false, err
	}
	return Alias{Alias: g.Alias, RoomID: g.RoomID, Creator: g.Creator}, true, nil
}

// Aliases reads a room's aliases, of all shards.
func (r *Reader) Aliases(ctx context.Context, roomID string) ([]Alias, error) {
	rows, err := r.q.ListAliases(ctx, roomID)
	return each("aliases", rows, err, func(g *ListAliasesRow) Alias {
		return Alias{Alias: g.Alias, RoomID: g.RoomID, Creator: g.Creator}
	})
}

// Published tells whether the public directory lists a room.
func (r *Reader) Published(ctx context.Context, room shard.Nid) (bool, error) {
	ok, err := r.q.IsPublished(ctx, int64(room))
	if err != nil {
		return false, fmt.Errorf("read directory: %w", err)
	}
	return ok, nil
}

// CountMembers counts a room's members by membership.
func (r *Reader) CountMembers(ctx context.Context, room shard.Nid) (map[Membership]int, error) {
	rows, err := r.q.CountMembers(ctx, int64(room))
	if err != nil {
		return nil, fmt.Errorf("count members: %w", err)
	}
	out := make(map[Membership]int, len(rows))
	for _, c := range rows {
		out[Membership(c.Membership)] = int(c.N)
	}
	return out, nil
}

// FirstMembers gives those who have had one of the memberships for longest.
func (r *Reader) FirstMembers(ctx context.Context, room shard.Nid, count int, with ...Membership) ([]string, error) {
	p := FirstMembersParams{RoomNid: int64(room), Count: int32(count)}
	for _, m := range with {
		p.Memberships = append(p.Memberships, int16(m))
	}
	users, err := r.q.FirstMembers(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read members: %w", err)
	}
	return users, nil
}

// Stripped reads what another server told a user of a room whose state is not known here: a JSON array, nil for nothing.
func (r *Reader) Stripped(ctx context.Context, room shard.Nid, userID string) ([]byte, error) {
	events, err := r.q.GetStripped(ctx, GetStrippedParams{RoomNid: int64(room), UserID: userID})
	if _, err = found("stripped state", err); err != nil {
		return nil, err
	}
	return events, nil
}
