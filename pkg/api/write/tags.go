package write

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// maxTag is the longest name of a tag, in bytes (spec: "Room Tagging").
const maxTag = 255

// tagCommand gives the command on the tag that the path names, without a content.
func tagCommand(r *http.Request) (*account.SetTag, error) {
	c, err := self(r)
	if err != nil {
		return nil, err
	}
	target, err := pathRoom(r)
	if err != nil {
		return nil, err
	}
	tag := httpx.Var(r, "tag")
	if len(tag) > maxTag {
		return nil, mxerr.Newf(mxerr.InvalidParam, "The tag is longer than %d bytes", maxTag)
	}
	return &account.SetTag{UserID: string(c.UserID), RoomID: string(target), Tag: tag}, nil
}

func (h *Rooms) setTag(w http.ResponseWriter, r *http.Request) error {
	cmd, err := tagCommand(r)
	if err != nil {
		return err
	}
	body, err := httpx.ReadBody(r)
	if err != nil {
		return err
	}
	var content map[string]jsontext.Value
	if err := httpx.Unmarshal(body, &content); err != nil {
		return err
	}
	if order, ok := content["order"]; ok && order.Kind() != '0' {
		return mxerr.New(mxerr.BadJSON, "order is not a number")
	}
	value := jsontext.Value(body)
	if err := value.Compact(); err != nil {
		return mxerr.New(mxerr.NotJSON, "The request's body is not JSON").WithCause(err)
	}
	cmd.Content = value
	if _, err := h.o.Accounts.Do(r.Context(), cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (h *Rooms) deleteTag(w http.ResponseWriter, r *http.Request) error {
	cmd, err := tagCommand(r)
	if err != nil {
		return err
	}
	if _, err := h.o.Accounts.Do(r.Context(), cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// deleteAccountData removes account data, global or of a room (MSC3391). What is deleted has the content {}, and is so told to
// the user's other devices.
func (h *Rooms) deleteAccountData(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	cmd := &account.SetAccountData{
		UserID: string(c.UserID), RoomID: httpx.Var(r, "roomId"), Type: httpx.Var(r, "type"), Content: []byte("{}"),
	}
	if cmd.RoomID != "" {
		if _, err := parseRoom(cmd.RoomID); err != nil {
			return err
		}
	}
	if err := settable(cmd.Type); err != nil {
		return err
	}
	if _, err := h.o.Accounts.Do(r.Context(), cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// settable refuses the types of account data that have endpoints of their own.
func settable(typ string) error {
	switch typ {
	case fullyRead, "m.push_rules":
		return mxerr.Newf(mxerr.BadJSON, "%s is set by endpoints of its own", typ).WithStatus(http.StatusMethodNotAllowed)
	}
	return nil
}
