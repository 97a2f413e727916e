package streamwraptest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

func ruleWire() rule {
	return rule{
		name:  "wire",
		needs: afterPremises("flush", "eof", "errors", "metadata", "close"),
		why: "this is the whole of it, on real HTTP: RPCs of all kinds over Connect, gRPC and gRPC-Web, in protobuf and " +
			"JSON, on HTTP/1.1 and HTTP/2, succeed and fail on clients and handlers with the interceptor as they do without.",
		test: func(c *check) {
			for _, transport := range []conntest.Transport{conntest.H2C, conntest.H1} {
				c.speaks(transport)
			}
		},
	}
}

// speaks makes RPCs over one transport, with the interceptor on both sides.
func (c *check) speaks(transport conntest.Transport) {
	srv := conntest.Start(c, conntest.Config{
		Transport: transport,
		HandlerOptions: []connect.HandlerOption{
			connect.WithInterceptors(c.interceptor()),
			connect.WithCompressMinBytes(1 << 10), // compression is slow, and no matter of interceptors
		},
	})
	matrix := conntest.Matrix{Transports: []conntest.Transport{transport}, Codecs: conntest.AllCodecs()}
	for _, cs := range matrix.Cases() {
		// With a second interceptor connect checks what the first passes on.
		clients := cs.Clients(srv, connect.WithInterceptors(c.interceptor(), passUnary()))
		c.succeeds(cs, clients)
		c.fails(cs, clients)
		if transport == conntest.H2C && cs.Codec == conntest.Proto {
			c.speaksSimply(cs, clients)
		}
	}
}

// passUnary is an interceptor that does nothing.
func passUnary() connect.Interceptor {
	return connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc { return next })
}

// wireMessages are what clients send.
func wireMessages() []string { return []string{"one", "two", "three"} }

// wireHeader asks the server for a header and a trailer.
func wireHeader() http.Header {
	return http.Header{
		conntest.HeaderPrefix + "A":  {"a", "b"},
		conntest.TrailerPrefix + "B": {"c"},
	}
}

// replies returns what the echo service answers.
func replies(kind connect.StreamType) []string {
	switch kind {
	case connect.StreamTypeClient:
		return []string{strings.Join(wireMessages(), "")}
	case connect.StreamTypeServer:
		return []string{"one", "one", "one"}
	case connect.StreamTypeBidi:
		return wireMessages()
	default:
		return []string{"one"}
	}
}

func (c *check) succeeds(cs conntest.Case, clients *conntest.Clients) {
	reply := clients.Do(c.Context(), cs.Kind, wireHeader(), wireMessages()...)
	if reply.Err != nil {
		c.broken("%v: failed with %v, want success", cs, reply.Err)
		return
	}
	c.compare(cs.String()+": received", reply.Messages, replies(cs.Kind))
	c.compareHeader(cs.String()+": response header", reply.Header, conntest.HeaderPrefix+"A", "a", "b")
	c.compareHeader(cs.String()+": response trailer", reply.Trailer, conntest.TrailerPrefix+"B", "c")
}

// fails lets the handler fail when all messages that came first are through.
func (c *check) fails(cs conntest.Case, clients *conntest.Clients) {
	after := map[connect.StreamType]int{
		connect.StreamTypeUnary: 1, connect.StreamTypeClient: 3, connect.StreamTypeServer: 2, connect.StreamTypeBidi: 2,
	}[cs.Kind]
	header := wireHeader()
	conntest.Fail(connect.CodeFailedPrecondition, "not now").After(after).Add(header)
	reply := clients.Do(c.Context(), cs.Kind, header, wireMessages()...)
	var received []string
	if cs.Kind&connect.StreamTypeServer != 0 {
		received = replies(cs.Kind)[:after]
	}
	c.compare(cs.String()+" that fails: received", reply.Messages, received)
	if changed := changedOnWire(reply.Err); changed != "" {
		c.broken("%v: the handler's error %s", cs, changed)
	}
}

// changedOnWire returns what became of the handler's error; "" if it arrived.
func changedOnWire(got error) string {
	const want = connect.CodeFailedPrecondition
	coded, ok := errors.AsType[*connect.Error](got)
	switch {
	case !ok:
		return fmt.Sprintf("became %v (%T), want a *connect.Error", got, got)
	case coded.Code() != want || coded.Message() != "not now":
		return fmt.Sprintf("became %v, want %v: not now", coded, want)
	case len(coded.Details()) != 1:
		return fmt.Sprintf("has %d details, want its one", len(coded.Details()))
	case !slices.Equal(coded.Meta()[conntest.ErrorHeader], []string{want.String()}):
		return fmt.Sprintf("has the metadata %v, want %s once", coded.Meta(), conntest.ErrorHeader)
	case !connect.IsWireError(got):
		return "is no wire error any more (connect.IsWireError), as if the client had made it"
	default:
		return ""
	}
}

// speaksSimply opens streams with connect's simple functions, whose metadata is
// in the context.
func (c *check) speaksSimply(cs conntest.Case, clients *conntest.Clients) {
	ctx, info := connect.NewClientContext(c.Context())
	addHeader(info.RequestHeader(), wireHeader())
	var err error
	switch cs.Kind {
	case connect.StreamTypeClient:
		err = c.uploadsSimply(ctx, clients)
	case connect.StreamTypeBidi:
		err = c.chatsSimply(ctx, clients)
	default:
		return
	}
	if err != nil {
		c.broken("%v, opened with the simple function: failed with %v, want success", cs, err)
		return
	}
	c.compareHeader(cs.String()+", opened with the simple function: response header in the CallInfo",
		info.ResponseHeader(), conntest.HeaderPrefix+"A", "a", "b")
	c.compareHeader(cs.String()+", opened with the simple function: response trailer in the CallInfo",
		info.ResponseTrailer(), conntest.TrailerPrefix+"B", "c")
}

func (c *check) uploadsSimply(ctx context.Context, clients *conntest.Clients) error {
	stream, err := clients.Client.CallClientStreamSimple(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(conntest.Text("one")); err != nil {
		return err
	}
	_, err = stream.CloseAndReceive()
	return err
}

func (c *check) chatsSimply(ctx context.Context, clients *conntest.Clients) error {
	stream, err := clients.Bidi.CallBidiStreamSimple(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = stream.CloseResponse() }()
	if err := stream.Send(conntest.Text("one")); err != nil {
		return err
	}
	if _, err := stream.Receive(); err != nil {
		return err
	}
	if err := stream.CloseRequest(); err != nil {
		return err
	}
	if _, err := stream.Receive(); !isEOF(err) {
		return err
	}
	return nil
}

func (c *check) compareHeader(what string, got http.Header, key string, want ...string) {
	c.compare(what+" "+key, got[key], want)
}
