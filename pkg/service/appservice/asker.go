package appservice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

const (
	// askTimeout bounds one question, and askTries is how often one is asked that cannot be reached.
	askTimeout = 15 * time.Second
	askTries   = 3
	// protocolFor is for how long it is remembered what an application service says of a protocol.
	protocolFor = 5 * time.Minute
)

// Existence tells whether there is a user of this server.
type Existence interface {
	Exists(ctx context.Context, user id.UserID) (bool, error)
}

// Asker asks application services what only they know: whether a user or an alias of theirs should be there, and what there is in their
// networks. It is safe for concurrent use. A nil one knows of nothing.
type Asker struct {
	services *Registry
	client   *Client
	users    Existence
	now      func() time.Time

	mu        sync.Mutex // guards protocols
	protocols map[[2]string]known
}

// known is what was answered of a protocol, of which there are no more than are registered.
type known struct {
	metadata map[string]json.RawMessage
	until    time.Time
}

// NewAsker makes an Asker.
func NewAsker(services *Registry, client *Client, users Existence, now func() time.Time) *Asker {
	return &Asker{services: services, client: client, users: users, now: now, protocols: map[[2]string]known{}}
}

// User asks for a user who is not there, if the user is in somebody's namespace: whoever says yes has made the user. It tells whether to look
// again. The error is for who is waiting for an answer.
func (a *Asker) User(ctx context.Context, u id.UserID) (bool, error) {
	if a == nil {
		return false, nil
	}
	return a.exists(ctx, func(s *Service) bool { return u != s.Sender && s.ActsFor(u) }, "/users/"+url.PathEscape(string(u)))
}

// Missing is User for a user of whom it is not known whether there is one; what an application service does not say does not matter. It tells
// whether the user was missing and is there now.
func (a *Asker) Missing(ctx context.Context, u id.UserID) (made bool) {
	if a == nil || a.services.OfUser(u) == nil {
		return false
	}
	if there, err := a.users.Exists(ctx, u); err != nil || there {
		return false
	}
	made, _ = a.User(ctx, u)
	return made
}

// Alias asks for an alias of this server that is not there, if it is in somebody's namespace. It tells whether to look again.
func (a *Asker) Alias(ctx context.Context, alias id.RoomAlias) (bool, error) {
	if a == nil {
		return false, nil
	}
	return a.exists(ctx, func(s *Service) bool { return s.HasAlias(alias) }, "/rooms/"+url.PathEscape(string(alias)))
}

func (a *Asker) exists(ctx context.Context, of func(s *Service) bool, path string) (bool, error) {
	var silent error
	for _, s := range a.services.All() {
		if s.URL == "" || !of(s) {
			continue
		}
		answer, err := a.ask(ctx, s, question{Method: http.MethodGet, Path: apiPath + path, Old: path, Timeout: askTimeout})
		switch {
		case err != nil:
			silent = mxerr.New(mxerr.Unknown, "The application service that would know does not answer").WithStatus(http.StatusRequestTimeout).WithCause(err)
		case answer.Good():
			return true, nil
		}
	}
	return false, silent
}

// ask asks, and again if nobody answers.
func (a *Asker) ask(ctx context.Context, s *Service, q question) (answer Answer, err error) {
	for try := range askTries {
		if try > 0 {
			_ = lifecycle.Sleep(ctx, 500*time.Millisecond) // the next try fails if ctx has ended
		}
		if answer, err = a.client.ask(ctx, s, q); err == nil || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
			return answer, err
		}
	}
	return answer, err
}

// all asks several application services the same at a time and gives the answers of those who have one.
func (a *Asker) all(ctx context.Context, of func(s *Service) bool, q question) [][]byte {
	var wg sync.WaitGroup
	list := a.services.All()
	out := make([][]byte, len(list))
	for i, s := range list {
		if s.URL == "" || !of(s) {
			continue
		}
		wg.Go(func() {
			if answer, err := a.client.ask(ctx, s, q); err == nil && answer.Good() {
				out[i] = answer.Body
			}
		})
	}
	wg.Wait()
	return out
}

// Protocols gives what is known of all protocols, by their names.
func (a *Asker) Protocols(ctx context.Context) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	if a == nil {
		return out
	}
	for _, s := range a.services.All() {
		for _, name := range s.Protocols {
			if _, done := out[name]; done {
				continue
			}
			if m, ok := a.Protocol(ctx, name); ok {
				out[name] = m
			}
		}
	}
	return out
}

// Protocol gives what is known of a protocol: what the first application service says that has it, with the instances of all of them.
func (a *Asker) Protocol(ctx context.Context, name string) (json.RawMessage, bool) {
	if a == nil {
		return nil, false
	}
	var out map[string]json.RawMessage
	instances := []json.RawMessage{}
	for _, s := range a.services.All() {
		if s.URL == "" || !slices.Contains(s.Protocols, name) {
			continue
		}
		m, ok := a.metadata(ctx, s, name)
		if !ok {
			continue
		}
		if out == nil {
			out = maps.Clone(m)
		}
		instances = append(instances, instancesOf(s, m["instances"])...)
	}
	if out == nil {
		return nil, false
	}
	var err error
	if out["instances"], err = json.Marshal(instances); err != nil {
		return nil, false
	}
	all, err := json.Marshal(out)
	return all, err == nil
}

