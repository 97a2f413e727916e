package logging_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
)

// serving returns a server's config whose handlers of all kinds call f first.
func serving(f func(context.Context), options ...connect.HandlerOption) conntest.Config {
	return conntest.Config{
		HandlerOptions: options,
		Service: conntest.Service{
			Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				f(ctx)
				return connect.NewResponse(req.Msg), nil
			},
			Client: func(ctx context.Context, s *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
				f(ctx)
				for s.Receive() {
					continue
				}
				return connect.NewResponse(conntest.Text("")), s.Err()
			},
			Server: func(ctx context.Context, _ *connect.Request[conntest.Message], s *connect.ServerStream[conntest.Message]) error {
				f(ctx)
				return s.Send(conntest.Text(""))
			},
			Bidi: func(ctx context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
				f(ctx)
				_, _ = s.Receive()
				return s.Send(conntest.Text(""))
			},
		},
	}
}

// TestAdd: handlers of all kinds add to their record, from many goroutines; the last
// value of a key wins, and what is too many is counted.
func TestAdd(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var j journal
		kept := make(chan context.Context, 1)
		i := logging.NewInterceptor(j.logger(slog.LevelDebug))
		srv := c.Start(t, serving(func(ctx context.Context) {
			kept <- ctx
			logging.Add(ctx, slog.String("user", "nobody"), slog.Int("n", 1))
			logging.Add(ctx, slog.String("user", "ada"), slog.Any("text", wrapperspb.String("shown")),
				slog.Group("group", slog.Any("text", record(func(r *dynamic) { r.set("secret", secret) }))))
			var workers sync.WaitGroup
			for worker := range 8 {
				workers.Go(func() {
					for n := range 16 {
						logging.Add(ctx, slog.Int(fmt.Sprintf("%d.%d", worker, n), n))
					}
				})
			}
			workers.Wait()
		}, connect.WithInterceptors(i)))
		c.Clients(srv).Do(t.Context(), c.Kind, nil, "text")
		srv.WaitCalls(1)
		logging.Add(<-kept, slog.Bool("late", true)) // does nothing
		line := j.only(t, "rpc")
		want(t, line, map[string]any{"user": "ada", "n": 1, "text": "shown", "late": nil, "log.attrs_dropped": 4 + 8*16 - 64})
		group, _ := line["group"].(map[string]any)
		if text, _ := group["text"].(map[string]any); text["secret"] != "[REDACTED]" {
			t.Errorf("a message in a group is %v", line["group"])
		}
		added := 0
		for worker := range 8 {
			for n := range 16 {
				if line[fmt.Sprintf("%d.%d", worker, n)] == float64(n) {
					added++
				}
			}
		}
		if added != 64-4 {
			t.Errorf("%d were added beside the first four", added)
		}
	})
	logging.Add(t.Context(), slog.Bool("nowhere", true)) // outside of an RPC nothing happens
}

// TestNestedCalls: what a handler adds is the handler's, whatever it calls; what is added
// behind the interceptor on a client is the client's.
func TestNestedCalls(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.GRPC}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var j journal
		i := logging.NewInterceptor(j.logger(slog.LevelDebug))
		adding := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				logging.Add(ctx, slog.String("of", "client"))
				return next(ctx, req)
			}
		})
		inner := c.Start(t, conntest.Config{})
		outer := c.Start(t, serving(func(ctx context.Context) {
			clients := c.Clients(inner, connect.WithInterceptors(i, adding))
			clients.Do(ctx, connect.StreamTypeUnary, nil, "text")
			logging.Add(ctx, slog.String("of", "handler"))
		}, connect.WithInterceptors(i)))
		c.Clients(outer).Do(t.Context(), c.Kind, nil, "text")
		outer.WaitCalls(1)
		records := j.records(t, "rpc")
		if len(records) != 2 {
			t.Fatalf("%d records:\n%s", len(records), &j)
		}
		want(t, records[0], map[string]any{"rpc.kind": "client", "of": "client"})
		want(t, records[1], map[string]any{"rpc.kind": "server", "of": "handler"})
	})
}

// TestFromContext: records of a handler's own say which RPC they are of.
func TestFromContext(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var j journal
		i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithTraceIDs(func(context.Context) (string, string) { return "trace", "span" }))
		srv := c.Start(t, serving(func(ctx context.Context) {
			logging.FromContext(ctx).InfoContext(ctx, "own", "n", 1)
			logging.FromContext(ctx).WithGroup("g").Info("own", "n", 2)
		}, connect.WithInterceptors(i)))
		c.Clients(srv).Do(t.Context(), c.Kind, nil, "text")
		srv.WaitCalls(1)
		own, rpc := j.records(t, "own"), j.only(t, "rpc")
		if len(own) != 2 {
			t.Fatal(&j)
		}
		for _, record := range own {
			for _, key := range []string{"call.id", "rpc.method", "rpc.kind", "trace_id", "span_id", "connect.protocol"} {
				if record[key] == nil || record[key] != rpc[key] {
					t.Errorf("%s is %v, and %v in the RPC's record", key, record[key], rpc[key])
				}
			}
		}
		want(t, own[0], map[string]any{"n": 1})
	})
	if logging.FromContext(t.Context()) != slog.Default() {
		t.Error("outside of an RPC it is another logger than the default")
	}
}

// TestFromContextOfAChildSpan: whoever asks first, and in whichever span of a handler's
// own, the logger has the ids of the RPC.
func TestFromContextOfAChildSpan(t *testing.T) {
	t.Parallel()
	type span struct{}
	in := func(ctx context.Context, id string) context.Context { return context.WithValue(ctx, span{}, id) }
	var j journal
	i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithTraceIDs(func(ctx context.Context) (string, string) {
		id, _ := ctx.Value(span{}).(string)
		return "trace", id
	}))
	f := i.WrapUnary(func(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
		logging.FromContext(in(ctx, "child")).Info("own")
		logging.FromContext(ctx).Info("own")
		return connect.NewResponse(conntest.Text("")), nil
	})
	if _, err := f(in(t.Context(), "rpc"), conntest.UnaryRequest(t, false)); err != nil {
		t.Fatal(err)
	}
	for _, record := range append(j.records(t, "own"), j.only(t, "rpc")) {
		want(t, record, map[string]any{"trace_id": "trace", "span_id": "rpc"})
	}
}
