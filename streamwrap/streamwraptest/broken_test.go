package streamwraptest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// brokenInterceptor is an interceptor with a mistake that was found in the wild,
// or that is easily made.
type brokenInterceptor struct {
	name   string
	mutant *mutant
	breaks []string // the rules that catch it
	says   string   // part of what the first of these rules says
}

func TestRunCatches(t *testing.T) {
	t.Parallel()
	caught := make(map[string]bool)
	t.Run("all", func(t *testing.T) {
		for _, b := range brokenInterceptors() {
			for _, name := range b.breaks {
				caught[name] = true
			}
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				broken, _ := streamwraptest.Broken(t, func() connect.Interceptor { return b.mutant })
				got := slices.Sorted(maps.Keys(broken))
				if want := slices.Sorted(slices.Values(b.breaks)); !slices.Equal(got, want) {
					t.Errorf("caught by %q, want %q", got, want)
					for rule, findings := range broken {
						t.Logf("%s:\n%s", rule, findings)
					}
				}
				if len(b.breaks) > 0 && !strings.Contains(broken[b.breaks[0]], b.says) {
					t.Errorf("rule %q says %q, want %q in it", b.breaks[0], broken[b.breaks[0]], b.says)
				}
			})
		}
	})
	for _, rule := range streamwraptest.Rules() {
		if !caught[rule] {
			t.Errorf("no interceptor in this test breaks the rule %q", rule)
		}
	}
}

func brokenInterceptors() []brokenInterceptor {
	return slices.Concat(
		brokenOpens(), brokenMessages(), brokenErrors(), brokenMetadata(), brokenConcurrency(), brokenEnds(),
	)
}

// each returns a mutant whose conns have these hooks.
func each(hooks connHooks) *mutant { return &mutant{conn: func() connHooks { return hooks }} }

func brokenOpens() []brokenInterceptor {
	return []brokenInterceptor{{
		// easyCZ/connect-go-prometheus
		name: "returns a nil conn",
		mutant: &mutant{client: func(context.Context, connect.Spec, connect.StreamingClientFunc) connect.StreamingClientConn {
			return nil
		}},
		breaks: []string{"open"},
		says:   "WrapStreamingClient returned a nil conn",
	}, {
		// easyCZ/connect-go-prometheus
		name: "never calls next on handlers",
		mutant: &mutant{handler: func(context.Context, connect.StreamingHandlerConn, connect.StreamingHandlerFunc) error {
			return nil
		}},
		breaks: []string{"open"},
		says:   "next was called 0 times",
	}, {
		name: "opens a second stream to be safe",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			_ = next(ctx, spec)
			return next(ctx, spec)
		}},
		breaks: []string{"open"},
		says:   "next was called 2 times",
	}, {
		name: "calls next without the RPC's context",
		mutant: &mutant{unary: func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(_ context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				return next(context.Background(), req)
			}
		}},
		breaks: []string{"open"},
		says:   "not derived from the RPC's",
	}, {
		name: "makes a client context of its own",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			ctx, _ = connect.NewClientContext(ctx)
			return next(ctx, spec)
		}},
		breaks: []string{"wire"},
		says:   "creating a new context in an interceptor is prohibited",
	}}
}

