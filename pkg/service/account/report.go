package account

import (
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Report stores what a user reports to the server's moderators: an event of a room (with its sender as About), a room, or a user. The
// caller has checked that there is what is reported.
type Report struct {
	UserID  string `json:"user_id"`
	RoomID  string `json:"room_id,omitempty"`
	EventID string `json:"event_id,omitempty"`
	About   string `json:"about,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func (c *Report) shardKey() (string, bool) { return c.UserID, true }

// Method implements [Command].
func (c *Report) Method() string { return "account.report" }

func (h *Host) report(c *Report) (change, error) {
	return change{Rows: []entry.Row{&accountdb.Report{
		Reporter: c.UserID, RoomID: c.RoomID, EventID: c.EventID, UserID: c.About, Reason: c.Reason, At: h.now().UnixMilli(),
	}}}, nil
}
