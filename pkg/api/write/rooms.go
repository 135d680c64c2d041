package write

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/abroad"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/appservice"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// Profiles tells what is shown of a user of this server in rooms, and whose invitations the user takes; of others it may know nothing. It
// is *account.Reader.
type Profiles interface {
	ShownOf(ctx context.Context, users ...id.UserID) (map[id.UserID]account.Shown, error)
	// Invitations gives whose invitations users take; nothing of those who take all.
	Invitations(ctx context.Context, users ...id.UserID) (map[id.UserID]invitation.Rules, error)
}

// AccountDoer has a command on a user done. It is *account.Front.
type AccountDoer interface {
	Do(ctx context.Context, cmd account.Command) (account.Answer, error)
}

// Directory knows this server's aliases and the facts of rooms that are checked before a command is sent. It is
// *directory.Directory.
type Directory interface {
	// Resolve gives the room that an alias of this server points to, and who made the alias.
	Resolve(ctx context.Context, alias id.RoomAlias) (room id.RoomID, creator id.UserID, ok bool, err error)
	// CanonicalAlias gives the content of a room's m.room.canonical_alias.
	CanonicalAlias(ctx context.Context, room id.RoomID) (content []byte, ok bool, err error)
	// MayManage tells whether a user may change how a room is found.
	MayManage(ctx context.Context, room id.RoomID, user id.UserID) (bool, error)
	Joined(ctx context.Context, room id.RoomID, user id.UserID) (bool, error)
	// Sender tells who sent an event of a room.
	Sender(ctx context.Context, room id.RoomID, event id.EventID) (sender id.UserID, ok bool, err error)
}

// Networks lists rooms for the networks of application services.
type Networks interface {
	Publish(ctx context.Context, service, network string, room id.RoomID, listed bool) error
}

// RoomLimiter takes one from a room's allowance. It is *auth.Limits.
type RoomLimiter interface {
	TakeRoom(ctx context.Context, class route.RateClass, room id.RoomID) error
}

// Abroad acts in rooms that this server is not in. It is *abroad.Abroad.
type Abroad interface {
	Elsewhere(ctx context.Context, room id.RoomID) (elsewhere, known bool, err error)
	Do(ctx context.Context, act *abroad.Act) error
	Invite(ctx context.Context, invite *room.SetMembership) error
	Alias(ctx context.Context, alias id.RoomAlias) (id.RoomID, []id.ServerName, error)
	// Redeem claims the invitation to an address that an identity server has signed over to a user.
	Redeem(ctx context.Context, room id.RoomID, user id.UserID, signed []byte) error
}

// RoomOptions are what the handlers of rooms need. Services and Limits may be nil, and so may Abroad: this server is then alone. Without Addressed
// nobody is invited by an address.
type RoomOptions struct {
	Server    id.ServerName
	Writer    room.Writer
	Accounts  AccountDoer
	Profiles  Profiles
	Directory Directory
	Threads   Threads
	Related   Related
	Upgrades  Upgrades
	Services  *appservice.Registry
	// Asker asks application services for users and aliases that are not there; nil: nobody is asked.
	Asker *appservice.Asker
	// Networks are the rooms that application services list; nil: they cannot.
	Networks  Networks
	Reported  Reported
	Addressed Addressed
	Delays    Delays
	Limits    RoomLimiter
	Abroad    Abroad
	Now       func() time.Time
	// Random makes room ids.
	Random io.Reader
	// Log may be nil.
	Log *slog.Logger
}

// Rooms answers the endpoints that change rooms, memberships, receipts, tags and the directory.
type Rooms struct{ o RoomOptions }

// NewRooms makes the handlers.
func NewRooms(o RoomOptions) *Rooms {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Rooms{o}
}

// Handlers gives the handlers by the names of their rows.
func (h *Rooms) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"createRoom":                   h.createRoom,
		"joinRoomById":                 h.join,
		"joinRoom":                     h.join,
		"knockRoom":                    h.knock,
		"inviteUser":                   h.invite,
		"leaveRoom":                    h.leave,
		"forgetRoom":                   h.forget,
		"kick":                         h.other(room.ActionKick),
		"ban":                          h.other(room.ActionBan),
		"unban":                        h.other(room.ActionUnban),
		"sendMessage":                  h.send,
		"setRoomStateWithKey":          h.setState,
		"redactEvent":                  h.redact,
		"sendDelayedEvent":             h.sendDelayed,
		"updateDelayedEvent":           h.updateDelayed,
		"actOnDelayedEvent":            h.actOnDelayed,
		"postReceipt":                  h.receipt,
		"setReadMarker":                h.readMarkers,
		"setTyping":                    h.typing,
		"setRoomAlias":                 h.setAlias,
		"deleteRoomAlias":              h.deleteAlias,
		"setRoomVisibilityOnDirectory": h.setVisibility,

		"updateAppserviceRoomDirectoryVisibility": h.setNetworkVisibility,

		"upgradeRoom":              h.upgrade,
		"reportEvent":              h.reportEvent,
		"reportRoom":               h.reportRoom,
		"reportUser":               h.reportUser,
		"setRoomTag":               h.setTag,
		"setThreadSubscription":    h.setThreadSubscription,
		"deleteThreadSubscription": h.deleteThreadSubscription,
		"deleteRoomTag":            h.deleteTag,
		"deleteAccountData":        h.deleteAccountData,
		"deleteAccountDataPerRoom": h.deleteAccountData,
	}
}

