package retrytest

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// Network is an HTTP server in memory, and the network in front of it. It is safe for
// concurrent use.
type Network struct {
	handler http.Handler
	server  *http.Server
	client  *http.Client
	http1   *http.Client
	accept  chan net.Conn
	closed  chan struct{}

	mu       sync.Mutex
	faults   []Fault // of requests
	refusals int     // of dials
	requests int
	conns    []*conn
}

// NewNetwork returns a Network in front of a handler, which speaks HTTP/1.1 and
// HTTP/2 without TLS. It ends with the test. It panics if the handler is nil.
func NewNetwork(tb testing.TB, handler http.Handler) *Network {
	tb.Helper()
	if handler == nil {
		panic("retrytest: NewNetwork: nil handler")
	}
	n := &Network{handler: handler, accept: make(chan net.Conn), closed: make(chan struct{})}
	n.client, n.http1 = n.newClient(true), n.newClient(false)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	n.server = &http.Server{
		Handler:   http.HandlerFunc(n.serve),
		Protocols: protocols,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	var group sync.WaitGroup
	group.Go(func() { _ = n.server.Serve((*listener)(n)) })
	tb.Cleanup(func() {
		close(n.closed)
		_ = n.server.Close()
		n.mu.Lock()
		for _, c := range n.conns {
			_ = c.Close()
		}
		n.mu.Unlock()
		group.Wait()
	})
	return n
}

// URL is the base URL of the server, without a trailing slash.
func (n *Network) URL() string { return "http://retrytest" }

// Client returns a client that speaks HTTP/2, always the same.
func (n *Network) Client() *http.Client { return n.client }

// HTTP1Client returns a client that speaks HTTP/1.1, always the same.
func (n *Network) HTTP1Client() *http.Client { return n.http1 }

// Inject queues faults: one for each request to come, whoever makes it, and those of
// [RefuseDial] for the connections to come.
func (n *Network) Inject(faults ...Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range faults {
		if f.dial {
			n.refusals++
		} else {
			n.faults = append(n.faults, f)
		}
	}
}

// Requests returns how many requests arrived, those with faults included.
func (n *Network) Requests() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.requests
}

// Pending returns how many faults are still queued.
func (n *Network) Pending() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.faults) + n.refusals
}

func (n *Network) serve(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.requests++
	var f Fault
	if len(n.faults) > 0 {
		f = n.faults[0]
		n.faults = slices.Delete(n.faults, 0, 1)
	}
	n.mu.Unlock()
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok || f.name == "" {
		n.handler.ServeHTTP(w, r)
		return
	}
	(&exchange{ResponseWriter: w, network: n, request: r, conn: c, fault: f, begin: c.sent()}).serve(n.handler)
}

type connKey struct{}

// newClient returns a client of the network.
func (n *Network) newClient(http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{Protocols: protocols, DialContext: n.dial, DisableCompression: true}
	return &http.Client{Transport: &dialer{transport, n}}
}

// dialer is a transport that dials if a dial is to be refused.
type dialer struct {
	*http.Transport

	network *Network
}

func (d *dialer) RoundTrip(r *http.Request) (*http.Response, error) {
	d.network.mu.Lock()
	refuse := d.network.refusals > 0
	d.network.mu.Unlock()
	if refuse {
		d.CloseIdleConnections()
	}
	return d.Transport.RoundTrip(r)
}

func (n *Network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	if n.refusals > 0 {
		n.refusals--
		n.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	client, server := newConns()
	n.conns = append(n.conns, client, server)
	n.mu.Unlock()
	select {
	case n.accept <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// listener is the network as its server sees it.
type listener Network

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, io.EOF
	}
}

func (*listener) Close() error { return nil }

func (*listener) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "tcp" }
func (address) String() string  { return "retrytest:80" }
