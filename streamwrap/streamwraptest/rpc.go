package streamwraptest

import (
	"net/http"

	"connectrpc.com/connect"
)

// RPC describes the RPC that a test runs without a server: what an interceptor
// finds in Spec, Peer and the request's headers. The zero value is a good one.
type RPC struct {
	// Spec describes the procedure. IsClient is set by whoever runs the RPC,
	// and StreamType by the functions for unary RPCs. By default Procedure is
	// "/streamwraptest.v1.TestService/Method", and the kind of a stream is
	// bidirectional.
	Spec connect.Spec

	// Peer is the other side. The defaults are "streamwraptest.test" for
	// clients, "192.0.2.2:49152" for handlers, and the Connect protocol. Query
	// exists on handlers only, for unary RPCs of the Connect protocol only.
	Peer connect.Peer

	// Header is the request's headers: what the caller sets on clients, what
	// was received on handlers. It is copied. The default is empty.
	Header http.Header
}

const (
	defaultProcedure  = "/streamwraptest.v1.TestService/Method"
	defaultClientPeer = "192.0.2.2:49152"
	defaultServerPeer = "streamwraptest.test"
)

// withDefaults returns the RPC as one side sees it.
func (r RPC) withDefaults(isClient bool) RPC {
	r.Spec.IsClient = isClient
	if r.Spec.Procedure == "" {
		r.Spec.Procedure = defaultProcedure
	}
	if r.Peer.Addr == "" {
		r.Peer.Addr = defaultClientPeer
		if isClient {
			r.Peer.Addr = defaultServerPeer
		}
	}
	if r.Peer.Protocol == "" {
		r.Peer.Protocol = connect.ProtocolConnect
	}
	r.Header = cloneHeader(r.Header)
	return r
}

// cloneHeader is [http.Header.Clone], but never returns nil.
func cloneHeader(h http.Header) http.Header {
	if h == nil {
		return make(http.Header)
	}
	return h.Clone()
}
