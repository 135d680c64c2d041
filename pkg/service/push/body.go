package push

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// notification is what a gateway is told (spec: push gateway API, "notify").
type notification struct {
	EventID           string         `json:"event_id,omitzero"`
	RoomID            string         `json:"room_id,omitzero"`
	Type              string         `json:"type,omitzero"`
	Sender            string         `json:"sender,omitzero"`
	SenderDisplayName string         `json:"sender_display_name,omitzero"`
	RoomName          string         `json:"room_name,omitzero"`
	RoomAlias         string         `json:"room_alias,omitzero"`
	UserIsTarget      bool           `json:"user_is_target,omitzero"`
	Prio              string         `json:"prio,omitzero"`
	Content           jsontext.Value `json:"content,omitzero"`
	Counts            counts         `json:"counts"`
	Devices           []device       `json:"devices"`
}

type counts struct {
	Unread *int64 `json:"unread,omitzero"`
}

type device struct {
	AppID     string                    `json:"app_id"`
	Pushkey   string                    `json:"pushkey"`
	PushkeyTS int64                     `json:"pushkey_ts,omitzero"` // s
	Data      jsontext.Value            `json:"data,omitzero"`
	Tweaks    map[string]jsontext.Value `json:"tweaks,omitzero"`
}

const (
	prioHigh = "high"
	prioLow  = "low"
	// maxContent is how large a content is at most that is passed on: gateways refuse more, and what they pass it on to much less.
	maxContent = 32 << 10
)

// facts are what is the same for all who are told of an event.
type facts struct {
	event      *event.Event
	judged     *pushrule.Event
	name       string
	alias      string
	senderName string
	power      eventauth.AuthState
	members    int
}

func (t *term) send(ctx context.Context, p *pusher, q *queued) error {
	t.mu.Lock()
	target := p.target
	t.mu.Unlock()
	body, unread, err := t.compose(ctx, p, &target, q)
	if err != nil {
		return err
	}
	if body == nil {
		return nil
	}
	if err := t.post(ctx, p, &target, body); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.badged = unread
	return nil
}