func brokenMessages() []brokenInterceptor {
	count := func() (dropped func() bool) {
		n := 0
		return func() bool { n++; return n == 3 }
	}
	return []brokenInterceptor{{
		name: "loses a message",
		mutant: &mutant{conn: func() connHooks {
			drops := count()
			return connHooks{send: func(inner sender, msg any) error {
				if drops() {
					return nil
				}
				return inner.Send(msg)
			}}
		}},
		breaks: []string{"messages"},
		says:   `2 messages left during 3 calls of Send`,
	}, {
		name: "sends a message twice",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			if m, ok := msg.(*wrapperspb.StringValue); ok && m.GetValue() == "request 2" {
				_ = inner.Send(msg)
			}
			return inner.Send(msg)
		}}),
		breaks: []string{"messages"},
		says:   `3 messages left during 2 calls of Send`,
	}, {
		// connect-go #411: decides on the first message in the interceptor.
		name: "eats the first message",
		mutant: &mutant{handler: func(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) error {
			if err := conn.Receive(&wrapperspb.StringValue{}); err != nil {
				return err
			}
			return next(ctx, conn)
		}},
		breaks: []string{"messages"},
	}, {
		name: "changes messages",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			err := inner.Receive(msg)
			if m, ok := msg.(*wrapperspb.StringValue); ok && err == nil {
				m.Value = strings.ToUpper(m.GetValue())
			}
			return err
		}}),
		breaks: []string{"messages"},
	}, {
		name: "drops Send(nil)",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			if msg == nil {
				return nil
			}
			return inner.Send(msg)
		}}),
		breaks: []string{"flush"},
		says:   `arrived as "Send", want "Send(nil) Send Send(nil)"`,
	}, {
		name: "turns Send(nil) into a typed nil",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			m, ok := msg.(*wrapperspb.StringValue)
			if msg != nil && !ok {
				return inner.Send(msg)
			}
			return inner.Send(m)
		}}),
		breaks: []string{"flush"},
		says:   `arrived as "Send Send Send"`,
	}, {
		name: "counts Send(nil) as a message of its own",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			if msg == nil {
				return inner.Send(&wrapperspb.StringValue{})
			}
			return inner.Send(msg)
		}}),
		breaks: []string{"flush"},
		says:   `arrived as "Send Send Send"`,
	}, {
		// Old validate-go, sudorandom/unknownconnect-go.
		name: "inspects a message before it is received",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			if m, ok := msg.(proto.Message); ok && len(m.ProtoReflect().GetUnknown()) > 0 {
				return connect.NewError(connect.CodeInvalidArgument, errors.New("unknown fields"))
			}
			return inner.Receive(msg)
		}}),
		breaks: []string{"ownership"},
		says:   "before Receive had filled it",
	}, {
		name: "keeps messages for an asynchronous log",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			err := inner.Send(msg)
			if m, ok := msg.(fmt.Stringer); ok {
				time.AfterFunc(time.Millisecond, func() { _ = m.String() })
			}
			return err
		}}),
		breaks: []string{"ownership", "allocations"},
		says:   "after Send or Receive had returned",
	}, {
		name: "allocates for each message",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			err := inner.Receive(msg)
			last.Store(&event{at: time.Now(), err: err})
			return err
		}}),
		breaks: []string{"allocations"},
		says:   "broken_test.go",
	}, {
		name: "makes a context for each message",
		mutant: each(connHooks{send: func(inner sender, msg any) error {
			_, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return inner.Send(msg)
		}}),
		breaks: []string{"allocations"},
		says:   "context.WithDeadlineCause",
	}}
}

