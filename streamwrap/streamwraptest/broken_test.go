package streamwraptest_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

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
	for _, b := range brokenInterceptors() {
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
			if findings := broken[b.breaks[0]]; !strings.Contains(findings, b.says) {
				t.Errorf("rule %q says %q, want %q in it", b.breaks[0], findings, b.says)
			}
		})
	}
}

func TestEveryRuleIsTested(t *testing.T) {
	t.Parallel()
	caught := make(map[string]bool)
	for _, b := range brokenInterceptors() {
		for _, name := range b.breaks {
			caught[name] = true
		}
	}
	for _, rule := range streamwraptest.Rules() {
		if !caught[rule] {
			t.Errorf("no broken interceptor breaks the rule %q", rule)
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
