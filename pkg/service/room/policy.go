package room

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/eventauth"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// PolicyKeyID names the key with which policy servers sign.
const PolicyKeyID id.KeyID = "ed25519:policy_server"

// PolicyDraft is an event that a policy server has to sign before it is sent, as JSON in an [Answer] with Sign set.
type PolicyDraft struct {
	Server id.ServerName   `json:"server"`
	Event  json.RawMessage `json:"event"`
	Device id.DeviceID     `json:"device,omitempty"`
	Txn    string          `json:"txn,omitempty"`
	// Version is the room's.
	Version string `json:"version"`
}

// policy is the policy server of a room: whom it is asked of, and by which key it signs.
type policy struct {
	server id.ServerName
	key    []byte
}

// policyOf reads the content of an m.room.policy; false if it makes nobody the policy server.
func policyOf(content []byte) (p policy, ok bool) {
	via, _ := canonjson.GetString(content, "via")
	keys, _ := canonjson.Get(content, "public_keys")
	if keys == nil || !canonjson.IsObject(keys) || !id.ServerName(via).Valid() {
		return p, false
	}
	text, ok := canonjson.GetString(keys, id.AlgorithmEd25519)
	if !ok {
		return p, false
	}
	key, err := signing.DecodeBase64(text)
	if err != nil || len(key) != 32 {
		return p, false
	}
	return policy{id.ServerName(via), key}, true
}

// hostFact asks whether users of another server are in the room.
type hostFact struct{ server id.ServerName }

func (f hostFact) load(ctx context.Context, r *live) (any, error) {
	in, err := r.term.host.DB.HostJoined(ctx, r.nid, string(f.server))
	if err != nil {
		return nil, fmt.Errorf("read hosts: %w", err)
	}
	return in, nil
}

// inUse tells whether a policy server counts: somebody of it is in the room.
func (v *view) inUse(h *held) (p policy, ok bool) {
	if h == nil {
		return p, false
	}
	if p, ok = policyOf(h.ev.Content()); !ok || p.server == v.server() {
		return p, false
	}
	return p, ask[bool](v, hostFact{p.server})
}

// exempt tells whether an event needs no policy server's signature: the one that names it.
func exempt(typ string, key *string) bool { return typ == event.TypePolicy && key != nil && *key == "" }

// toSign gives the only event of a plan as a draft for the room's policy server to sign, if there is one: true says so. The plan is void then.
func (d *draft) toSign(p *plan) (bool, error) {
	if d.isNew || len(p.events) != 1 || exempt(p.events[0].typ, p.events[0].key) {
		return false, nil
	}
	policy, ok := d.inUse(d.at(event.TypePolicy, ""))
	if !ok || d.lacks() {
		return false, nil
	}
	e, _, _, err := d.build(&p.events[0])
	if err != nil {
		return false, err
	}
	w := &p.events[0]
	data, err := json.Marshal(PolicyDraft{Server: policy.server, Event: e.JSON(), Device: w.device, Txn: w.txn, Version: string(d.rules().Version)})
	if err != nil {
		return false, fmt.Errorf("encode draft: %w", err)
	}
	*p = plan{answer: Answer{Room: d.r.id, Event: e.EventID(), Sign: true, Data: data}}
	return true, nil
}

// recommended tells whether the room's policy server, if it has one now, has signed an event; else which server should be asked.
func (a *acceptor) recommended(e *event.Event) (server id.ServerName, ok bool) {
	var key *string
	if k, isState := e.StateKey(); isState {
		key = &k
	}
	if exempt(e.Type(), key) {
		return "", true
	}
	p, used := a.inUse(a.in(a.head.state, eventauth.TypeKey{Type: event.TypePolicy}))
	if !used || a.lacks() {
		return "", true
	}
	return p.server, e.VerifyWith(p.server, PolicyKeyID, p.key) == nil
}
