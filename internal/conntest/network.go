package conntest

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// network is the cable between one server and its clients: a listener, a
// dialer, and the faults that a test switches on.
type network struct {
	limit   int // bytes that one direction of a connection buffers
	backlog chan net.Conn
	closed  chan struct{} // the listener is closed
	once    sync.Once

	mu     sync.Mutex
	links  map[*link]struct{}
	port   int           // of the last client
	refuse bool          // dials fail
	hole   chan struct{} // closed when the black hole ends; nil: there is none
	rates  [2]int        // by reading Side
	empty  chan struct{} // closed when no link is left; nil: nobody waits
}

// link is a connection as the network sees it: one pipe for what each [Side]
// reads, and the number of ends still open.
type link struct {
	pipes [2]*pipe
	open  int
}

func newNetwork(limit int) *network {
	return &network{
		limit:   limit,
		backlog: make(chan net.Conn),
		closed:  make(chan struct{}),
		links:   make(map[*link]struct{}),
		port:    49151,
		rates:   [2]int{Unlimited, Unlimited},
	}
}

// serverAddr is from the block that RFC 5737 reserves for documentation.
func serverAddr() *net.TCPAddr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

// Accept implements net.Listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case conn := <-n.backlog:
		return conn, nil
	case <-n.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: serverAddr(), Err: net.ErrClosed}
	}
}

// Close implements net.Listener.
func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr implements net.Listener.
func (n *network) Addr() net.Addr { return serverAddr() }

// dial is an http.Transport's DialContext. In a black hole it waits, as a dial
// does whose packets are dropped.
func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	for {
		n.mu.Lock()
		refuse, hole := n.refuse, n.hole
		n.mu.Unlock()
		switch {
		case refuse:
			return nil, dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
		case hole == nil:
			return n.connect(ctx)
		}
		select {
		case <-hole:
		case <-n.closed:
			return nil, dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
		case <-ctx.Done():
			return nil, dialError(ctx.Err())
		}
	}
}

func (n *network) connect(ctx context.Context) (net.Conn, error) {
	l := &link{open: 2}
	server, client := n.ends(l)
	select {
	case n.backlog <- server:
		return client, nil
	case <-n.closed:
		n.forget(l)
		return nil, dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	case <-ctx.Done():
		n.forget(l)
		return nil, dialError(ctx.Err())
	}
}

// ends makes the two ends of a link, under the faults in force.
func (n *network) ends(l *link) (server, client *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[l] = struct{}{}
	for side := range l.pipes {
		l.pipes[side] = newPipe(n.limit)
		l.pipes[side].rate = n.rates[side]
		l.pipes[side].stalled = n.hole != nil
	}
	n.port++
	up, down := l.pipes[ServerSide], l.pipes[ClientSide]
	here, there := serverAddr(), &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: n.port}
	closed := func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if l.open--; l.open == 0 {
			n.remove(l)
		}
	}
	return &conn{in: up, out: down, local: here, remote: there, closed: closed},
		&conn{in: down, out: up, local: there, remote: here, closed: closed}
}

func (n *network) forget(l *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remove(l)
}

// remove drops a link. The caller holds n.mu.
func (n *network) remove(l *link) {
	delete(n.links, l)
	if len(n.links) == 0 && n.empty != nil {
		close(n.empty)
		n.empty = nil
	}
}

// wait waits until both ends of all connections are closed. It reports false
// after the limit.
func (n *network) wait(limit time.Duration) bool {
	n.mu.Lock()
	if len(n.links) == 0 {
		n.mu.Unlock()
		return true
	}
	if n.empty == nil {
		n.empty = make(chan struct{})
	}
	empty := n.empty
	n.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-empty:
		return true
	case <-timer.C:
		return false
	}
}

// each runs f on what one side reads, for every connection. The caller holds
// n.mu: a connection made meanwhile must not escape a fault.
func (n *network) each(side Side, f func(*pipe)) {
	for l := range n.links {
		p := l.pipes[side]
		p.update(func() { f(p) })
	}
}

func dialError(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: serverAddr(), Err: err}
}
