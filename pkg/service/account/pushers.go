package account

import (
	"bytes"
	"context"
	"net/url"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/entry"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/accountdb"
)

// Pusher says where a user wants notifications sent (spec: client-server API, "Push Notifications").
type Pusher = accountdb.Pusher

// SetPusher makes or replaces a pusher of a user, or removes it.
type SetPusher struct {
	UserID string `json:"user_id"`
	Pusher Pusher `json:"pusher"`
	Remove bool   `json:"remove,omitempty"`
	// Switch says that the pusher is to be on or off, as it says. If that is all, it stays with the device that set it.
	Switch bool `json:"switch,omitempty"`
}

func (c *SetPusher) shardKey() (string, bool) { return c.UserID, true }

// Method implements [Command].
func (c *SetPusher) Method() string { return "account.set_pusher" }

// maxPushers bounds the pushers of one user.
const maxPushers = 200

func (h *Host) setPusher(ctx context.Context, s shard.ID, c *SetPusher) (change, error) {
	pushers, err := h.db.Pushers(ctx, s, c.UserID)
	if err != nil {
		return change{}, err
	}
	p := c.Pusher
	p.UserID, p.Created = c.UserID, h.now().UnixMilli()
	for i := range pushers {
		old := &pushers[i]
		if old.AppID != p.AppID || old.Pushkey != p.Pushkey {
			continue
		}
		if c.Remove {
			return pushersChange(c.UserID, &accountdb.PusherGone{UserID: c.UserID, AppID: p.AppID, Pushkey: p.Pushkey})
		}
		if !old.Disabled || p.Disabled { // one that is switched on again is told of what comes from now on
			p.Created = old.Created
		}
		same := alike(old, &p)
		if c.Switch && same {
			p.DeviceID = old.DeviceID
		}
		if same && old.Disabled == p.Disabled && old.DeviceID == p.DeviceID {
			return change{Answer: Answer{Unchanged: true}}, nil
		}
		return pushersChange(c.UserID, &p)
	}
	switch {
	case c.Remove:
		return change{Answer: Answer{Unchanged: true}}, nil
	case len(pushers) >= maxPushers:
		return change{}, mxerr.New(mxerr.ResourceLimitExceeded, "This account has too many pushers")
	}
	return pushersChange(c.UserID, &p)
}

// pushersChange changes a pusher, and says so to who sends notifications.
func pushersChange(userID string, row entry.Row) (change, error) {
	e, err := sessionEntry(userID, entry.SessionPushers, nil, nil)
	return change{Entries: []entry.Entry{e}, Rows: []entry.Row{row}}, err
}

// alike tells whether two pushers differ at most in their devices, when they were made and whether they are switched off.
func alike(a, b *Pusher) bool {
	return a.AppID == b.AppID && a.Pushkey == b.Pushkey && a.Kind == b.Kind && a.AppDisplayName == b.AppDisplayName &&
		a.DeviceDisplayName == b.DeviceDisplayName && a.ProfileTag == b.ProfileTag && a.Lang == b.Lang && bytes.Equal(a.Data, b.Data)
}

const (
	pusherHTTP = "http"
	// The lengths that the specification allows, in bytes.
	maxPushkey = 512
	maxAppID   = 64
	// maxPusherText bounds the texts that are for people.
	maxPusherText = 1024
	maxPusherData = 16 << 10
)

// CheckPusher refuses a pusher that cannot be. pushURL is data.url.
func CheckPusher(p *Pusher, pushURL string) error {
	for name, v := range map[string]string{
		"app_id": p.AppID, "pushkey": p.Pushkey, "app_display_name": p.AppDisplayName, "device_display_name": p.DeviceDisplayName,
		"lang": p.Lang,
	} {
		switch {
		case v == "":
			return mxerr.Newf(mxerr.MissingParam, "The request has no %s", name)
		case len(v) > maxPusherText || strings.IndexByte(v, 0) >= 0:
			return mxerr.Newf(mxerr.InvalidParam, "Invalid %s", name)
		}
	}
	switch {
	case len(p.Pushkey) > maxPushkey:
		return mxerr.Newf(mxerr.InvalidParam, "pushkey is longer than %d bytes", maxPushkey)
	case len(p.AppID) > maxAppID:
		return mxerr.Newf(mxerr.InvalidParam, "app_id is longer than %d bytes", maxAppID)
	case len(p.ProfileTag) > 32 || strings.IndexByte(p.ProfileTag, 0) >= 0:
		return mxerr.New(mxerr.InvalidParam, "profile_tag is longer than 32 bytes")
	case p.Kind != pusherHTTP:
		return mxerr.New(mxerr.InvalidParam, "This server has pushers of the kind http only")
	case len(p.Data) == 0:
		return mxerr.New(mxerr.MissingParam, "The request has no data")
	case len(p.Data) > maxPusherData:
		return mxerr.New(mxerr.TooLarge, "data is too long")
	case pushURL == "":
		return mxerr.New(mxerr.MissingParam, "data has no url")
	}
	u, err := url.Parse(pushURL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "/_matrix/push/v1/notify" {
		return mxerr.New(mxerr.InvalidParam, "data.url must be an https URL with the path /_matrix/push/v1/notify")
	}
	return nil
}

// SetPusher makes or replaces a pusher that was checked. Unless others is true, pushers of the same app and key of other users go: the
// device has another owner now. toggle says that the user may only want it on or off.
func (f *Front) SetPusher(ctx context.Context, u id.UserID, p Pusher, others, toggle bool) error {
	if !others {
		owners, err := f.db.PusherOwners(ctx, p.AppID, p.Pushkey)
		if err != nil {
			return err
		}
		for _, o := range owners {
			if o == string(u) {
				continue
			}
			if _, err := f.do.Do(ctx, newKey(), &SetPusher{UserID: o, Pusher: p, Remove: true}); err != nil {
				return err
			}
		}
	}
	_, err := f.do.Do(ctx, newKey(), &SetPusher{UserID: string(u), Pusher: p, Switch: toggle})
	return err
}

// Pushers gives a user's pushers.
func (r *Reader) Pushers(ctx context.Context, u id.UserID) ([]Pusher, error) {
	return r.db.Pushers(ctx, r.of(u), string(u))
}
