package write

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/service/room"
)

func (h *Rooms) send(w http.ResponseWriter, r *http.Request) error {
	if ms, later, err := h.askedToDelay(r); later || err != nil {
		if err != nil {
			return err
		}
		return h.sendLater(w, r, nil, ms)
	}
	c := auth.Must(r.Context())
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	cmd := &room.Send{Room: target, Type: httpx.Var(r, "eventType")}
	if cmd.By, err = originWithTxn(r, c); err != nil {
		return err
	}
	if err := massage(r, c, &cmd.By); err != nil {
		return err
	}
	if cmd.Content, err = eventContent(r); err != nil {
		return err
	}
	if c.Suspended {
		if err := h.mayWhileSuspended(r.Context(), c, cmd); err != nil {
			return err
		}
	}
	return h.event(w, r, target, cmd)
}

// mayWhileSuspended lets a suspended user redact the own events, and nothing else.
func (h *Rooms) mayWhileSuspended(ctx context.Context, c *auth.Caller, cmd *room.Send) error {
	var q struct {
		Redacts id.EventID `json:"redacts"`
	}
	if cmd.Type != event.TypeRedaction || json.Unmarshal(cmd.Content, &q) != nil {
		return suspended()
	}
	return h.ownWhileSuspended(ctx, c, cmd.Room, q.Redacts)
}

func (h *Rooms) ownWhileSuspended(ctx context.Context, c *auth.Caller, in id.RoomID, target id.EventID) error {
	sender, ok, err := h.o.Directory.Sender(ctx, in, target)
	if err != nil {
		return err
	}
	if !ok || sender != c.UserID {
		return suspended()
	}
	return nil
}

// event has a command done that makes an event.
func (h *Rooms) event(w http.ResponseWriter, r *http.Request, in id.RoomID, cmd room.Command) error {
	if err := h.limit(r.Context(), route.RateMessage, in); err != nil {
		return err
	}
	a, err := h.do(r.Context(), cmd)
	if err != nil {
		return err
	}
	if s, ok := cmd.(*room.SendState); ok && s.Type == event.TypeTombstone && s.StateKey == "" {
		h.followTombstone(r.Context(), s)
	}
	return httpx.WriteJSON(w, http.StatusOK, eventAnswer{a.Event})
}

// Related knows what relates to an event. It is *directory.Directory.
type Related interface {
	Related(ctx context.Context, room id.RoomID, parent id.EventID, relTypes []string, count int) ([]id.EventID, error)
}

// Bounds of what is redacted together with an event.
const (
	maxWithRelTypes = 50
	maxWithRelated  = 500
)

func (h *Rooms) redact(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		Reason   string   `json:"reason"`
		With     []string `json:"with_rel_types"`
		Unstable []string `json:"org.matrix.msc3912.with_relations"`
	}
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	cmd := &room.Redact{Room: target, Reason: q.Reason}
	if cmd.Target, err = parseEvent(httpx.Var(r, "eventId")); err != nil {
		return err
	}
	if cmd.By, err = originWithTxn(r, c); err != nil {
		return err
	}
	if c.Suspended {
		if err := h.ownWhileSuspended(r.Context(), c, target, cmd.Target); err != nil {
			return err
		}
	}
	with := append(q.With, q.Unstable...)
	if len(with) > maxWithRelTypes {
		return mxerr.Newf(mxerr.InvalidParam, "with_rel_types has more than %d types", maxWithRelTypes)
	}
	if len(with) == 0 {
		return h.event(w, r, target, cmd)
	}
	if err := h.limit(r.Context(), route.RateMessage, target); err != nil {
		return err
	}
	a, err := h.do(r.Context(), cmd)
	if err != nil {
		return err
	}
	if err := h.redactRelated(r.Context(), cmd, with); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, eventAnswer{a.Event})
}

// redactRelated redacts what relates to a redacted event, as far as the user may (MSC3912). A client that was not answered asks again, with the
// same transaction: the rest is then redacted.
func (h *Rooms) redactRelated(ctx context.Context, cmd *room.Redact, relTypes []string) error {
	events, err := h.o.Related.Related(ctx, cmd.Room, cmd.Target, relTypes, maxWithRelated)
	if err != nil {
		return err
	}
	for _, e := range events {
		_, err := h.do(ctx, &room.Redact{
			Room: cmd.Room, By: room.Origin{User: cmd.By.User, Device: cmd.By.Device}, Target: e, Reason: cmd.Reason,
		})
		if err != nil && !mxerr.Is(err, mxerr.Forbidden) && !mxerr.Is(err, mxerr.NotFound) {
			return err
		}
	}
	return nil
}

