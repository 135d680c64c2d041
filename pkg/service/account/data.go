package account

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// maxProfileBytes bounds a whole profile (spec: "Profiles", 64 KiB).
const maxProfileBytes = 64 << 10

func (h *Host) setProfile(ctx context.Context, s shard.ID, p *SetProfile) (change, error) {
	var c change
	fields, err := h.db.Profile(ctx, s, p.UserID)
	if err != nil {
		return c, err
	}
	old, had := fields[p.Field]
	if bytes.Equal(old, p.Value) && had == (len(p.Value) > 0) {
		c.Answer.Unchanged = true
		return c, nil
	}
	size := len(p.Field) + len(p.Value)
	for f, v := range fields {
		if f != p.Field {
			size += len(f) + len(v) + 4 // quotes, colon and comma
		}
	}
	if size > maxProfileBytes && len(p.Value) > 0 {
		return c, mxerr.New(mxerr.ProfileTooLarge, "The profile would exceed 64 KiB")
	}
	e, err := entry.Profile(p.UserID, &entry.ProfileBody{Field: p.Field, Value: p.Value})
	if err != nil {
		return c, err
	}
	c.Entries = append(c.Entries, e)
	c.Rows = append(c.Rows, &accountdb.Profile{UserID: p.UserID, Field: p.Field, Value: p.Value})
	return c, nil
}

// deleted is the content of account data that was deleted (MSC3391).
const deleted = "{}"

func (h *Host) setAccountData(d *SetAccountData) (change, error) {
	var c change
	e, err := entry.AccountData(d.UserID, &entry.AccountDataBody{RoomId: d.RoomID, Type: d.Type, Content: d.Content})
	if err != nil {
		return c, err
	}
	c.Entries = append(c.Entries, e)
	c.Rows = append(c.Rows, &accountdb.AccountData{UserID: d.UserID, RoomID: d.RoomID, Type: d.Type, Content: d.Content})
	return c, nil
}

// typeTag is the account data of a room that holds its tags.
const typeTag = "m.tag"

func (h *Host) setTag(ctx context.Context, s shard.ID, t *SetTag) (change, error) {
	old, _, err := h.db.AccountData(ctx, s, t.UserID, t.RoomID, typeTag)
	if err != nil {
		return change{}, err
	}
	content, changed, err := withTag(old, t.Tag, t.Content)
	switch {
	case err != nil:
		return change{}, fmt.Errorf("set tag: %w", err)
	case !changed:
		return change{Answer: Answer{Unchanged: true}}, nil
	case len(content) > MaxAccountData:
		return change{}, mxerr.Newf(mxerr.TooLarge, "Account data of one type may be %d bytes long", MaxAccountData)
	}
	return h.setAccountData(&SetAccountData{UserID: t.UserID, RoomID: t.RoomID, Type: typeTag, Content: content})
}

// withTag gives the content of m.tag with a tag set, or removed if its value is empty. What is no object of tags, which a client
// may have set, is replaced.
func withTag(content []byte, tag string, value []byte) (_ []byte, changed bool, err error) {
	all, tags := map[string]jsontext.Value{}, map[string]jsontext.Value{}
	if json.Unmarshal(content, &all) != nil || all == nil {
		all = map[string]jsontext.Value{}
	}
	if json.Unmarshal(all["tags"], &tags) != nil || tags == nil {
		tags = map[string]jsontext.Value{}
	}
	old, had := tags[tag]
	if len(value) == 0 {
		if !had {
			return nil, false, nil
		}
		delete(tags, tag)
	} else {
		if bytes.Equal(old, value) {
			return nil, false, nil
		}
		tags[tag] = value
	}
	if all["tags"], err = json.Marshal(tags, json.Deterministic(true)); err != nil {
		return nil, false, err
	}
	out, err := json.Marshal(all, json.Deterministic(true))
	return out, true, err
}

func (h *Host) putFilter(f *PutFilter) (change, error) {
	sum := sha256.Sum256(f.JSON)
	// No `{` can begin it, by which a filter id is told from an inline filter.
	id := base64.RawURLEncoding.EncodeToString(sum[:12])
	return change{
		Rows:   []entry.Row{&accountdb.Filter{UserID: f.UserID, FilterID: id, JSON: f.JSON}},
		Answer: Answer{FilterID: id},
	}, nil
}

func (h *Host) useRegistrationToken(ctx context.Context, s shard.ID, u *UseRegistrationToken) (change, error) {
	t, ok, err := h.db.RegistrationToken(ctx, s, u.Token)
	if err != nil {
		return change{}, err
	}
	if u.Return {
		if !ok || t.Completed == 0 {
			return change{Answer: Answer{Unchanged: true}}, nil
		}
		t.Completed--
	} else {
		if !ok || !TokenUsable(&t, h.now().UnixMilli()) {
			return change{}, mxerr.New(mxerr.Unauthorized, "Invalid registration token")
		}
		t.Completed++
	}
	return change{Rows: []entry.Row{&t}}, nil
}

// TokenUsable tells whether a registration token may be used once more at a time in ms.
func TokenUsable(t *accountdb.RegistrationToken, nowMs int64) bool {
	return (t.Expires == nil || nowMs < *t.Expires) &&
		(t.UsesAllowed == nil || t.Completed+t.Pending < *t.UsesAllowed)
}

func (h *Host) putRegistrationToken(ctx context.Context, s shard.ID, p *PutRegistrationToken) (change, error) {
	t, _, err := h.db.RegistrationToken(ctx, s, p.Token)
	if err != nil {
		return change{}, err
	}
	t.Token, t.UsesAllowed, t.Expires = p.Token, p.UsesAllowed, p.Expires
	return change{Rows: []entry.Row{&t}}, nil
}

// MaxAccountData bounds account data of one type, in bytes.
const MaxAccountData = 1 << 20

// maxProfileField is the longest name of a profile field, in bytes (spec: "Profiles").
const maxProfileField = 255

// CheckProfileName refuses a name that no field of a profile can have.
func CheckProfileName(field string) error {
	switch {
	case len(field) > maxProfileField:
		return mxerr.New(mxerr.KeyTooLarge, "The field's name is longer than 255 bytes")
	case !validFieldName(field):
		return mxerr.New(mxerr.InvalidParam, "The field's name is not a namespaced identifier")
	}
	return nil
}

// CheckProfileField refuses a profile field that the specification does not allow: a name that is too long or is not of
// the grammar of namespaced identifiers, or a display name or avatar that is not a string.
func CheckProfileField(field string, value []byte) error {
	if err := CheckProfileName(field); err != nil {
		return err
	}
	if len(value) > maxProfileBytes {
		return mxerr.New(mxerr.ProfileTooLarge, "The profile would exceed 64 KiB")
	}
	switch field {
	case "displayname", "avatar_url":
		if len(value) == 0 || (value[0] != '"' && string(value) != "null") {
			return mxerr.Newf(mxerr.BadJSON, "%s must be a string", field)
		}
		if limit := 1024; len(value) > limit {
			return mxerr.Newf(mxerr.BadJSON, "%s is longer than %d bytes", field, limit)
		}
	}
	return nil
}

func validFieldName(s string) bool {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