func (a *Asker) metadata(ctx context.Context, s *Service, name string) (map[string]json.RawMessage, bool) {
	key := [2]string{s.ID, name}
	a.mu.Lock()
	k, ok := a.protocols[key]
	a.mu.Unlock()
	if ok && a.now().Before(k.until) {
		return k.metadata, true
	}
	path := "/thirdparty/protocol/" + url.PathEscape(name)
	answer, err := a.client.ask(ctx, s, question{Method: http.MethodGet, Path: apiPath + path, Old: oldPath + path, Timeout: askTimeout})
	var m map[string]json.RawMessage
	if err != nil || !answer.Good() || json.Unmarshal(answer.Body, &m) != nil || m == nil {
		return nil, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.protocols[key] = known{m, a.now().Add(protocolFor)}
	return m, true
}

// instancesOf gives each instance of a protocol a name that no other has on this server.
func instancesOf(s *Service, list json.RawMessage) (out []json.RawMessage) {
	var raw []map[string]json.RawMessage
	if json.Unmarshal(list, &raw) != nil {
		return nil
	}
	for _, i := range raw {
		var network string
		if i == nil || json.Unmarshal(i["network_id"], &network) != nil || network == "" {
			continue
		}
		var err error
		if i["instance_id"], err = json.Marshal(s.ID + "|" + network); err != nil {
			continue
		}
		if b, err := json.Marshal(i); err == nil {
			out = append(out, b)
		}
	}
	return out
}

// Instance reads the name of an instance that [Asker.Protocol] gave.
func (r *Registry) Instance(name string) (service, network string, ok bool) {
	i := strings.LastIndexByte(name, '|') // there may be one in a service's id, and none in a network's
	if i < 0 || r.ByID(name[:i]) == nil {
		return "", "", false
	}
	return name[:i], name[i+1:], true
}

// Kind is what is looked for in other networks.
type Kind string

// What can be looked for.
const (
	Locations Kind = "location"
	Users     Kind = "user"
)

// Find gives the places or users of a protocol that fit the fields, of all application services that have it.
func (a *Asker) Find(ctx context.Context, kind Kind, protocol string, fields url.Values) []json.RawMessage {
	if a == nil {
		return nil
	}
	path := "/thirdparty/" + string(kind) + "/" + url.PathEscape(protocol)
	return listed(kind, a.all(ctx, func(s *Service) bool { return slices.Contains(s.Protocols, protocol) }, question{
		Method: http.MethodGet, Path: apiPath + path, Old: oldPath + path, Query: fields, Timeout: askTimeout,
	}))
}

// OfAlias gives the places in other networks that an alias stands for.
func (a *Asker) OfAlias(ctx context.Context, alias id.RoomAlias) []json.RawMessage {
	if a == nil {
		return nil
	}
	return a.reverse(ctx, Locations, "alias", string(alias), func(s *Service) bool { return s.HasAlias(alias) })
}

// OfUser gives the users of other networks that a user stands for.
func (a *Asker) OfUser(ctx context.Context, u id.UserID) []json.RawMessage {
	if a == nil {
		return nil
	}
	return a.reverse(ctx, Users, "userid", string(u), func(s *Service) bool { return s.ActsFor(u) })
}

func (a *Asker) reverse(ctx context.Context, kind Kind, param, value string, of func(s *Service) bool) []json.RawMessage {
	path := "/thirdparty/" + string(kind)
	return listed(kind, a.all(ctx, of, question{
		Method: http.MethodGet, Path: apiPath + path, Old: oldPath + path, Query: url.Values{param: {value}}, Timeout: askTimeout,
	}))
}

// listed gives what the answers hold together, without what is not as it should be.
func listed(kind Kind, answers [][]byte) (out []json.RawMessage) {
	for _, b := range answers {
		var list []json.RawMessage
		if b == nil || json.Unmarshal(b, &list) != nil {
			continue
		}
		for _, raw := range list {
			var x struct {
				Alias    string          `json:"alias"`
				User     string          `json:"userid"`
				Protocol string          `json:"protocol"`
				Fields   json.RawMessage `json:"fields"`
			}
			if json.Unmarshal(raw, &x) != nil || x.Protocol == "" || !bytes.HasPrefix(bytes.TrimSpace(x.Fields), []byte("{")) ||
				kind == Locations && x.Alias == "" || kind == Users && x.User == "" {
				continue
			}
			out = append(out, raw)
		}
	}
	return out
}

// Ping has an application service show that it can be reached and knows its token, and tells how long that took. Its errors are those of the
// endpoint.
func (a *Asker) Ping(ctx context.Context, s *Service, transaction string) (time.Duration, error) {
	if s.URL == "" {
		return 0, mxerr.New(mxerr.URLNotSet, "The application service has no URL").WithStatus(http.StatusBadRequest)
	}
	body := []byte("{}")
	if transaction != "" {
		var err error
		if body, err = json.Marshal(map[string]string{"transaction_id": transaction}); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	answer, err := a.client.ask(ctx, s, question{Method: http.MethodPost, Path: apiPath + "/ping", Body: body, Timeout: askTimeout})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return 0, mxerr.New(mxerr.ConnectionTimeout, "The application service did not answer in time").WithStatus(http.StatusGatewayTimeout).WithCause(err)
	case err != nil:
		return 0, mxerr.New(mxerr.ConnectionFailed, "The application service cannot be reached").WithStatus(http.StatusBadGateway).WithCause(err)
	case !answer.Good():
		const most = 16 << 10
		text := strings.ToValidUTF8(string(answer.Body[:min(most, len(answer.Body))]), "\uFFFD")
		return 0, mxerr.Newf(mxerr.BadStatus, "The application service answered %d", answer.Status).WithStatus(http.StatusBadGateway).
			With("status", answer.Status).With("body", text)
	}
	return time.Since(began), nil
}
