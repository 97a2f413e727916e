package conntest

import "fmt"

// Side is one end of a connection.
type Side uint8

// The sides.
const (
	ServerSide Side = iota
	ClientSide
)

// String returns the side's name.
func (s Side) String() string {
	switch s {
	case ServerSide:
		return "server"
	case ClientSide:
		return "client"
	default:
		return fmt.Sprintf("side(%d)", uint8(s))
	}
}

// Unlimited is the rate of a reader that is not slow.
const Unlimited = -1

// CutConnections resets every open connection, as a crashed machine or an
// impatient middlebox does: both ends fail at once with ECONNRESET, and bytes
// under way are lost. Later connections work.
func (s *Server) CutConnections() {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	for l := range s.network.links {
		for _, p := range l.pipes {
			p.reset()
		}
	}
}

// BlackHole makes the network swallow everything, as a pulled cable does:
// writes succeed until the socket buffers are full, nothing arrives, closing a
// connection goes unnoticed by its peer, and dials wait, all without an error.
// BlackHole(false) plugs the cable in again, and what was swallowed arrives
// late, as TCP would retransmit it.
func (s *Server) BlackHole(on bool) {
	n := s.network
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case on && n.hole == nil:
		n.hole = make(chan struct{})
	case !on && n.hole != nil:
		close(n.hole)
		n.hole = nil
	}
	for _, side := range []Side{ServerSide, ClientSide} {
		n.each(side, func(p *pipe) { p.stalled = on })
	}
}

// SlowReader makes one side take only so many bytes per second from its
// sockets, as an overloaded process does, so that the other side's writes hit
// flow control: HTTP/2's as its window is used up, or a full socket. A rate of
// 0 takes nothing, [Unlimited] ends it. It holds for all connections, also
// later ones.
//
// A reader that is slow here sees no frame in time, cancellations included. For
// a slow reader whose HTTP/2 connection is alive, set [Config.Window] and
// do not call Receive.
func (s *Server) SlowReader(side Side, bytesPerSecond int) {
	n := s.network
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rates[side] = bytesPerSecond
	n.each(side, func(p *pipe) { p.rate = bytesPerSecond })
}

// RefuseDials makes new connections fail with ECONNREFUSED, as when no process
// listens. Open connections stay.
func (s *Server) RefuseDials(on bool) {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	s.network.refuse = on
}

// Connections returns how many connections have an end open.
func (s *Server) Connections() int {
	s.network.mu.Lock()
	defer s.network.mu.Unlock()
	return len(s.network.links)
}
