package room

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Upgrade asks for a room to be replaced by one of another version.
type Upgrade struct {
	By      Origin
	Profile Profile
	Version roomver.Version
	// Additional are creators besides By, where the version knows them.
	Additional []id.UserID

	// What follows is of the room that is replaced, as it is found.

	Room id.RoomID
	From roomver.Version
	// Last is an event at the end of the room.
	Last     id.EventID
	Creators []id.UserID
	// State are the state events that may have to be taken over; others are ignored.
	State   []StateEvent
	Banned  []id.UserID
	Aliases []Alias
	Listed  bool
}

// Alias is an alias of this server.
type Alias struct {
	Alias   id.RoomAlias
	Creator id.UserID
}

// UpgradedTypes gives the types of state events that an upgrade looks at.
func UpgradedTypes() []string {
	return append(keptTypes(), event.TypeCreate, event.TypePowerLevels, event.TypeJoinRules, event.TypeCanonicalAlias, event.TypeSpaceChild)
}

// keptTypes are taken over as they are.
func keptTypes() []string {
	return []string{
		event.TypeServerACL, event.TypeEncryption, event.TypeName, event.TypeAvatar, event.TypeTopic, event.TypeGuestAccess,
		event.TypeHistoryVisibility,
	}
}

// Replace upgrades a room: it makes the new one with what is taken over, moves the aliases and the place in the directory, and closes the
// old one. The caller has checked that the user may; the old room's writer judges it again. These are several rooms' and aliases'
// commands, so a failure in between leaves a new room that nothing leads to, or one whose aliases moved before the old one was closed:
// nothing is lost by trying again.
func Replace(ctx context.Context, w Writer, server id.ServerName, now time.Time, random io.Reader, u *Upgrade) (id.RoomID, error) {
	rules, ok := roomver.Get(u.Version)
	if !ok {
		return "", mxerr.Newf(mxerr.UnsupportedRoomVersion, "room version %q is not supported", u.Version)
	}
	cmd, after, err := u.successor(rules)
	if err != nil {
		return "", err
	}
	made, err := Create(ctx, w, server, now, random, cmd)
	if err != nil {
		return "", fmt.Errorf("make the new room: %w", err)
	}
	if cmd.Public {
		after = append(after, &SetVisibility{Room: u.Room, By: u.By.User, Force: true})
	}
	for _, c := range after {
		switch c := c.(type) {
		case *SendState:
			c.Room = made
		case *SetMembership:
			c.Room = made
		}
		if _, err := w.Do(ctx, nil, c); err != nil && !isRefusal(err) {
			return "", fmt.Errorf("fill the new room: %w", err)
		}
	}
	for _, a := range u.Aliases {
		_, err := w.Do(ctx, nil, &SetAlias{Alias: a.Alias, Room: made, By: a.Creator, From: u.Room})
		if err != nil && !isRefusal(err) { // a refusal: somebody else was faster
			return "", fmt.Errorf("move alias: %w", err)
		}
	}
	return made, u.close(ctx, w, made)
}

func (u *Upgrade) author() Origin { return Origin{User: u.By.User, Device: u.By.Device} }

// isRefusal tells an error by which a command was refused from one of which nobody knows what it did.
func isRefusal(err error) bool {
	var refused *mxerr.Error
	return errors.As(err, &refused) && refused.HTTPStatus < 500
}

// close says in the old room where the new one is. What is said besides needs powers that the user may not have.
func (u *Upgrade) close(ctx context.Context, w Writer, made id.RoomID) error {
	tombstone, err := merge(nil, map[string]any{"body": "This room has been replaced", "replacement_room": string(made)})
	if err != nil {
		return err
	}
	if _, err := w.Do(ctx, nil, &SendState{Room: u.Room, By: u.author(), Type: event.TypeTombstone, Content: tombstone}); err != nil {
		return fmt.Errorf("close the old room: %w", err)
	}
	var last []StateEvent
	_, stays, err := u.canonicalAlias()
	if err != nil {
		return err
	}
	if stays != nil {
		last = append(last, StateEvent{Type: event.TypeCanonicalAlias, Content: stays})
	}
	if levels := u.state(event.TypePowerLevels); levels != nil {
		quiet, err := quietLevels(levels)
		if err != nil {
			return err
		}
		last = append(last, StateEvent{Type: event.TypePowerLevels, Content: quiet})
	}
	for _, e := range last {
		_, err := w.Do(ctx, nil, &SendState{Room: u.Room, By: u.author(), Type: e.Type, Content: e.Content})
		if err != nil && !isRefusal(err) {
			return fmt.Errorf("close the old room: %w", err)
		}
	}
	return nil
}

