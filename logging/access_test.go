package logging_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// quiet keeps the panics of tests out of their log.
func quiet(s *http.Server) { s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) }

// TestClientGone: a client that is gone when the response is written changes nothing
// for the handler, and makes no second record.
func TestClientGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		logger := j.logger(slog.LevelDebug)
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
		srv := conntest.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(logging.NewInterceptor(logger))}, Wrap: engine.Handler,
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		reply := srv.Clients().Do(ctx, connect.StreamTypeUnary, conntest.WithFaults(conntest.IgnoreContext()), "text")
		if connect.CodeOf(reply.Err) != connect.CodeDeadlineExceeded {
			t.Error(reply.Err)
		}
		srv.Release()
		srv.WaitCalls(1)
		want(t, j.only(t, ""), map[string]any{"msg": "rpc", "rpc.intercepted": nil})
	})
}

// TestReplacedResponses: middleware within the Engine that answers instead of connect
// is what the record tells of.
func TestReplacedResponses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		logger := j.logger(slog.LevelDebug)
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
		srv := conntest.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(logging.NewInterceptor(logger))},
			Wrap: func(mux http.Handler) http.Handler {
				return engine.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					mux.ServeHTTP(httptest.NewRecorder(), r)
					http.Error(w, "no", http.StatusServiceUnavailable)
				}))
			},
		})
		srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "text")
		srv.WaitCalls(1)
		want(t, j.only(t, ""), map[string]any{
			"level": "ERROR", "connect.outcome": "failed", "error.type": "503", "http.response.status_code": 503,
		})
	})
}

// TestOtherRequests: a page of the same server has its record, which does not call it an
// RPC's.
func TestOtherRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(j.logger(slog.LevelDebug), logging.WithRequestMetadata("user-agent"))))
		srv := conntest.Start(t, conntest.Config{Wrap: func(mux http.Handler) http.Handler {
			outer := http.NewServeMux()
			outer.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") })
			outer.Handle("/", mux)
			return engine.Handler(outer)
		}})
		unseen{method: http.MethodGet, path: "/health?secret=1"}.send(t, srv)
		synctest.Wait()
		want(t, j.only(t, ""), map[string]any{
			"level": "INFO", "rpc.method": "_OTHER", "url.path": "/health", "http.request.method": "GET", "http.response.status_code": 200,
			"http.response.body.size": 4, "rpc.intercepted": false, "connect.outcome": "completed", "error.type": nil,
			"rpc.system.name": nil, "connect.protocol": nil, "rpc.response.status_code": nil, "call.id": nil,
			"network.peer.address": "192.0.2.2", "rpc.request.metadata.user-agent": "Go-http-client/2.0",
		})
		j.buf.Reset()
		srv.Clients(connect.WithGRPC()).Do(t.Context(), connect.StreamTypeUnary, nil, "text") // of which no interceptor knows
		srv.WaitCalls(1)
		want(t, j.only(t, ""), map[string]any{
			"url.path": conntest.UnaryProcedure, "rpc.system.name": "grpc", "rpc.response.status_code": "OK", "rpc.intercepted": false,
		})
	})
}

// TestTwoLoggers: each has its record, of which the first one's is the access log's.
func TestTwoLoggers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var first, second, access journal
		engine := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(access.logger(slog.LevelDebug))))
		srv := conntest.Start(t, conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(
				logging.NewInterceptor(first.logger(slog.LevelDebug)), logging.NewInterceptor(second.logger(slog.LevelDebug)),
			)},
			Wrap: engine.Handler,
		})
		srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "text")
		srv.WaitCalls(1)
		want(t, first.only(t, ""), map[string]any{"http.response.status_code": 200})
		want(t, second.only(t, ""), map[string]any{"http.response.status_code": nil})
		if access.String() != "" {
			t.Error(&access)
		}
	})
}

// TestHandlerWithinAHandler: one that is called within the process, with the context of
// another, has a record of its own and leaves that of the request alone.
func TestHandlerWithinAHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		logger := j.logger(slog.LevelDebug)
		i := logging.NewInterceptor(logger)
		inner := http.NewServeMux()
		register(inner, connect.WithInterceptors(i))
		alone := func(ctx context.Context) {
			r := httptest.NewRequest(http.MethodGet, getProcedure+"?encoding=proto&message=", http.NoBody)
			inner.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx))
		}
		for _, options := range [][]connect.HandlerOption{{connect.WithInterceptors(i)}, nil} { // of the outer one
			j.buf.Reset()
			config := serving(alone, options...)
			config.Wrap = streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger))).Handler
			srv := conntest.Start(t, config)
			srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil, "text")
			srv.WaitCalls(1)
			records := j.records(t, "rpc")
			if len(records) != 2 {
				t.Fatal(&j)
			}
			want(t, records[0], map[string]any{"rpc.method": "conntest.v1.Echo/Get", "http.response.status_code": nil})
			want(t, records[1], map[string]any{"http.response.status_code": 200})
			if options != nil {
				want(t, records[1], map[string]any{"rpc.method": "conntest.v1.Echo/Unary"})
			}
		}
	})
}

// TestEndAfterTheRequest: a hook that still runs, on a goroutine that the handler left
// behind, when the request is over: the record comes then, once, and with the status.
func TestEndAfterTheRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var j journal
		logger := j.logger(slog.LevelDebug)
		entered, release := make(chan struct{}), make(chan struct{})
		blocking := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
				return nil, &struct{}{}, nil
			},
			Receive: func(*struct{}, context.Context) error {
				close(entered)
				<-release
				return nil
			},
		})
		config := conntest.Config{
			HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(logging.NewInterceptor(logger), blocking)},
			Service: conntest.Service{Bidi: func(_ context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
				go func() { _, _ = s.Receive() }()
				<-entered
				return nil
			}},
			Wrap: streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger))).Handler,
		}
		srv := conntest.Start(t, config)
		stream := srv.Clients().Bidi.CallBidiStream(t.Context())
		_ = stream.Send(nil)
		_, _ = stream.Receive()
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
		srv.WaitCalls(1)
		if j.String() != "" {
			t.Errorf("a record before the end: %s", &j)
		}
		close(release)
		synctest.Wait()
		want(t, j.only(t, ""), map[string]any{"http.response.status_code": 200, "connect.outcome": "completed"})
	})
}
