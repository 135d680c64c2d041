package roomver_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// columns of the feature table, one character a version from 1 to 12; written down from the
// specification's pages independently of the rows' derivation.
func TestTable(t *testing.T) {
	columns := map[string]struct {
		want string
		has  func(*roomver.Rules) bool
	}{
		"event id given":           {"110000000000", func(r *roomver.Rules) bool { return r.EventIDs == roomver.EventIDGiven }},
		"event id std base64":      {"001000000000", func(r *roomver.Rules) bool { return r.EventIDs == roomver.EventIDHashStd }},
		"event id url base64":      {"000111111111", func(r *roomver.Rules) bool { return r.EventIDs == roomver.EventIDHashURL }},
		"links with hashes":        {"110000000000", func(r *roomver.Rules) bool { return r.LinksWithHashes }},
		"event id server signs":    {"110000000000", func(r *roomver.Rules) bool { return r.SignedByEventIDServer }},
		"redaction in auth":        {"110000000000", func(r *roomver.Rules) bool { return r.RedactionAuth }},
		"state res v1":             {"100000000000", func(r *roomver.Rules) bool { return r.StateRes == roomver.StateResV1 }},
		"state res v2":             {"011111111110", func(r *roomver.Rules) bool { return r.StateRes == roomver.StateResV2 }},
		"state res v2.1":           {"000000000001", func(r *roomver.Rules) bool { return r.StateRes == roomver.StateResV2_1 }},
		"key validity":             {"000011111111", func(r *roomver.Rules) bool { return r.EnforceKeyValidity }},
		"strict JSON":              {"000001111111", func(r *roomver.Rules) bool { return r.StrictJSON }},
		"aliases auth":             {"111110000000", func(r *roomver.Rules) bool { return r.AliasesAuth }},
		"aliases kept":             {"111110000000", func(r *roomver.Rules) bool { return r.Redaction.Aliases }},
		"notification levels":      {"000001111111", func(r *roomver.Rules) bool { return r.NotificationLevels }},
		"float power":              {"111110000000", func(r *roomver.Rules) bool { return r.PowerLevels == roomver.PowerLax }},
		"int or string power":      {"000001111000", func(r *roomver.Rules) bool { return r.PowerLevels == roomver.PowerIntOrString }},
		"int power":                {"000000000111", func(r *roomver.Rules) bool { return r.PowerLevels == roomver.PowerInt }},
		"knock":                    {"000000111111", func(r *roomver.Rules) bool { return r.Knock }},
		"restricted":               {"000000011111", func(r *roomver.Rules) bool { return r.Restricted }},
		"authorising server signs": {"000000011111", func(r *roomver.Rules) bool { return r.SignedByAuthorisingServer }},
		"allow kept":               {"000000011111", func(r *roomver.Rules) bool { return r.Redaction.JoinRulesAllow }},
		"authorised via kept":      {"000000001111", func(r *roomver.Rules) bool { return r.Redaction.MemberAuthorised }},
		"knock_restricted":         {"000000000111", func(r *roomver.Rules) bool { return r.KnockRestricted }},
		"creator is sender":        {"000000000011", func(r *roomver.Rules) bool { return r.Creator == roomver.CreatorIsSender }},
		"redacts in content":       {"000000000011", func(r *roomver.Rules) bool { return r.RedactsInContent }},
		"redacts kept":             {"000000000011", func(r *roomver.Rules) bool { return r.Redaction.Redacts }},
		"create kept":              {"000000000011", func(r *roomver.Rules) bool { return r.Redaction.CreateAll }},
		"invite level kept":        {"000000000011", func(r *roomver.Rules) bool { return r.Redaction.PowerInvite }},
		"3pid signed kept":         {"000000000011", func(r *roomver.Rules) bool { return r.Redaction.MemberThirdPartySigned }},
		"legacy top level kept":    {"111111111100", func(r *roomver.Rules) bool { return r.Redaction.LegacyTopLevel }},
		"strict byte limits":       {"000000000011", func(r *roomver.Rules) bool { return r.StrictByteLimits }},
		"room id is hash":          {"000000000001", func(r *roomver.Rules) bool { return r.RoomIDIsHash }},
		"privileged creators":      {"000000000001", func(r *roomver.Rules) bool { return r.PrivilegedCreators }},
	}
	for name, column := range columns {
		got := make([]byte, 0, 12)
		for _, r := range roomver.All() {
			if column.has(r) {
				got = append(got, '1')
			} else {
				got = append(got, '0')
			}
		}
		require.Equal(t, column.want, string(got), name)
	}
}

func TestGet(t *testing.T) {
	names := []roomver.Version{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"}
	for i, r := range roomver.All() {
		require.Equal(t, names[i], r.Version)
		same, ok := roomver.Get(names[i])
		require.True(t, ok)
		require.Same(t, r, same)
		require.Same(t, r, roomver.MustGet(names[i]))
	}
	for _, v := range []roomver.Version{"", "0", "13", "01", "1 ", "org.matrix.hydra.11", "١"} {
		_, ok := roomver.Get(v)
		require.False(t, ok, v)
	}
	require.Equal(t, roomver.V12, roomver.Default)
	require.Panics(t, func() { roomver.MustGet("99") })
}

func TestValid(t *testing.T) {
	for _, v := range []roomver.Version{"1", "org.matrix.hydra.11", "a-b.c", "abcdefghijklmnopqrstuvwxyz012345"} {
		require.True(t, v.Valid(), v)
	}
	for _, v := range []roomver.Version{"", "A", "1_2", "é", "1 2", "abcdefghijklmnopqrstuvwxyz0123456"} {
		require.False(t, v.Valid(), v)
	}
}