func brokenErrors() []brokenInterceptor {
	receive := func(f func(err error) error) connHooks {
		return connHooks{receive: func(inner receiver, msg any) error { return f(inner.Receive(msg)) }}
	}
	result := func(f func(err error) error) *mutant {
		return &mutant{
			handler: func(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) error {
				return f(next(ctx, conn))
			},
			unary: func(next connect.UnaryFunc) connect.UnaryFunc {
				return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
					res, err := next(ctx, req)
					return res, f(err)
				}
			},
			conn: func() connHooks { return receive(f) },
		}
	}
	return []brokenInterceptor{{
		name: "turns EOF into success",
		mutant: each(receive(func(err error) error {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})),
		breaks: []string{"eof"},
		says:   "Receive returned <nil>",
	}, {
		name: "turns EOF into another error",
		mutant: each(receive(func(err error) error {
			if errors.Is(err, io.EOF) {
				return connect.NewError(connect.CodeInternal, errors.New("stream closed"))
			}
			return err
		})),
		breaks: []string{"eof"},
		says:   "Receive returned internal: stream closed",
	}, {
		name: "compares errors with io.EOF by ==",
		mutant: each(receive(func(err error) error {
			if err == nil || err == io.EOF { //nolint:errorlint // that is the mistake
				return err
			}
			return fmt.Errorf("receiving: %v", err) //nolint:errorlint // so is this
		})),
		breaks: []string{"eof", "errors"},
		says:   "Receive returned receiving: unknown: EOF",
	}, {
		name: "makes a new error with the same code",
		mutant: result(func(err error) error {
			if err == nil || errors.Is(err, io.EOF) {
				return err
			}
			return connect.NewError(connect.CodeOf(err), errors.New("request failed"))
		}),
		breaks: []string{"errors"},
		says:   "errors.Is does not find its cause",
	}, {
		name: "loses details and metadata",
		mutant: result(func(err error) error {
			if err == nil || errors.Is(err, io.EOF) {
				return err
			}
			return connect.NewError(connect.CodeOf(err), errors.Unwrap(err))
		}),
		breaks: []string{"errors"},
		says:   "0 details, want its 1",
	}, {
		// nucleuscloud/neosync
		name: "asserts the type of errors",
		mutant: result(func(err error) error {
			if _, ok := err.(*connect.Error); ok || err == nil { //nolint:errorlint // that is the mistake
				return err
			}
			return connect.NewError(connect.CodeInternal, err)
		}),
		breaks: []string{"errors"},
		says:   "with the code internal, want the code failed_precondition",
	}, {
		name: "reports success whatever happens",
		mutant: &mutant{handler: func(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) error {
			_ = next(ctx, conn)
			return nil
		}},
		breaks: []string{"errors"},
		says:   "became nil",
	}, {
		name: "ends the stream when a Send fails",
		mutant: &mutant{conn: func() connHooks {
			var failed error
			return connHooks{send: func(inner sender, msg any) error {
				if failed == nil {
					failed = inner.Send(msg)
				}
				return failed
			}}
		}},
		breaks: []string{"errors"},
		says:   "the next Send returned failed_precondition: too large, want nil",
	}, {
		name: "keeps refusals at open to itself",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			conn := next(ctx, spec)
			if conn.Spec() == (connect.Spec{}) {
				return nil
			}
			return conn
		}},
		breaks: []string{"refusal"},
		says:   "WrapStreamingClient returned a nil conn",
	}, {
		name:   "swallows a panic",
		mutant: &mutant{handler: recovering(func(p any) error { return connect.NewError(connect.CodeInternal, fmt.Errorf("%v", p)) })},
		breaks: []string{"panic"},
		says:   "did not come out",
	}, {
		name:   "panics with another value",
		mutant: &mutant{handler: recovering(func(p any) error { panic(fmt.Sprintf("recovered: %v", p)) })},
		breaks: []string{"panic"},
		says:   "want the same one",
	}}
}

func recovering(f func(p any) error) func(context.Context, connect.StreamingHandlerConn, connect.StreamingHandlerFunc) error {
	return func(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = f(p)
			}
		}()
		return next(ctx, conn)
	}
}

func brokenMetadata() []brokenInterceptor {
	return []brokenInterceptor{{
		// The error conns of several authentication interceptors.
		name:   "makes a new header map each time",
		mutant: each(connHooks{requestHeader: func(inner http.Header) http.Header { return inner.Clone() }}),
		breaks: []string{"metadata"},
		says:   "request header as it left",
	}, {
		// mycujoo/go-stdlib
		name: "deletes a header so that it is not logged",
		mutant: &mutant{unary: func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				req.Header().Del("Streamwraptest-Secret")
				return next(ctx, req)
			}
		}},
		breaks: []string{"metadata"},
		says:   `request header [], want ["s"]`,
	}, {
		name: "adds headers twice",
		mutant: &mutant{unary: func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				res, err := next(ctx, req)
				if err == nil {
					for key, values := range res.Header() {
						res.Header()[key] = append(values, values...)
					}
				}
				return res, err
			}
		}},
		breaks: []string{"metadata"},
		says:   "response header",
	}}
}

