package pushrule_test

import (
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/pushrule"
)

// Rules that are narrowed down to a room, with nobody's name in them, say of every event there what the user's own rules say.
func TestRulesInARoomSayTheSame(t *testing.T) {
	const room, user = "!here:x", "@me:x"
	kinds := []string{pushrule.KindOverride, pushrule.KindContent, pushrule.KindRoom, pushrule.KindSender, pushrule.KindUnderride}
	rapid.Check(t, func(t *rapid.T) {
		c := new(pushrule.Custom)
		for range rapid.IntRange(0, 4).Draw(t, "rules") {
			kind := rapid.SampledFrom(kinds).Draw(t, "kind")
			r := pushrule.Rule{ID: rapid.SampledFrom([]string{room, "!there:x", "@a:x", "k"}).Draw(t, "id"), Pattern: "cake"}
			r.Actions = []jsontext.Value{}
			if rapid.Bool().Draw(t, "notify") {
				r.Actions = []jsontext.Value{jsontext.Value(`"notify"`), jsontext.Value(`{"set_tweak":"highlight"}`)}
			}
			pattern := rapid.SampledFrom([]string{room, "!t*", "!there:x", "*"}).Draw(t, "pattern")
			r.Conditions = []pushrule.Condition{{Kind: "event_match", Key: "room_id", Pattern: &pattern}}
			if rapid.Bool().Draw(t, "name") {
				r.Conditions = append(r.Conditions, pushrule.Condition{Kind: "contains_display_name"})
			}
			require.NoError(t, c.Put(kind, r, "", ""))
			if rapid.Bool().Draw(t, "disabled") {
				require.NoError(t, c.SetEnabled(kind, r.ID, false))
			}
		}
		if rapid.Bool().Draw(t, "quiet") {
			require.NoError(t, c.SetEnabled(pushrule.KindUnderride, ".m.rule.message", false))
		}
		key := rapid.SampledFrom([]string{user, "@other:x"}).Draw(t, "state key")
		content := fmt.Sprintf(`{"body":%q,"msgtype":"m.text","membership":"invite","m.mentions":{"user_ids":[%q],"room":%t}}`,
			rapid.SampledFrom([]string{"cake", "Me!", "x"}).Draw(t, "body"), rapid.SampledFrom([]string{user, "@other:x"}).Draw(t, "mention"),
			rapid.Bool().Draw(t, "room mention"))
		p := pushrule.Parts{
			EventID: "$e", RoomID: room, Sender: rapid.SampledFrom([]string{"@a:x", "@b:x"}).Draw(t, "sender"),
			Type: rapid.SampledFrom([]string{"m.room.message", "m.room.member", "m.room.encrypted"}).Draw(t, "type"), Content: []byte(content), // canonical
		}
		whole := fmt.Sprintf(`{"event_id":"$e","room_id":%q,"sender":%q,"type":%q,"content":%s`, room, p.Sender, p.Type, content)
		if p.Type == "m.room.member" {
			p.StateKey = &key
			whole += fmt.Sprintf(`,"state_key":%q`, key)
		}
		read := read(t, whole+"}")
		a := &pushrule.Circumstances{Members: rapid.IntRange(1, 3).Draw(t, "members"), DisplayName: "me", SenderLevel: 50, NotificationLevel: func(string) int64 { return 50 }}
		want := pushrule.Compile(c.Rules(user)).Evaluate(read, a)
		rules, same := c.InRoom(room)
		b := *a
		b.UserID = user
		require.Equal(t, want, pushrule.Compile(rules).Evaluate(pushrule.FromParts(p), &b))
		if same == "" {
			require.Equal(t, pushrule.Defaults(pushrule.Me), rules)
		}
		if !rules.LooksAtName() {
			b.DisplayName = ""
			require.Equal(t, want, pushrule.Compile(rules).Evaluate(pushrule.FromParts(p), &b))
		}
	})
}
