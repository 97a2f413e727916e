package retry_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// counting is a budget that keeps books.
type counting struct {
	refuseBegin, refuseExtra bool

	mu                                    sync.Mutex
	begun, done, extra, released, refused int
	ended                                 map[retry.Class]int
	trouble                               int // ends that say so
	bad                                   []string
}

func (c *counting) Begin(string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.refuseBegin {
		c.begun++
	}
	return !c.refuseBegin
}

func (c *counting) Extra(string) (func(), bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuseExtra {
		c.refused++
		return func() { c.complain("release of what was refused") }, false
	}
	c.extra++
	calls := 0
	return func() {
		c.mu.Lock()
		c.released++
		calls++
		twice := calls > 1
		c.mu.Unlock()
		if twice {
			c.complain("release twice")
		}
	}, true
}

func (c *counting) End(_ string, class retry.Class, retryable bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = make(map[retry.Class]int)
	}
	c.ended[class]++
	if retryable {
		c.trouble++
	}
}

func (c *counting) Done(string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
}

func (c *counting) complain(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bad = append(c.bad, what)
}

// balanced checks the books once all RPCs are over.
func (c *counting) balanced(tb testing.TB, begun, extra, ends int) {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := 0
	for _, n := range c.ended {
		sum += n
	}
	if c.begun != begun || c.done != begun || c.extra != extra || c.released != extra || sum != ends || len(c.bad) > 0 {
		tb.Errorf("begun %d, done %d, want %d; extra %d, released %d, want %d; ended %v, want %d; %v",
			c.begun, c.done, begun, c.extra, c.released, extra, c.ended, ends, c.bad)
	}
}

// TestBooksAreBalanced: whatever becomes of an RPC, what it took it gives back.
func TestBooksAreBalanced(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		faults      []conntest.Fault
		policy      func(*retry.Policy)
		refuse      string        // begin or extra
		within      time.Duration // 0: all the time
		extra, ends int
		begun       int // 0: 1
	}{
		"success":               {ends: 1},
		"retry":                 {faults: []conntest.Fault{notNow}, extra: 1, ends: 2},
		"exhausted":             {faults: []conntest.Fault{notNow, notNow, notNow}, extra: 2, ends: 3},
		"fatal":                 {faults: []conntest.Fault{conntest.Fail(connect.CodeNotFound, "")}, ends: 1},
		"timeouts":              {faults: []conntest.Fault{conntest.Block(), conntest.Block()}, policy: func(p *retry.Policy) { p.AttemptTimeout = time.Second }, extra: 2, ends: 3},
		"refused":               {faults: []conntest.Fault{notNow}, refuse: "extra", ends: 1},
		"not even begun":        {refuse: "begin", begun: -1},
		"the end in an attempt": {faults: []conntest.Fault{notNow, conntest.Block()}, within: 90 * time.Second, extra: 1, ends: 2},
		"the end while waiting": {faults: []conntest.Fault{notNow}, policy: func(p *retry.Policy) { p.Backoff = retry.Constant(time.Hour) }, within: 90 * time.Second, extra: 1, ends: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				srv.Inject(test.faults...)
				p := eager()
				if test.policy != nil {
					test.policy(&p)
				}
				budget := &counting{refuseBegin: test.refuse == "begin", refuseExtra: test.refuse == "extra"}
				ctx, cancel := context.WithCancel(t.Context())
				if test.within > 0 {
					time.AfterFunc(test.within, cancel)
				}
				reply := retrying(c, srv, p, retry.WithBudget(budget)).Do(ctx, c.Kind, nil, "text")
				cancel()
				synctest.Wait()
				begun := 1 + test.begun
				budget.balanced(t, begun, test.extra, test.ends)
				if test.begun < 0 && (connect.CodeOf(reply.Err) != connect.CodeUnavailable || connect.IsWireError(reply.Err) || srv.Requests() != 0) {
					t.Errorf("%d requests: %v", srv.Requests(), reply.Err)
				}
			})
		})
	}
}

