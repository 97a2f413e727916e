package ratelimit_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestObserver: each decision against an RPC or message is told once, and each that had
// to wait; nothing else is.
func TestObserver(t *testing.T) {
	t.Parallel()
	hour := ratelimit.Limit{Rate: 1. / 3600, Burst: 1}
	eachPlace(t, conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer}},
		func(t *testing.T, c conntest.Case, p place) {
			for name, tt := range map[string]struct {
				rule ratelimit.Rule
				want []string // of two RPCs
			}{
				"allowed":  {ratelimit.Rule{Limiter: plenty()}, nil},
				"refused":  {ratelimit.Rule{Limiter: ratelimit.NewGlobal(hour), Mode: ratelimit.Reject}, []string{"no"}},
				"late":     {ratelimit.Rule{Limiter: ratelimit.NewGlobal(hour), Mode: ratelimit.Wait}, []string{"no"}},
				"waited":   {ratelimit.Rule{Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1}), Mode: ratelimit.Wait}, []string{"yes 1s"}},
				"dry":      {ratelimit.Rule{Limiter: ratelimit.NewGlobal(hour), DryRun: true}, []string{"no dry"}},
				"bytes":    {ratelimit.Rule{Limiter: ratelimit.NewGlobal(hour), On: ratelimit.ReceivedBytes, Mode: ratelimit.Reject}, []string{"no", "no"}},
				"too much": {ratelimit.Rule{Limiter: ratelimit.NewGlobal(hour), Cost: costs(2)}, []string{"no", "no"}},
				"unknown":  {ratelimit.Rule{Limiter: &broken{spy: plenty()}, Mode: ratelimit.Reject}, []string{"yes error", "yes error"}},
				"missing":  {ratelimit.Rule{Key: ratelimit.ByHeader("X-User"), OnMissing: ratelimit.Refuse, Limiter: plenty()}, []string{"no missing", "no missing"}},
				"skipped":  {ratelimit.Rule{Key: ratelimit.ByHeader("X-User"), OnMissing: ratelimit.Skip, Limiter: never{}}, nil},
				"dry miss": {ratelimit.Rule{Key: ratelimit.ByHeader("X-User"), OnMissing: ratelimit.Refuse, Limiter: plenty(), DryRun: true}, []string{"no dry missing", "no dry missing"}},
			} {
				var seen journal
				tt.rule.Name = name
				limits := ratelimit.NewInterceptor(tt.rule, ratelimit.WithObserver(seen.observe))
				_, clients := p.start(t, c, limits, uncompressed)
				for range 2 {
					_ = clients.Do(t.Context(), c.Kind, nil, "one")
				}
				synctest.Wait()
				var got []string
				for _, e := range seen.take() {
					text := map[bool]string{true: "yes", false: "no"}[e.OK]
					if e.Waited > 0 {
						text += " " + e.Waited.String()
					}
					if e.DryRun {
						text += " dry"
					}
					if e.Err != nil {
						text += " error"
					}
					if e.Missing {
						text += " missing"
					}
					if e.Rule != name || e.Call == nil || e.Call.IsClient() != p.client {
						t.Errorf("%s: %+v", name, e)
					}
					got = append(got, text)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("%s: observed %q, want %q", name, got, tt.want)
				}
			}
		})
}

// TestObserverOfDebts: what has to wait until something is paid for is told, too, and
// with a dry run what would.
func TestObserverOfDebts(t *testing.T) {
	t.Parallel()
	for _, dry := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var seen journal
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				On: ratelimit.ReceivedBytes, Mode: ratelimit.Shape, DryRun: dry, Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 10, Burst: 10}),
			}, ratelimit.WithObserver(seen.observe))
			if _, err := timeToReceive(t, limits, 20, 10); err != nil {
				t.Error(err)
			}
			if events := seen.take(); len(events) != 1 || events[0].OK == dry || events[0].DryRun != dry {
				t.Errorf("dry run %v: observed %+v", dry, events)
			}
		})
	}
}

