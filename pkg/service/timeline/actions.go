package timeline

import (
	"context"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

const typePushRules = "m.push_rules"

// judge tells how a user is to be told of what was counted for them. What counts was decided when it came; which rule that was is asked of the rules as
// they are now, as it is when gateways are told.
type judge struct {
	user   id.UserID
	rules  *pushrule.Compiled
	joined map[shard.Nid]roomdb.Joined
	powers map[shard.Nid]*eventauth.AuthState
	names  map[shard.Nid]string // the user's; only if the rules look at them
}

// judging reads what the rules look at beside events, for all rooms at once.
func (n *Notifications) judging(ctx context.Context, user id.UserID, rooms []shard.Nid, refs map[shard.Nid]roomdb.RoomRef) (*judge, error) {
	db := n.rooms.db
	rows, err := n.rooms.accounts.DataOf(ctx, []shard.ID{db.Shards.OfUser(string(user))}, []string{string(user)}, typePushRules)
	if err != nil {
		return nil, err
	}
	custom := new(pushrule.Custom)
	for i := range rows {
		if c, err := pushrule.ParseCustom(rows[i].Content); err == nil { // rules that cannot be read are as if there were none
			custom = c
		}
	}
	set := custom.Rules(string(user))
	j := &judge{user: user, rules: pushrule.Compile(set), powers: map[shard.Nid]*eventauth.AuthState{}, names: map[shard.Nid]string{}}
	if j.joined, err = db.CountJoined(ctx, rooms); err != nil {
		return nil, err
	}
	states, err := db.StateOfRooms(ctx, rooms, []string{event.TypeCreate, event.TypePowerLevels})
	if err != nil {
		return nil, err
	}
	for i := range states {
		j.note(&states[i], refs[states[i].Room].Version)
	}
	if !set.LooksAtName() {
		return j, nil
	}
	for _, room := range rooms {
		own := roomdb.StateName{Type: event.TypeMember, StateKey: string(user)}
		at, err := db.CurrentStateAt(ctx, room, []roomdb.StateName{own})
		if err != nil {
			return nil, err
		}
		if e, ok := at[own]; ok && e.RedactedBy == 0 {
			content, _ := canonjson.Get(e.JSON, "content")
			j.names[room], _ = canonjson.GetString(content, "displayname")
		}
	}
	return j, nil
}

// note takes in an event by which powers are told.
func (j *judge) note(s *roomdb.RoomState, version string) {
	rules, ok := roomver.Get(roomver.Version(version))
	if !ok {
		return
	}
	e, err := event.ParseTrusted(rules, s.JSON, id.EventID(s.EventID))
	if err != nil {
		return
	}
	if s.RedactedBy != 0 {
		e = e.Redact()
	}
	r := eventauth.Reduce(e)
	if r == nil {
		return
	}
	p := j.powers[s.Room]
	if p == nil {
		p = new(eventauth.AuthState)
		j.powers[s.Room] = p
	}
	if s.Type == event.TypeCreate {
		p.Create = r.Create()
	} else {
		p.Power = r.PowerLevels()
	}
}

// appendActions appends the actions of the rule that an event matches. If the rules have changed and say something else by now, all that is known is
// that the user was notified, and whether by a highlight.
func (j *judge) appendActions(b []byte, it *readdb.Item, room roomdb.RoomRef, counted pushdb.Count) []byte {
	power := j.powers[room.Nid]
	if power == nil {
		power = new(eventauth.AuthState)
	}
	o := j.rules.Evaluate(pushrule.Of(room.RoomID, it.Event), &pushrule.Circumstances{
		UserID: string(j.user), Members: j.joined[room.Nid].Count, SenderLevel: int64(power.PowerOf(it.Event.Sender())),
		NotificationLevel: func(kind string) int64 { return int64(power.NotificationLevel(kind)) }, DisplayName: j.names[room.Nid],
	})
	if o.Notify && o.Highlight == (counted.Highlight > 0) {
		if actions, err := json.Marshal(o.Actions); err == nil { // they were read from JSON
			return append(b, actions...)
		}
	}
	if counted.Highlight > 0 {
		return append(b, `["notify",{"set_tweak":"highlight","value":true}]`...)
	}
	return append(b, `["notify"]`...)
}

// roomsOf gives the rooms that notifications are of, each once.
func roomsOf(list []*pushdb.Notification) []shard.Nid {
	rooms := make([]shard.Nid, len(list))
	for i, x := range list {
		rooms[i] = x.Room
	}
	slices.Sort(rooms)
	return slices.Compact(rooms)
}
