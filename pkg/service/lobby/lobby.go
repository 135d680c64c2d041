// Package lobby answers what rooms show to those who are not in them: the public directory, the summary of a room, and the
// hierarchy of a space.
//
// It reads what is committed, of many rooms at once: the number of queries of an answer does not grow with the number of rooms in
// it (a hierarchy takes some for each of its levels, a search some for each few hundred rooms that are listed). It keeps nothing and is
// safe for concurrent use. It is imported by api/ and the composition root.
package lobby

import (
	"context"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Lobby shows rooms to those outside.
type Lobby struct {
	shards shard.Map
	db     *roomdb.Reader
	remote Remote // nil: nobody else is asked
	// networks are the rooms that application services list; nil: none.
	networks Networks
}

// New makes a Lobby. remote asks other servers for what is not here; nil: nobody is asked.
func New(shards shard.Map, db *roomdb.Reader, remote Remote) *Lobby {
	return &Lobby{shards: shards, db: db, remote: remote}
}

// Summary is what a room shows.
type Summary struct {
	RoomID         string `json:"room_id"`
	Name           string `json:"name,omitempty"`
	Topic          string `json:"topic,omitempty"`
	AvatarURL      string `json:"avatar_url,omitempty"`
	CanonicalAlias string `json:"canonical_alias,omitempty"`
	Joined         int    `json:"num_joined_members"`
	WorldReadable  bool   `json:"world_readable"`
	GuestCanJoin   bool   `json:"guest_can_join"`
	JoinRule       string `json:"join_rule,omitempty"`
	RoomType       string `json:"room_type,omitempty"`

	// The directory does not tell what follows.

	AllowedRooms []string `json:"allowed_room_ids,omitempty"`
	Encryption   string   `json:"encryption,omitempty"`
	Version      string   `json:"room_version,omitempty"`
	// Membership is the reader's, where that is told.
	Membership string `json:"membership,omitempty"`
}

// known is a room with what it shows, and what says to whom.
type known struct {
	Summary

	nid        shard.Nid
	membership roomdb.Membership // the reader's
	here       bool              // users of this server are in the room: what is known of it is true now
	rule       eventauth.JoinRule
	allowed    []string // rooms whose members may join, whether the rule asks or not
}

func summaryTypes() []string {
	return []string{
		event.TypeCreate, event.TypeName, event.TypeTopic, event.TypeAvatar, event.TypeCanonicalAlias, event.TypeJoinRules,
		event.TypeHistoryVisibility, event.TypeGuestAccess, event.TypeEncryption,
	}
}

// read reads rooms as a user sees them, "" as somebody unknown does.
func (l *Lobby) read(ctx context.Context, refs []roomdb.RoomRef, user id.UserID) (map[shard.Nid]*known, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	nids := make([]shard.Nid, len(refs))
	out := make(map[shard.Nid]*known, len(refs))
	for i, ref := range refs {
		nids[i] = ref.Nid
		k := &known{nid: ref.Nid}
		k.RoomID, k.Version, k.JoinRule = ref.RoomID, ref.Version, "invite"
		out[ref.Nid] = k
	}
	rows, err := l.db.StateOfRooms(ctx, nids, summaryTypes())
	if err != nil {
		return nil, err
	}
	for i := range rows {
		k := out[rows[i].Room]
		e, err := parse(k.Version, &rows[i])
		if err != nil {
			return nil, err
		}
		k.take(e)
	}
	joined, err := l.db.CountJoined(ctx, nids)
	if err != nil {
		return nil, err
	}
	for n, j := range joined {
		out[n].Joined, out[n].here = j.Count, j.Here
	}
	if user == "" {
		return out, nil
	}
	memberships, err := l.db.MembershipsIn(ctx, nids, string(user))
	if err != nil {
		return nil, err
	}
	for n, m := range memberships {
		out[n].membership = m
	}
	return out, nil
}

func parse(version string, row *roomdb.RoomState) (*event.Event, error) {
	rules, ok := roomver.Get(roomver.Version(version))
	if !ok {
		return nil, fmt.Errorf("event %s: room of unknown version %q", row.EventID, version)
	}
	e, err := event.ParseTrusted(rules, row.JSON, id.EventID(row.EventID))
	if err != nil {
		return nil, fmt.Errorf("stored event %s: %w", row.EventID, err)
	}
	if row.RedactedBy != 0 {
		e = e.Redact()
	}
	return e, nil
}

// take notes what a state event says.
func (k *known) take(e *event.Event) {
	text := func(member string) string {
		s, _ := canonjson.GetString(e.Content(), member)
		return s
	}
	switch e.Type() {
	case event.TypeCreate:
		k.RoomType = text("type")
	case event.TypeName:
		k.Name = text("name")
	case event.TypeTopic:
		k.Topic = text("topic")
	case event.TypeAvatar:
		k.AvatarURL = text("url")
	case event.TypeCanonicalAlias:
		k.CanonicalAlias = text("alias")
	case event.TypeHistoryVisibility:
		k.WorldReadable = text("history_visibility") == "world_readable"
	case event.TypeGuestAccess:
		k.GuestCanJoin = text("guest_access") == "can_join"
	case event.TypeEncryption:
		k.Encryption = text("algorithm")
	case event.TypeJoinRules:
		k.takeRule(e)
	}
}

func (k *known) takeRule(e *event.Event) {
	k.rule = eventauth.Reduce(e).JoinRule
	if s, ok := canonjson.GetString(e.Content(), "join_rule"); ok {
		k.JoinRule = s
	}
	rules := e.Rules()
	switch {
	case k.rule == eventauth.JoinRuleKnock && !rules.Knock,
		k.rule == eventauth.JoinRuleRestricted && !rules.Restricted,
		k.rule == eventauth.JoinRuleKnockRestricted && !rules.KnockRestricted:
		k.rule = eventauth.JoinRuleUnknown
	}
	if k.rule == eventauth.JoinRuleRestricted || k.rule == eventauth.JoinRuleKnockRestricted {
		k.allowed = allowedRooms(e.Content())
		k.AllowedRooms = k.allowed
	}
}

// maxAllow bounds the rooms of a join rule that are looked at, as it does for joining.
const maxAllow = 50

func allowedRooms(content []byte) (rooms []string) {
	list, ok := canonjson.Get(content, "allow")
	if !ok || !canonjson.IsArray(list) {
		return nil
	}
	for it := canonjson.Walk(list); it.Next(); {
		if typ, _ := canonjson.GetString(it.Value(), "type"); typ != "m.room_membership" {
			continue
		}
		s, _ := canonjson.GetString(it.Value(), "room_id")
		if _, err := id.ParseRoomID(s); err == nil && len(rooms) < maxAllow && !slices.Contains(rooms, s) {
			rooms = append(rooms, s)
		}
	}
	return rooms
}

// open tells whether anybody may know of the room, who is not banned from it.
func (k *known) open() bool {
	switch k.rule {
	case eventauth.JoinRulePublic, eventauth.JoinRuleKnock, eventauth.JoinRuleKnockRestricted:
		return true
	}
	return k.WorldReadable
}

// admit says which of rooms the reader may know of: who is in them or invited, or could join or knock, or reads them anyway. Rooms that
// this server is not in, and of which it so knows nothing that is true now, are left out.
func (l *Lobby) admit(ctx context.Context, rooms map[shard.Nid]*known, user id.UserID) (map[shard.Nid]bool, error) {
	admitted := make(map[shard.Nid]bool, len(rooms))
	var asked []string
	for n, k := range rooms {
		switch {
		case !k.here:
		case k.membership == roomdb.MembershipJoin || k.membership == roomdb.MembershipInvite || k.WorldReadable:
			admitted[n] = true
		case k.membership == roomdb.MembershipBan:
		case k.open():
			admitted[n] = true
		case k.rule == eventauth.JoinRuleRestricted && user != "":
			asked = append(asked, k.allowed...)
		}
	}
	if len(asked) == 0 {
		return admitted, nil
	}
	slices.Sort(asked)
	in, err := l.joined(ctx, slices.Compact(asked), user)
	if err != nil {
		return nil, err
	}
	for n, k := range rooms {
		if !admitted[n] && k.here && k.membership != roomdb.MembershipBan && k.rule == eventauth.JoinRuleRestricted {
			admitted[n] = slices.ContainsFunc(k.allowed, func(s string) bool { return in[s] })
		}
	}
	return admitted, nil
}

// joined tells which of rooms a user is in.
func (l *Lobby) joined(ctx context.Context, rooms []string, user id.UserID) (map[string]bool, error) {
	refs, err := l.db.RoomsByID(ctx, l.shards, rooms)
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
	in := make(map[string]bool, len(refs))
	for _, ref := range refs {
		in[ref.RoomID] = memberships[ref.Nid] == roomdb.MembershipJoin
	}
	return in, nil
}
