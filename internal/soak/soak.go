package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/tracing"
	"golang.org/x/time/rate"
)

// Config is how hard a soak is.
type Config struct {
	For     time.Duration
	Workers int           // RPCs at once
	Restart time.Duration // how long a server lives
	Harm    float64       // the share of connections that are harmed
	Seed    uint64
	Log     func(format string, args ...any)
}

// bed is all that runs.
type bed struct {
	Config

	journal  *journal
	spans    spans
	records  records
	issuer   *issuer
	policies policies
	proxy    *proxy
	clients  []*client
	results  []*result
	calls    atomic.Uint64
	restarts int
}

// Run soaks. It returns all that is wrong.
func Run(ctx context.Context, c Config) error {
	goroutines := runtime.NumGoroutine()
	b, err := newBed(c)
	if err != nil {
		return err
	}
	current, err := b.start()
	if err != nil {
		return err
	}
	soaking, cancel := context.WithTimeout(ctx, c.For)
	defer cancel()
	var workers sync.WaitGroup
	done := make(chan *result, c.Workers)
	for w := range c.Workers {
		workers.Go(func() { b.work(soaking, uint64(w), done) })
	}
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for r := range done {
			b.results = append(b.results, r)
		}
	}()
	current = b.restart(soaking, current)
	workers.Wait()
	close(done)
	<-collected

	b.journal.complain(b.probe(current))
	for _, client := range b.clients {
		client.transport.CloseIdleConnections()
	}
	b.journal.complain(current.stop())
	b.proxy.close()
	b.check()
	b.journal.complain(settle(goroutines))
	b.report()
	return errors.Join(b.journal.wrong...)
}

func newBed(c Config) (*bed, error) {
	b := &bed{Config: c, journal: newJournal(), records: newRecords()}
	var err error
	if b.issuer, err = newIssuer(); err != nil {
		return nil, err
	}
	verifier, err := b.issuer.verifier()
	if err != nil {
		return nil, err
	}
	b.policies = policies{
		auth: auth.NewServerInterceptor(verifier),
		limits: ratelimit.NewInterceptor(
			ratelimit.Rule{
				Name: "calls", Key: ratelimit.ByPeerIP(),
				Limiter: ratelimit.NewKeyed(ratelimit.Limit{Rate: rate.Limit(20 * c.Workers), Burst: 4 * c.Workers}),
			},
			ratelimit.Rule{Name: "streams", On: ratelimit.Concurrent, Max: maxConcurrent},
			ratelimit.Rule{
				Name: "messages", On: ratelimit.ReceivedMessages,
				Limiter: ratelimit.NewGlobal(ratelimit.Limit{Rate: rate.Limit(500 * c.Workers), Burst: 100 * c.Workers}),
			},
		),
		observe: newObserver(b.journal),
		tracing: tracing.NewInterceptor(tracing.WithTracerProvider(b.spans.provider())),
		logging: logging.NewInterceptor(slog.New(b.records)),
	}
	if b.proxy, err = newProxy(c.Seed, c.Harm); err != nil {
		return nil, err
	}
	observe := newObserver(b.journal)
	for range 4 {
		for _, protocol := range [][]connect.ClientOption{nil, {connect.WithGRPC()}, {connect.WithGRPCWeb()}} {
			b.clients = append(b.clients, newClient(b.proxy.url(), b.issuer, []connect.Interceptor{observe, b.policies.tracing, b.policies.logging}, protocol...))
		}
	}
	return b, nil
}

// start starts a server for the connections to come.
func (b *bed) start() (*server, error) {
	s, err := startServer(&service{b.journal}, b.policies)
	if err == nil {
		b.proxy.forward(s.address)
	}
	return s, err
}

// restart replaces the server again and again, and returns the last one.
func (b *bed) restart(ctx context.Context, current *server) *server {
	for {
		select {
		case <-ctx.Done():
			return current
		case <-time.After(b.Restart):
		}
		next, err := b.start()
		if err != nil {
			b.journal.complain(err)
			return current
		}
		b.journal.complain(current.stop())
		current = next
		b.restarts++
	}
}

// work carries out one plan after the other.
func (b *bed) work(ctx context.Context, worker uint64, done chan<- *result) {
	random := rand.New(rand.NewPCG(b.Seed, worker+2)) //nolint:gosec // plans by the seed, to be repeatable, and no secret
	for ctx.Err() == nil {
		p := newPlan(random, b.calls.Add(1), len(b.clients))
		done <- b.clients[p.client].run(context.WithoutCancel(ctx), p)
	}
}

// settle waits until no more goroutines run than before.
func settle(before int) error {
	after := 0
	for range 100 {
		runtime.GC()
		if after = runtime.NumGoroutine(); after <= before {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	stacks := make([]byte, 64<<10)
	return fmt.Errorf("%d goroutines run, %d did before:\n%s", after, before, stacks[:runtime.Stack(stacks, true)])
}
