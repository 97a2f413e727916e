package streamwraptest_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

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
	var shared mutantClientConn
	return []brokenInterceptor{{
		name: "keeps the stream in the interceptor",
		mutant: &mutant{client: func(ctx context.Context, spec connect.Spec, next connect.StreamingClientFunc) connect.StreamingClientConn {
			shared.StreamingClientConn = next(ctx, spec)
			return &shared
		}},
		breaks: []string{"concurrency"},
		says:   `two streams at once: sent [], want ["request 1"]`,
	}, {
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
		says:   "the server saw a complete request",
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