// state gives the content of the old room's state event of a type with an empty key, nil for none.
func (u *Upgrade) state(typ string) []byte {
	i := slices.IndexFunc(u.State, func(e StateEvent) bool { return e.Type == typ && e.StateKey == "" })
	if i < 0 {
		return nil
	}
	return u.State[i].Content
}

// successor gives the command that makes the new room, and those that have to follow: on the new room, which is not named in them.
func (u *Upgrade) successor(rules *roomver.Rules) (*CreateRoom, []Command, error) {
	creation, err := u.creation(rules)
	if err != nil {
		return nil, nil, err
	}
	cmd := &CreateRoom{
		Creator: u.author(), Profile: u.Profile, Version: rules.Version, Preset: PresetPrivate, Public: u.Listed, CreationContent: creation,
	}
	add := func(typ, key string, content []byte) {
		cmd.InitialState = append(cmd.InitialState, StateEvent{Type: typ, StateKey: key, Content: content})
	}
	for _, typ := range keptTypes() {
		if content := u.state(typ); content != nil {
			add(typ, "", content)
		}
	}
	if u.state(event.TypeGuestAccess) == nil { // the preset's is another
		add(event.TypeGuestAccess, "", []byte(`{"guest_access":"forbidden"}`))
	}
	if rule := u.state(event.TypeJoinRules); rule != nil && joinable(rules, rule) {
		add(event.TypeJoinRules, "", rule)
	}
	alias, _, err := u.canonicalAlias()
	if err != nil {
		return nil, nil, err
	}
	if alias != nil {
		add(event.TypeCanonicalAlias, "", alias)
	}
	var after []Command
	var last Command
	if old := u.state(event.TypePowerLevels); old != nil {
		first, final, err := u.levels(rules, old)
		if err != nil {
			return nil, nil, err
		}
		add(event.TypePowerLevels, "", first)
		if final != nil {
			last = &SendState{By: u.author(), Type: event.TypePowerLevels, Content: final}
		}
	}
	for _, e := range u.State {
		if e.Type != event.TypeSpaceChild {
			continue
		}
		if _, ok := canonjson.Get(e.Content, "via"); !ok { // no child any more
			continue
		}
		if len(cmd.InitialState) < maxInitialState {
			add(e.Type, e.StateKey, e.Content)
			continue
		}
		after = append(after, &SendState{By: u.author(), Type: e.Type, StateKey: e.StateKey, Content: e.Content})
	}
	for _, user := range u.Banned {
		after = append(after, &SetMembership{By: u.author(), Target: user, Action: ActionBan})
	}
	if last != nil { // the powers to do the rest go with it
		after = append(after, last)
	}
	return cmd, after, nil
}

// creation gives the content that the new create event has besides.
func (u *Upgrade) creation(rules *roomver.Rules) ([]byte, error) {
	predecessor := map[string]any{"room_id": string(u.Room)}
	if u.Last != "" && !rules.RoomIDIsHash {
		predecessor["event_id"] = string(u.Last)
	}
	content := map[string]any{"predecessor": predecessor}
	old := orEmpty(u.state(event.TypeCreate))
	for _, name := range []string{"type", "m.federate"} {
		if v, ok := canonjson.Get(old, name); ok {
			content[name] = jsontext.Value(v)
		}
	}
	if rules.PrivilegedCreators && len(u.Additional) > 0 {
		content["additional_creators"] = u.Additional
	}
	return merge(nil, content)
}

// joinable tells whether a room version knows the join rule of a content.
func joinable(rules *roomver.Rules, content []byte) bool {
	switch s, _ := canonjson.GetString(content, "join_rule"); s {
	case "knock":
		return rules.Knock
	case "restricted":
		return rules.Restricted
	case "knock_restricted":
		return rules.KnockRestricted
	}
	return true
}

