package invitation_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/invitation"
)

func TestRules(t *testing.T) {
	const bob, evil, other = id.UserID("@bob:hs2"), id.UserID("@evil:hs2:8448"), id.UserID("@x:Elsewhere.org")
	for name, c := range map[string]struct {
		config, filtered string
		want             map[id.UserID]invitation.Verdict
	}{
		"nothing": {want: map[id.UserID]invitation.Verdict{bob: invitation.Allowed}},
		"blocks everybody": {
			config: `{"default_action":"block"}`, want: map[id.UserID]invitation.Verdict{bob: invitation.Blocked, other: invitation.Blocked},
		},
		"another action is none": {config: `{"default_action":"allow"}`, want: map[id.UserID]invitation.Verdict{bob: invitation.Allowed}},
		"garbage": {
			config: `[1`, filtered: `{"blocked_users":[1,null,{}],"blocked_servers":"*","allowed_users":null}`,
			want: map[id.UserID]invitation.Verdict{bob: invitation.Allowed},
		},
		"one user": {
			filtered: `{"blocked_users":["@bob:hs2"],"ignored_users":["@evil:*"]}`,
			want:     map[id.UserID]invitation.Verdict{bob: invitation.Blocked, evil: invitation.Ignored, other: invitation.Allowed},
		},
		"a server, with any port and case": {
			filtered: `{"blocked_servers":["HS?"],"ignored_servers":["*.ORG"]}`,
			want:     map[id.UserID]invitation.Verdict{bob: invitation.Blocked, evil: invitation.Blocked, other: invitation.Ignored},
		},
		"a user of a blocked server": {
			filtered: `{"blocked_servers":["hs2"],"allowed_users":["@bob:hs2"]}`,
			want:     map[id.UserID]invitation.Verdict{bob: invitation.Allowed, evil: invitation.Blocked},
		},
		"in several lists": {
			filtered: `{"blocked_users":["@evil:*"],"ignored_users":["@bob:hs2"],"allowed_users":["@*"]}`,
			want:     map[id.UserID]invitation.Verdict{bob: invitation.Allowed, evil: invitation.Allowed},
		},
		"known people only": {
			config: `{"default_action":"block"}`, filtered: `{"allowed_servers":["hs2"],"ignored_users":["@evil:hs2:8448"]}`,
			want: map[id.UserID]invitation.Verdict{bob: invitation.Allowed, evil: invitation.Ignored, other: invitation.Blocked},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := invitation.Parse([]byte(c.config), []byte(c.filtered))
			for user, want := range c.want {
				require.Equal(t, want, r.Of(user), user)
				require.Equal(t, want == invitation.Allowed, r.Shows(user))
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"default_action":"block"}`), []byte(`{"blocked_users":["@a*b?c:*"]}`))
	f.Fuzz(func(_ *testing.T, config, filtered []byte) {
		r := invitation.Parse(config, filtered)
		r.Of("@alice:example.org")
	})
}
