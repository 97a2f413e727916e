package soak

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// fault is what the proxy does to a connection, once it has carried some bytes in one
// direction.
type fault uint8

const (
	healthy  fault = iota
	slow           // what follows takes longer
	stalled        // it stands still for a while
	cut            // it ends
	broken         // it ends with a reset
	halfOpen       // this direction carries nothing any more, until somebody gives up
	faults
)

// halfOpenFor is how long a half-open connection lasts, if neither side gives up.
const halfOpenFor = 2 * time.Second

// proxy forwards TCP connections to a server, and harms some of them.
type proxy struct {
	listener net.Listener
	backend  atomic.Pointer[string]
	harm     float64 // the share of connections that are harmed

	running sync.WaitGroup
	mu      sync.Mutex
	random  *rand.Rand
	conns   map[net.Conn]struct{}
	counts  [faults]int
	closed  bool
}

func newProxy(seed uint64, harm float64) (*proxy, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{
		listener: listener, harm: harm,
		random: rand.New(rand.NewPCG(seed, 1)), conns: make(map[net.Conn]struct{}), //nolint:gosec // faults by the seed, to be repeatable, and no secret
	}
	p.running.Go(p.accept)
	return p, nil
}

// url is what clients call.
func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

// forward makes new connections go to another server.
func (p *proxy) forward(address string) { p.backend.Store(&address) }

func (p *proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// keep has a connection closed with the proxy. It reports false if that has happened.
func (p *proxy) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[conn] = struct{}{}
	return !p.closed
}

func (p *proxy) drop(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

// choose returns what happens to one direction of a connection, and after how much.
func (p *proxy) choose() (fault, int, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := healthy
	if p.random.Float64() < p.harm/2 {
		f = 1 + fault(p.random.IntN(int(faults)-1))
	}
	p.counts[f]++
	return f, p.random.IntN(256 << 10), time.Duration(p.random.IntN(300)) * time.Millisecond
}

func (p *proxy) serve(client net.Conn) {
	defer p.drop(client)
	if !p.keep(client) {
		return
	}
	address := p.backend.Load()
	if address == nil {
		return
	}
	server, err := new(net.Dialer).DialContext(context.Background(), "tcp", *address)
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.keep(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.carry(server, client) })
	both.Go(func() { p.carry(client, server) })
	both.Wait()
}

// carry copies one direction, with its fault.
func (p *proxy) carry(to, from net.Conn) {
	f, after, pause := p.choose()
	_, err := io.CopyN(to, from, int64(after))
	switch {
	case err != nil:
		halfClose(to, err)
		return
	case f == slow:
		_, err = io.Copy(&delayed{to, pause / 50}, from)
	case f == stalled:
		time.Sleep(pause)
		_, err = io.Copy(to, from)
	case f == cut:
		_, _ = to.Close(), from.Close()
		return
	case f == broken:
		reset(to)
		reset(from)
		return
	case f == halfOpen:
		_ = from.SetReadDeadline(time.Now().Add(halfOpenFor))
		_, _ = io.Copy(io.Discard, from)
		_, _ = to.Close(), from.Close()
		return
	default:
		_, err = io.Copy(to, from)
	}
	halfClose(to, err)
}

// halfClose passes on that a direction has ended: cleanly, or not.
func halfClose(to net.Conn, err error) {
	if tcp, ok := to.(*net.TCPConn); ok && (err == nil || errors.Is(err, io.EOF)) {
		_ = tcp.CloseWrite()
		return
	}
	_ = to.Close()
}

func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// delayed writes late.
type delayed struct {
	net.Conn

	by time.Duration
}

func (d *delayed) Write(b []byte) (int, error) {
	time.Sleep(d.by)
	return d.Conn.Write(b)
}