// canonicalAlias gives what of the old room's canonical alias goes to the new one, and what stays; nil each if that is nothing.
func (u *Upgrade) canonicalAlias() (moves, stays []byte, err error) {
	old := u.state(event.TypeCanonicalAlias)
	if old == nil || len(u.Aliases) == 0 {
		return nil, nil, nil
	}
	var named struct {
		Alias string   `json:"alias"`
		Alt   []string `json:"alt_aliases"`
	}
	if decodeJSON(old, &named) != nil {
		return nil, nil, nil //nolint:nilerr // what is malformed stays where it is
	}
	moved := func(s string) bool {
		return slices.ContainsFunc(u.Aliases, func(a Alias) bool { return string(a.Alias) == s })
	}
	there, here := map[string]any{}, map[string]any{}
	put := func(to map[string]any, alias string, alt []string) {
		if alias != "" {
			to["alias"] = alias
		}
		if len(alt) > 0 {
			to["alt_aliases"] = alt
		}
	}
	split := func(want bool) (alias string, alt []string) {
		if named.Alias != "" && moved(named.Alias) == want {
			alias = named.Alias
		}
		for _, s := range named.Alt {
			if moved(s) == want {
				alt = append(alt, s)
			}
		}
		return alias, alt
	}
	alias, alt := split(true)
	if alias == "" && len(alt) == 0 {
		return nil, nil, nil
	}
	put(there, alias, alt)
	alias, alt = split(false)
	put(here, alias, alt)
	if moves, err = merge(nil, there); err != nil {
		return nil, nil, err
	}
	stays, err = merge(nil, here)
	return moves, stays, err
}

// quietLevels gives power levels with which an ordinary user neither speaks nor invites (spec: "Room Upgrades").
func quietLevels(old []byte) ([]byte, error) {
	level := func(name string) int64 {
		v, _ := canonjson.Get(old, name)
		n, _ := wholeLevel(v)
		return n
	}
	quiet := max(50, level("users_default")+1)
	return merge(old, map[string]any{
		"events_default": max(quiet, level("events_default")), "invite": max(quiet, level("invite")),
	})
}

// levels gives the new room's first power levels, and those that it has in the end, nil if they are the same. Where creators have no power
// of their own, the user may have to be lifted for as long as the room is being made.
func (u *Upgrade) levels(rules *roomver.Rules, old []byte) (first, final []byte, err error) {
	all := members(old)
	users := map[string]int64{}
	highest := int64(50) // what is not named is at most this
	note := func(raw jsontext.Value) {
		if n, ok := wholeLevel(raw); ok {
			highest = max(highest, n)
		}
	}
	for name, raw := range all {
		switch name {
		case "users":
			for user, level := range members(raw) {
				if n, ok := wholeLevel(level); ok {
					users[user] = n
				}
			}
		case "events", "notifications":
			sub := members(raw)
			for k, level := range sub {
				if n, ok := wholeLevel(level); ok {
					sub[k] = jsontext.Value(strconv.FormatInt(n, 10))
				}
				if name == "events" {
					note(level)
				}
			}
			if all[name], err = canonjson.Marshal(sub); err != nil {
				return nil, nil, jsonError(err)
			}
		default:
			if n, ok := wholeLevel(raw); ok {
				all[name] = jsontext.Value(strconv.FormatInt(n, 10))
			}
			note(raw)
		}
	}
	was, ok := roomver.Get(u.From)
	if ok && was.PrivilegedCreators && !rules.PrivilegedCreators {
		for _, c := range u.Creators {
			users[string(c)] = max(users[string(c)], 100)
		}
	}
	if rules.PrivilegedCreators {
		for _, c := range append(u.Additional, u.By.User) {
			delete(users, string(c))
		}
	}
	with := func(users map[string]int64) ([]byte, error) {
		content := make(map[string]any, len(all)+1)
		for name, raw := range all {
			content[name] = raw
		}
		content["users"] = users
		return merge(nil, content)
	}
	if first, err = with(users); err != nil || rules.PrivilegedCreators {
		return first, nil, err
	}
	own, named := users[string(u.By.User)]
	if !named {
		own, _ = wholeLevel(all["users_default"])
	}
	if own >= highest {
		return first, nil, nil
	}
	final = first
	lifted := maps.Clone(users)
	lifted[string(u.By.User)] = highest
	first, err = with(lifted)
	return first, final, err
}

// wholeLevel reads a power level in any of the forms that some room version takes.
func wholeLevel(raw []byte) (int64, bool) {
	if n, ok := canonjson.Int(raw); ok {
		return n, true
	}
	text := string(raw)
	if s, ok := canonjson.String(raw); ok {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		return n, err == nil && n >= -canonjson.MaxInt && n <= canonjson.MaxInt
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.Abs(f) > canonjson.MaxInt {
		return 0, false
	}
	return int64(f), true
}
