package retry_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// hedging is a policy with an attempt each second.
func hedging() retry.Policy {
	return retry.Policy{AssumeIdempotent: true, Hedge: time.Second}
}

// startsOf returns when the requests arrived, since the first.
func startsOf(calls []conntest.Call) []time.Duration {
	var all []time.Duration
	for _, call := range calls {
		all = append(all, call.Started.Sub(calls[0].Started))
	}
	return all
}

// TestHedges are attempts beside each other. The end of each bubble also shows that
// no goroutine is left.
func TestHedges(t *testing.T) {
	t.Parallel()
	block, notFound := conntest.Block(), conntest.Fail(connect.CodeNotFound, "no")
	const s = time.Second
	for name, test := range map[string]struct {
		faults []conntest.Fault
		policy func(*retry.Policy)
		starts []time.Duration
		took   time.Duration
		code   connect.Code // 0: success
	}{
		"a fast answer":                   {nil, nil, []time.Duration{0}, 0, 0},
		"an answer in time":               {[]conntest.Fault{conntest.Delay(s - 1)}, nil, []time.Duration{0}, s - 1, 0},
		"the second answers":              {[]conntest.Fault{block}, nil, []time.Duration{0, s}, s, 0},
		"the third answers":               {[]conntest.Fault{block, block}, nil, []time.Duration{0, s, 2 * s}, 2 * s, 0},
		"the first answers late":          {[]conntest.Fault{conntest.Delay(5 * s), block, block}, nil, []time.Duration{0, s, 2 * s}, 5 * s, 0},
		"the second is faster":            {[]conntest.Fault{conntest.Delay(5 * s), conntest.Delay(s / 2)}, nil, []time.Duration{0, s}, 1500 * time.Millisecond, 0},
		"no more than MaxAttempts":        {[]conntest.Fault{conntest.Delay(9 * s), block}, func(p *retry.Policy) { p.MaxAttempts = 2 }, []time.Duration{0, s}, 9 * s, 0},
		"a failure brings the next":       {[]conntest.Fault{notNow}, nil, []time.Duration{0, 0}, 0, 0},
		"failures only":                   {[]conntest.Fault{notNow, notNow, notNow}, nil, []time.Duration{0, 0, 0}, 0, connect.CodeUnavailable},
		"a failure beside":                {[]conntest.Fault{conntest.Delay(5 * s), notNow, block}, nil, []time.Duration{0, s, s}, 5 * s, 0},
		"the last fails, the first not":   {[]conntest.Fault{conntest.Delay(5 * s), notNow, notNow}, nil, []time.Duration{0, s, s}, 5 * s, 0},
		"a fatal error ends all":          {[]conntest.Fault{block, notFound}, nil, []time.Duration{0, s}, s, connect.CodeNotFound},
		"a fatal error of the first":      {[]conntest.Fault{notFound}, nil, []time.Duration{0}, 0, connect.CodeNotFound},
		"after a failure at once, a wait": {[]conntest.Fault{notNow, block}, nil, []time.Duration{0, 0, s}, s, 0},
		"attempts have their time": {
			[]conntest.Fault{block, block, block},
			func(p *retry.Policy) { p.AttemptTimeout = 3 * s },
			[]time.Duration{0, s, 2 * s},
			5 * s, connect.CodeDeadlineExceeded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				srv.Inject(test.faults...)
				p := hedging()
				if test.policy != nil {
					test.policy(&p)
				}
				start := time.Now()
				reply := retrying(c, srv, p).Do(t.Context(), c.Kind, nil, "text")
				took := time.Since(start)
				synctest.Wait()
				if diff := cmp.Diff(test.starts, startsOf(srv.Calls())); diff != "" || took != test.took {
					t.Errorf("after %v: %s", took, diff)
				}
				if test.code == 0 && reply.Err != nil || test.code != 0 && connect.CodeOf(reply.Err) != test.code {
					t.Errorf("%v", reply.Err)
				}
				for n, call := range srv.Calls() {
					if call.Ended.IsZero() || call.Err != nil && call.CtxErr == nil && n < len(test.faults) && test.faults[n] == block {
						t.Errorf("the server was not told: %v", call)
					}
				}
			})
		})
	}
}

