// Package federation holds the handlers of what other homeservers call.
//
// Requests have been verified by api/auth before they come here: auth.Origin is the server that asks. It is imported by the composition
// root.
package federation

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
	"github.com/heddle-im/heddle/pkg/service/inbound"
	"github.com/heddle-im/heddle/pkg/service/resident"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// keyValidity is how long other servers may use the published keys before they ask again.
const keyValidity = 24 * time.Hour

// Notary finds key documents of other servers. It is *keyring.Ring.
type Notary interface {
	Documents(ctx context.Context, requests []signing.Request) map[id.ServerName][][]byte
}

// Profiles reads profiles of users of this server. It is *account.Reader.
type Profiles interface {
	Exists(ctx context.Context, user id.UserID) (bool, error)
	Profile(ctx context.Context, user id.UserID) (map[string][]byte, error)
}

// Directory knows this server's aliases. It is *directory.Directory.
type Directory interface {
	Resolve(ctx context.Context, alias id.RoomAlias) (room id.RoomID, creator id.UserID, ok bool, err error)
}

// Abroad takes invitations of this server's users to rooms elsewhere. It is *abroad.Abroad.
type Abroad interface {
	Invited(ctx context.Context, origin id.ServerName, room id.RoomID, eventID id.EventID, version string, pdu, stripped []byte) (signed []byte, err error)
}

// Options are what the handlers answer from.
type Options struct {
	Server id.ServerName
	Keys   []signing.Key
	// OldKeys are keys that this server signed with before.
	OldKeys []signing.OldKey
	Version string
	// BaseURL is where the homeserver is reached; empty: no delegation is announced.
	BaseURL string
	Now     func() time.Time

	Notary     Notary
	Rooms      *resident.Rooms
	Writer     room.Writer
	KeySource  inbound.KeySource
	Stager     *inbound.Stager
	Abroad     Abroad
	ThirdParty ThirdParty
	Profiles   Profiles
	Directory  Directory
	// Hosts gives the servers that are in a room.
	Hosts func(ctx context.Context, room id.RoomID) ([]string, error)
	// OpenIDUser tells whom an OpenID token names.
	OpenIDUser func(token string) (id.UserID, error)
}

// Handlers answers other homeservers.
type Handlers struct{ o Options }

// New makes the handlers.
func New(o Options) *Handlers { return &Handlers{o} }

// Handlers gives the handlers by the names of their rows.
func (h *Handlers) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"key.getServerKey":              h.serverKey,
		"key.perspectivesKeyQuery":      h.notaryQuery,
		"key.bulkPerspectivesKeyQuery":  h.notaryQueries,
		"federation.getVersion":         h.version,
		"federation.getWellKnown":       h.wellKnown,
		"federation.queryProfile":       h.queryProfile,
		"federation.queryRoomDirectory": h.queryDirectory,
		"federation.queryInfo":          h.queryOther,

		"federation.sendTransaction": h.send,

		"federation.makeJoin":                 h.make(room.ActionJoin),
		"federation.makeLeave":                h.make(room.ActionLeave),
		"federation.makeKnock":                h.make(room.ActionKnock),
		"federation.sendJoinV1":               v1(h.joined),
		"federation.sendJoinV2":               v2(h.joined),
		"federation.sendLeaveV1":              v1(h.left),
		"federation.sendLeaveV2":              v2(h.left),
		"federation.sendKnock":                h.sendKnock,
		"federation.sendInviteV1":             h.inviteV1,
		"federation.sendInviteV2":             h.inviteV2,
		"federation.getRoomState":             h.state,
		"federation.getRoomStateIds":          h.stateIDs,
		"federation.getEventAuth":             h.eventAuth,
		"federation.getEvent":                 h.event,
		"federation.backfillRoom":             h.backfill,
		"federation.getMissingPreviousEvents": h.missing,
		"federation.getEventByTimestamp":      h.timestamp,
		"federation.exchangeOpenIdToken":      h.openID,

		"federation.exchangeThirdPartyInvite":   h.exchange,
		"federation.onBindThirdPartyIdentifier": h.bound,
		"federation.getRoomComplexity":          h.complexity,
		"federation.getExtremities":             h.extremities,
	}
}

func (h *Handlers) serverKey(w http.ResponseWriter, _ *http.Request) error {
	doc, err := h.ownKeys()
	if err != nil {
		return mxerr.Internal(err)
	}
	httpx.WriteRaw(w, http.StatusOK, doc)
	return nil
}

