package streamwraptest

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

func ruleGuard() rule {
	return rule{
		name:  "guard",
		needs: afterPremises("eof", "errors", "metadata", "unopened", "close", "cancel"),
		once:  true, // it places the interceptor itself
		why: "net/http does not end a stream when its context ends, once the response has begun. Each streamwrap " +
			"interceptor guards against that by closing the conn it wraps; an interceptor in between must pass that on at " +
			"once, also while a Receive is under way. Otherwise the caller hangs, or the server takes the canceled half " +
			"for the whole.",
		test: func(c *check) {
			srv := conntest.Start(c, conntest.Config{
				Transport:      conntest.H2C,
				HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 10)},
			})
			for _, protocol := range conntest.AllProtocols() {
				for _, kind := range streamKinds() {
					for _, end := range endings() {
						g := guarded{c, srv, protocol, kind, end}
						g.verify("behind", streamwrap.Chain(NewRecorder(), c.interceptor()))
						g.verify("before", streamwrap.Chain(c.interceptor(), NewRecorder()))
					}
				}
			}
		},
	}
}

// guardAttempts is how often a server must see a canceled request as a complete
// one: net/http and connect bring that about by themselves, once in thousands of
// times, if the Receive that CloseResponse wakes up ends the request before
// net/http has reset the stream.
const guardAttempts = 3

// guarded is one kind of stream that is canceled in a certain way.
type guarded struct {
	*check

	srv      *conntest.Server
	protocol conntest.Protocol
	kind     connect.StreamType
	end      ending
}

// verify makes an RPC through a chain.
func (g *guarded) verify(where string, chain connect.Interceptor) {
	what := fmt.Sprintf("%v client over %v, %s a streamwrap interceptor, when the context ended (%v)",
		g.kind, g.protocol, where, g.end.code)
	for attempt := range guardAttempts {
		call, ok := g.cancels(what, chain)
		switch {
		case !ok:
			return
		case g.kind == connect.StreamTypeServer || !call.SawEOF():
			if !call.SawCancel() && call.CtxErr == nil || call.Ended.IsZero() {
				g.broken("%s: the server was not told: %v", what, call)
			}
			return
		case attempt == guardAttempts-1:
			g.broken("%s: the server saw a complete request: %v", what, call)
		}
	}
}

// cancels checks what the caller gets, and returns what the server saw.
func (g *guarded) cancels(what string, chain connect.Interceptor) (conntest.Call, bool) {
	ctx, cancel := g.end.begin(g.Context())
	defer cancel()
	before := len(g.srv.Calls())
	receive := g.dial(ctx, g.srv.Clients(g.protocol.Option(), connect.WithInterceptors(chain)))
	var err error
	if !g.within(what+": a blocked Receive does not return", func() { err = receive() }) {
		return conntest.Call{}, false
	}
	if wireCode(err) != g.end.code {
		g.broken("%s: Receive returned %v, want the code %v", what, err, g.end.code)
	}
	g.settle()
	calls := g.srv.Calls()
	if len(calls) != before+1 {
		g.broken("%s: the server saw %d calls, want one", what, len(calls)-before)
		return conntest.Call{}, false
	}
	return calls[before], true
}

// dial opens a stream, exchanges a message if both sides can, and returns its
// next Receive, which blocks: the server waits for more, or sends no more.
func (g *guarded) dial(ctx context.Context, clients *conntest.Clients) (receive func() error) {
	var stream connect.StreamingClientConn
	switch g.kind {
	case connect.StreamTypeClient:
		upload := clients.Client.CallClientStream(ctx)
		stream, _ = upload.Conn()
		_ = upload.Send(conntest.Text("request"))
	case connect.StreamTypeServer:
		request := connect.NewRequest(conntest.Text("request"))
		conntest.Block().After(1).Add(request.Header())
		download, err := clients.Server.CallServerStream(ctx, request)
		if err != nil {
			return func() error { return err }
		}
		stream, _ = download.Conn()
		_ = stream.Receive(conntest.Text(""))
	default:
		chat := clients.Bidi.CallBidiStream(ctx)
		stream, _ = chat.Conn()
		_ = chat.Send(conntest.Text("request"))
		_, _ = chat.Receive()
	}
	g.keep(stream)
	return func() error { return stream.Receive(conntest.Text("")) }
}
