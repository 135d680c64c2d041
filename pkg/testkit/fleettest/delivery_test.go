package fleettest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/testkit/certtest"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
	"github.com/heddle-im/heddle/pkg/testkit/fleettest"
)

// Two deployments are cut off from each other under load, and go on by themselves when they are whole again: nothing is lost, nothing comes
// twice, and both have one state, though both have set it meanwhile.
func TestServersCutOff(t *testing.T) { cutOff(t, 10*time.Second) }

// TestRobustnessServersCutOff is the long form.
func TestRobustnessServersCutOff(t *testing.T) {
	long(t)
	cutOff(t, time.Minute)
}

func cutOff(t *testing.T, lasting time.Duration) {
	p := newPair(t, 4*time.Minute+4*lasting)
	levels := fmt.Sprintf(`{"users":{%q:100,%q:100}}`, p.users[0].User, p.users[1].User)
	p.set(0, "m.room.power_levels", json.RawMessage(levels))
	require.Eventually(t, func() bool {
		state, err := p.state(1, p.room)
		return err == nil && state["m.room.power_levels|"] != "" && p.try(1, "m.room.topic", map[string]string{"topic": "whole"}) == nil
	}, time.Minute, 50*time.Millisecond)

	var setters sync.WaitGroup
	whole := make(chan struct{})
	for i := range p.users {
		setters.Go(func() {
			for n := 0; ; n++ {
				p.set(i, "m.room.topic", map[string]string{"topic": fmt.Sprint(p.users[i].User, " ", n)})
				select {
				case <-whole:
					return
				case <-time.After(300 * time.Millisecond):
				}
			}
		})
	}
	failed := make([]float64, len(p.fleets))
	for i, f := range p.fleets {
		failed[i] = metric(t, f.Process("master-1"), `heddle_federation_sent_transactions_total{outcome="failed"}`)
	}
	each := func(do func(l *fleettest.Link)) {
		for _, f := range p.fleets {
			do(f.Link("servers>nginx"))
		}
	}
	begun := time.Now()
	each((*fleettest.Link).Silence)
	pause(lasting / 3)
	each((*fleettest.Link).Refuse)
	// Both have tried again and again, for less and less often, before they are whole.
	for i, f := range p.fleets {
		require.Eventually(t, func() bool {
			now := metric(t, f.Process("master-1"), `heddle_federation_sent_transactions_total{outcome="failed"}`)
			return now-failed[i] >= 3
		}, 2*time.Minute, 100*time.Millisecond)
		require.InDelta(t, 1, metric(t, f.Process("master-1"), "heddle_federation_destinations_waiting"), 0.1, "the other one is left alone for a while")
	}
	pause(lasting - time.Since(begun))
	each((*fleettest.Link).Heal)
	for i := range p.users { // a word of each that was said when they were whole has come
		heard, err := p.say(p.users[i], p.room, "whole again")
		require.NoError(t, err)
		require.Eventually(t, func() bool { return slices.Contains(p.shown(1-i), heard) }, 3*time.Minute, 200*time.Millisecond)
	}
	close(whole)
	setters.Wait()
	p.finish()
	for i := range p.users {
		shown := p.shown(i)
		for s := range p.users {
			for _, e := range p.sent[s] {
				require.Len(t, only(shown, e), 1, "%s is shown to %s once", e, p.users[i].User)
			}
		}
	}
}

func only(list []string, e string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x != e })
}

// set sets state of the common room as a user, and try does so once.
func (p *pair) set(user int, typ string, content any) {
	_, err := p.users[user].Persist(p.ctx, http.MethodPut, "/rooms/"+url.PathEscape(p.room)+"/state/"+typ, content, nil)
	if err != nil {
		p.t.Errorf("set state: %v", err)
	}
}

func (p *pair) try(user int, typ string, content any) error {
	return p.users[user].Do(p.ctx, http.MethodPut, "/rooms/"+url.PathEscape(p.room)+"/state/"+typ, content, nil)
}

// shown gives the events of the common room as a user's client reads them back, the latest first.
func (p *pair) shown(user int) (out []string) {
	p.t.Helper()
	for from := ""; ; {
		var a struct {
			Chunk []fleettest.SyncEvent `json:"chunk"`
			End   string                `json:"end"`
		}
		q := url.Values{"dir": {"b"}, "limit": {"500"}}
		if from != "" {
			q.Set("from", from)
		}
		_, err := p.users[user].Persist(p.ctx, http.MethodGet, "/rooms/"+url.PathEscape(p.room)+"/messages?"+q.Encode(), nil, &a)
		require.NoError(p.t, err)
		for _, e := range a.Chunk {
			out = append(out, e.ID)
		}
		if from = a.End; from == "" {
			return out
		}
	}
}