// TestBooksOfHedges: the same for attempts beside each other.
func TestBooksOfHedges(t *testing.T) {
	t.Parallel()
	slow := conntest.Delay(10 * time.Second)
	for name, test := range map[string]struct {
		faults      []conntest.Fault
		refuse      bool
		extra, ends int
	}{
		"success":                {nil, false, 0, 1},
		"the second wins":        {[]conntest.Fault{conntest.Block()}, false, 1, 2},
		"the first wins late":    {[]conntest.Fault{conntest.Delay(90 * time.Second), conntest.Block(), conntest.Block()}, false, 2, 3},
		"all are slow":           {[]conntest.Fault{slow, slow, slow}, false, 2, 3},
		"one failed":             {[]conntest.Fault{notNow}, false, 1, 2},
		"all failed":             {[]conntest.Fault{notNow, notNow, notNow}, false, 2, 3},
		"fatal beside a slow":    {[]conntest.Fault{conntest.Block(), conntest.Fail(connect.CodeNotFound, "")}, false, 1, 2},
		"no hedge is lent":       {[]conntest.Fault{slow}, true, 0, 1},
		"no retry is lent":       {[]conntest.Fault{notNow}, true, 0, 1},
		"slow, failed, and next": {[]conntest.Fault{conntest.Block(), notNow}, false, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				srv.Inject(test.faults...)
				p := eager()
				p.Hedge = 3 * time.Second
				budget := &counting{refuseExtra: test.refuse}
				retrying(c, srv, p, retry.WithBudget(budget)).Do(t.Context(), c.Kind, nil, "text")
				synctest.Wait()
				budget.balanced(t, 1, test.extra, test.ends)
			})
		})
	}
}

// TestBooksOfAHedgeThatIsNotNeeded: an attempt answers, or fails for good, while another
// one, which the Budget has lent, waits for the time that the server asked for.
func TestBooksOfAHedgeThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]error{
		"answer":  nil,
		"failure": connect.NewError(connect.CodeNotFound, errNotNow),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: unary}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var calls atomic.Int64
				srv := c.Start(t, conntest.Config{Service: failing(func(context.Context) error {
					if calls.Add(1) == 1 {
						time.Sleep(5 * time.Second)
						return first
					}
					return retry.Pushback(connect.NewError(connect.CodeUnavailable, errNotNow), 30*time.Second)
				})})
				budget := new(counting)
				reply := retrying(c, srv, hedging(), retry.WithBudget(budget)).Do(t.Context(), c.Kind, nil, "text")
				if connect.CodeOf(reply.Err) != connect.CodeOf(first) && reply.Err != nil {
					t.Error(reply.Err)
				}
				synctest.Wait()
				budget.balanced(t, 1, 2, 2)
			})
		})
	}
}

// TestBooksOfStreamsThatAreClosed: before anything came, after, while waiting for
// the next attempt, and while a Receive is under way.
func TestBooksOfStreamsThatAreClosed(t *testing.T) {
	t.Parallel()
	m := conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeBidi}}
	for name, test := range map[string]struct {
		faults      []conntest.Fault
		receive     int // messages before the close
		blocked     bool
		extra, ends int
	}{
		"at once":               {nil, 0, false, 0, 1},
		"after a message":       {nil, 1, false, 0, 1},
		"during the first":      {[]conntest.Fault{conntest.Block()}, 0, true, 0, 1},
		"during the second":     {[]conntest.Fault{conntest.Block().After(1)}, 1, true, 0, 1},
		"while waiting":         {[]conntest.Fault{notNow}, 0, true, 1, 1},
		"in the second attempt": {[]conntest.Fault{notNow, conntest.Block()}, 0, true, 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				srv.Inject(test.faults...)
				budget := new(counting)
				p := eager()
				wait := time.Second
				switch name {
				case "while waiting":
					p.Backoff = retry.Constant(time.Hour)
				case "in the second attempt":
					wait = 3 * time.Second
				}
				stream := retrying(c, srv, p, retry.WithBudget(budget)).Bidi.CallBidiStream(t.Context())
				if err := stream.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
				for range test.receive {
					if _, err := stream.Receive(); err != nil {
						t.Fatal(err)
					}
				}
				received := make(chan error, 1)
				if test.blocked {
					go func() {
						_, err := stream.Receive()
						received <- err
					}()
				}
				time.Sleep(wait)
				_ = stream.CloseRequest()
				_ = stream.CloseResponse()
				if test.blocked {
					if err := <-received; err == nil {
						t.Error("a Receive of a closed stream succeeds")
					}
				}
				synctest.Wait()
				budget.balanced(t, 1, test.extra, test.ends)
			})
		})
	}
}