func (h *Handlers) ownKeys() ([]byte, error) {
	return signing.BuildKeyDocument(h.o.Server, h.o.Keys, h.o.OldKeys, h.o.Now().Add(keyValidity).UnixMilli())
}

// maxNotary bounds the keys of one query.
const maxNotary = 200

func (h *Handlers) notaryQuery(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	until, _, err := p.Timestamp("minimum_valid_until_ts")
	if err != nil {
		return err
	}
	server, err := id.ParseServerName(httpx.Var(r, "serverName"))
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid server name").WithCause(err)
	}
	return h.vouch(w, r, []signing.Request{{Server: server, Key: id.KeyID(httpx.Var(r, "keyId")), ValidAt: until}})
}

func (h *Handlers) notaryQueries(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Servers map[id.ServerName]map[id.KeyID]struct {
			Until int64 `json:"minimum_valid_until_ts"`
		} `json:"server_keys"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	var requests []signing.Request
	for server, keys := range q.Servers {
		if !server.Valid() {
			continue
		}
		if len(keys) == 0 {
			requests = append(requests, signing.Request{Server: server})
		}
		for key, c := range keys {
			requests = append(requests, signing.Request{Server: server, Key: key, ValidAt: c.Until})
		}
	}
	if len(requests) > maxNotary {
		return mxerr.Newf(mxerr.InvalidParam, "At most %d keys can be asked for at once", maxNotary)
	}
	return h.vouch(w, r, requests)
}

// vouch answers with documents of keys, signed by this server too.
func (h *Handlers) vouch(w http.ResponseWriter, r *http.Request, requests []signing.Request) error {
	out := []json.RawMessage{}
	for i := range requests {
		if requests[i].Server == h.o.Server {
			doc, err := h.ownKeys()
			if err != nil {
				return mxerr.Internal(err)
			}
			out = append(out, doc)
			break
		}
	}
	for _, documents := range h.o.Notary.Documents(r.Context(), requests) {
		for _, d := range documents {
			signed, err := signing.SignJSON(d, string(h.o.Server), h.o.Keys[0])
			if err != nil {
				return mxerr.Internal(err)
			}
			out = append(out, signed)
		}
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"server_keys": out})
}

func (h *Handlers) version(w http.ResponseWriter, _ *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, map[string]map[string]string{
		"server": {"name": "Heddle", "version": h.o.Version},
	})
}

func (h *Handlers) wellKnown(w http.ResponseWriter, _ *http.Request) error {
	u, err := url.Parse(h.o.BaseURL)
	if err != nil || u.Host == "" {
		return mxerr.New(mxerr.NotFound, "This server does not delegate")
	}
	host := u.Host
	if u.Port() == "" {
		host += ":443"
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"m.server": host})
}

func (h *Handlers) queryProfile(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	name, err := p.Required("user_id")
	if err != nil {
		return err
	}
	user, err := id.ParseUserID(name)
	if err != nil || user.Server() != h.o.Server {
		return mxerr.New(mxerr.InvalidParam, "The user is not of this server")
	}
	exists, err := h.o.Profiles.Exists(r.Context(), user)
	if err != nil {
		return err
	}
	if !exists {
		return mxerr.New(mxerr.NotFound, "The user does not exist")
	}
	fields, err := h.o.Profiles.Profile(r.Context(), user)
	if err != nil {
		return err
	}
	field := p.Get("field")
	out := map[string]json.RawMessage{}
	for k, v := range fields {
		if field == "" || field == k {
			out[k] = v
		}
	}
	return httpx.WriteJSON(w, http.StatusOK, out)
}

func (h *Handlers) queryDirectory(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	name, err := p.Required("room_alias")
	if err != nil {
		return err
	}
	alias, err := id.ParseRoomAlias(name)
	if err != nil || alias.Server() != h.o.Server {
		return mxerr.New(mxerr.InvalidParam, "The alias is not of this server")
	}
	found, _, ok, err := h.o.Directory.Resolve(r.Context(), alias)
	if err != nil {
		return err
	}
	if !ok {
		return mxerr.Newf(mxerr.NotFound, "Room alias %s not found", alias)
	}
	hosts, err := h.o.Hosts(r.Context(), found)
	if err != nil {
		return err
	}
	servers := []string{string(h.o.Server)}
	for _, s := range hosts {
		if len(servers) == maxServers {
			break
		}
		servers = append(servers, s)
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"room_id": found, "servers": servers})
}

// maxServers bounds the servers that are named for a room.
const maxServers = 50

func (h *Handlers) queryOther(http.ResponseWriter, *http.Request) error {
	return mxerr.New(mxerr.Unrecognized, "There is no such query")
}

func (h *Handlers) send(w http.ResponseWriter, r *http.Request) error {
	body, err := httpx.ReadBody(r)
	if err != nil {
		return err
	}
	answer, err := h.o.Stager.Take(r.Context(), auth.Origin(r.Context()), httpx.Var(r, "txnId"), body)
	if err != nil {
		return err
	}
	httpx.WriteRaw(w, http.StatusOK, answer)
	return nil
}

func (h *Handlers) openID(w http.ResponseWriter, r *http.Request) error {
	token := r.URL.Query().Get("access_token")
	if token == "" {
		return mxerr.New(mxerr.MissingToken, "Missing access token")
	}
	user, err := h.o.OpenIDUser(token)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"sub": string(user)})
}

// raw answers with a body that a service made.
func raw(w http.ResponseWriter, body []byte, err error) error {
	if err != nil {
		return err
	}
	httpx.WriteRaw(w, http.StatusOK, body)
	return nil
}

func pathRoom(r *http.Request) (id.RoomID, error) {
	v, err := id.ParseRoomID(httpx.Var(r, "roomId"))
	if err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "Invalid room id").WithCause(err)
	}
	return v, nil
}

// roomAndEvent reads a room from the path and an event from the query.
func roomAndEvent(r *http.Request) (id.RoomID, id.EventID, error) {
	target, err := pathRoom(r)
	if err != nil {
		return "", "", err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return "", "", err
	}
	s, err := p.Required("event_id")
	return target, id.EventID(s), err
}

func (h *Handlers) state(w http.ResponseWriter, r *http.Request) error {
	target, e, err := roomAndEvent(r)
	if err != nil {
		return err
	}
	b, err := h.o.Rooms.State(r.Context(), target, e, auth.Origin(r.Context()))
	return raw(w, b, err)
}

func (h *Handlers) stateIDs(w http.ResponseWriter, r *http.Request) error {
	target, e, err := roomAndEvent(r)
	if err != nil {
		return err
	}
	b, err := h.o.Rooms.StateIDs(r.Context(), target, e, auth.Origin(r.Context()))
	return raw(w, b, err)
}

func (h *Handlers) eventAuth(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	b, err := h.o.Rooms.EventAuth(r.Context(), target, id.EventID(httpx.Var(r, "eventId")), auth.Origin(r.Context()))
	return raw(w, b, err)
}

func (h *Handlers) event(w http.ResponseWriter, r *http.Request) error {
	b, err := h.o.Rooms.Event(r.Context(), id.EventID(httpx.Var(r, "eventId")), auth.Origin(r.Context()), h.o.Server, h.o.Now().UnixMilli())
	return raw(w, b, err)
}

func (h *Handlers) backfill(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	limit, err := p.Limit(10, 100)
	if err != nil {
		return err
	}
	var from []id.EventID
	for _, v := range p.All("v") {
		from = append(from, id.EventID(v))
	}
	if len(from) == 0 {
		return mxerr.New(mxerr.MissingParam, "The parameter v is missing")
	}
	b, err := h.o.Rooms.Backfill(r.Context(), target, from, limit, auth.Origin(r.Context()), h.o.Server, h.o.Now().UnixMilli())
	return raw(w, b, err)
}

func (h *Handlers) missing(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	var q resident.MissingQuery
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	b, err := h.o.Rooms.Missing(r.Context(), target, &q, auth.Origin(r.Context()))
	return raw(w, b, err)
}

func (h *Handlers) timestamp(w http.ResponseWriter, r *http.Request) error {
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	ts, ok, err := p.Timestamp("ts")
	if err != nil {
		return err
	}
	if !ok {
		return mxerr.New(mxerr.MissingParam, "The parameter ts is missing")
	}
	var backward bool
	switch strings.ToLower(p.Get("dir")) {
	case "f":
	case "b":
		backward = true
	default:
		return mxerr.New(mxerr.InvalidParam, "The parameter dir must be f or b")
	}
	e, at, err := h.o.Rooms.At(r.Context(), target, ts, backward, auth.Origin(r.Context()))
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"event_id": e, "origin_server_ts": at})
}
