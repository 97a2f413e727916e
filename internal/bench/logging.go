package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"connectrpc.com/connect"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	iclogging "github.com/interconnect-go/interconnect/logging"
	"google.golang.org/grpc"
)

const (
	loggingName    = "logging"
	loggingOffName = "logging, off"
	loggingAllName = "logging, payloads"
	peerLogName    = "go-grpc-middleware"
	peerLogOffName = "go-grpc-middleware, off"
	peerLogAllName = "go-grpc-middleware, payloads"
)

// errPart is the error of the parts of a service that an interceptor alone has not.
var errPart = errors.New("there is only an interceptor")

// loggingTable compares logging interceptors alone, without a network, which would hide
// what they cost.
func loggingTable() Table {
	on, all := slog.LevelDebug, slog.LevelDebug-4
	versus := Comparison{loggingName, peerLogName}
	off := Comparison{loggingOffName, peerLogOffName}
	payloads := Comparison{loggingAllName, peerLogAllName}
	return Table{
		Name:  "logging",
		Title: "Logging interceptors of handlers alone, without a network",
		Notes: []string{
			"One record for each RPC, at its end, as JSON by the standard library's handler, to nowhere; with payloads " +
				"one more for each message. go-grpc-middleware's interceptor is asked for the same records: by default it " +
				"writes one more at the start. Its payloads are the messages as reflection of Go sees them, and not redacted. What " +
				"streamwrap takes for an interceptor is part of logging's. Off means a logger whose level is above all records.",
		},
		Contenders: []Contender{
			loggingContender(loggingName, slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: on})),
			peerLogContender(peerLogName, slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: on}), logging.FinishCall),
			loggingContender(loggingOffName, slog.DiscardHandler),
			peerLogContender(peerLogOffName, slog.DiscardHandler, logging.FinishCall),
			loggingContender(loggingAllName, slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: all}),
				iclogging.WithPayloads(iclogging.Payloads{Every: 1})),
			peerLogContender(peerLogAllName, slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: all}),
				logging.FinishCall, logging.PayloadReceived, logging.PayloadSent),
		},
		Comparisons: []Comparison{versus, off, payloads},
		Rows: []Row{
			{Name: "unary, 16 B", Do: unary(16), Goals: []Goal{{Comparison: versus, Must: 1}, {Comparison: off, Must: 1}}},
			{Name: "bidi stream of 100 messages each way, 16 B", Do: logged(100)},
		},
	}
}

// logged runs n streams through an interceptor.
func logged(messages int) Operation {
	return func(ctx context.Context, client Client, n int) ([]float64, error) {
		c, ok := client.(*loggedHandler)
		if !ok {
			return nil, errPart
		}
		for range n {
			if err := c.stream(ctx, messages); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
}

// loggedHandler is an interceptor around handlers that do nothing.
type loggedHandler struct {
	unary  func(context.Context, *Message) (*Message, error)
	stream func(ctx context.Context, messages int) error
}

func (a *loggedHandler) Unary(ctx context.Context, m *Message) (*Message, error) {
	return a.unary(ctx, m)
}
func (a *loggedHandler) Download(context.Context, *Message) (Stream, error) { return nil, errPart }
func (a *loggedHandler) Upload(context.Context) (Stream, error)             { return nil, errPart }
func (a *loggedHandler) Echo(context.Context) (Stream, error)               { return nil, errPart }
func (a *loggedHandler) start() (client Client, stop func(), err error)     { return a, func() {}, nil }
func loggedMessage() *Message                                               { return payload(16) }

// loggingContender is this module's interceptor.
func loggingContender(name string, h slog.Handler, opts ...iclogging.Option) Contender {
	i := iclogging.NewInterceptor(slog.New(h), opts...)
	return Contender{Name: name, Start: func() (Client, func(), error) {
		req, err := handlersRequest()
		if err != nil {
			return nil, nil, err
		}
		res := connect.NewResponse(loggedMessage())
		unary := i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return res, nil })
		a := &loggedHandler{unary: func(ctx context.Context, m *Message) (*Message, error) {
			_, err := unary(ctx, req)
			return m, err
		}}
		messages := 0
		serve := i.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			for range messages {
				if err := errors.Join(conn.Receive(res.Msg), conn.Send(res.Msg)); err != nil {
					return err
				}
			}
			return nil
		})
		conn := &freeConn{header: make(http.Header)}
		a.stream = func(ctx context.Context, n int) error {
			messages = n
			return serve(ctx, conn)
		}
		return a.start()
	}}
}

// handlersRequest returns a request as interceptors of handlers get it.
func handlersRequest() (req connect.AnyRequest, _ error) {
	grab := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			req = r
			return next(ctx, r)
		}
	})
	r := httptest.NewRequest(http.MethodPost, unaryProcedure, http.NoBody)
	r.Header.Set("Content-Type", "application/proto")
	w := httptest.NewRecorder()
	newConnectHandler(service{}, connect.WithInterceptors(grab)).ServeHTTP(w, r)
	if req == nil {
		return nil, fmt.Errorf("no request arrived: %d", w.Code)
	}
	return req, nil
}

// freeConn is a handler's stream whose operations cost nothing.
type freeConn struct{ header http.Header }

func (c *freeConn) Spec() connect.Spec {
	return connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: echoProcedure}
}

func (c *freeConn) Peer() connect.Peer {
	return connect.Peer{Addr: "192.0.2.1:1234", Protocol: connect.ProtocolGRPC}
}
func (c *freeConn) Receive(any) error            { return nil }
func (c *freeConn) Send(any) error               { return nil }
func (c *freeConn) RequestHeader() http.Header   { return c.header }
func (c *freeConn) ResponseHeader() http.Header  { return c.header }
func (c *freeConn) ResponseTrailer() http.Header { return c.header }

// peerLogContender is go-grpc-middleware's interceptor.
func peerLogContender(name string, h slog.Handler, events ...logging.LoggableEvent) Contender {
	logger := slog.New(h)
	adapter := logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		logger.Log(ctx, slog.Level(level), msg, fields...)
	})
	unary := logging.UnaryServerInterceptor(adapter, logging.WithLogOnEvents(events...))
	stream := logging.StreamServerInterceptor(adapter, logging.WithLogOnEvents(events...))
	return Contender{Name: name, Start: func() (Client, func(), error) {
		m := loggedMessage()
		unaryInfo := &grpc.UnaryServerInfo{FullMethod: unaryProcedure}
		streamInfo := &grpc.StreamServerInfo{FullMethod: echoProcedure, IsClientStream: true, IsServerStream: true}
		a := &loggedHandler{unary: func(ctx context.Context, m *Message) (*Message, error) {
			_, err := unary(ctx, m, unaryInfo, func(context.Context, any) (any, error) { return m, nil })
			return m, err
		}}
		a.stream = func(ctx context.Context, n int) error {
			return stream(nil, &freeStream{ctx: ctx}, streamInfo, func(_ any, s grpc.ServerStream) error {
				for range n {
					if err := errors.Join(s.RecvMsg(m), s.SendMsg(m)); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return a.start()
	}}
}

// freeStream is a grpc-go handler's stream whose operations cost nothing.
type freeStream struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // grpc-go's streams have one
}

func (s *freeStream) Context() context.Context { return s.ctx }
func (s *freeStream) RecvMsg(any) error        { return nil }
func (s *freeStream) SendMsg(any) error        { return nil }
