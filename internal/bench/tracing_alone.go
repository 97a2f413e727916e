package bench

import (
	"context"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"
)

// alone is a client that calls nobody: its interceptors are all there is.
type alone struct{ modes []*aloneMode }

// Unary implements [Client], for those who check that a contender works.
func (a *alone) Unary(ctx context.Context, m *Message) (*Message, error) {
	_, err := a.modes[0].unaryClient()(ctx, a, 1)
	return m, err
}

func (*alone) Download(context.Context, *Message) (Stream, error) { return nil, errOneSided }
func (*alone) Upload(context.Context) (Stream, error)             { return nil, errOneSided }
func (*alone) Echo(context.Context) (Stream, error)               { return nil, errOneSided }

// aloneMode is one interceptor around RPCs of all kinds that do nothing.
type aloneMode struct {
	unary         connect.UnaryFunc
	client        connect.StreamingClientFunc
	interceptor   connect.Interceptor
	clientRequest connect.AnyRequest
	request       connect.AnyRequest
	header        http.Header
	messages      int // that the next stream of a client receives
}

// traceparent is that of a sampled span.
const traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"

func newAloneMode(i connect.Interceptor) *aloneMode {
	res := connect.NewResponse(&Message{})
	a := &aloneMode{
		interceptor: i,
		header:      http.Header{"Traceparent": {traceparent}},
		unary: i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return res, nil
		}),
		clientRequest: clientRequest(),
		request:       connect.NewRequest(&Message{}),
	}
	a.client = i.WrapStreamingClient(func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		_ = ctx.Done() // as net/http asks
		return &nothing{spec: spec, header: a.header, left: a.messages}
	})
	a.request.Header().Set("Traceparent", traceparent)
	a.clientRequest.Header().Set("Traceparent", traceparent)
	return a
}

// clientRequest returns a request of a client as interceptors see it. Only connect
// can make one.
func clientRequest() (req connect.AnyRequest) {
	grab := connect.UnaryInterceptorFunc(func(connect.UnaryFunc) connect.UnaryFunc {
		return func(_ context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			req = r
			return nil, errOneSided
		}
	})
	client := newConnectClient(http.DefaultClient, "http://localhost:80", connect.WithInterceptors(grab))
	_, _ = client.Unary(context.Background(), &Message{})
	return req
}

func (a *aloneMode) unaryClient() Operation  { return a.calls(a.clientRequest) }
func (a *aloneMode) unaryHandler() Operation { return a.calls(a.request) }

func (a *aloneMode) calls(req connect.AnyRequest) Operation {
	return func(ctx context.Context, _ Client, n int) ([]float64, error) {
		for range n {
			if _, err := a.unary(ctx, req); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

func (a *aloneMode) clientStream() Operation {
	return func(ctx context.Context, _ Client, n int) ([]float64, error) {
		ctx, cancel := context.WithCancel(ctx) // as callers' contexts are
		defer cancel()
		for range n {
			if err := a.oneStream(ctx, 1); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

func (a *aloneMode) clientMessage() Operation {
	return func(ctx context.Context, _ Client, n int) ([]float64, error) {
		return nil, a.oneStream(ctx, n)
	}
}

// oneStream opens a stream, exchanges messages and closes it.
func (a *aloneMode) oneStream(ctx context.Context, messages int) error {
	a.messages = messages
	conn := a.client(ctx, connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: echoProcedure, IsClient: true})
	for range messages {
		if err := swap(conn); err != nil {
			return err
		}
	}
	if err := conn.CloseRequest(); err != nil {
		return err
	}
	if err := conn.Receive(conn); !errors.Is(err, io.EOF) {
		return err
	}
	return conn.CloseResponse()
}

func (a *aloneMode) handlerStream() Operation {
	return func(ctx context.Context, _ Client, n int) ([]float64, error) {
		for range n {
			if err := a.oneHandler(ctx, 1); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

func (a *aloneMode) handlerMessage() Operation {
	return func(ctx context.Context, _ Client, n int) ([]float64, error) {
		return nil, a.oneHandler(ctx, n)
	}
}

// oneHandler serves a stream that exchanges messages.
func (a *aloneMode) oneHandler(ctx context.Context, messages int) error {
	serve := a.interceptor.WrapStreamingHandler(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		_ = ctx.Done()
		for range messages {
			if err := swap(conn); err != nil {
				return err
			}
		}
		return nil
	})
	spec := connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: echoProcedure}
	return serve(ctx, &nothing{spec: spec, header: a.header, left: messages})
}

// swap is a message each way.
func swap(conn interface {
	Send(msg any) error
	Receive(msg any) error
},
) error {
	if err := conn.Send(conn); err != nil {
		return err
	}
	return conn.Receive(conn)
}

// nothing is a stream whose operations cost nothing. It receives what is left.
type nothing struct {
	spec   connect.Spec
	header http.Header
	left   int
}

var errEnd = connect.NewError(connect.CodeUnknown, io.EOF)

func (c *nothing) Spec() connect.Spec { return c.spec }
func (c *nothing) Peer() connect.Peer {
	return connect.Peer{Addr: "localhost:80", Protocol: connect.ProtocolGRPC}
}
func (c *nothing) Send(any) error               { return nil }
func (c *nothing) CloseRequest() error          { return nil }
func (c *nothing) CloseResponse() error         { return nil }
func (c *nothing) RequestHeader() http.Header   { return c.header }
func (c *nothing) ResponseHeader() http.Header  { return c.header }
func (c *nothing) ResponseTrailer() http.Header { return c.header }
func (c *nothing) Receive(any) error {
	if c.left--; c.left < 0 {
		return errEnd
	}
	return nil
}
