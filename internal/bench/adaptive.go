package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// AdaptiveTable compares a server under overload with one that limits itself.
type AdaptiveTable struct {
	Name, Title string
	Notes       []string
	Loads       []float64     // parts of what the server can do
	Warmup      time.Duration // of each cell
	Time        time.Duration // to measure

	Locks    int           // what handlers share,
	Work     time.Duration // and how long each keeps one
	Patience time.Duration // of clients

	// Connections is more than one because net/http closes one whose client gives
	// up too often.
	Connections int
}

func adaptiveTable() AdaptiveTable {
	return AdaptiveTable{
		Name:  "adaptive",
		Title: "Unary RPCs to a server that is asked for more than it can do",
		Notes: []string{
			"Handlers need one of 4 locks for 20 ms each, so that 200 RPCs a second are what the server can do, and " +
				"do not give up when their clients do, as a sync.Mutex does not. Clients wait for 250 ms, do not retry, and come " +
				"at random moments, however many others wait. Goodput is what they get in time, as a part of what the server can " +
				"do; behind it is the latency of the slowest hundredth of that. All is on one machine, over 8 connections.",
		},
		Loads:  []float64{0.5, 0.8, 1.5, 2, 4},
		Warmup: 2 * time.Second, Time: 4 * time.Second,
		Locks: 4, Work: 20 * time.Millisecond, Patience: 250 * time.Millisecond,
		Connections: 8,
	}
}

// Report implements [Section].
func (t AdaptiveTable) Report(ctx context.Context, w io.Writer, o Options) error {
	if !o.selects(t.Name, t.Name) {
		return nil
	}
	fmt.Fprintf(w, "### %s\n\n", t.Title)
	for _, note := range t.Notes {
		fmt.Fprintf(w, "%s\n\n", note)
	}
	header := []string{"asked", "no limit", "Adaptive"}
	writeCells(w, header)
	writeRule(w, len(header))
	for _, load := range t.Loads {
		cells := []string{fmt.Sprintf("%.0f %%", 100*load)}
		for _, limits := range []*ratelimit.Interceptor{
			ratelimit.NewInterceptor(),
			ratelimit.NewInterceptor(ratelimit.NewAdaptive(ratelimit.AdaptiveConfig{})),
		} {
			got, err := t.measure(ctx, load, limits)
			if err != nil {
				return err
			}
			cells = append(cells, got.String())
		}
		writeCells(w, cells)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// served is what became of a number of RPCs.
type served struct {
	goodput float64
	slowest time.Duration // but a hundredth
}

func (s served) String() string {
	if s.slowest == 0 {
		return fmt.Sprintf("%.0f %%", 100*s.goodput)
	}
	return fmt.Sprintf("%.0f %%, %d ms", 100*s.goodput, s.slowest.Milliseconds())
}

// capacity returns how many RPCs a second the server can serve.
func (t AdaptiveTable) capacity() float64 { return float64(t.Locks) / t.Work.Seconds() }

// server serves until stop is called, after which handlers have nothing to do any more.
func (t AdaptiveTable) server(limits *ratelimit.Interceptor) (url string, stop func(), err error) {
	locks := make(chan struct{}, t.Locks)
	var over atomic.Bool
	mux := http.NewServeMux()
	mux.Handle(unaryProcedure, connect.NewUnaryHandler(unaryProcedure,
		func(_ context.Context, req *connect.Request[Message]) (*connect.Response[Message], error) {
			locks <- struct{}{}
			defer func() { <-locks }()
			if !over.Load() {
				time.Sleep(t.Work) //nolint:forbidigo // the handler's work is to take time
			}
			return connect.NewResponse(req.Msg), nil
		}, limits.HandlerOption()))
	url, closeServer, err := serveHTTP(streamwrap.NewEngine().Handler(mux), HTTPSettings{})
	return url, func() {
		over.Store(true)
		closeServer()
	}, err
}

// measure has RPCs come, and counts those of the time after the warm-up.
func (t AdaptiveTable) measure(ctx context.Context, load float64, limits *ratelimit.Interceptor) (served, error) {
	url, stop, err := t.server(limits)
	if err != nil {
		return served{}, err
	}
	callers := make([]*connect.Client[Message, Message], t.Connections)
	transports := make([]*http.Transport, t.Connections)
	defer func() {
		for _, transport := range transports {
			transport.CloseIdleConnections()
		}
	}()
	for n := range callers {
		transport := newTransport(HTTPSettings{})
		transports[n] = transport
		callers[n] = connect.NewClient[Message, Message](&http.Client{Transport: transport}, url+unaryProcedure)
	}

	var (
		clients    sync.WaitGroup
		mu         sync.Mutex
		latencies  []time.Duration
		unexpected error
	)
	start := time.Now()
	for at := time.Duration(0); at < t.Warmup+t.Time && ctx.Err() == nil; {
		counts, client := at > t.Warmup, callers[rand.IntN(len(callers))] //nolint:gosec // a random load, and no secret
		clients.Go(func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(ctx, t.Patience)
			defer cancel()
			_, err := client.CallUnary(ctx, connect.NewRequest(payload(16)))
			took := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			switch code := connect.CodeOf(err); {
			case err == nil && counts:
				latencies = append(latencies, took)
			case err != nil && code != connect.CodeDeadlineExceeded && code != connect.CodeUnavailable:
				unexpected = err
			}
		})
		at += time.Duration(rand.ExpFloat64() / (load * t.capacity()) * float64(time.Second)) //nolint:gosec // a random load, and no secret
		time.Sleep(time.Until(start.Add(at)))                                                 //nolint:forbidigo // arrivals are an open loop in real time
	}
	clients.Wait()
	stop()
	if err := errors.Join(unexpected, ctx.Err()); err != nil {
		return served{}, fmt.Errorf("%s: %w", t.Name, err)
	}
	result := served{goodput: float64(len(latencies)) / (t.capacity() * t.Time.Seconds())}
	if len(latencies) >= 100 {
		result.slowest = time.Duration(percentiles(latencies)[2])
	}
	return result, nil
}
