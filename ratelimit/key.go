package ratelimit

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// KeyFunc returns who an RPC counts for, false if that is unknown. A key that others
// can choose at will, such as a header that nobody checks, lets them have as many
// limits as they like. It must be safe for concurrent use.
type KeyFunc func(ctx context.Context, call *streamwrap.Call) (key string, ok bool)

const (
	maxKeyBytes = 256 // of a header that count
	maxHops     = 32  // of X-Forwarded-For
)

// ByPeerIP returns the client's address: that of the connection, or if that is a proxy
// which is trusted, the address that X-Forwarded-For has of the proxy's own client, and
// so on. IPv6 addresses count by their first 64 bits, of which one client has all.
func ByPeerIP(trustedProxies ...netip.Prefix) KeyFunc {
	trusted := slices.Clone(trustedProxies)
	return func(_ context.Context, call *streamwrap.Call) (string, bool) {
		peer, ok := call.Peer()
		if !ok {
			return "", false
		}
		addr, ok := parseHop(peer.Addr)
		if !ok {
			return "", false
		}
		addr = clientOf(addr, call.RequestHeader()["X-Forwarded-For"], trusted)
		if addr.Is6() {
			prefix, _ := addr.Prefix(64)
			return prefix.String(), true
		}
		return addr.String(), true
	}
}

// clientOf walks from a connection's peer to the client, as far as proxies are
// trusted: each has appended the address that it saw. Further left anybody can write
// what they like.
func clientOf(peer netip.Addr, forwarded []string, trusted []netip.Prefix) netip.Addr {
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	hops := 0
	for _, line := range slices.Backward(forwarded) {
		for more := true; more; hops++ {
			if hops == maxHops || !isTrusted(peer) {
				return peer
			}
			hop := line
			comma := strings.LastIndexByte(line, ',')
			if more = comma >= 0; more {
				hop, line = line[comma+1:], line[:comma]
			}
			addr, ok := parseHop(strings.TrimSpace(hop))
			if !ok {
				return peer
			}
			peer = addr
		}
	}
	return peer
}

// parseHop parses an address, with a port or without, and maps IPv4 back that is
// written as IPv6.
func parseHop(text string) (netip.Addr, bool) {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap().WithZone(""), err == nil
}

// ByIdentity returns what a function finds in the context, such as the subject of
// auth's Identity: then the rule must come after authentication. In front of it there is
// no identity, and all callers share one limit; a [Rule] with OnMissing [Refuse] refuses
// them instead.
func ByIdentity(identity func(context.Context) (string, bool)) KeyFunc {
	if identity == nil {
		panic("ratelimit: ByIdentity: nil function")
	}
	return func(ctx context.Context, _ *streamwrap.Call) (string, bool) { return identity(ctx) }
}

// ByHeader returns a header of the request, of which the first 256 bytes count.
func ByHeader(name string) KeyFunc {
	if name == "" {
		panic("ratelimit: ByHeader: no name")
	}
	return func(_ context.Context, call *streamwrap.Call) (string, bool) {
		value := call.RequestHeader().Get(name)
		return value[:min(len(value), maxKeyBytes)], value != ""
	}
}

// ByProcedure returns the procedure's name.
func ByProcedure() KeyFunc {
	return func(_ context.Context, call *streamwrap.Call) (string, bool) { return call.Procedure(), true }
}

// ByAll returns what all of several functions return, together. It has no key if one
// of them has none.
func ByAll(keys ...KeyFunc) KeyFunc {
	keys = slices.Clone(keys)
	return func(ctx context.Context, call *streamwrap.Call) (string, bool) {
		var b strings.Builder
		for _, f := range keys {
			key, ok := f(ctx, call)
			if !ok {
				return "", false
			}
			b.WriteString(key)
			b.WriteByte(0) // or "a"+"bc" were "ab"+"c"
		}
		return b.String(), true
	}
}
