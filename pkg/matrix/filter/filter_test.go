package filter_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/heddle-im/heddle/pkg/matrix/filter"
)

func TestParseSpecExample(t *testing.T) {
	f, err := filter.Parse([]byte(`{"event_fields":["type","content","sender"],"event_format":"client",
		"presence":{"not_senders":["@alice:example.com"],"types":["m.presence"]},
		"room":{"ephemeral":{"not_rooms":["!726s6s6q:example.com"],"not_senders":["@spam:example.com"],"types":["m.receipt","m.typing"]},
		"state":{"not_rooms":["!726s6s6q:example.com"],"types":["m.room.*"]},
		"timeline":{"limit":7,"not_rooms":["!726s6s6q:example.com"],"not_senders":["@spam:example.com"],"types":["m.room.message"]}}}`))
	require.NoError(t, err)
	require.Equal(t, 7, f.TimelineLimit())
	require.True(t, f.Room.State.Pass("m.room.name", "@x:y"))
	require.False(t, f.Room.State.Pass("m.call", "@x:y"))
	require.False(t, f.Room.Timeline.Pass("m.room.message", "@spam:example.com"))
	require.False(t, f.Room.State.PassRoom("!726s6s6q:example.com"))
}

func TestParseRefuses(t *testing.T) {
	for _, bad := range []string{
		``, `[]`, `{`, `{"event_format":"html"}`, `{"room":{"timeline":{"limit":"ten"}}}`, `{"room":{"timeline":{"limit":-1}}}`,
		`{"room":{"rooms":["nope"]}}`, `{"room":{"state":{"senders":["alice"]}}}`, `{"presence":{"types":"m.presence"}}`,
		`{"room":{"timeline":{"limit":1.5}}}`, `{"room":{"timeline":{"types":[1]}}}`, `{"room":[]}`, `{"room":{},"room":{}}`,
		`{"event_fields":[` + strings.Repeat(`"a",`, 1000) + `"a"]}`, `{"x":"` + strings.Repeat("a", filter.MaxBytes) + `"}`,
	} {
		_, err := filter.Parse([]byte(bad))
		require.ErrorIs(t, err, filter.ErrInvalid, "%.60s", bad)
	}
	for _, good := range []string{`{}`, `{"unknown":{"x":1}}`, `{"room":{"rooms":[]}}`, `{"room":{"timeline":{"limit":0}}}`} {
		_, err := filter.Parse([]byte(good))
		require.NoError(t, err, good)
	}
}

func TestLimits(t *testing.T) {
	for _, at := range []string{
		`{"presence":%s}`, `{"account_data":%s}`, `{"room":{"account_data":%s}}`, `{"room":{"ephemeral":%s}}`, `{"room":{"state":%s}}`,
		`{"room":{"timeline":%s}}`,
	} {
		for limit, good := range map[string]bool{`0`: true, `1`: true, `100000`: true, `-1`: false, `1.5`: false, `"1"`: false} {
			_, err := filter.Parse(fmt.Appendf(nil, at, `{"limit":`+limit+`}`))
			if good {
				require.NoError(t, err, "%s: %s", at, limit)
			} else {
				require.ErrorIs(t, err, filter.ErrInvalid, "%s: %s", at, limit)
			}
		}
	}
}

