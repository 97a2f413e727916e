package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/retry"
)

// RetryTable compares what retries bring and what they cost a server that fails.
type RetryTable struct {
	Name, Title string
	Notes       []string
	Calls       int       // for each cell
	Failures    []float64 // shares of attempts that the server refuses
}

func retryTable() RetryTable {
	return RetryTable{
		Name:  "retry",
		Title: "Unary RPCs to a server that refuses a part of them",
		Notes: []string{
			"Goodput is the share of RPCs that succeed, load how many requests the server sees for each. The naive loop " +
				"tries three times whatever the error, as blog posts have it; retry has its defaults, and a delay of " +
				"a millisecond at most. RPCs come from 16 goroutines.",
		},
		Calls:    2000,
		Failures: []float64{0, 0.1, 0.5, 1},
	}
}

// naive is the interceptor that blog posts have.
func naive(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		for range 3 {
			if res, err = next(ctx, req); err == nil {
				break
			}
		}
		return res, err
	}
}

// retryCost is what became of a number of RPCs.
type retryCost struct{ goodput, load float64 }

func (c retryCost) String() string { return fmt.Sprintf("%.0f %%, %.2f×", 100*c.goodput, c.load) }

// Report implements [Section].
func (t RetryTable) Report(ctx context.Context, w io.Writer, o Options) error {
	if !o.selects(t.Name, t.Name) {
		return nil
	}
	fmt.Fprintf(w, "### %s\n\n", t.Title)
	for _, note := range t.Notes {
		fmt.Fprintf(w, "%s\n\n", note)
	}
	header := []string{"refused", "no retry", "naive loop", "retry"}
	writeCells(w, header)
	writeRule(w, len(header))
	for _, share := range t.Failures {
		cells := []string{fmt.Sprintf("%.0f %%", 100*share)}
		for _, interceptors := range [][]connect.Interceptor{
			nil,
			{connect.UnaryInterceptorFunc(naive)},
			{retry.NewInterceptor(retry.Policy{Backoff: retry.FullJitter(time.Millisecond, time.Millisecond)})},
		} {
			cost, err := t.measure(ctx, share, interceptors)
			if err != nil {
				return err
			}
			cells = append(cells, cost.String())
		}
		writeCells(w, cells)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// measure makes the RPCs.
func (t RetryTable) measure(ctx context.Context, share float64, interceptors []connect.Interceptor) (retryCost, error) {
	var requests atomic.Int64
	mux := http.NewServeMux()
	mux.Handle(unaryProcedure, connect.NewUnaryHandler(unaryProcedure,
		func(_ context.Context, req *connect.Request[Message]) (*connect.Response[Message], error) {
			requests.Add(1)
			if rand.Float64() < share { //nolint:gosec // a random load, and no secret
				return nil, connect.NewError(connect.CodeUnavailable, errors.New("refused"))
			}
			return connect.NewResponse(req.Msg), nil
		}))
	server := httptest.NewServer(mux)
	defer server.Close()
	client := connect.NewClient[Message, Message](server.Client(), server.URL+unaryProcedure,
		connect.WithIdempotency(connect.IdempotencyIdempotent), connect.WithInterceptors(interceptors...))

	var good, unexpected atomic.Int64
	var workers sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(t.Calls))
	for range 16 {
		workers.Go(func() {
			for left.Add(-1) >= 0 {
				_, err := client.CallUnary(ctx, connect.NewRequest(payload(16)))
				switch {
				case err == nil:
					good.Add(1)
				case connect.CodeOf(err) != connect.CodeUnavailable:
					unexpected.Add(1)
				}
			}
		})
	}
	workers.Wait()
	if n := unexpected.Load(); n > 0 {
		return retryCost{}, fmt.Errorf("%s: %d RPCs failed otherwise", t.Name, n)
	}
	calls := float64(t.Calls)
	return retryCost{goodput: float64(good.Load()) / calls, load: float64(requests.Load()) / calls}, nil
}