// metric gives what a worker counts under a name, with its labels; 0 if it does not.
func metric(t *testing.T, of *fleettest.Process, name string) float64 {
	t.Helper()
	resp, err := http.Get("http://" + of.Ops + "/metrics")
	require.NoError(t, err)
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(v, 64)
			require.NoError(t, err)
			return n
		}
	}
	return 0
}

// receiver is another server that takes transactions, and notes which events came under which names.
type receiver struct {
	*fedtest.Remote
	mu    sync.Mutex // guards all below
	order []string
	under map[string]map[string]bool
}

func (r *receiver) taken() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.order)
}

// Masters that stop in the middle of deliveries have what is under way answered, and the others go on from there: every server gets every
// event, in order, and none under two names.
func TestMasterStoppedWhileItDelivers(t *testing.T) {
	ca := certtest.NewAuthority(t)
	spec := one()
	spec.Masters = 2
	f, home := alone(t, ca, "localhost", spec)
	alice, err := fleettest.Register(t.Context(), f.URL, "alice")
	require.NoError(t, err)
	var a struct {
		Room string `json:"room_id"`
	}
	require.NoError(t, alice.Do(t.Context(), http.MethodPost, "/createRoom", map[string]any{"preset": "public_chat", "room_version": "11"}, &a))
	var receivers []*receiver
	for range 12 { // more than a master has parts of
		r := &receiver{Remote: fedtest.NewRemote(t, ca), under: map[string]map[string]bool{}}
		p := r.Enter(t, home, a.Room, "reader")
		r.Handle("/_matrix/federation/v1/send/", func(w http.ResponseWriter, q *http.Request) {
			var body struct {
				PDUs []json.RawMessage `json:"pdus"`
			}
			err := json.NewDecoder(q.Body).Decode(&body)
			if err != nil {
				return // it broke off
			}
			pause(20 * time.Millisecond) // so that there is always something under way
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, pdu := range body.PDUs {
				e, err := event.Parse(p.Rules, pdu)
				if err != nil {
					t.Errorf("an event that is none: %v", err)
					continue
				}
				id := string(e.EventID())
				if r.under[id] == nil {
					r.under[id] = map[string]bool{}
					r.order = append(r.order, id)
				}
				r.under[id][path.Base(q.URL.Path)] = true
			}
			_, _ = w.Write([]byte(`{"pdus":{}}`))
		})
		receivers = append(receivers, r)
	}
	stop := make(chan struct{})
	var sender sync.WaitGroup
	var sent []string
	sender.Go(func() {
		for n := 0; ; n++ {
			var e struct {
				ID string `json:"event_id"`
			}
			_, err := alice.Persist(t.Context(), http.MethodPut, fmt.Sprintf("/rooms/%s/send/m.room.message/%d", url.PathEscape(a.Room), n),
				map[string]any{"msgtype": "m.text", "body": fmt.Sprint(n)}, &e)
			if err != nil {
				t.Errorf("send: %v", err)
				return
			}
			sent = append(sent, e.ID)
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	more := func(n int) {
		for _, r := range receivers {
			from := r.taken()
			require.Eventually(t, func() bool { return r.taken() >= from+n }, time.Minute, 5*time.Millisecond)
		}
	}
	for _, master := range []string{"master-1", "master-2", "master-1"} {
		more(20)
		f.Process(master).Stop()
		more(20)
		f.Process(master).Restart()
	}
	more(20)
	close(stop)
	sender.Wait()
	for _, r := range receivers {
		require.Eventually(t, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.Contains(r.order, sent[len(sent)-1])
		}, time.Minute, 20*time.Millisecond)
		r.mu.Lock()
		got := slices.DeleteFunc(slices.Clone(r.order), func(e string) bool { return !slices.Contains(sent, e) })
		requireSame(t, sent, got, "what a server got, beside what was sent")
		for e, names := range r.under {
			require.Len(t, names, 1, "%s came in more than one transaction", e)
		}
		r.mu.Unlock()
	}
}
