package fedtest_test

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/testkit/fedtest"
)

// pretends answers with what is no JSON and says that it is.
func pretends(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "<html>")
}

// Servers have to say that their answers are JSON, but whether an answer is good is told by the answer: one that is JSON, and signed
// where it has to be, counts under any other name and under none.
func TestAnswersUnderAnotherName(t *testing.T) {
	s := newStage(t)
	for name, label := range map[string]string{"HTML": "text/html; charset=iso-8859-1", "bytes": "application/octet-stream", "no type": "/", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			s.remote = fedtest.NewRemote(t, s.ca) // whose keys have to be asked for
			s.remote.Label(label)
			p := s.remote.Host(t, roomver.V10, "weaver")
			room := string(p.Room)
			s.alice.Must(t, "POST", p.JoinVia(), map[string]any{})
			s.alice.SeesRoom(t, room, "join")

			topic := p.StateEvent(t, event.TypeTopic, "", `{"topic":"labels"}`)
			hidden := p.Say(t, "never sent", topic)
			last := p.Say(t, "after what was never sent", hidden)
			s.remote.Says(fed+"state_ids/", encoded(t, map[string]any{"pdu_ids": idsOf(p.State...), "auth_chain_ids": idsOf(p.State[:4]...)}))
			s.remote.Handle(fed+"event/", func(w http.ResponseWriter, q *http.Request) {
				asked, _ := url.PathUnescape(strings.TrimPrefix(q.URL.EscapedPath(), fed+"event/"))
				n := slices.IndexFunc(p.State, func(e *event.Event) bool { return e.EventID() == id.EventID(asked) })
				if n < 0 {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				_, _ = io.WriteString(w, encoded(t, map[string]any{"origin": s.remote.Name, "origin_server_ts": 1, "pdus": pdusOf(p.State[n])}))
			})
			s.remote.Says(fed+"backfill/", encoded(t, map[string]any{"origin": s.remote.Name, "origin_server_ts": 1, "pdus": pdusOf(hidden)}))
			require.Empty(t, s.remote.Send(t, s.home, last)[string(last.EventID())])
			s.alice.Sees(t, room, string(last.EventID()))
			require.Equal(t, string(topic.EventID()), s.alice.State(t, room)["m.room.topic|"])
			require.Contains(t, history(t, s.alice, room, 10), string(hidden.EventID()))
			for _, path := range []string{
				"/_matrix/key/v2/server", fed + "make_join/", "/_matrix/federation/v2/send_join/", fed + "state_ids/", fed + "event/", fed + "backfill/",
			} {
				require.Positive(t, s.remote.Asked(path), path)
			}
		})
	}
}
