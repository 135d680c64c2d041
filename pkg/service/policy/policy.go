// Package policy has events signed by the policy servers of their rooms, as the specification asks for since 1.18.
//
// A [Writer] stands before the writers of rooms, wherever commands come from. The writer of a room that uses a policy server does not make an event
// without its signature, and does not show one: it says so, and here the policy server is asked, and the event given back. So no writer
// waits for another server. What a policy server refuses to sign is not sent; what comes from elsewhere and is not signed fails softly. A policy
// server that is away is asked anew after a while only, and until then signs nothing.
//
// The package keeps nothing and is safe for concurrent use. It is imported by the composition root.
package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// Remote asks other servers. It is *fedclient.Client.
type Remote interface {
	Ask(ctx context.Context, to id.ServerName, method, path string, query url.Values, body []byte, limit int64, wait time.Duration, insist bool) ([]byte, error)
}

// Writer is a room.Writer that has events signed by policy servers.
type Writer struct {
	next   room.Writer
	remote Remote
	log    *slog.Logger
}

// NewWriter makes a Writer before another one. log may be nil.
func NewWriter(next room.Writer, remote Remote, log *slog.Logger) *Writer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Writer{next, remote, log}
}

const (
	signPath  = "/_matrix/policy/v1/sign"
	signWait  = 5 * time.Second
	signLimit = 64 << 10
	// abreast is how many events of one command are signed at a time.
	abreast = 8
)

// Do implements room.Writer.
func (w *Writer) Do(ctx context.Context, key []byte, cmd room.Command) (room.Answer, error) {
	if key == nil {
		key = room.KeyOf(cmd)
	}
	a, err := w.next.Do(ctx, key, cmd)
	switch c := cmd.(type) {
	case *room.Accept:
		if err == nil {
			return w.accepted(ctx, c, a)
		}
	case *room.Enter:
		if err == nil {
			return w.entered(ctx, c, a)
		}
	}
	if err != nil || !a.Sign {
		return a, err
	}
	return w.send(ctx, key, a)
}

// send has an event of a user of this server signed and sent.
func (w *Writer) send(ctx context.Context, key []byte, a room.Answer) (room.Answer, error) {
	var d room.PolicyDraft
	if err := json.Unmarshal(a.Data, &d); err != nil {
		return room.Answer{}, fmt.Errorf("read draft: %w", err)
	}
	signed, err := w.sign(ctx, d.Server, d.Event, true)
	if err != nil {
		return room.Answer{}, refusal(err)
	}
	done, err := w.next.Do(ctx, key, &room.Accept{Room: a.Room, Events: [][]byte{signed}, Device: d.Device, Txn: d.Txn})
	if err != nil {
		return room.Answer{}, err
	}
	var verdicts []room.Verdict
	if err := json.Unmarshal(done.Data, &verdicts); err != nil || len(verdicts) != 1 {
		return room.Answer{}, fmt.Errorf("read verdict: %w", err)
	}
	switch v := verdicts[0]; v.Fate {
	case room.FateAccepted, room.FateKnown:
		return room.Answer{Event: v.Event, Room: done.Room}, nil
	case room.FateUnsigned:
		return room.Answer{}, mxerr.New(mxerr.Forbidden, "The room's policy server gave a signature that is not valid")
	default:
		return room.Answer{}, mxerr.New(mxerr.Forbidden, "The event is not allowed any more: "+v.Reason)
	}
}

// refusal is what a client is told: what the policy server says, as it says it, or that it says nothing.
func refusal(err error) error {
	var refused *mxerr.Error
	if errors.As(err, &refused) {
		return refused
	}
	return (&mxerr.Error{Code: mxerr.Unknown, HTTPStatus: 502, Message: "The room's policy server could not be reached"}).WithCause(err)
}

