package soak

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/tracing"
)

const (
	maxConcurrent = 256 // RPCs that a server allows at once
	drainGrace    = 200 * time.Millisecond
)

// server is one life of the server.
type server struct {
	http    *http.Server
	address string
	done    chan struct{}
}

// policies are the server's interceptors that live as long as the process.
type policies struct {
	auth    *auth.Interceptor
	limits  *ratelimit.Interceptor
	observe *streamwrap.Interceptor
	tracing *tracing.Interceptor
	logging *logging.Interceptor
}

// startServer starts a server with all policies.
func startServer(s *service, p policies) (*server, error) {
	drainer := deadline.NewDrainer(drainGrace)
	deadlines := deadline.NewInterceptor(deadline.Policy{
		Max:         10 * time.Second,
		ReceiveIdle: 3 * time.Second,
		SendStall:   3 * time.Second,
		MaxLifetime: 8 * time.Second,
	}, deadline.WithDrainer(drainer), deadline.WithStrict())
	mux := http.NewServeMux()
	s.register(mux,
		p.observe.HandlerOption(),
		p.tracing.HandlerOption(),
		p.logging.HandlerOption(),
		deadlines.HandlerOption(),
		p.limits.HandlerOption(),
		p.auth.HandlerOption(),
	)
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	started := &server{
		http:    streamwrap.TuneServer(&http.Server{Handler: streamwrap.NewEngine().Handler(deadlines.Handler(mux))}), //nolint:gosec // deadline has the timeouts
		address: listener.Addr().String(),
		done:    make(chan struct{}),
	}
	started.http.RegisterOnShutdown(drainer.Drain)
	go func() {
		defer close(started.done)
		_ = started.http.Serve(listener)
	}()
	return started, nil
}

// stop drains the server. Streams have to end by themselves within a few seconds.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	<-s.done
	return errors.Join(err, s.http.Close())
}

// observed is an RPC that an observer saw begin.
type observed struct {
	call *streamwrap.Call
	id   uint64
}

// newObserver returns the outermost interceptor of a side.
func newObserver(j *journal) *streamwrap.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[observed]{
		Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *observed, error) {
			j.opened(call.IsClient())
			o := &observed{call: call, id: orderOf(call.RequestHeader()).id}
			if p, ok := planOf(ctx); ok && call.IsClient() {
				o.id = p.id
			}
			return nil, o, nil
		},
		End: func(o *observed, _ context.Context, e *streamwrap.End) { j.ended(o.id, o.call.IsClient(), e) },
	})
}

var _ connect.Interceptor = (*streamwrap.Interceptor)(nil)