func (h *Rooms) setState(w http.ResponseWriter, r *http.Request) error {
	if ms, later, err := h.askedToDelay(r); later || err != nil {
		if err != nil {
			return err
		}
		key := httpx.Var(r, "stateKey")
		return h.sendLater(w, r, &key, ms)
	}
	c := auth.Must(r.Context())
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	cmd := &room.SendState{Room: target, Type: httpx.Var(r, "eventType"), StateKey: httpx.Var(r, "stateKey")}
	cmd.By = origin(c)
	if err := massage(r, c, &cmd.By); err != nil {
		return err
	}
	if cmd.Content, err = eventContent(r); err != nil {
		return err
	}
	if err := h.checkState(r.Context(), c, cmd); err != nil {
		return err
	}
	return h.event(w, r, target, cmd)
}

// checkState refuses what the room would not know to be wrong, and completes members.
func (h *Rooms) checkState(ctx context.Context, c *auth.Caller, cmd *room.SendState) error {
	switch {
	case cmd.Type == event.TypeMember:
		return h.completeMember(ctx, c, cmd)
	case c.Suspended:
		return suspended()
	case cmd.Type == event.TypeCanonicalAlias && cmd.StateKey == "":
		return h.checkCanonicalAlias(ctx, cmd.Room, cmd.Content)
	}
	return nil
}

// completeMember gives a member event of a user of this server the profile that its content leaves out.
func (h *Rooms) completeMember(ctx context.Context, c *auth.Caller, cmd *room.SendState) error {
	var content map[string]jsontext.Value
	if err := httpx.Unmarshal(cmd.Content, &content); err != nil {
		return err
	}
	var membership string
	if json.Unmarshal(content["membership"], &membership) != nil {
		return mxerr.New(mxerr.BadJSON, "The content has no membership")
	}
	user, err := parseUser(cmd.StateKey)
	if err != nil {
		return err
	}
	if c.Suspended && (membership != event.Leave || user != c.UserID) {
		return suspended()
	}
	switch membership {
	case event.Invite:
		if user.Server() != h.o.Server {
			return mxerr.New(mxerr.Forbidden, "Users of other servers are invited by /invite")
		}
		if err := h.mayInvite(ctx, c.UserID, user); err != nil {
			return err
		}
	case event.Join, event.Knock:
	default:
		return nil
	}
	p, err := h.profile(ctx, user)
	if err != nil {
		return err
	}
	changed := false
	for _, f := range [...]struct{ name, value string }{{"displayname", p.DisplayName}, {"avatar_url", p.AvatarURL}} {
		if _, ok := content[f.name]; ok || f.value == "" {
			continue
		}
		if content[f.name], err = json.Marshal(f.value); err != nil {
			return err
		}
		changed = true
	}
	if changed {
		cmd.Content, err = json.Marshal(content)
	}
	return err
}

// canonicalAlias is the content of m.room.canonical_alias as far as it names aliases.
type canonicalAlias struct {
	Alias *string  `json:"alias"`
	Alt   []string `json:"alt_aliases"`
}

func (a *canonicalAlias) all() []string {
	all := a.Alt
	if a.Alias != nil && *a.Alias != "" {
		all = append(all[:len(all):len(all)], *a.Alias)
	}
	return all
}

// maxAltAliases bounds the aliases of one event that are looked up.
const maxAltAliases = 100

// checkCanonicalAlias refuses aliases that are new in the event and are malformed or do not point to the room.
func (h *Rooms) checkCanonicalAlias(ctx context.Context, in id.RoomID, content []byte) error {
	var now, before canonicalAlias
	if err := httpx.Unmarshal(content, &now); err != nil {
		return err
	}
	if len(now.Alt) > maxAltAliases {
		return mxerr.Newf(mxerr.InvalidParam, "alt_aliases has more than %d aliases", maxAltAliases)
	}
	old, ok, err := h.o.Directory.CanonicalAlias(ctx, in)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	if ok && json.Unmarshal(old, &before) == nil {
		for _, s := range before.all() {
			known[s] = true
		}
	}
	for _, s := range now.all() {
		if known[s] {
			continue
		}
		alias, err := parseAlias(s)
		if err != nil {
			return err
		}
		found, err := h.resolve(ctx, alias)
		if mxerr.Is(err, mxerr.NotFound) || err == nil && found != in {
			return mxerr.Newf(mxerr.BadAlias, "The alias %s does not point to this room", alias)
		}
		if err != nil {
			return err
		}
		known[s] = true
	}
	return nil
}