// accepted has those events of a command signed that were not, and has them accepted then.
func (w *Writer) accepted(ctx context.Context, c *room.Accept, a room.Answer) (room.Answer, error) {
	verdicts, unsigned, err := read(a)
	if err != nil || !unsigned || c.Asked {
		return a, err
	}
	again := *c
	again.Asked = true
	again.Events = append([][]byte(nil), c.Events...)
	w.signAll(ctx, verdicts, again.Events)
	second, err := w.next.Do(ctx, nil, &again)
	if err != nil {
		return a, err
	}
	var now []room.Verdict
	if err := json.Unmarshal(second.Data, &now); err != nil || len(now) != len(verdicts) {
		return a, fmt.Errorf("read verdicts: %w", err)
	}
	for i := range now { // what was decided at first is what became of it
		if now[i].Fate == room.FateKnown && verdicts[i].Fate != room.FateUnsigned && verdicts[i].Fate != room.FateMissing {
			now[i] = verdicts[i]
		}
	}
	second.Data, err = json.Marshal(now)
	return second, err
}

// entered is accepted for a command that takes one event with the state before it.
func (w *Writer) entered(ctx context.Context, c *room.Enter, a room.Answer) (room.Answer, error) {
	verdicts, unsigned, err := read(a)
	if err != nil || !unsigned || c.Asked || len(verdicts) != 1 {
		return a, err
	}
	again, events := *c, [][]byte{c.Event}
	w.signAll(ctx, verdicts, events)
	again.Asked, again.Event = true, events[0]
	return w.next.Do(ctx, nil, &again)
}

func read(a room.Answer) (verdicts []room.Verdict, unsigned bool, err error) {
	if len(a.Data) == 0 {
		return nil, false, nil
	}
	if err := json.Unmarshal(a.Data, &verdicts); err != nil {
		return nil, false, fmt.Errorf("read verdicts: %w", err)
	}
	for i := range verdicts {
		unsigned = unsigned || verdicts[i].Fate == room.FateUnsigned
	}
	return verdicts, unsigned, nil
}

// signAll asks for the signatures of the events that lack them. Those that are not given are left as they are.
func (w *Writer) signAll(ctx context.Context, verdicts []room.Verdict, events [][]byte) {
	var group errgroup.Group
	group.SetLimit(abreast)
	for i := range min(len(verdicts), len(events)) {
		if verdicts[i].Fate != room.FateUnsigned {
			continue
		}
		group.Go(func() error {
			signed, err := w.sign(ctx, verdicts[i].Policy, events[i], false)
			if err != nil {
				w.log.Info("a policy server did not sign an event", "server", string(verdicts[i].Policy), "event", string(verdicts[i].Event), "error", err)
				return nil
			}
			events[i] = signed
			return nil
		})
	}
	_ = group.Wait() // nothing fails
}

// sign asks a policy server to sign an event, and gives the event with its signature. Whether that is valid is for the room's writer to say.
func (w *Writer) sign(ctx context.Context, server id.ServerName, pdu []byte, insist bool) ([]byte, error) {
	raw, err := w.remote.Ask(ctx, server, "POST", signPath, nil, pdu, signLimit, signWait, insist)
	if err != nil {
		return nil, err
	}
	answer, err := canonjson.Canonical(raw, canonjson.Options{Mode: canonjson.Lax})
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", server, err)
	}
	of, _ := canonjson.Get(answer, string(server))
	signature, ok := canonjson.GetString(of, string(room.PolicyKeyID))
	if !ok {
		return nil, mxerr.New(mxerr.Forbidden, "The room's policy server did not sign the event")
	}
	return withSignature(pdu, server, signature)
}

// withSignature adds a signature to an event, and leaves those that it has.
func withSignature(pdu []byte, server id.ServerName, signature string) ([]byte, error) {
	var e map[string]json.RawMessage
	if err := json.Unmarshal(pdu, &e); err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	signatures := map[string]map[string]json.RawMessage{}
	if raw, ok := e["signatures"]; ok {
		if err := json.Unmarshal(raw, &signatures); err != nil {
			return nil, fmt.Errorf("read signatures: %w", err)
		}
	}
	if signatures[string(server)] == nil {
		signatures[string(server)] = map[string]json.RawMessage{}
	}
	quoted, err := json.Marshal(signature)
	if err != nil {
		return nil, fmt.Errorf("encode signature: %w", err)
	}
	signatures[string(server)][string(room.PolicyKeyID)] = quoted
	if e["signatures"], err = json.Marshal(signatures); err != nil {
		return nil, fmt.Errorf("encode signatures: %w", err)
	}
	out, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	return out, nil
}