// Each member of each part is looked at: it has its type, ids are ids, and no list is endless.
func TestEachMemberIsChecked(t *testing.T) {
	long := `["@a:b"` + strings.Repeat(`,"@a:b"`, 1000) + `]`
	events := map[string][]string{
		"types": {`"x"`, `{}`, `[1]`, long}, "not_types": {`"x"`, `[null,{}]`, long}, "senders": {`["alice"]`, `[""]`, `"@a:b"`, long},
		"not_senders": {`["#a:b"]`, `[1]`, long}, "limit": {`-1`, `"1"`, `1e3000`},
	}
	inRooms := map[string][]string{
		"rooms": {`["a"]`, `"!a:b"`, `["#a:b"]`}, "not_rooms": {`["@a:b"]`, `{}`}, "contains_url": {`"true"`, `1`}, "lazy_load_members": {`1`, `"x"`},
		"include_redundant_members": {`[]`}, "unread_thread_notifications": {`"true"`}, "related_by_rel_types": {`"m.thread"`, `[{}]`, long},
		"related_by_senders": {`["alice"]`, `"@a:b"`, long}, "org.matrix.msc3874.rel_types": {`"m.thread"`, long}, "org.matrix.msc3874.not_rel_types": {`[1]`, long},
	}
	for at, members := range map[string][]map[string][]string{
		`{"presence":%s}`: {events}, `{"account_data":%s}`: {events}, `{"room":{"account_data":%s}}`: {events, inRooms},
		`{"room":{"ephemeral":%s}}`: {events, inRooms}, `{"room":{"state":%s}}`: {events, inRooms}, `{"room":{"timeline":%s}}`: {events, inRooms},
		`{"room":%s}`: {{"rooms": inRooms["rooms"], "not_rooms": inRooms["not_rooms"], "include_leave": {`"yes"`, `0`}}},
		`%s`:          {{"event_fields": {`"type"`, `[1]`, `{}`}, "event_format": {`"x"`, `1`}, "room": {`"x"`}, "presence": {`[]`}, "account_data": {`1`}}},
	} {
		for _, list := range members {
			for member, values := range list {
				for _, v := range values {
					text := fmt.Sprintf(at, `{"`+member+`":`+v+`}`)
					_, err := filter.Parse([]byte(text))
					require.ErrorIs(t, err, filter.ErrInvalid, "%.100s", text)
				}
			}
		}
	}
}

// Patterns are kept as short as they can be, and one that nothing can match is as good as none: it does not make a list of all.
func TestPatternsAreBounded(t *testing.T) {
	f, err := filter.Parse([]byte(`{"room":{"timeline":{"types":["m.` + strings.Repeat("*", 30_000) + `.x","*"],"not_types":["` + strings.Repeat("a*", 256) + `"]},
		"state":{"types":["` + strings.Repeat("a", 256) + `"]}}}`))
	require.NoError(t, err)
	require.Equal(t, []string{"m.*.x", "*"}, f.Room.Timeline.Types)
	require.Empty(t, f.Room.Timeline.NotTypes)
	require.True(t, f.Room.Timeline.PassType("m.a.x"))
	require.False(t, f.Room.State.PassType(strings.Repeat("a", 255)))
	require.False(t, f.Room.State.PassType("m.room.name"), "it wants something that there is not, and nothing else")
}

// An empty list of wanted things wants nothing; an absent one wants all.
func TestEmptyListsWantNothing(t *testing.T) {
	f, err := filter.Parse([]byte(`{"presence":{"types":[]},"room":{"rooms":[]}}`))
	require.NoError(t, err)
	require.False(t, f.Presence.Pass("m.presence", "@a:b"))
	require.True(t, f.AccountData.Pass("m.direct", "@a:b"))
	require.False(t, f.Room.PassRoom("!a:b"))
}

