package retry_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		policy retry.Policy
		want   []string // one for each thing that is wrong
	}{
		"zero":              {retry.Policy{}, nil},
		"the limits":        {retry.Policy{MaxAttempts: 5, Codes: []connect.Code{1, 16}, MaxTransportRetries: -1}, nil},
		"one attempt":       {retry.Policy{MaxAttempts: 1, MaxServerDelay: time.Second, AttemptTimeout: time.Second}, nil},
		"hedges":            {retry.Policy{Hedge: time.Second, AttemptTimeout: 2 * time.Second}, nil},
		"no codes":          {retry.Policy{Codes: []connect.Code{}}, nil},
		"too many attempts": {retry.Policy{MaxAttempts: 6}, []string{"MaxAttempts is not in 1 to 5: 6"}},
		"negative attempts": {retry.Policy{MaxAttempts: -1}, []string{"MaxAttempts is not in 1 to 5: -1"}},
		"code 0":            {retry.Policy{Codes: []connect.Code{0}}, []string{"Codes has one that is none: 0"}},
		"code 17":           {retry.Policy{Codes: []connect.Code{connect.CodeAborted, 17}}, []string{"Codes has one that is none: 17"}},
		"AttemptTimeout":    {retry.Policy{AttemptTimeout: -time.Second}, []string{"AttemptTimeout is negative: -1s"}},
		"MinRemaining":      {retry.Policy{MinRemaining: -time.Second}, []string{"MinRemaining is negative: -1s"}},
		"MaxServerDelay":    {retry.Policy{MaxServerDelay: -time.Second}, []string{"MaxServerDelay is negative: -1s"}},
		"Hedge":             {retry.Policy{Hedge: -time.Second}, []string{"Hedge is negative: -1s"}},
		"one with backoff":  {retry.Policy{MaxAttempts: 1, Backoff: retry.Constant(0)}, []string{"Backoff with one attempt"}},
		"one with codes":    {retry.Policy{MaxAttempts: 1, Codes: []connect.Code{1}}, []string{"Codes with one attempt"}},
		"one with hedges":   {retry.Policy{MaxAttempts: 1, Hedge: 1}, []string{"Hedge with one attempt"}},
		"late hedges":       {retry.Policy{Hedge: 2, AttemptTimeout: 2}, []string{"Hedge is not below AttemptTimeout: 2ns, 2ns"}},
		"a lot": {
			retry.Policy{MaxAttempts: 9, Codes: []connect.Code{99}, AttemptTimeout: -1, MinRemaining: -1, MaxServerDelay: -1, Hedge: -1},
			[]string{
				"MaxAttempts is not in 1 to 5: 9", "Codes has one that is none: 99", "AttemptTimeout is negative: -1ns",
				"MinRemaining is negative: -1ns", "MaxServerDelay is negative: -1ns", "Hedge is negative: -1ns",
			},
		},
		"one with a lot": {
			retry.Policy{MaxAttempts: 1, Codes: []connect.Code{1}, Backoff: retry.Constant(0), Hedge: 1},
			[]string{"Backoff with one attempt", "Codes with one attempt", "Hedge with one attempt"},
		},
	} {
		err := test.policy.Validate()
		var got []string
		if err != nil {
			got = strings.Split(err.Error(), "\n")
		}
		if name == "one with a lot" {
			slices.Sort(got) // in no order so far
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestValidateSaysTheSameEachTime: a text that changes from run to run is no good in
// a test or a log.
func TestValidateSaysTheSameEachTime(t *testing.T) {
	t.Parallel()
	p := retry.Policy{MaxAttempts: 1, Codes: []connect.Code{1}, Backoff: retry.Constant(0), Hedge: 1}
	first := p.Validate().Error()
	for range 50 {
		if got := p.Validate().Error(); got != first {
			t.Fatalf("%q, then %q", first, got)
		}
	}
}

func TestMisusePanics(t *testing.T) {
	t.Parallel()
	bad := retry.Policy{MaxAttempts: 9}
	nan := math.NaN()
	const complaint = "MaxAttempts is not in 1 to 5: 9"
	const pattern = `%q is neither "/pkg.Service/Method" nor "/pkg.Service/"`
	for want, f := range map[string]func(){
		"retry: NewInterceptor: " + complaint:                        func() { retry.NewInterceptor(bad) },
		"retry: WithProcedure: /a.B/C: " + complaint:                 func() { retry.WithProcedure("/a.B/C", bad) },
		"retry: WithProcedure: " + fmt.Sprintf(pattern, ""):          func() { retry.WithProcedure("", retry.Policy{}) },
		"retry: WithProcedure: " + fmt.Sprintf(pattern, "/"):         func() { retry.WithProcedure("/", retry.Policy{}) },
		"retry: WithProcedure: " + fmt.Sprintf(pattern, "//"):        func() { retry.WithProcedure("//", retry.Policy{}) },
		"retry: WithProcedure: " + fmt.Sprintf(pattern, "a.B/C"):     func() { retry.WithProcedure("a.B/C", retry.Policy{}) },
		"retry: WithProcedure: " + fmt.Sprintf(pattern, "/a.B"):      func() { retry.WithProcedure("/a.B", retry.Policy{}) },
		"retry: WithProcedure: /a.B/C comes twice":                   func() { twice(retry.WithProcedure("/a.B/C", retry.Policy{})) },
		"retry: WithPolicy: " + complaint:                            func() { retry.WithPolicy(t.Context(), bad) },
		"retry: WithBudget: nil Budget":                              func() { retry.WithBudget(nil) },
		"retry: WithBufferLimits: not 0 <= perStream <= total":       func() { retry.WithBufferLimits(-1, 1) },
		"retry: WithCloner: nil function":                            func() { retry.WithCloner(nil) },
		"retry: WithObserver: nil function":                          func() { retry.WithObserver(nil) },
		"retry: WithResume: nil function":                            func() { retry.WithResume[int, int]("/a.B/C", nil) },
		"retry: HTTPClient: nil client":                              func() { retry.HTTPClient(nil) },
		"retry: TrailersOnly: nil handler":                           func() { retry.TrailersOnly(nil) },
		"retry: FullJitter: delays are not positive and ascending":   func() { retry.FullJitter(0, 1) },
		"retry: GRPC: delays are not positive and ascending":         func() { retry.GRPC(2, 2, 1) },
		"retry: GRPC: factor below 1":                                func() { retry.GRPC(1, nan, 2) },
		"retry: Decorrelated: delays are not positive and ascending": func() { retry.Decorrelated(2, 1) },
		"retry: Constant: negative delay":                            func() { retry.Constant(-1) },
		"retry: Ratio: negative number":                              func() { retry.Ratio(nan, 1) },
		"retry: TokenBucket: numbers are not positive":               func() { retry.TokenBucket(1, 0) },
		"retry: Concurrent: negative number":                         func() { retry.Concurrent(1, -1) },
		"retry: Adaptive: multiple below 1":                          func() { retry.Adaptive(0.5) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			}()
			f()
		}()
	}
	for _, f := range []func(){
		func() { retry.Ratio(1, -1) }, func() { retry.Ratio(-1, 1) }, func() { retry.TokenBucket(0, 1) }, func() { retry.TokenBucket(nan, 1) },
		func() { retry.Concurrent(-1, 1) }, func() { retry.Concurrent(nan, 1) }, func() { retry.Adaptive(nan) }, func() { retry.FullJitter(2, 1) },
		func() { retry.GRPC(1, 0.9, 2) }, func() { retry.GRPC(0, 2, 2) }, func() { retry.Decorrelated(0, 1) }, func() { retry.WithBufferLimits(2, 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		}()
	}
}

func twice(o retry.Option) { retry.NewInterceptor(retry.Policy{}, o, o) }

// TestPatternOfThreeParts: no procedure looks like this, so that it is a mistake.
func TestPatternOfThreeParts(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"/a/b/c", "/a.B//", "/a.B/C/", "/a.B/C/D"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q: no panic", pattern)
				}
			}()
			retry.WithProcedure(pattern, retry.Policy{})
		}()
	}
}

