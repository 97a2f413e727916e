package streamwrap_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// setup says what a rig is made of. The zero value is the echo service with one
// probe on either side.
type setup struct {
	config        conntest.Config
	client        streamwrap.Hooks[life]      // the client probe's own hooks
	server        streamwrap.Hooks[life]      // the server probe's own hooks
	clientChain   func(*probe) connect.Option // default: the probe alone
	serverChain   func(*probe) connect.HandlerOption
	clientOptions []connect.ClientOption
}

// rig is a server and its clients with a probe on either side.
type rig struct {
	*conntest.Server

	c              conntest.Case
	clients        *conntest.Clients
	client, server *probe
}

func newRig(t *testing.T, c conntest.Case, s setup) *rig {
	t.Helper()
	t.Cleanup(func() { time.Sleep(50 * time.Millisecond) }) // the guard's goroutines end after the RPC
	r := &rig{c: c, client: newProbe(t, "client", s.client), server: newProbe(t, "server", s.server)}
	serverChain := connect.HandlerOption(connect.WithInterceptors(r.server))
	if s.serverChain != nil {
		serverChain = s.serverChain(r.server)
	}
	s.config.HandlerOptions = append([]connect.HandlerOption{serverChain}, s.config.HandlerOptions...)
	s.withEngine()
	r.Server = c.Start(t, s.config)
	clientChain := connect.WithInterceptors(r.client)
	if s.clientChain != nil {
		clientChain = s.clientChain(r.client)
	}
	r.clients = r.newClients(append(s.clientOptions, clientChain)...)
	return r
}

// engineMode makes all tests that use a rig run with an Engine: on the handlers,
// as HTTPClient, as the innermost interceptor of clients, or all three.
var engineMode = flag.String("engine", "", "put an Engine under the rigs: handler, client, conn or all")

// engineOn reports whether the tests run with an Engine on a side.
func engineOn(client bool) bool {
	switch *engineMode {
	case "":
		return false
	case "all":
		return true
	default:
		return client == (*engineMode != "handler")
	}
}

// withEngine puts an Engine around the server's mux, if the tests run with one.
func (s *setup) withEngine() {
	if !engineOn(false) {
		return
	}
	wrap := s.config.Wrap
	s.config.Wrap = func(next http.Handler) http.Handler {
		if wrap != nil {
			next = wrap(next)
		}
		return streamwrap.NewEngine().Handler(next)
	}
}

// newClients returns clients of the rig's server, with an Engine if the tests
// run with one.
func (r *rig) newClients(opts ...connect.ClientOption) *conntest.Clients {
	return r.clientsOver(r.Client(), opts...)
}

func (r *rig) clientsOver(client connect.HTTPClient, opts ...connect.ClientOption) *conntest.Clients {
	engine := streamwrap.NewEngine()
	switch *engineMode {
	case "conn", "all":
		opts = append(opts, connect.WithInterceptors(engine))
		client = engine.HTTPClient(client)
	case "client":
		client = engine.HTTPClient(client)
	}
	return conntest.NewClients(client, r.URL, append(opts, r.c.Option())...)
}

// do makes a whole RPC of the case's kind and waits for the server's end of it.
func (r *rig) do(t *testing.T, header http.Header, messages ...string) conntest.Reply {
	t.Helper()
	reply := r.clients.Do(t.Context(), r.c.Kind, header, messages...)
	r.WaitCalls(1)
	synctest.Wait()
	return reply
}

// unopened returns an upload on which nothing was sent.
func (r *rig) unopened(ctx context.Context) connect.StreamingClientConn {
	return r.clients.Upload(ctx, r.c.Kind)
}

// start opens a stream of the case's kind, the first message sent: for a server
// stream that takes until the response's headers.
func (r *rig) start(ctx context.Context, header http.Header) (connect.StreamingClientConn, error) {
	switch r.c.Kind {
	case connect.StreamTypeServer:
		req := connect.NewRequest(conntest.Text("one"))
		maps.Copy(req.Header(), header.Clone())
		stream, err := r.clients.Server.CallServerStream(ctx, req)
		if err != nil {
			return nil, err
		}
		return stream.Conn()
	default:
		conn := r.unopened(ctx)
		maps.Copy(conn.RequestHeader(), header.Clone())
		return conn, conn.Send(conntest.Text("one"))
	}
}

// mustStart is start for streams that must open. A server that answers before it
// has read the message may end the request first: EOF says to ask Receive.
func (r *rig) mustStart(ctx context.Context, t *testing.T, header http.Header) connect.StreamingClientConn {
	t.Helper()
	conn, err := r.start(ctx, header)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return conn
}

// bidi opens a bidirectional stream and has one message echoed.
func (r *rig) pingPong(ctx context.Context, t *testing.T) connect.StreamingClientConn {
	t.Helper()
	conn := r.mustStart(ctx, t, nil)
	if err := conn.Receive(&conntest.Message{}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// drain receives until there is no more.
func drain(conn interface{ Receive(any) error }) (messages int, _ error) {
	for {
		if err := conn.Receive(&conntest.Message{}); err != nil {
			return messages, err
		}
		messages++
	}
}

// h2 and web are the transports of most tests: TLS has a smaller set.
var (
	h2  = []conntest.Transport{conntest.H2C}
	web = []conntest.Transport{conntest.H2C, conntest.H1}
)

// Sets of kinds.
var (
	unaryKind = []connect.StreamType{connect.StreamTypeUnary}
	uploads   = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	streams   = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
	bidiKind  = []connect.StreamType{connect.StreamTypeBidi}
)

// wantCode checks the code of an error and that there is one.
func wantCode(tb testing.TB, what string, err error, want connect.Code) {
	tb.Helper()
	if err == nil || !isCoded(err) || connect.CodeOf(err) != want {
		tb.Errorf("%s: %v (%T), want %v", what, err, err, want)
	}
}

// wantEOF checks for an error that means the end of a stream.
func wantEOF(tb testing.TB, what string, err error) {
	tb.Helper()
	if !errors.Is(err, io.EOF) || !isCoded(err) {
		tb.Errorf("%s: %v (%T), want EOF", what, err, err)
	}
}

// took checks that something happened promptly, in the bubble's time: the guard
// may use its few milliseconds, but nothing may wait for a watchdog.
func promptly(tb testing.TB, what string, start time.Time) {
	tb.Helper()
	if took := time.Since(start); took > 100*time.Millisecond {
		tb.Errorf("%s took %v", what, took)
	}
}

// wantCanceledUpload checks that the server was told of a cancellation, and
// never that the request was complete.
func wantCanceledUpload(tb testing.TB, call conntest.Call) {
	tb.Helper()
	if call.SawEOF() || !call.SawCancel() {
		tb.Errorf("the server must see the cancellation and no EOF: %v", call)
	}
	if strings.HasPrefix(call.Proto, "HTTP/2") && call.BodyErr != nil && !call.SawReset() {
		tb.Errorf("the server's body must end with CANCEL: %v", call)
	}
}