// do has a command done. The writer takes its key from the transaction id of those that have one.
func (h *Rooms) do(ctx context.Context, cmd room.Command) (room.Answer, error) {
	return h.o.Writer.Do(ctx, nil, cmd)
}

func (h *Rooms) profile(ctx context.Context, user id.UserID) (room.Profile, error) {
	shown, err := h.o.Profiles.ShownOf(ctx, user)
	return room.Profile(shown[user]), err
}

// mayInvite refuses to invite users of this server who do not take the inviting user's invitations.
func (h *Rooms) mayInvite(ctx context.Context, by id.UserID, users ...id.UserID) error {
	rules, err := h.o.Profiles.Invitations(ctx, users...)
	if err != nil {
		return err
	}
	for u, r := range rules {
		if r.Of(by) == invitation.Blocked {
			return mxerr.Newf(mxerr.InviteBlocked, "%s takes no invitations of yours", u)
		}
	}
	return nil
}

func (h *Rooms) limit(ctx context.Context, class route.RateClass, r id.RoomID) error {
	if h.o.Limits == nil {
		return nil
	}
	return h.o.Limits.TakeRoom(ctx, class, r)
}

// active gives the caller, after refusing one whose account is suspended.
func active(r *http.Request) (*auth.Caller, error) {
	c := auth.Must(r.Context())
	if c.Suspended {
		return nil, suspended()
	}
	return c, nil
}

func suspended() error {
	return mxerr.New(mxerr.UserSuspended, "You cannot perform this action while suspended.")
}

// origin says who acts.
func origin(c *auth.Caller) room.Origin {
	return room.Origin{User: c.UserID, Device: c.DeviceID, Guest: c.Guest()}
}

// massage gives an event the time that an application service says it has (spec: "Timestamp massaging").
func massage(r *http.Request, c *auth.Caller, o *room.Origin) error {
	if c.Service == nil {
		return nil
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	o.TS, _, err = p.Timestamp("ts")
	return err
}

// maxTxnID is the longest transaction id of a client, in bytes.
const maxTxnID = 255

// originWithTxn is origin for the endpoints whose path ends in a transaction id.
func originWithTxn(r *http.Request, c *auth.Caller) (room.Origin, error) {
	o := origin(c)
	if o.Txn = httpx.Var(r, "txnId"); len(o.Txn) > maxTxnID {
		return o, mxerr.Newf(mxerr.InvalidParam, "The transaction id is longer than %d bytes", maxTxnID)
	}
	return o, nil
}

func pathRoom(r *http.Request) (id.RoomID, error) { return parseRoom(httpx.Var(r, "roomId")) }

func parseRoom(s string) (id.RoomID, error) {
	v, err := id.ParseRoomID(s)
	if err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "Invalid room id").WithCause(err)
	}
	return v, nil
}

func parseEvent(s string) (id.EventID, error) {
	v, err := id.ParseEventID(s)
	if err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "Invalid event id").WithCause(err)
	}
	return v, nil
}

func parseUser(s string) (id.UserID, error) {
	v, err := id.ParseUserID(s)
	if err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	}
	return v, nil
}

func parseAlias(s string) (id.RoomAlias, error) {
	v, err := id.ParseRoomAlias(s)
	if err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "Invalid room alias").WithCause(err)
	}
	return v, nil
}

// eventContent reads a body that is the content of an event. That it is an object of canonical JSON the writer finds out, which
// has to read it anyway; only what it could not tell from no content at all is refused here.
func eventContent(r *http.Request) ([]byte, error) {
	b, err := httpx.ReadBody(r)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || !utf8.Valid(b) {
		return nil, mxerr.New(mxerr.NotJSON, "The request's body is not JSON")
	}
	return b, nil
}

type roomAnswer struct {
	RoomID id.RoomID `json:"room_id"`
}

type eventAnswer struct {
	EventID id.EventID `json:"event_id"`
}