func TestWorstCase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		policy retry.Policy
		layers int
		want   int
	}{
		{retry.Policy{}, 1, (3 + 3) * 4},
		{retry.Policy{}, 0, 24},
		{retry.Policy{}, 2, 24 * 24},
		{retry.Policy{MaxTransportRetries: -1}, 1, 3},
		{retry.Policy{MaxTransportRetries: -1}, 3, 27},
		{retry.Policy{MaxAttempts: 1, MaxTransportRetries: -1}, 4, 1},
		{retry.Policy{MaxAttempts: 5, MaxTransportRetries: 1}, 1, 12},
	} {
		if got := test.policy.WorstCase(test.layers); got != test.want {
			t.Errorf("%+v, %d layers: %d, want %d", test.policy, test.layers, got, test.want)
		}
	}
}

// attemptsWith counts the attempts at a procedure that always fails.
func attemptsWith(ctx context.Context, i connect.Interceptor, procedure string) (attempts int) {
	rpc := streamwraptest.RPC{Spec: connect.Spec{Procedure: procedure, IdempotencyLevel: connect.IdempotencyIdempotent}}
	_, _ = streamwraptest.CallUnary(ctx, i, rpc, conntest.Text("text"),
		func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			attempts++
			return nil, connect.NewWireError(connect.CodeUnavailable, nil)
		})
	return attempts
}

