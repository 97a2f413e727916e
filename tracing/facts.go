package tracing

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"go.opentelemetry.io/otel/attribute"
)

// facts are what all RPCs of one procedure have in common, on one side, with one
// protocol and, on clients, with one server. They are the key of the cache.
type facts struct {
	procedure   string // with connect's slash
	protocol    string // as connect names it; empty: not known yet
	address     string // of the server, on clients: host or host:port
	kind        connect.StreamType
	idempotency connect.IdempotencyLevel
	client      bool
}

// name returns the procedure as the conventions want it, without the slash.
func (f *facts) name() string { return strings.TrimPrefix(f.procedure, "/") }

// streams reports whether the RPCs are not unary.
func (f *facts) streams() bool { return f.kind != connect.StreamTypeUnary }

// live reports whether the RPCs have metrics while they are under way: streams that
// are open.
func (f *facts) live() bool { return f.streams() && f.protocol != "" }

// grpc reports whether the protocol is one of gRPC's.
func (f *facts) grpc() bool {
	return f.protocol == connect.ProtocolGRPC || f.protocol == connect.ProtocolGRPCWeb
}

// system returns the name of the RPC system, in one of two generations.
func (f *facts) system(uniform string, names conventions) string {
	switch {
	case uniform != "":
		return uniform
	case f.grpc():
		return "grpc"
	case names == oldNames:
		return "connect_rpc"
	default:
		return "connectrpc"
	}
}

// target returns the attributes of the server that a client calls.
func (f *facts) target() []attribute.KeyValue {
	if !f.client || f.address == "" {
		return nil
	}
	return hostPort(f.address, serverAddressKey, serverPortKey)
}

// attributes returns what identifies the RPCs, with one generation of names.
func (f *facts) attributes(c *config, names conventions) []attribute.KeyValue {
	name := f.name()
	var attributes []attribute.KeyValue
	if names&oldNames != 0 {
		service, method, _ := strings.Cut(name, "/")
		if f.protocol != "" {
			attributes = append(attributes, oldSystemKey.String(f.system(c.system, oldNames)))
		}
		attributes = append(attributes, oldServiceKey.String(service))
		if names&newNames == 0 { // else the key is the new method's
			attributes = append(attributes, oldMethodKey.String(method))
		}
	}
	if names&newNames != 0 {
		if f.protocol != "" {
			attributes = append(attributes, systemKey.String(f.system(c.system, newNames)))
		}
		attributes = append(attributes, methodKey.String(name))
	}
	return c.filtered(append(attributes, f.target()...))
}

// details returns what only spans tell.
func (f *facts) details(c *config) []attribute.KeyValue {
	var attributes []attribute.KeyValue
	if f.protocol == connect.ProtocolGRPCWeb {
		attributes = append(attributes, protocolKey.String(f.protocol))
	}
	if f.idempotency != connect.IdempotencyUnknown {
		attributes = append(attributes, idempotencyKey.String(f.idempotency.String()))
	}
	return c.filtered(attributes)
}

// filtered removes the attributes that the user does not want.
func (c *config) filtered(attributes []attribute.KeyValue) []attribute.KeyValue {
	if c.attributeFilter == nil {
		return attributes
	}
	kept := attributes[:0]
	for _, a := range attributes {
		if c.attributeFilter(a) {
			kept = append(kept, a)
		}
	}
	return kept
}

// hostPort returns the attributes of an address, which may have no port: the host
// without brackets, and the port as a number.
func hostPort(address string, hostKey, portKey attribute.Key) []attribute.KeyValue {
	host, port, ok := splitHostPort(address)
	if !ok {
		return []attribute.KeyValue{hostKey.String(host)}
	}
	return []attribute.KeyValue{hostKey.String(host), portKey.Int(port)}
}

func splitHostPort(address string) (host string, port int, ok bool) {
	if host, text, err := net.SplitHostPort(address); err == nil {
		if port, err := strconv.ParseUint(text, 10, 16); err == nil {
			return host, int(port), true
		}
		return host, 0, false
	}
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")); err == nil {
		return ip.String(), 0, false
	}
	return address, 0, false
}
