package streamwraptest_test

import (
	"context"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
)

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
			if err == nil || err == io.EOF { // the mistake: it misses wrapped errors
				return err
			}
			return fmt.Errorf("receiving: %v", err) //nolint:errorlint // the mistake: it hides the code
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
			if _, ok := err.(*connect.Error); ok || err == nil { //nolint:errorlint // the mistake: it misses wrapped errors
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