// TestPushbackOfHedges: -1 stops further ones, but not those under way; a delay is
// that of the next one.
func TestPushbackOfHedges(t *testing.T) {
	t.Parallel()
	const s = time.Second
	refuse := func(tell func(*connect.Error)) error {
		err := connect.NewError(connect.CodeUnavailable, errors.New("not now"))
		tell(err)
		return err
	}
	stop := func(err *connect.Error) { _ = retry.NoRetry(err) }
	later := func(err *connect.Error) { _ = retry.Pushback(err, 4*s) }
	for name, test := range map[string]struct {
		serve  func(ctx context.Context, n int) error
		starts []time.Duration
		took   time.Duration
		fails  bool
	}{
		"stop": {func(_ context.Context, _ int) error { return refuse(stop) }, []time.Duration{0}, 0, true},
		"stop, but one is under way": {func(_ context.Context, n int) error {
			if n == 1 {
				time.Sleep(9 * s)
				return nil
			}
			return refuse(stop)
		}, []time.Duration{0, s}, 9 * s, false},
		"later": {func(_ context.Context, n int) error {
			if n == 1 {
				return refuse(later)
			}
			return nil
		}, []time.Duration{0, 4 * s}, 4 * s, false},
		"later, and one is under way": {func(ctx context.Context, n int) error {
			switch n {
			case 1:
				<-ctx.Done()
				return ctx.Err()
			case 2:
				return refuse(later)
			}
			return nil
		}, []time.Duration{0, s, 5 * s}, 5 * s, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var mu sync.Mutex
				n := 0
				srv := c.Start(t, conntest.Config{Service: failing(func(ctx context.Context) error {
					mu.Lock()
					n++
					number := n
					mu.Unlock()
					return test.serve(ctx, number)
				})})
				start := time.Now()
				reply := retrying(c, srv, hedging()).Do(t.Context(), c.Kind, nil, "text")
				took := time.Since(start)
				synctest.Wait()
				if diff := cmp.Diff(test.starts, startsOf(srv.Calls())); diff != "" || took != test.took || (reply.Err != nil) != test.fails {
					t.Errorf("after %v, %v: %s", took, reply.Err, diff)
				}
			})
		})
	}
}

// TestWhatIsNotHedged: procedures that may not be executed twice, and streams.
func TestWhatIsNotHedged(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, level := range []connect.IdempotencyLevel{connect.IdempotencyUnknown, connect.IdempotencyNoSideEffects, connect.IdempotencyIdempotent} {
			srv := c.Start(t, conntest.Config{})
			srv.Inject(conntest.Delay(time.Minute), conntest.Delay(time.Minute))
			clients := c.Clients(srv, connect.WithIdempotency(level), connect.WithInterceptors(retry.NewInterceptor(retry.Policy{Hedge: time.Second, MaxAttempts: 2})))
			if reply := clients.Do(t.Context(), c.Kind, nil, "text"); reply.Err != nil {
				t.Error(reply.Err)
			}
			want := 1
			if c.Kind == connect.StreamTypeUnary && level != connect.IdempotencyUnknown {
				want = 2
			}
			if got := len(srv.Calls()); got != want {
				t.Errorf("level %d: %d calls, want %d", level, got, want)
			}
		}
	})
}

// TestHedgesAndTheDeadline: a failure brings the next attempt at once, so that a
// backoff that is longer than the time left does not matter.
func TestHedgesAndTheDeadline(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow)
		p := hedging()
		p.Backoff = retry.Constant(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if reply := retrying(c, srv, p).Do(ctx, c.Kind, nil, "text"); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

// TestEndOfHedges: the caller's cancellation and deadline end all attempts.
func TestEndOfHedges(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(conntest.Block(), conntest.Block(), conntest.Block())
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(1500*time.Millisecond, cancel)
		start := time.Now()
		reply := retrying(c, srv, hedging()).Do(ctx, c.Kind, nil, "text")
		if took := time.Since(start); took != 1500*time.Millisecond || connect.CodeOf(reply.Err) != connect.CodeCanceled {
			t.Errorf("after %v: %v", took, reply.Err)
		}
		synctest.Wait()
		for _, call := range srv.Calls() {
			if call.Ended.IsZero() {
				t.Errorf("left: %v", call)
			}
		}
	})
}

// TestMessageIsTheCallersAgain: right after the return, however many attempts are
// being given up. The race detector watches.
func TestMessageIsTheCallersAgain(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: unary}.Each(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Unobserved: true})
		p := hedging()
		p.Hedge, p.MaxAttempts = 20*time.Microsecond, 5
		clients := retrying(c, srv, p, retry.WithBudget(retry.Unlimited()))
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 12 {
					msg := conntest.Text("a message of some length")
					_, err := clients.Unary.CallUnary(t.Context(), connect.NewRequest(msg))
					copy(msg.Value, "changed")
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	})
}