func brokenConcurrency() []brokenInterceptor {
	return []brokenInterceptor{{
		name: "has one lock for both sides",
		mutant: &mutant{conn: func() connHooks {
			var mu sync.Mutex
			return connHooks{
				send: func(inner sender, msg any) error {
					mu.Lock()
					defer mu.Unlock()
					return inner.Send(msg)
				},
				receive: func(inner receiver, msg any) error {
					mu.Lock()
					defer mu.Unlock()
					return inner.Receive(msg)
				},
			}
		}},
		breaks: []string{"concurrency"},
		says:   "Send does not return while a Receive waits for a message",
	}, {
		name: "reads the response's header at open",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			conn := next(ctx, spec)
			_ = conn.ResponseHeader()
			return conn
		}},
		breaks: []string{"blocking"},
		says:   "opening the stream waits for the server",
	}, {
		name: "reads the response's header after Send",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			conn := next(ctx, spec)
			return &mutantClientConn{conn, connHooks{send: func(inner sender, msg any) error {
				defer conn.ResponseHeader()
				return inner.Send(msg)
			}}}
		}},
		breaks: []string{"blocking"},
		says:   "the interceptor called ResponseHeader before the server had answered",
	}, {
		name: "closes the request of a stream that was never opened",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			conn := next(ctx, spec)
			context.AfterFunc(ctx, func() { _ = conn.CloseRequest() })
			return conn
		}},
		breaks: []string{"unopened"},
		says:   "the interceptor made the request",
	}, {
		name: "retries what was canceled",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			for {
				err := inner.Receive(msg)
				if err == nil || !errors.Is(err, context.Canceled) {
					return err
				}
				time.Sleep(time.Second)
			}
		}}),
		breaks: []string{"cancel"},
		says:   "Receive does not return although the context ended",
	}, {
		name: "calls every canceled RPC internal",
		mutant: each(connHooks{receive: func(inner receiver, msg any) error {
			err := inner.Receive(msg)
			if errors.Is(err, context.Canceled) {
				return connect.NewError(connect.CodeInternal, err)
			}
			return err
		}}),
		breaks: []string{"cancel"},
		says:   "want the code canceled",
	}, {
		name: "keeps CloseResponse back while it receives",
		mutant: &mutant{conn: func() connHooks {
			var mu sync.Mutex
			return connHooks{
				receive: func(inner receiver, msg any) error {
					mu.Lock()
					defer mu.Unlock()
					return inner.Receive(msg)
				},
				closeResponse: func(inner connect.StreamingClientConn) error {
					mu.Lock()
					defer mu.Unlock()
					return inner.CloseResponse()
				},
			}
		}},
		breaks: []string{"concurrency"},
		says:   "CloseResponse does not return while a Receive waits",
	}}
}

func brokenEnds() []brokenInterceptor {
	return []brokenInterceptor{{
		name: "runs a failed handler again",
		mutant: &mutant{unary: func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				res, err := next(ctx, req)
				if err != nil {
					res, err = next(ctx, req)
				}
				return res, err
			}
		}},
		breaks: []string{"end"},
		says:   "saw 1 and 2 ends of one RPC",
	}, {
		name: "leaves a goroutine until the context ends",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			go func() { <-ctx.Done() }()
			return next(ctx, spec)
		}},
		breaks: []string{"goroutines"},
		says:   "a goroutine is left after the end of the RPC",
	}, {
		name: "leaves a goroutine for ever",
		mutant: &mutant{handler: func(ctx context.Context, conn connect.StreamingHandlerConn, next connect.StreamingHandlerFunc) error {
			go func() {
				for range time.Tick(time.Second) {
				}
			}()
			return next(ctx, conn)
		}},
		breaks: []string{"goroutines"},
		says:   "brokenEnds",
	}, {
		name:   "forgets CloseRequest",
		mutant: each(connHooks{closeRequest: func(connect.StreamingClientConn) error { return nil }}),
		breaks: []string{"close"},
		says:   "CloseRequest did not reach the inner conn",
	}, {
		name:   "forgets CloseResponse",
		mutant: each(connHooks{closeResponse: func(connect.StreamingClientConn) error { return nil }}),
		breaks: []string{"close"},
		says:   "CloseResponse did not reach the inner conn",
	}, {
		name: "ends the request before it closes the response",
		mutant: &mutant{conn: func() connHooks {
			var sent bool
			return connHooks{
				send: func(inner sender, msg any) error {
					sent = true
					return inner.Send(msg)
				},
				closeResponse: func(inner connect.StreamingClientConn) error {
					if sent {
						_ = inner.CloseRequest()
						time.Sleep(time.Millisecond)
					}
					return inner.CloseResponse()
				},
			}
		}},
		breaks: []string{"guard"},
		says:   "but the server saw a complete one",
	}, {
		name: "reads to the end before it closes",
		mutant: each(connHooks{closeResponse: func(inner connect.StreamingClientConn) error {
			for inner.Receive(&wrapperspb.StringValue{}) == nil {
			}
			return inner.CloseResponse()
		}}),
		breaks: []string{"close"},
		says:   "CloseResponse does not return",
	}}
}
