// Package outhttp guards connections that strangers can make this server open: to other homeservers, to push gateways, to URLs that
// somebody wants a preview of.
//
// The guard looks at the address that is being connected to, after every name was resolved and at every attempt, so that a name
// that changes its mind between the check and the connection (DNS rebinding) gains nothing. A [Guard] is immutable and safe for
// concurrent use. [ReadAll] bounds what is read of an answer. It may be imported by whatever opens such connections; it imports the standard
// library only.
package outhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// ErrDenied says that an address is in a network that must not be reached.
var ErrDenied = errors.New("address is in a network that must not be reached")

// ErrTooLong says that an answer has more bytes than anybody would send who means well.
var ErrTooLong = errors.New("the answer is too long")

// ReadAll reads a body that has at most so many bytes, and fails with ErrTooLong if it has more, of which it reads one.
func ReadAll(body io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, most+1))
	if err == nil && int64(len(b)) > most {
		return nil, ErrTooLong
	}
	return b, err
}

// Guard says which addresses may be connected to.
type Guard struct {
	allow, deny []netip.Prefix
}

// NewGuard makes a Guard: an address that deny names is refused unless allow names it too.
func NewGuard(allow, deny []netip.Prefix) *Guard {
	return &Guard{allow: unmapped(allow), deny: unmapped(deny)}
}

// unmapped writes networks of mapped addresses as the IPv4 networks that they are. The one of all mapped addresses is left out: it names a
// way to write an address and not where that is, and addresses are judged by where they are.
func unmapped(list []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, p := range list {
		switch {
		case !p.Addr().Is4In6():
			out = append(out, p)
		case p.Bits() > 96:
			out = append(out, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96))
		}
	}
	return out
}

// Check refuses an address, with an error that is [ErrDenied]. An IPv6 address that only wraps an IPv4 address (mapped, NAT64,
// 6to4) is judged by that one too.
func (g *Guard) Check(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, candidate := range append([]netip.Addr{a}, wrapped(a)...) {
		if in(g.deny, candidate) && !in(g.allow, candidate) {
			return fmt.Errorf("%s: %w", a, ErrDenied)
		}
	}
	return nil
}

// wrapped gives the IPv4 address that traffic to an IPv6 address may end at.
func wrapped(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	switch {
	case [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b}:
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:]))}
	case b[0] == 0x20 && b[1] == 0x02:
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	}
	return nil
}

func in(list []netip.Prefix, a netip.Addr) bool {
	for _, p := range list {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Dialer gives a dialer that refuses, at the moment of connecting, what the guard refuses.
func (g *Guard) Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout: timeout, KeepAlive: 30 * time.Second,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("address %q: %w", address, ErrDenied)
			}
			return g.Check(at.Addr())
		},
	}
}
