package ratelimit_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// details returns what an error says beside its text.
func details(tb testing.TB, err error) (info *errdetails.ErrorInfo, quota *errdetails.QuotaFailure, retry *errdetails.RetryInfo) {
	tb.Helper()
	e := (*connect.Error)(nil)
	if !errors.As(err, &e) {
		tb.Fatalf("%v is no connect error", err)
	}
	for _, detail := range e.Details() {
		value, failed := detail.Value()
		if failed != nil {
			tb.Fatal(failed)
		}
		switch v := value.(type) {
		case *errdetails.ErrorInfo:
			info = v
		case *errdetails.QuotaFailure:
			quota = v
		case *errdetails.RetryInfo:
			retry = v
		}
	}
	return info, quota, retry
}

// TestRefusal: what a client is told, on all protocols, and nothing of whom it is for.
func TestRefusal(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{
			Name: "per-user", Key: ratelimit.ByHeader("X-User"), Limiter: ratelimit.NewKeyed(ratelimit.Per(1, time.Minute)),
		})
		clients := c.Clients(c.Start(t, behind(limits, conntest.Config{})))
		user := map[string][]string{"X-User": {"secret-ada"}}
		if err := clients.Do(t.Context(), c.Kind, user, "one").Err; err != nil {
			t.Fatal(err)
		}
		err := clients.Do(t.Context(), c.Kind, user, "one").Err
		wantCode(t, err, connect.CodeResourceExhausted)
		info, quota, retry := details(t, err)
		if info.GetReason() != ratelimit.ReasonExceeded || info.GetMetadata()["rule"] != "per-user" || info.GetMetadata()["limit"] != "1" {
			t.Errorf("info %v", info)
		}
		if v := quota.GetViolations(); len(v) != 1 || v[0].GetSubject() != "rule:per-user" {
			t.Errorf("quota %v", quota)
		}
		if d := retry.GetRetryDelay().AsDuration(); d < time.Minute || d > 72*time.Second {
			t.Errorf("retry after %v", d)
		}
		e := (*connect.Error)(nil)
		_ = errors.As(err, &e)
		if pushback := e.Meta().Values("Grpc-Retry-Pushback-Ms"); len(pushback) != 1 {
			t.Errorf("pushback %q", pushback)
		}
		if after := e.Meta().Values("Retry-After"); c.Protocol == conntest.Connect && c.Kind == connect.StreamTypeUnary && len(after) != 1 {
			t.Errorf("Retry-After %q", after)
		}
		if strings.Contains(err.Error()+info.String()+quota.String(), "secret") {
			t.Errorf("%v tells whom it is for", err)
		}
		// Another user has a limit of their own.
		if err := clients.Do(t.Context(), c.Kind, map[string][]string{"X-User": {"grace"}}, "one").Err; err != nil {
			t.Error(err)
		}
	})
}

// TestGroups: what one rule has allowed is given back if another one refuses.
func TestGroups(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		first := ratelimit.NewGlobal(ratelimit.Per(2, time.Hour))
		limits := ratelimit.NewInterceptor(
			ratelimit.Rule{Name: "first", Limiter: first},
			ratelimit.Rule{Name: "second", Limiter: ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))},
		)
		clients := c.Clients(c.Start(t, behind(limits, conntest.Config{})))
		for i := range 5 {
			err := clients.Do(t.Context(), c.Kind, nil, "one").Err
			if (err == nil) != (i == 0) {
				t.Errorf("RPC %d: %v", i, err)
			}
			if info, _, _ := detailsOf(t, err); info != nil && info.GetMetadata()["rule"] != "second" {
				t.Errorf("refused by %v", info)
			}
		}
		result, err := first.Take(t.Context(), "", 1)
		if err != nil || !result.OK {
			t.Errorf("what was given back is not there: %+v, %v", result, err)
		}
	})
}

func detailsOf(tb testing.TB, err error) (*errdetails.ErrorInfo, *errdetails.QuotaFailure, *errdetails.RetryInfo) {
	tb.Helper()
	if err == nil {
		return nil, nil, nil
	}
	return details(tb, err)
}

// TestClientsWait: a client's RPCs wait for their turn instead of failing, but not
// beyond their deadline.
func TestClientsWait(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: 1, Burst: 1})})
		clients := c.Clients(c.Start(t, conntest.Config{}), connect.WithInterceptors(limits))
		start := time.Now()
		for range 3 {
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

// TestPause: when its server has refused one RPC, a client does not make others until
// the server wants them.
func TestPause(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		server := ratelimit.NewInterceptor(ratelimit.Rule{Limiter: ratelimit.NewGlobal(ratelimit.Per(1, 10*time.Second))})
		clients := c.Clients(c.Start(t, behind(server, conntest.Config{})), connect.WithInterceptors(ratelimit.NewInterceptor()))
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		wantCode(t, clients.Do(t.Context(), c.Kind, nil, "one").Err, connect.CodeResourceExhausted)
		start := time.Now()
		if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took < 9*time.Second || took > 15*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestMissing: what happens to RPCs without a key.
func TestMissing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		missing ratelimit.Missing
		want    []bool
	}{
		{"share", ratelimit.Share, []bool{true, false}},
		{"skip", ratelimit.Skip, []bool{true, true}},
		{"refuse", ratelimit.Refuse, []bool{false, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				limits := ratelimit.NewInterceptor(ratelimit.Rule{
					Key: ratelimit.ByHeader("X-User"), OnMissing: tt.missing, Limiter: ratelimit.NewKeyed(ratelimit.Per(1, time.Hour)),
				})
				clients := c.Clients(c.Start(t, behind(limits, conntest.Config{})))
				var got []bool
				for range 2 {
					got = append(got, clients.Do(t.Context(), c.Kind, nil, "one").Err == nil)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("allowed %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// TestDryRun: a rule that only observes refuses nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		events := make(chan ratelimit.Event, 10)
		limits := ratelimit.NewInterceptor(
			ratelimit.Rule{Name: "dry", DryRun: true, Limiter: ratelimit.NewGlobal(ratelimit.Per(1, time.Hour))},
			ratelimit.WithObserver(observer(events)),
		)
		clients := c.Clients(c.Start(t, behind(limits, conntest.Config{})))
		for range 2 {
			if err := clients.Do(t.Context(), c.Kind, nil, "one").Err; err != nil {
				t.Error(err)
			}
		}
		if len(events) != 1 {
			t.Fatalf("%d events", len(events))
		}
		if e := <-events; e.OK || !e.DryRun || e.Rule != "dry" {
			t.Errorf("%+v", e)
		}
	})
}
