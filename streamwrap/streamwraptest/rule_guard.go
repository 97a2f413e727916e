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
					for code, ending := range endings() {
						what := fmt.Sprintf("%v client over %v, behind a streamwrap interceptor", kind, protocol)
						chain := streamwrap.Chain(NewRecorder(), c.interceptor())
						c.guards(what, srv, protocol, kind, chain, code, ending)
						what = fmt.Sprintf("%v client over %v, before a streamwrap interceptor", kind, protocol)
						chain = streamwrap.Chain(c.interceptor(), NewRecorder())
						c.guards(what, srv, protocol, kind, chain, code, ending)
					}
				}
			}
		},
	}
}

func (c *check) guards(
	what string,
	srv *conntest.Server,
	protocol conntest.Protocol,
	kind connect.StreamType,
	chain connect.Interceptor,
	code connect.Code,
	ending func(context.Context) (context.Context, context.CancelFunc),
) {
	ctx, cancel := ending(c.Context())
	defer cancel()
	before := len(srv.Calls())
	receive := c.dial(ctx, srv.Clients(protocol.Option(), connect.WithInterceptors(chain)), kind)
	var err error
	if !c.within(what+": a blocked Receive does not return although the context ended ("+code.String()+")", func() { err = receive() }) {
		return
	}
	if wireCode(err) != code {
		c.broken("%s: the context ended and Receive returned %v, want the code %v", what, err, code)
	}
	c.settle()
	calls := srv.Calls()
	if len(calls) != before+1 {
		c.broken("%s: the server saw %d calls, want one", what, len(calls)-before)
		return
	}
	call := calls[before]
	if kind != connect.StreamTypeServer && call.SawEOF() {
		c.broken("%s: the context ended in the middle of the request, but the server saw a complete one: %v", what, call)
	}
	if !call.SawCancel() && call.CtxErr == nil || call.Ended.IsZero() {
		c.broken("%s: the context ended, but the server was not told: %v", what, call)
	}
}

// dial opens a stream, exchanges a message if both sides can, and returns its
// next Receive, which blocks: the server waits for more, or sends no more.
func (c *check) dial(ctx context.Context, clients *conntest.Clients, kind connect.StreamType) (receive func() error) {
	var stream connect.StreamingClientConn
	switch kind {
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
	c.keep(stream)
	return func() error { return stream.Receive(conntest.Text("")) }
}
