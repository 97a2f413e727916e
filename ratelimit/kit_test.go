package ratelimit_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// web is what most tests run over: both versions of HTTP.
var web = []conntest.Transport{conntest.H2C, conntest.H1}

// behind returns a server's config with the interceptor, its gate and an Engine.
func behind(i *ratelimit.Interceptor, config conntest.Config) conntest.Config {
	config.HandlerOptions = append(config.HandlerOptions, i.HandlerOption())
	return withEngine(config)
}

// withEngine returns a server's config with an Engine.
func withEngine(config conntest.Config) conntest.Config {
	engine, inner := streamwrap.NewEngine(), config.Wrap
	config.Wrap = func(next http.Handler) http.Handler {
		if inner != nil {
			next = inner(next)
		}
		return engine.Handler(next)
	}
	return config
}

func wantCode(tb testing.TB, err error, code connect.Code) {
	tb.Helper()
	if connect.CodeOf(err) != code || err == nil {
		tb.Errorf("got %v, want %v", err, code)
	}
}

var errTest = errors.New("test")

// size returns how large a message is when it is encoded.
func size(m proto.Message) int { return proto.Size(m) }

// quiet returns a config of a server that does not log what panics.
func quiet(config conntest.Config) conntest.Config {
	config.TuneServer = func(s *http.Server) { s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) }
	return config
}

// place is where an interceptor stands.
type place struct{ client, engine bool }

// places are both sides, each without an Engine and with one.
var places = []place{{}, {engine: true}, {client: true}, {client: true, engine: true}}

func (p place) String() string {
	name := "handler"
	if p.client {
		name = "client"
	}
	if p.engine {
		name += ", engine"
	}
	return name
}

// start starts a server and its clients, with the interceptor in its place, and on
// handlers in front of other options.
func (p place) start(
	tb testing.TB, c conntest.Case, i *ratelimit.Interceptor, config conntest.Config, opts ...connect.HandlerOption,
) (*conntest.Server, *conntest.Clients) {
	tb.Helper()
	if p.engine {
		config = withEngine(config)
	}
	if !p.client {
		config.HandlerOptions = append(append(config.HandlerOptions, i.HandlerOption()), opts...)
		srv := c.Start(tb, config)
		return srv, c.Clients(srv)
	}
	config.HandlerOptions = append(config.HandlerOptions, opts...)
	srv := c.Start(tb, config)
	if !p.engine {
		return srv, c.Clients(srv, connect.WithInterceptors(i))
	}
	engine := streamwrap.NewEngine()
	return srv, conntest.NewClients(engine.HTTPClient(srv.Client()), srv.URL, c.Option(), connect.WithInterceptors(i, engine))
}

// spy is a limiter that counts what is taken of it and not given back.
type spy struct {
	ratelimit.Reserver

	net, takes, gives atomic.Int64
}

func spyOn(l ratelimit.Reserver) *spy { return &spy{Reserver: l} }

// plenty returns a spy that allows everything.
func plenty() *spy { return spyOn(ratelimit.NewGlobal(ratelimit.Limit{Rate: 1e9, Burst: 1e9})) }

func (s *spy) note(n int, ok bool) {
	if ok && n > 0 {
		s.takes.Add(1)
		s.net.Add(int64(n))
	}
}

func (s *spy) Take(ctx context.Context, key string, n int) (ratelimit.Result, error) {
	r, err := s.Reserver.Take(ctx, key, n)
	s.note(n, r.OK)
	return r, err
}

func (s *spy) Reserve(key string, n int, wait time.Duration) (time.Duration, ratelimit.Result) {
	delay, r := s.Reserver.Reserve(key, n, wait)
	s.note(n, r.OK)
	return delay, r
}

func (s *spy) Give(ctx context.Context, key string, n int) {
	s.gives.Add(1)
	s.net.Add(-int64(n))
	s.Reserver.Give(ctx, key, n)
}

// journal is an observer that keeps its events.
type journal struct {
	mu     sync.Mutex
	events []ratelimit.Event
}

func (j *journal) observe(_ context.Context, e ratelimit.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, e)
}

// take returns the events since the last time.
func (j *journal) take() []ratelimit.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	events := j.events
	j.events = nil
	return events
}

// waitForSlots waits until no slot is taken: connect hands over the response before the
// server's side is over.
func waitForSlots(tb testing.TB, i *ratelimit.Interceptor) {
	tb.Helper()
	synctest.Wait()
	time.Sleep(time.Second)
	if taken, waiting, keys := i.Slots(); taken+waiting+keys != 0 {
		tb.Errorf("%d slots taken, %d wait, %d keys", taken, waiting, keys)
	}
}

// retryIn returns a detail that asks for a pause.
func retryIn(d time.Duration) *errdetails.RetryInfo {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}
