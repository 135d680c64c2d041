package account

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// typeDirect is the account data that says which rooms are with whom.
const typeDirect = "m.direct"

// FollowRoom has what a user has set for a room hold for its successor too: tags, push rules, and that it is with somebody directly. What
// the user has set for the successor already stays. Unchanged if there is nothing to do.
type FollowRoom struct {
	UserID string `json:"user_id"`
	From   string `json:"from"`
	To     string `json:"to"`
}

func (c *FollowRoom) shardKey() (string, bool) { return c.UserID, true }

// Method implements [Command].
func (c *FollowRoom) Method() string { return "account.follow_room" }

func (h *Host) followRoom(ctx context.Context, s shard.ID, f *FollowRoom) (change, error) {
	var all change
	set := func(room, typ string, content []byte, err error) error {
		if err != nil || content == nil || len(content) > MaxAccountData {
			return err
		}
		c, err := h.setAccountData(&SetAccountData{UserID: f.UserID, RoomID: room, Type: typ, Content: content})
		all.Entries, all.Rows = append(all.Entries, c.Entries...), append(all.Rows, c.Rows...)
		return err
	}
	for _, typ := range []string{TypePushRules, typeDirect} {
		stored, ok, err := h.db.AccountData(ctx, s, f.UserID, "", typ)
		if err != nil {
			return change{}, err
		}
		if !ok {
			continue
		}
		follow := followDirect
		if typ == TypePushRules {
			follow = followRules
		}
		content, err := follow(stored, f)
		if err := set("", typ, content, err); err != nil {
			return change{}, err
		}
	}
	tags, ok, err := h.db.AccountData(ctx, s, f.UserID, f.From, typeTag)
	if err != nil {
		return change{}, err
	}
	_, has, err := h.db.AccountData(ctx, s, f.UserID, f.To, typeTag)
	if err != nil {
		return change{}, err
	}
	if ok && !has {
		if err := set(f.To, typeTag, tags, nil); err != nil {
			return change{}, err
		}
	}
	all.Answer.Unchanged = len(all.Entries) == 0
	return all, nil
}

// followRules gives the push rules with those of one room also for another, nil if they are the same.
func followRules(stored []byte, f *FollowRoom) ([]byte, error) {
	custom, err := pushrule.ParseCustom(stored)
	if err != nil {
		return nil, err
	}
	for _, kind := range []string{pushrule.KindOverride, pushrule.KindRoom, pushrule.KindUnderride} {
		own, _ := custom.Own.Of(kind)
		for _, r := range slices.Clone(own) {
			next, ok := r, r.ID == f.From
			next.Conditions = slices.Clone(r.Conditions)
			for i := range next.Conditions {
				if c := &next.Conditions[i]; c.Key == "room_id" && c.Pattern != nil && *c.Pattern == f.From {
					c.Pattern, ok = &f.To, true
				}
			}
			if next.ID = f.To; r.ID != f.From {
				next.ID = r.ID + "_" + f.To
			}
			if !ok || slices.ContainsFunc(own, func(o pushrule.Rule) bool { return o.ID == next.ID }) {
				continue
			}
			var bad *pushrule.InvalidError
			switch err := custom.Put(kind, next, "", ""); {
			case errors.As(err, &bad): // too many, or too long a name: the room is as any other then
				continue
			case err != nil:
				return nil, err
			}
			if err := custom.SetEnabled(kind, next.ID, r.Enabled); err != nil {
				return nil, err
			}
		}
	}
	content, err := json.Marshal(custom, json.Deterministic(true))
	if err != nil || bytes.Equal(content, stored) {
		return nil, err
	}
	return content, nil
}

// followDirect gives m.direct with one room also where another is, nil if it is the same.
func followDirect(stored []byte, f *FollowRoom) ([]byte, error) {
	var users map[string]jsontext.Value
	if json.Unmarshal(stored, &users) != nil {
		return nil, nil //nolint:nilerr // a client may have set anything
	}
	changed := false
	for user, raw := range users {
		var rooms []string
		if json.Unmarshal(raw, &rooms) != nil || !slices.Contains(rooms, f.From) || slices.Contains(rooms, f.To) {
			continue
		}
		list, err := json.Marshal(append(rooms, f.To))
		if err != nil {
			return nil, err
		}
		users[user], changed = list, true
	}
	if !changed {
		return nil, nil
	}
	return json.Marshal(users, json.Deterministic(true))
}
