package room

import (
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/pushdb"
)

// crowd is the audience of a room of 10,000: most have the predefined rules, a tenth has muted it, a tenth wants mentions only, and one in a
// hundred has a keyword of his own.
func crowd(t testing.TB) (*audience, *Host) {
	t.Helper()
	const here = id.RoomID("!crowd:x")
	h := hostForRules()
	a := &audience{
		local: map[id.UserID]*ruleSet{}, sets: map[string]*ruleSet{}, ignoring: map[id.UserID]map[id.UserID]struct{}{},
		ignores: map[id.UserID][]id.UserID{}, stored: map[id.UserID]pushdb.Class{}, unsaved: map[id.UserID]struct{}{},
		running: map[string]pushdb.Running{}, joined: 10_000,
	}
	room := string(here)
	for i := range 10_000 {
		var p pushrule.Preference
		quiet := pushrule.Rule{ID: room, Actions: []jsontext.Value{}}
		switch {
		case i%10 == 1:
			p.Rules = new(pushrule.Custom)
			quiet.Conditions = []pushrule.Condition{{Kind: "event_match", Key: "room_id", Pattern: &room}}
			require.NoError(t, p.Rules.Put(pushrule.KindOverride, quiet, "", ""))
		case i%10 == 2:
			p.Rules = new(pushrule.Custom)
			require.NoError(t, p.Rules.Put(pushrule.KindRoom, quiet, "", ""))
		case i%100 == 3:
			p.Rules = new(pushrule.Custom)
			word := fmt.Sprintf("word%d", i)
			require.NoError(t, p.Rules.Put(pushrule.KindContent, pushrule.Rule{
				ID: word, Pattern: word, Actions: []jsontext.Value{jsontext.Value(`"notify"`), jsontext.Value(`{"set_tweak":"highlight"}`)},
			}, "", ""))
		}
		a.hear(here, id.UserID(fmt.Sprintf("@u%d:x", i)), p)
	}
	return a, h
}

// hostForRules is as much of a host as judging needs.
func hostForRules() *Host {
	return &Host{rules: pushrule.Compile(pushrule.Defaults(pushrule.Me)), terms: map[shard.ID]*term{}}
}

func judgeIn(a *audience, h *Host, content string) pushdb.Counted {
	e := pushrule.FromParts(pushrule.Parts{
		EventID: "$e", RoomID: "!crowd:x", Sender: "@u0:x", Type: "m.room.message", Content: []byte(content),
	})
	now := &pushrule.Circumstances{Members: a.joined, SenderLevel: 100, NotificationLevel: func(string) int64 { return 50 }}
	return a.judge(h.rules, e, now, func(id.UserID) string { return "" })
}

// In a room of many, a message is judged once for each set of rules, and only those it concerns in particular are exceptions.
func TestACrowdIsJudgedBySets(t *testing.T) {
	a, h := crowd(t)
	require.Len(t, a.sets, 2+100)
	all := pushdb.AllNotify
	for content, want := range map[string]pushdb.Counted{
		`{"msgtype":"m.text","body":"hello"}`: {Flags: all, Exceptions: map[string]pushdb.Count{"@u0:x": {Notify: -1}}},
		`{"msgtype":"m.text","body":"word103"}`: {
			Flags: all, Exceptions: map[string]pushdb.Count{"@u0:x": {Notify: -1}, "@u103:x": {Highlight: 1}},
		},
		`{"msgtype":"m.text","body":"x","m.mentions":{"user_ids":["@u5:x","@u1:x","@u2:x","@nobody:x"]}}`: {
			Flags: all, Exceptions: map[string]pushdb.Count{"@u0:x": {Notify: -1}, "@u5:x": {Highlight: 1}, "@u2:x": {Notify: 1, Highlight: 1}},
		},
		`{"msgtype":"m.text","body":"x","m.mentions":{"room":true}}`: {
			Flags:      all | pushdb.AllHighlight | pushdb.SomeNotify | pushdb.SomeHighlight,
			Exceptions: map[string]pushdb.Count{"@u0:x": {Notify: -1, Highlight: -1}},
		},
		`{"msgtype":"m.notice","body":"x"}`: {},
	} {
		require.Equal(t, want, judgeIn(a, h, content), content)
	}
}

// BenchmarkJudge is the judging of one message in a room of 10,000 with 102 sets of rules beside the predefined ones.
func BenchmarkJudge(b *testing.B) {
	a, h := crowd(b)
	b.ReportAllocs()
	for b.Loop() {
		judgeIn(a, h, `{"msgtype":"m.text","body":"a message of ordinary length, as people write them"}`)
	}
}
