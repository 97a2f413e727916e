package ratelimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/internal/rpcerror"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// ReasonOverloaded is the reason in errors of RPCs that an [Adaptive] refuses.
const ReasonOverloaded = "OVERLOADED"

var errOverloaded = errors.New("server overloaded")

// When whoever is refused is to come back: after as long as there is overload already,
// between these.
const (
	shortestRetry = 100 * time.Millisecond
	longestRetry  = 2 * time.Second
)

// openWork asks the Adaptive of an RPC that begins.
func (s *stream) openWork(ctx context.Context) error {
	if s.work.of == nil {
		return nil
	}
	return s.judge(ctx, s.work.open(ctx))
}

// beginWork asks it whether to work on a message.
func (s *stream) beginWork(ctx context.Context) error {
	if s.work.of == nil {
		return nil
	}
	return s.judge(ctx, s.work.begin(ctx))
}

// judge tells everybody what was decided.
func (s *stream) judge(ctx context.Context, v verdict) error {
	name := s.work.of.config.Name
	switch {
	case v.over:
		s.i.notify(ctx, s.call, Event{Rule: name, DryRun: true})
		return nil
	case v.ok:
		if v.waited > 0 {
			s.i.notify(ctx, s.call, Event{Rule: name, OK: true, Waited: v.waited})
		}
		return nil
	case ctx.Err() != nil:
		return rpcerror.OfContext(ctx.Err(), nil)
	}
	s.i.notify(ctx, s.call, Event{Rule: name, Waited: v.waited})
	return overloaded(s.call, name, v.standing)
}

// overloaded returns the error of an RPC that is refused because of overload.
func overloaded(call *streamwrap.Call, name string, standing time.Duration) error {
	err := connect.NewError(connect.CodeUnavailable, errOverloaded)
	rpcerror.Attach(err, &errdetails.ErrorInfo{
		Reason: ReasonOverloaded, Domain: Domain, Metadata: map[string]string{"rule": name},
	})
	// Many are refused at about the same time: spread them over as much again.
	delay := min(max(standing, shortestRetry), longestRetry)
	postpone(call, err, delay+rand.N(delay)) //nolint:gosec // it spreads retries, and is no secret
	return err
}
