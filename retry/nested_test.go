package retry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// services are a backend, and a frontend whose handlers call it and return its error.
func services(t *testing.T, c conntest.Case, p retry.Policy, change func(error) error) (frontend, backend *conntest.Server) {
	backend = c.Start(t, conntest.Config{})
	clients := retrying(c, backend, p)
	frontend = c.Start(t, conntest.Config{
		HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(retry.NewInterceptor(retry.Policy{}))},
		Service: failing(func(ctx context.Context) error {
			err := clients.Do(ctx, c.Kind, nil, "text").Err
			if err != nil && change != nil {
				err = change(err)
			}
			return err
		}),
	})
	return frontend, backend
}

// TestOneLayerRetries: the backend is down. The frontend tries three times and then
// says that there is no point in asking again, so that its own client does not.
func TestOneLayerRetries(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(error) error{
		"as it is": nil,
		"wrapped":  func(err error) error { return fmt.Errorf("backend: %w", err) },
		"as another": func(err error) error {
			return connect.NewError(connect.CodeUnavailable, fmt.Errorf("backend: %w", err))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				frontend, backend := services(t, c, eager(), change)
				backend.Inject(notNow, notNow, notNow, notNow, notNow, notNow, notNow, notNow, notNow)
				reply := retrying(c, frontend, eager()).Do(t.Context(), c.Kind, nil, "text")
				if len(frontend.Calls()) != 1 || len(backend.Calls()) != 3 || connect.CodeOf(reply.Err) != connect.CodeUnavailable {
					t.Errorf("%d and %d calls: %v", len(frontend.Calls()), len(backend.Calls()), reply.Err)
				}
				e := (*connect.Error)(nil)
				if !errors.As(reply.Err, &e) || e.Meta().Get(pushbackKey) != "-1" || len(e.Details()) != map[bool]int{true: 0, false: 1}[name == "as another"] {
					t.Errorf("%v, %v", e.Meta(), e.Details())
				}
				if got := e.Meta().Get(conntest.ErrorHeader); got != "" {
					t.Errorf("the backend's metadata is passed on: %q", got)
				}
			})
		})
	}
}

// TestARetryIsNotRetried: a handler that serves a retry leaves it to its client to
// go on.
func TestARetryIsNotRetried(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		frontend, backend := services(t, c, eager(), func(error) error {
			return connect.NewError(connect.CodeUnavailable, errors.New("a new one"))
		})
		for range 9 {
			backend.Inject(notNow)
		}
		reply := retrying(c, frontend, eager()).Do(t.Context(), c.Kind, nil, "text")
		if len(frontend.Calls()) != 3 || len(backend.Calls()) != 3+1+1 || reply.Err == nil {
			t.Errorf("%d and %d calls: %v", len(frontend.Calls()), len(backend.Calls()), reply.Err)
		}
	})
}

// TestARetryIsNotHedged: hedges are load too.
func TestARetryIsNotHedged(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		p := eager()
		p.Hedge = time.Second
		frontend, backend := services(t, c, p, func(error) error {
			return connect.NewError(connect.CodeUnavailable, errors.New("a new one"))
		})
		no := conntest.Fail(connect.CodeNotFound, "no")
		backend.Inject(no, conntest.Delay(time.Minute), conntest.Delay(time.Minute), conntest.Delay(time.Minute))
		retrying(c, frontend, eager()).Do(t.Context(), c.Kind, nil, "text")
		if got := len(backend.Calls()); got != 2 {
			t.Errorf("%d calls", got)
		}
	})
}

// TestWhatWasNeverSentIsNoRetry: a handler that serves a retry looks for a server
// that listens all the same.
func TestWhatWasNeverSentIsNoRetry(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		serve := 0
		backend := c.Start(t, conntest.Config{})
		clients := retrying(c, backend, eager())
		frontend := c.Start(t, conntest.Config{Service: failing(func(ctx context.Context) error {
			if serve++; serve == 1 {
				return connect.NewError(connect.CodeUnavailable, errors.New("not now"))
			}
			backend.RefuseDials(true)
			time.AfterFunc(time.Second/2, func() { backend.RefuseDials(false) })
			return clients.Do(ctx, c.Kind, nil, "text").Err
		})})
		reply := retrying(c, frontend, eager()).Do(t.Context(), c.Kind, nil, "text")
		if reply.Err != nil || len(frontend.Calls()) != 2 || len(backend.Calls()) != 1 {
			t.Errorf("%d and %d calls: %v", len(frontend.Calls()), len(backend.Calls()), reply.Err)
		}
	})
}

// TestOnlyExhaustedRetriesAreFinal: what never was tried again, a client may try.
func TestOnlyExhaustedRetriesAreFinal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy retry.Policy
		ctx    func(context.Context) context.Context
	}{
		"not idempotent": {retry.Policy{}, nil},
		"disabled":       {eager(), retry.Disable},
		"one attempt":    {retry.Policy{MaxAttempts: 1, AssumeIdempotent: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				backend := c.Start(t, conntest.Config{})
				clients := retrying(c, backend, test.policy)
				frontend := c.Start(t, conntest.Config{
					HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(retry.NewInterceptor(retry.Policy{}))},
					Service: failing(func(ctx context.Context) error {
						if test.ctx != nil {
							ctx = test.ctx(ctx)
						}
						return clients.Do(ctx, c.Kind, nil, "text").Err
					}),
				})
				backend.Inject(notNow)
				if reply := retrying(c, frontend, eager()).Do(t.Context(), c.Kind, nil, "text"); reply.Err != nil || len(frontend.Calls()) != 2 {
					t.Errorf("%d calls: %v", len(frontend.Calls()), reply.Err)
				}
			})
		})
	}
}

// TestAHandlersOwnMetadataStays: only what another server sent is not passed on.
func TestAHandlersOwnMetadataStays(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		frontend, backend := services(t, c, eager(), func(err error) error {
			own := connect.NewError(connect.CodeInternal, fmt.Errorf("backend: %w", err))
			own.Meta().Set("Request-Id", "7")
			return own
		})
		backend.Inject(notNow, notNow, notNow)
		reply := c.Clients(frontend).Do(t.Context(), c.Kind, nil, "text")
		e := (*connect.Error)(nil)
		if !errors.As(reply.Err, &e) || e.Meta().Get("Request-Id") != "7" || e.Meta().Get(pushbackKey) != "-1" {
			t.Errorf("%v: %v", e, e.Meta())
		}
	})
}

// TestOneInterceptorRetries: two in a chain do not multiply attempts.
func TestOneInterceptorRetries(t *testing.T) {
	t.Parallel()
	for name, inner := range map[string]retry.Policy{"same": eager(), "hedging": {AssumeIdempotent: true, Hedge: time.Millisecond}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				srv.Inject(slices.Repeat([]conntest.Fault{notNow}, 9)...)
				clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), retry.NewInterceptor(inner)))
				err := clients.Do(t.Context(), c.Kind, nil, "text").Err
				if got := len(srv.Calls()); got != 3 || connect.CodeOf(err) != connect.CodeUnavailable || len(retry.HistoryOf(err)) != 3 {
					t.Errorf("%d calls: %v", got, err)
				}
			})
		})
	}
}