func TestWhichPolicyHolds(t *testing.T) {
	t.Parallel()
	tries := func(n int) retry.Policy { return retry.Policy{MaxAttempts: n} }
	synctest.Test(t, func(t *testing.T) {
		i := retry.NewInterceptor(tries(5), retry.WithProcedure("/a.B/C", tries(2)), retry.WithProcedure("/a.B/", tries(4)),
			retry.WithBudget(retry.Unlimited()))
		for _, test := range []struct {
			ctx       context.Context
			procedure string
			want      int
		}{
			{t.Context(), "/a.B/C", 2},
			{t.Context(), "/a.B/D", 4},
			{t.Context(), "/a.B/CC", 4},
			{t.Context(), "/a.BB/C", 5},
			{t.Context(), "/a/B", 5},
			{retry.WithPolicy(t.Context(), tries(3)), "/a.B/C", 3},
			{retry.WithPolicy(t.Context(), retry.Policy{}), "/a.B/C", 3}, // all of the policy, not a part
			{retry.Disable(t.Context()), "/a.B/C", 1},
			{retry.WithPolicy(retry.Disable(t.Context()), tries(2)), "/a.B/C", 2},
			{retry.Disable(retry.WithPolicy(t.Context(), tries(2))), "/a.B/C", 1},
		} {
			if got := attemptsWith(test.ctx, i, test.procedure); got != test.want {
				t.Errorf("%s: %d attempts, want %d", test.procedure, got, test.want)
			}
		}
		if got := attemptsWith(t.Context(), retry.NewInterceptor(tries(2)), "/a.B/C"); got != 2 {
			t.Errorf("without WithProcedure: %d attempts", got)
		}
	})
}

// TestPolicyIsOfStreamsToo: all kinds of RPC ask for theirs.
func TestPolicyIsOfStreamsToo(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for want, ctx := range map[int]context.Context{1: retry.Disable(t.Context()), 2: retry.WithPolicy(t.Context(), retry.Policy{MaxAttempts: 2, AssumeIdempotent: true}), 5: t.Context()} {
			srv := c.Start(t, conntest.Config{})
			srv.Inject(notNow, notNow, notNow, notNow, notNow)
			service := retry.WithProcedure("/conntest.v1.Echo/", retry.Policy{MaxAttempts: 5, AssumeIdempotent: true})
			if reply := retrying(c, srv, retry.Policy{}, service).Do(ctx, c.Kind, nil, "text"); reply.Err == nil || len(srv.Calls()) != want {
				t.Errorf("%d calls, want %d: %v", len(srv.Calls()), want, reply.Err)
			}
		}
	})
}

// TestPolicyIsCopied: the caller's slice may change later.
func TestPolicyIsCopied(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		codes := []connect.Code{connect.CodeUnavailable}
		i := retry.NewInterceptor(retry.Policy{Codes: codes})
		codes[0] = connect.CodeAborted
		if got := attemptsWith(t.Context(), i, "/a.B/C"); got != 3 {
			t.Errorf("%d attempts", got)
		}
	})
}