// compose makes the notification of an event for a pusher; nil if its user is not to be told of it after all.
func (t *term) compose(ctx context.Context, p *pusher, target *target, q *queued) (body []byte, unread int64, err error) {
	leave, err := t.enter(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	f, err := t.factsOf(ctx, q.notice)
	if err != nil {
		return nil, 0, err
	}
	if f == nil {
		return nil, 0, nil
	}
	outcome, tell, err := t.judge1(ctx, p.key.UserID, q, f)
	if err != nil || !tell {
		return nil, 0, err
	}
	if unread, err = t.unread(ctx, p.of); err != nil {
		return nil, 0, err
	}
	n := notification{EventID: q.id, RoomID: q.roomID, Prio: prioLow, Devices: []device{p.device(target)}}
	if unread > 0 {
		n.Counts.Unread = &unread
	}
	e := f.event
	if outcome.Highlight || outcome.Sound != "" || e.Type() == "m.room.encrypted" { // what is encrypted may be anything
		n.Prio = prioHigh
	}
	if !target.idOnly {
		n.Devices[0].Tweaks = tweaksOf(&outcome)
		n.Type, n.Sender, n.SenderDisplayName = e.Type(), string(e.Sender()), f.senderName
		n.RoomName, n.RoomAlias = f.name, f.alias
		if key, ok := e.StateKey(); ok && e.Type() == event.TypeMember {
			n.UserIsTarget = key == p.key.UserID
		}
		if len(e.Content()) <= maxContent {
			n.Content = jsontext.Value(e.Content())
		}
	}
	body, err = json.Marshal(map[string]*notification{"notification": &n})
	if err != nil {
		return nil, 0, fmt.Errorf("write notification: %w", err)
	}
	return body, unread, nil
}

func (p *pusher) device(target *target) device {
	return device{AppID: p.key.AppID, Pushkey: p.key.Pushkey, PushkeyTS: target.created / 1000, Data: target.data}
}

// tweaksOf gives how a notification is to be presented.
func tweaksOf(o *pushrule.Outcome) map[string]jsontext.Value {
	out := map[string]jsontext.Value{}
	for _, a := range o.Actions {
		var tweak struct {
			Name  string         `json:"set_tweak"`
			Value jsontext.Value `json:"value"`
		}
		if a.Kind() != '{' || json.Unmarshal(a, &tweak) != nil || tweak.Name == "" || tweak.Name == "highlight" {
			continue
		}
		if tweak.Value != nil {
			out[tweak.Name] = tweak.Value
		}
	}
	if o.Highlight {
		out["highlight"] = jsontext.Value("true")
	}
	return out
}

// judge1 asks a user's rules how an event is to be told. That it is was found when it was committed, but for invitations.
func (t *term) judge1(ctx context.Context, user string, q *queued, f *facts) (o pushrule.Outcome, tell bool, err error) {
	found, err := t.o.Preferences.Of(ctx, []string{user})
	if err != nil {
		return o, false, err
	}
	preference, rules := found[user], t.predefined
	names := true
	if preference.Rules != nil {
		set, _ := preference.Rules.InRoom(q.roomID)
		rules, names = pushrule.Compile(set), set.LooksAtName()
	}
	now := &pushrule.Circumstances{
		UserID: user, Members: f.members, SenderLevel: int64(f.power.PowerOf(f.event.Sender())),
		NotificationLevel: func(kind string) int64 { return int64(f.power.NotificationLevel(kind)) },
	}
	if names && !q.invite {
		at, err := t.o.Rooms.CurrentStateAt(ctx, q.room, []roomdb.StateName{{Type: event.TypeMember, StateKey: user}})
		if err != nil {
			return o, false, err
		}
		now.DisplayName = field(at, event.TypeMember, user, "displayname")
	}
	o = rules.Evaluate(f.judged, now)
	switch {
	case o.Notify:
		return o, true, nil
	case q.invite:
		return o, false, nil
	}
	return pushrule.Outcome{Notify: true, Highlight: q.highlight}, !preference.Ignored[string(f.event.Sender())], nil
}

// factsOf reads what is told of an event beside it, once for all who are told; nil for an event that cannot be read.
func (t *term) factsOf(ctx context.Context, n *notice) (*facts, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.facts != nil {
		return n.facts, nil
	}
	rules, ok := roomver.Get(roomver.Version(n.version))
	if !ok {
		return nil, nil
	}
	if n.json == nil { // it was too large for the log
		stored, err := t.o.Rooms.EventsByID(ctx, n.room, []string{n.id})
		if err != nil || len(stored) == 0 {
			return nil, err
		}
		n.json = stored[0].JSON
	}
	e, err := event.ParseTrusted(rules, n.json, id.EventID(n.id))
	if err != nil {
		t.log.Error("an event cannot be read; nobody is notified of it", "event", n.id, "error", err)
		return nil, nil
	}
	f := &facts{event: e, judged: pushrule.Of(n.roomID, e)}
	sender := string(e.Sender())
	at, err := t.o.Rooms.CurrentStateAt(ctx, n.room, []roomdb.StateName{
		{Type: event.TypeName},
		{Type: event.TypeCanonicalAlias},
		{Type: event.TypeCreate},
		{Type: event.TypePowerLevels},
		{Type: event.TypeMember, StateKey: sender},
	})
	if err != nil {
		return nil, err
	}
	f.name, f.alias = field(at, event.TypeName, "", "name"), field(at, event.TypeCanonicalAlias, "", "alias")
	f.senderName = field(at, event.TypeMember, sender, "displayname")
	if f.name == "" && f.alias == "" && f.senderName == "" {
		f.stripped(n.stripped, sender)
	}
	if r := reduced(rules, at, event.TypeCreate); r != nil {
		f.power.Create = r.Create()
	}
	if r := reduced(rules, at, event.TypePowerLevels); r != nil {
		f.power.Power = r.PowerLevels()
	}
	if f.members, err = t.o.DB.Joined(ctx, n.room); err != nil {
		return nil, err
	}
	n.facts = f
	return f, nil
}

// stripped takes what an invitation to a room that this server is not in says of it.
func (f *facts) stripped(list []byte, sender string) {
	if !canonjson.IsArray(list) {
		return
	}
	for it := canonjson.Walk(list); it.Next(); {
		typ, _ := canonjson.GetString(it.Value(), "type")
		key, _ := canonjson.GetString(it.Value(), "state_key")
		content, _ := canonjson.Get(it.Value(), "content")
		switch {
		case typ == event.TypeName && key == "":
			f.name, _ = canonjson.GetString(content, "name")
		case typ == event.TypeCanonicalAlias && key == "":
			f.alias, _ = canonjson.GetString(content, "alias")
		case typ == event.TypeMember && key == sender:
			f.senderName, _ = canonjson.GetString(content, "displayname")
		}
	}
}

func field(at map[roomdb.StateName]roomdb.StateEvent, typ, key, name string) string {
	e, ok := at[roomdb.StateName{Type: typ, StateKey: key}]
	if !ok || e.RedactedBy != 0 {
		return ""
	}
	content, _ := canonjson.Get(e.JSON, "content")
	s, _ := canonjson.GetString(content, name)
	return s
}

func reduced(rules *roomver.Rules, at map[roomdb.StateName]roomdb.StateEvent, typ string) *eventauth.Reduced {
	stored, ok := at[roomdb.StateName{Type: typ}]
	if !ok {
		return nil
	}
	e, err := event.ParseTrusted(rules, stored.JSON, id.EventID(stored.EventID))
	if err != nil {
		return nil
	}
	return eventauth.Reduce(e)
}

// sendBadge tells a pusher how much is unread, unless that is what it was last told.
func (t *term) sendBadge(ctx context.Context, p *pusher) error {
	leave, err := t.enter(ctx)
	if err != nil {
		return err
	}
	unread, err := t.unread(ctx, p.of)
	leave()
	if err != nil {
		return err
	}
	t.mu.Lock()
	target, same := p.target, p.badged == unread
	t.mu.Unlock()
	if same {
		return nil
	}
	// The specification would have a count of zero left out, but then nobody would be told that all is read: here it is told.
	n := notification{Prio: prioLow, Counts: counts{&unread}, Devices: []device{p.device(&target)}}
	body, err := json.Marshal(map[string]*notification{"notification": &n})
	if err != nil {
		return fmt.Errorf("write notification: %w", err)
	}
	if err := t.post(ctx, p, &target, body); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.badged = unread
	return nil
}
