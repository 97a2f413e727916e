package tracing_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

// retrying tries a unary RPC again until it succeeds, a second after it failed; or,
// if it hedges, a second after it began. Then the last attempt counts.
type retrying struct{ hedges bool }

func (retrying) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (retrying) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (r retrying) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	try := func(ctx context.Context, req connect.AnyRequest, a *streamwrap.Attempt) (connect.AnyResponse, error) {
		ctx, end := streamwrap.BeginAttempt(ctx, a)
		res, err := next(ctx, &attemptRequest{AnyRequest: req, header: merged(req.Header(), a.Header)})
		end(err)
		return res, err
	}
	return func(ctx context.Context, req connect.AnyRequest) (res connect.AnyResponse, err error) {
		if r.hedges {
			var first sync.WaitGroup
			first.Go(func() { _, _ = try(ctx, req, &streamwrap.Attempt{Number: 1}) })
			<-time.After(time.Second)
			res, err = try(ctx, req, &streamwrap.Attempt{Number: 2, Hedge: true, Delay: time.Second})
			first.Wait()
			return res, err
		}
		for n := 1; n <= 3; n++ {
			a := &streamwrap.Attempt{Number: n, Previous: err, Transparent: n == 3}
			if n > 1 {
				a.Delay = time.Second
				<-time.After(a.Delay)
			}
			if res, err = try(ctx, req, a); err == nil {
				return res, nil
			}
		}
		return res, err
	}
}

// attemptRequest is a request with the headers of an attempt.
type attemptRequest struct {
	connect.AnyRequest

	header http.Header
}

func (r *attemptRequest) Header() http.Header { return r.header }

func merged(h, more http.Header) http.Header {
	all := h.Clone()
	for key, values := range more {
		all[key] = values
	}
	return all
}

// TestAttempts: an RPC that is tried again has a span for each attempt below its own,
// also for the first one, and servers are below the attempts.
func TestAttempts(t *testing.T) {
	t.Parallel()
	type span struct {
		Name, Status, Previous, Transparent, Hedge, Delay string
		Began, Took                                       time.Duration
		Failed                                            bool
	}
	const name = "Attempt conntest.v1.Echo/Unary"
	for _, tt := range []struct {
		name    string
		faults  int
		opts    []tracing.Option
		hedges  bool
		want    []span
		parents []int // of the servers' spans: the attempt, or 0 for the RPC's own
	}{
		{name: "one attempt", parents: []int{0}},
		{
			name: "every attempt", opts: []tracing.Option{tracing.WithEveryAttempt()}, parents: []int{1},
			want: []span{{Name: name, Status: "OK", Previous: "0", Took: time.Minute}},
		},
		{
			name: "three attempts", faults: 2, parents: []int{0, 2, 3},
			want: []span{
				{Name: name, Status: "UNAVAILABLE", Previous: "0", Failed: true},
				{Name: name, Status: "UNAVAILABLE", Previous: "1", Failed: true, Began: time.Second, Delay: "1"},
				{Name: name, Status: "OK", Previous: "2", Transparent: "true", Began: 2 * time.Second, Delay: "1", Took: time.Minute},
			},
		},
		{
			name: "hedging", hedges: true, parents: []int{0, 2},
			want: []span{
				{Name: name, Status: "OK", Previous: "0", Took: time.Minute},
				{Name: name, Status: "OK", Previous: "1", Hedge: "true", Began: time.Second, Delay: "1", Took: time.Minute},
			},
		},
		{
			name: "not sampled", faults: 1, opts: []tracing.Option{tracing.WithTraceFilter(streamwrap.ServerSide())},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, server := observe(tt.opts...), observe()
				config := serving(server)
				var seen []trace.SpanID
				var mu sync.Mutex
				calls := 0
				config.Service.Unary = func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					mu.Lock()
					calls++
					failing := calls <= tt.faults
					mu.Unlock()
					if failing {
						return nil, connect.NewError(connect.CodeUnavailable, errors.New("tired"))
					}
					<-time.After(time.Minute)
					return connect.NewResponse(req.Msg), nil
				}
				clients := conntest.Start(t, config).Clients(connect.WithInterceptors(client, retrying{hedges: tt.hedges}))
				begin := time.Now()
				if err := clients.Do(t.Context(), connect.StreamTypeUnary, nil, "a").Err; err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				attempts := client.ended(t, trace.SpanKindInternal)
				slices.SortFunc(attempts, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
				var got []span
				for _, s := range attempts {
					got = append(got, span{
						Name: s.Name(), Status: value(s, "rpc.response.status_code"), Previous: value(s, "interconnect.attempt.previous"),
						Transparent: value(s, "interconnect.attempt.transparent"), Hedge: value(s, "interconnect.attempt.hedge"),
						Delay: value(s, "interconnect.attempt.delay"), Began: s.StartTime().Sub(begin), Took: lasted(s),
						Failed: s.Status().Code == codes.Error,
					})
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				if tt.parents == nil {
					return
				}
				logical := client.only(t, trace.SpanKindClient).SpanContext().SpanID()
				for _, s := range attempts {
					if s.Parent().SpanID() != logical {
						t.Errorf("the parent of an attempt is %v, want %v", s.Parent().SpanID(), logical)
					}
				}
				for _, n := range tt.parents {
					if n == 0 {
						seen = append(seen, logical)
					} else {
						seen = append(seen, attempts[n-1].SpanContext().SpanID())
					}
				}
				servers := server.ended(t, trace.SpanKindServer)
				slices.SortFunc(servers, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
				for i, s := range servers {
					if s.Parent().SpanID() != seen[i] {
						t.Errorf("the parent of server %d is %v, want %v", i, s.Parent().SpanID(), seen[i])
					}
				}
				if points := client.durations(t, clientDuration); len(points) != 1 || points[0].Count != 1 {
					t.Errorf("durations are %v, want one of the RPC", points)
				}
			})
		})
	}
}

// opening begins an attempt at a stream and ends it when the stream is closed, as a retry
// does: nobody tells it of a stream that is dropped before it is used.
type opening struct{ retrying }

func (opening) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		ctx, end := streamwrap.BeginAttempt(ctx, &streamwrap.Attempt{Number: 1})
		return &openingConn{next(ctx, spec), end}
	}
}

type openingConn struct {
	connect.StreamingClientConn

	end func(error)
}

func (c *openingConn) CloseResponse() error {
	c.end(connect.NewError(connect.CodeAborted, errors.New("closed")))
	return c.StreamingClientConn.CloseResponse()
}

// TestAttemptsEndWithTheirStream: at the latest, and once.
func TestAttemptsEndWithTheirStream(t *testing.T) {
	t.Parallel()
	for _, closes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			client := observe(tracing.WithEveryAttempt())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream := conntest.Start(t, conntest.Config{}).Clients(connect.WithInterceptors(client, opening{})).Bidi.CallBidiStream(ctx)
			if closes {
				_ = stream.CloseResponse()
			}
			cancel()
			synctest.Wait()
			if s := client.only(t, trace.SpanKindInternal); value(s, "rpc.response.status_code") != "CANCELLED" {
				t.Errorf("the attempt has %v, want CANCELLED as the RPC", s.Attributes())
			}
			client.only(t, trace.SpanKindClient)
		})
	}
}
