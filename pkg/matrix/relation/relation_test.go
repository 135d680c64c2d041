package relation_test

import (
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/relation"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

func TestParse(t *testing.T) {
	for content, want := range map[string]relation.Relation{
		`{}`:                    {},
		`{"m.relates_to":null}`: {},
		`{"m.relates_to":{}}`:   {},
		`{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a","key":"👍"}}`:                                                     {Type: "m.annotation", Parent: "$a", Key: "👍"},
		`{"m.relates_to":{"rel_type":"m.reference","event_id":"$a","key":"ignored"}}`:                                                {Type: "m.reference", Parent: "$a"},
		`{"m.relates_to":{"rel_type":"m.replace","event_id":"$a"}}`:                                                                  {Type: "m.replace", Parent: "$a"},
		`{"m.relates_to":{"rel_type":"org.example.x","event_id":"$a"}}`:                                                              {Type: "org.example.x", Parent: "$a"},
		`{"m.relates_to":{"m.in_reply_to":{"event_id":"$b"}}}`:                                                                       {ReplyTo: "$b"},
		`{"m.relates_to":{"m.in_reply_to":{"event_id":7}}}`:                                                                          {},
		`{"m.relates_to":{"m.in_reply_to":"$b"}}`:                                                                                    {},
		`{"m.relates_to":{"rel_type":"m.thread"}}`:                                                                                   {},
		`{"m.relates_to":{"rel_type":"m.thread","event_id":"$\u0000"}}`:                                                              {},
		`{"m.relates_to":{"rel_type":"\u0000","event_id":"$a"}}`:                                                                     {},
		`{"m.relates_to":{"rel_type":"m.annotation","event_id":"$a","key":"\u0000"}}`:                                                {Type: "m.annotation", Parent: "$a"},
		`{"m.relates_to":{"m.in_reply_to":{"event_id":"$\u0000"}}}`:                                                                  {},
		`{"m.relates_to":{"event_id":"$a"}}`:                                                                                         {},
		`{"m.relates_to":{"rel_type":1,"event_id":"$a"}}`:                                                                            {},
		`{"m.relates_to":{"rel_type":"m.thread","event_id":"a"}}`:                                                                    {},
		`{"m.relates_to":{"rel_type":"m.thread","event_id":"a","key":"k","m.in_reply_to":{"event_id":"$b"},"is_falling_back":true}}`: {ReplyTo: "$b"},
		`{"m.relates_to":{"rel_type":"m.thread","event_id":"$a","m.in_reply_to":{"event_id":"$b"},"is_falling_back":true}}`: {
			Type: "m.thread", Parent: "$a", ReplyTo: "$b", FallingBack: true,
		},
	} {
		c, err := canonjson.Canonical([]byte(content), canonjson.Options{})
		require.NoError(t, err)
		got, ok := relation.Parse(c)
		require.Equal(t, want, got, content)
		require.Equal(t, want != relation.Relation{}, ok, content)
		require.Equal(t, want.ReplyTo != "" && !want.FallingBack, got.IsReply(), content)
		root, inThread := got.ThreadRoot()
		require.Equal(t, want.Type == relation.Thread, inThread)
		if inThread {
			require.Equal(t, want.Parent, root)
		}
	}
}

func TestValidReplacement(t *testing.T) {
	seed := sha256.Sum256(nil)
	key, err := signing.NewKey("ed25519:a", seed[:])
	require.NoError(t, err)
	build := func(change func(*event.Proto)) *event.Event {
		p := &event.Proto{RoomID: "!r:a", Type: "m.room.message", Sender: "@a:a", Content: []byte(`{"body":"x"}`)}
		change(p)
		e, err := event.Build(roomver.MustGet("11"), p, "a", key)
		require.NoError(t, err)
		return e
	}
	original := build(func(*event.Proto) {})
	replace := func(of id.EventID) []byte {
		return []byte(`{"m.new_content":{"body":"y"},"m.relates_to":{"rel_type":"m.replace","event_id":"` + string(of) + `"}}`)
	}
	valid := build(func(p *event.Proto) { p.Content = replace(original.EventID()) })
	require.True(t, relation.ValidReplacement(original, valid))
	require.True(t, relation.MayBeThreadRoot(original))
	require.False(t, relation.MayBeThreadRoot(valid))

	key2 := ""
	for name, e := range map[string]*event.Event{
		"sender": build(func(p *event.Proto) { p.Content, p.Sender = replace(original.EventID()), "@b:a" }),
		"room":   build(func(p *event.Proto) { p.Content, p.RoomID = replace(original.EventID()), "!s:a" }),
		"type":   build(func(p *event.Proto) { p.Content, p.Type = replace(original.EventID()), "m.sticker" }),
		"state":  build(func(p *event.Proto) { p.Content, p.StateKey = replace(original.EventID()), &key2 }),
		"other":  build(func(p *event.Proto) { p.Content = replace("$other") }),
		"no content": build(func(p *event.Proto) {
			p.Content = []byte(`{"m.relates_to":{"rel_type":"m.replace","event_id":"` + string(original.EventID()) + `"}}`)
		}),
		"none": original,
	} {
		require.False(t, relation.ValidReplacement(original, e), name)
	}
	require.False(t, relation.ValidReplacement(valid, build(func(p *event.Proto) { p.Content = replace(valid.EventID()) })), "of a replacement")

	secret := build(func(p *event.Proto) { p.Type = "m.room.encrypted" })
	require.True(t, relation.ValidReplacement(secret, build(func(p *event.Proto) {
		p.Type = "m.room.encrypted"
		p.Content = []byte(`{"ciphertext":"x","m.relates_to":{"rel_type":"m.replace","event_id":"` + string(secret.EventID()) + `"}}`)
	})))
}