// TestCloseAndReceiveAtTheSameTime: a stream that is closed in the moment in which
// its first message, or its failure, arrives. It is the race detector's.
func TestCloseAndReceiveAtTheSameTime(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]conntest.Fault{"message": {}, "failure": notNow, "end": conntest.ReturnEarly()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := conntest.Start(t, conntest.Config{})
			budget := new(counting)
			p := retry.Policy{AssumeIdempotent: true, Backoff: retry.Constant(0)}
			client := srv.Clients(connect.WithInterceptors(retry.NewInterceptor(p, retry.WithBudget(budget)))).Bidi
			const rpcs = 200
			for range rpcs {
				srv.Inject(fault)
				stream := client.CallBidiStream(t.Context())
				if err := stream.Send(conntest.Text("one")); err != nil {
					t.Fatal(err)
				}
				var both sync.WaitGroup
				both.Go(func() { _, _ = stream.Receive() })
				both.Go(func() { _ = stream.CloseResponse() })
				both.Wait()
				_ = stream.CloseRequest()
			}
			budget.mu.Lock()
			defer budget.mu.Unlock()
			sum := 0
			for _, n := range budget.ended {
				sum += n
			}
			if budget.begun != rpcs || budget.done != rpcs || budget.extra != budget.released || sum < rpcs || sum > rpcs+budget.extra || len(budget.bad) > 0 {
				t.Errorf("begun %d, done %d, extra %d, released %d, ended %v, %v", budget.begun, budget.done, budget.extra, budget.released, budget.ended, budget.bad)
			}
		})
	}
}

// TestBooksOfAPanic: a server recovers from those of interceptors further in, and
// goes on.
func TestBooksOfAPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{})
		srv.Inject(notNow)
		budget := new(counting)
		attempts := 0
		panics := inner{unary: func(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
			if attempts++; attempts == 2 {
				panic("inner")
			}
			return next(ctx, req)
		}}
		client := srv.Clients(connect.WithInterceptors(retry.NewInterceptor(eager(), retry.WithBudget(budget)), panics)).Unary
		func() {
			defer func() {
				if got := recover(); got != "inner" {
					t.Errorf("recovered %v", got)
				}
			}()
			_, _ = client.CallUnary(t.Context(), connect.NewRequest(conntest.Text("text")))
		}()
		budget.balanced(t, 1, 1, 2)
	})
}

// TestWhatBudgetsAreToldOf: each attempt, with its class, and whether it is a sign of
// trouble: it could have been tried again.
func TestWhatBudgetsAreToldOf(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		budget := new(counting)
		clients := retrying(c, srv, eager(), retry.WithBudget(budget))
		srv.Inject(notNow, conntest.Fail(connect.CodeNotFound, ""), notNow, notNow, notNow)
		for range 3 {
			clients.Do(t.Context(), c.Kind, nil, "text")
		}
		if got := fmt.Sprint(budget.ended, budget.trouble); got != "map[success:1 wire:5] 4" {
			t.Error(got)
		}
	})
}

// TestTokensAreTakenBeforeTheyAreCounted: gRPC's throttling decides after it has
// taken the token of the failure that is to be tried again.
func TestTokensAreTakenBeforeTheyAreCounted(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(notNow)
		reply := retrying(c, srv, eager(), retry.WithBudget(retry.TokenBucket(2, 1))).Do(t.Context(), c.Kind, nil, "text")
		if reply.Err == nil || len(srv.Calls()) != 1 {
			t.Errorf("%d calls, though one of two tokens is left: %v", len(srv.Calls()), reply.Err)
		}
	})
}
