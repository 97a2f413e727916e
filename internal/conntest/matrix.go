package conntest

import (
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
)

// Case is one combination to run a test with.
type Case struct {
	Transport Transport
	Protocol  Protocol
	Codec     Codec
	Kind      connect.StreamType
}

// String returns the combination as a name for a subtest: "h2c/grpc/proto/bidi".
func (c Case) String() string {
	return c.Transport.String() + "/" + c.Protocol.String() + "/" + c.Codec.String() + "/" + c.Kind.String()
}

// Start is [Start] with the case's transport.
func (c Case) Start(tb testing.TB, config Config) *Server {
	tb.Helper()
	config.Transport = c.Transport
	return Start(tb, config)
}

// Option makes a client speak the case's protocol and codec.
func (c Case) Option() connect.ClientOption {
	return connect.WithClientOptions(c.Protocol.Option(), c.Codec.Option())
}

// Clients returns a server's clients for the case's protocol and codec.
func (c Case) Clients(s *Server, opts ...connect.ClientOption) *Clients {
	return s.Clients(append([]connect.ClientOption{c.Option()}, opts...)...)
}

// AllKinds returns every kind of RPC.
func AllKinds() []connect.StreamType {
	return []connect.StreamType{
		connect.StreamTypeUnary, connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi,
	}
}

// Matrix is a set of combinations. An empty field means everything, except that
// no Codecs mean [Proto]: few tests depend on the encoding, and it doubles them.
type Matrix struct {
	Transports []Transport
	Protocols  []Protocol
	Codecs     []Codec
	Kinds      []connect.StreamType
}

// Cases returns the combinations that can work: all but bidirectional streams
// over HTTP/1.1. gRPC over HTTP/1.1 is not in gRPC's specification, but connect
// speaks it on both sides.
func (m Matrix) Cases() []Case {
	var cases []Case
	for _, transport := range orAll(m.Transports, AllTransports()) {
		for _, protocol := range orAll(m.Protocols, AllProtocols()) {
			for _, codec := range orAll(m.Codecs, []Codec{Proto}) {
				for _, kind := range orAll(m.Kinds, AllKinds()) {
					if kind == connect.StreamTypeBidi && !transport.HTTP2() {
						continue
					}
					cases = append(cases, Case{Transport: transport, Protocol: protocol, Codec: codec, Kind: kind})
				}
			}
		}
	}
	return cases
}

// Each runs a subtest for every case, one after the other.
func (m Matrix) Each(t *testing.T, f func(t *testing.T, c Case)) {
	t.Helper()
	for _, c := range m.Cases() {
		t.Run(c.String(), func(t *testing.T) { f(t, c) })
	}
}

// EachBubble is [Matrix.Each] with every subtest in a synctest bubble of its
// own, where f must not call t.Run, t.Parallel or t.Deadline.
func (m Matrix) EachBubble(t *testing.T, f func(t *testing.T, c Case)) {
	t.Helper()
	m.Each(t, func(t *testing.T, c Case) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) { f(t, c) })
	})
}

// Each runs a subtest for every case of the whole [Matrix].
func Each(t *testing.T, f func(t *testing.T, c Case)) {
	t.Helper()
	Matrix{}.Each(t, f)
}

// EachBubble is [Each] with every subtest in a synctest bubble of its own.
func EachBubble(t *testing.T, f func(t *testing.T, c Case)) {
	t.Helper()
	Matrix{}.EachBubble(t, f)
}

func orAll[T any](some, all []T) []T {
	if len(some) == 0 {
		return all
	}
	return some
}
