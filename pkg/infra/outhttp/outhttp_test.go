package outhttp_test

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/outhttp"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestCheck(t *testing.T) {
	g := outhttp.NewGuard(prefixes("10.1.0.0/16"), prefixes("10.0.0.0/8", "127.0.0.0/8", "::1/128", "fe80::/10", "::ffff:192.168.0.0/120", "::ffff:0:0/96"))
	for addr, denied := range map[string]bool{
		"10.2.3.4": true, "10.1.2.3": false, "8.8.8.8": false, "127.0.0.1": true, "::1": true, "fe80::1%eth0": true,
		"::ffff:127.0.0.1": true, "64:ff9b::7f00:1": true, "64:ff9b::808:808": false, "2002:7f00:1::1": true, "2001:db8::1": false,
		"192.168.1.1": false, "192.168.0.1": true,
	} {
		err := g.Check(netip.MustParseAddr(addr))
		if denied {
			require.ErrorIs(t, err, outhttp.ErrDenied, addr)
		} else {
			require.NoError(t, err, addr)
		}
	}
}

// The check is made where the connection is, so that it does not matter what name led there.
func TestDialerChecksTheAddressItself(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())

	_, err = outhttp.NewGuard(nil, prefixes("127.0.0.0/8", "::1/128")).Dialer(time.Second).Dial("tcp", "localhost:"+port)
	require.ErrorIs(t, err, outhttp.ErrDenied)
	conn, err := outhttp.NewGuard(prefixes("127.0.0.1/32"), prefixes("127.0.0.0/8")).Dialer(time.Second).Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

func TestReadAll(t *testing.T) {
	for _, n := range []int{0, 9, 10} {
		b, err := outhttp.ReadAll(strings.NewReader(strings.Repeat("x", n)), 10)
		require.NoError(t, err)
		require.Len(t, b, n)
	}
	endless := &counted{}
	b, err := outhttp.ReadAll(endless, 10)
	require.ErrorIs(t, err, outhttp.ErrTooLong)
	require.Empty(t, b)
	require.Equal(t, 11, endless.n, "no more is read than tells that it is too long")
	_, err = outhttp.ReadAll(iotest.ErrReader(io.ErrUnexpectedEOF), 10)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

// counted never ends, and counts what is read.
type counted struct{ n int }

func (c *counted) Read(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}