func TestPassEvent(t *testing.T) {
	for _, c := range []struct {
		filter, content string
		passes          bool
	}{
		{`{"contains_url":false}`, `{"url":"mxc://a/b"}`, false},
		{`{"contains_url":false}`, `{"body":"x"}`, true},
		{`{"contains_url":true}`, `{"url":"mxc://a/b"}`, true},
		{`{"contains_url":true}`, `{"body":"x"}`, false},
		{`{"contains_url":true}`, `{"url":null}`, true},
		{`{"contains_url":true}`, `{"url":{"mxc":"mxc://a/b"}}`, true},
		{`{"contains_url":false}`, `{"url":7}`, false},
		{`{"contains_url":true}`, `{"info":{"url":"mxc://a/b"}}`, false},
		{`{"rooms":["!other:b"]}`, `{}`, false},
		{`{"org.matrix.msc3874.rel_types":["m.thread"]}`, `{"m.relates_to":{"rel_type":"m.thread"}}`, true},
		{`{"org.matrix.msc3874.rel_types":["m.thread"]}`, `{"m.relates_to":{"rel_type":"m.replace"}}`, false},
		{`{"org.matrix.msc3874.rel_types":["m.thread"]}`, `{"m.relates_to":"m.thread"}`, false},
		{`{"org.matrix.msc3874.rel_types":[]}`, `{"m.relates_to":{"rel_type":"m.replace"}}`, false},
		{`{"org.matrix.msc3874.rel_types":[""]}`, `{}`, false},
		{`{"org.matrix.msc3874.not_rel_types":["m.thread",""]}`, `{"m.relates_to":{"rel_type":"m.thread"}}`, false},
		{`{"org.matrix.msc3874.not_rel_types":["m.thread",""]}`, `{}`, true},
		{`{"org.matrix.msc3874.rel_types":["m.a","m.b"],"org.matrix.msc3874.not_rel_types":["m.b"]}`, `{"m.relates_to":{"rel_type":"m.b"}}`, false},
	} {
		f, err := filter.ParseRoomEvents([]byte(c.filter))
		require.NoError(t, err)
		require.Equal(t, c.passes, f.PassEvent("!a:b", "m.room.message", "@a:b", []byte(c.content)), "%s: %s", c.filter, c.content)
		require.False(t, f.All())
	}
}

func TestEventFields(t *testing.T) {
	const event = `{"content":{"a.b":1,"a\\b":2,"body":"x","m.relates_to":{"event_id":"$a","rel_type":"m.thread"}},"event_id":"$e","type":"t"}`
	for _, c := range []struct{ fields, want string }{
		{`["type"]`, `{"type":"t"}`},
		{`["content.body"]`, `{"content":{"body":"x"}}`},
		{`["content.body","event_id"]`, `{"content":{"body":"x"},"event_id":"$e"}`},
		{`["content","content.body"]`, `{"content":{"a.b":1,"a\\b":2,"body":"x","m.relates_to":{"event_id":"$a","rel_type":"m.thread"}}}`},
		{`["content.body","content"]`, `{"content":{"a.b":1,"a\\b":2,"body":"x","m.relates_to":{"event_id":"$a","rel_type":"m.thread"}}}`},
		{`["content.m\\.relates_to.rel_type"]`, `{"content":{"m.relates_to":{"rel_type":"m.thread"}}}`},
		{`["content.a\\.b","content.a.b"]`, `{"content":{"a.b":1}}`},
		{`["content.a\\\\b"]`, `{"content":{"a\\b":2}}`},
		{`["content.a\\b"]`, `{"content":{"a\\b":2}}`}, // another escape is no escape
		{`["content.body.x","nothing",".",""]`, `{}`},
		{`[]`, event},
	} {
		f, err := filter.Parse([]byte(`{"event_fields":` + c.fields + `}`))
		require.NoError(t, err)
		require.Equal(t, c.want, string(f.AppendPicked(nil, []byte(event))), c.fields)
	}
}

func TestGlobAgainstRegexp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*.]{0,8}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab.]{0,10}`).Draw(t, "string")
		want := regexp.MustCompile(`^` + strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, `.*`) + `$`).MatchString(s)
		require.Equal(t, want, filter.Glob(p, s))
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"event_fields":["content.body","a\\.b"],"room":{"timeline":{"limit":7,"types":["m.*"]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := filter.Parse(b); err == nil {
			_ = x.Room.Timeline.Pass("m.room.message", "@a:b")
			_ = x.AppendPicked(nil, []byte(`{"content":{"body":"x"},"type":"t"}`))
			require.LessOrEqual(t, x.TimelineLimit(), 1000)
		}
		if x, err := filter.ParseRoomEvents(b); err == nil {
			require.NotNil(t, x)
		}
	})
}
