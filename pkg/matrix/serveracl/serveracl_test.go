package serveracl_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/serveracl"
)

func TestAllows(t *testing.T) {
	for _, tc := range []struct {
		content, server string
		want            bool
	}{
		{"", "a.org", true},
		{`{}`, "a.org", false},
		{`{"allow":["*"]}`, "a.org", true},
		{`{"allow":["*"]}`, "1.2.3.4", true},
		{`{"allow":["*"],"allow_ip_literals":false}`, "1.2.3.4", false},
		{`{"allow":["*"],"allow_ip_literals":false}`, "[::1]:8448", false},
		{`{"allow":["*"],"deny":["*.evil.org","evil.org"]}`, "x.evil.org", false},
		{`{"allow":["*"],"deny":["*.evil.org","evil.org"]}`, "EVIL.org:443", false},
		{`{"allow":["*"],"deny":["*.evil.org"]}`, "evil.org", true},
		{`{"allow":["?.org"]}`, "a.org", true},
		{`{"allow":["?.org"]}`, "ab.org", false},
		{`{"allow":"*"}`, "a.org", false},
		{`{"allow":["a*b*c"]}`, "aXbYbZc", true},
		{`{"allow":["a*b*c"]}`, "aXbYbZ", false},
	} {
		var content []byte
		if tc.content != "" {
			content = []byte(tc.content)
		}
		require.Equal(t, tc.want, serveracl.Parse(content).Allows(id.ServerName(tc.server)), "%s %s", tc.content, tc.server)
	}
}