// TestDryRunChangesNothing: a dry run of each unit and mode delays and refuses nothing,
// and still counts.
func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	eachPlace(t, conntest.Matrix{Transports: web}, func(t *testing.T, c conntest.Case, p place) {
		var opts []ratelimit.Option
		for _, unit := range metered {
			for _, mode := range modesOf(unit) {
				opts = append(opts, ratelimit.Rule{
					Name: fmt.Sprint(unit, mode), On: unit, Mode: mode, DryRun: true,
					Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1. / 60, Burst: 1}),
				})
			}
		}
		opts = append(opts, ratelimit.Rule{On: ratelimit.Concurrent, Max: 1, DryRun: true})
		limits := ratelimit.NewInterceptor(opts...)
		_, clients := p.start(t, c, limits, uncompressed)
		start := time.Now()
		done := make(chan error)
		for range 3 {
			go func() { done <- clients.Do(t.Context(), c.Kind, nil, words...).Err }()
		}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("took %v", took)
		}
		waitForSlots(t, limits)
	})
}

// TestKeysOfUnits: each unit has a limit for each key, OnMissing is the rule's choice,
// and Match leaves RPCs alone.
func TestKeysOfUnits(t *testing.T) {
	t.Parallel()
	protocols := []conntest.Protocol{conntest.GRPC}
	eachPlace(t, conntest.Matrix{Transports: web, Protocols: protocols}, func(t *testing.T, c conntest.Case, p place) {
		type user struct{}
		identity := ratelimit.ByIdentity(func(ctx context.Context) (string, bool) {
			name, ok := ctx.Value(user{}).(string)
			return name, ok
		})
		for name, key := range map[string]ratelimit.KeyFunc{"identity": identity, "header": ratelimit.ByHeader("X-User")} {
			if name == "header" && p.client && c.Kind != connect.StreamTypeUnary {
				continue // BUG 22: see TestHeadersOfClientStreams
			}
			for _, unit := range metered {
				for missing, want := range map[ratelimit.Missing]bool{ratelimit.Share: false, ratelimit.Skip: true, ratelimit.Refuse: false} {
					limits := ratelimit.NewInterceptor(ratelimit.Rule{
						On: unit, Key: key, OnMissing: missing, Mode: ratelimit.Reject,
						Limiter: ratelimit.NewKeyed(ratelimit.Limit{Rate: 0.001, Burst: counted(unit, c.Kind, p.client)}),
					}, ratelimit.Rule{Match: streamwrap.Not(streamwrap.Procedures("/conntest.v1.Echo/")), Limiter: never{}})
					identify := connect.WithRequestGate(func(ctx context.Context, _ connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
						if name := h.Get("X-User"); name != "" {
							ctx = context.WithValue(ctx, user{}, name)
						}
						return ctx, nil
					})
					config := uncompressed
					config.HandlerOptions = append([]connect.HandlerOption{identify}, config.HandlerOptions...)
					_, clients := p.start(t, c, limits, config)
					for _, name := range []string{"ada", "grace", ""} {
						ctx, h := t.Context(), http.Header{}
						if name != "" {
							h.Set("X-User", name)
							if p.client {
								ctx = context.WithValue(ctx, user{}, name)
							}
						}
						first := clients.Do(ctx, c.Kind, h, words...).Err
						second := clients.Do(ctx, c.Kind, h, words...).Err
						if wantFirst := name != "" || missing != ratelimit.Refuse; (first == nil) != wantFirst {
							t.Errorf("%v, %v, %q: first %v", unit, missing, name, first)
						}
						if wantSecond := name == "" && want; (second == nil) != wantSecond {
							t.Errorf("%v, %v, %q: second %v", unit, missing, name, second)
						}
					}
				}
			}
		}
	})
}

// TestHeadersOfClientStreams: a client's stream has the key of the headers that it sends.
func TestHeadersOfClientStreams(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{
			Key: ratelimit.ByHeader("X-User"), OnMissing: ratelimit.Refuse, Mode: ratelimit.Reject,
			Limiter: ratelimit.NewKeyed(ratelimit.Per(1, time.Hour)),
		})
		clients := c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(limits))
		for _, user := range []string{"ada", "grace"} {
			if err := clients.Do(t.Context(), c.Kind, http.Header{"X-User": {user}}, "one").Err; err != nil {
				t.Errorf("%s: %v", user, err)
			}
		}
	})
}
