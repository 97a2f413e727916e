//go:build conformance

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// endTime is how long an End may come after the last RPC.
const endTime = time.Second

// observer watches RPCs with every hook there is, and changes nothing. It
// holds streamwrap to its word: one End for each Open, after everything else,
// with the messages that the other hooks have seen.
type observer struct {
	opened, ended atomic.Int64
	live          sync.WaitGroup

	mu     sync.Mutex
	open   map[*stream]struct{}
	faults []error
}

// stream is one RPC that is observed.
type stream struct {
	o              *observer
	call           *streamwrap.Call
	sent, received int64
	ended          atomic.Bool
}

func newObserver() *observer { return &observer{open: map[*stream]struct{}{}} }

func (o *observer) interceptor() connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[stream]{
		Open:     o.begin,
		Header:   (*stream).header,
		Send:     (*stream).send,
		Sent:     (*stream).sentOne,
		Receive:  (*stream).receive,
		Received: (*stream).receivedOne,
		Return:   (*stream).result,
		End:      (*stream).end,
		Attempt:  (*stream).attempt,
		Timing:   true,
	})
}

// String returns the counts.
func (o *observer) String() string {
	return fmt.Sprintf("opened %d ended %d", o.opened.Load(), o.ended.Load())
}

// verdict returns what was wrong, once no further RPC begins.
func (o *observer) verdict() error {
	ended := make(chan struct{})
	go func() {
		o.live.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(endTime):
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	faults := o.faults
	for s := range o.open {
		faults = append(faults, fmt.Errorf("%s: no End", s.name()))
	}
	return errors.Join(faults...)
}

func (o *observer) begin(_ context.Context, call *streamwrap.Call) (context.Context, *stream, error) {
	s := &stream{o: o, call: call}
	o.opened.Add(1)
	o.live.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open[s] = struct{}{}
	return nil, s, nil
}

// name says which RPC of which case this is.
func (s *stream) name() string {
	return s.call.Procedure() + " " + s.call.RequestHeader().Get("X-Test-Case-Name")
}

func (s *stream) fault(format string, args ...any) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	s.o.faults = append(s.o.faults, fmt.Errorf("%s: "+format, append([]any{s.name()}, args...)...))
}

// alive checks that a hook does not run after End.
func (s *stream) alive(hook string) {
	if s.ended.Load() {
		s.fault("%s after End", hook)
	}
}

func (s *stream) header(context.Context, http.Header) error { s.alive("Header"); return nil }
func (s *stream) send(context.Context, any) error           { s.alive("Send"); return nil }
func (s *stream) receive(context.Context) error             { s.alive("Receive"); return nil }

func (s *stream) result(_ context.Context, err error) error { s.alive("Return"); return err }

func (s *stream) sentOne(_ context.Context, m *streamwrap.Message) {
	s.alive("Sent")
	if m.Err == nil {
		s.sent++
	}
}

func (s *stream) receivedOne(_ context.Context, m *streamwrap.Message) error {
	s.alive("Received")
	if m.Err == nil {
		s.received++
	}
	return nil
}

func (s *stream) attempt(ctx context.Context, _ *streamwrap.Attempt) (context.Context, func(error)) {
	s.alive("Attempt")
	return ctx, nil
}

func (s *stream) end(_ context.Context, end *streamwrap.End) {
	if s.ended.Swap(true) {
		s.fault("a second End")
		return
	}
	if end.Sent != s.sent || end.Received != s.received {
		s.fault("End counts %d sent and %d received, the hooks %d and %d",
			end.Sent, end.Received, s.sent, s.received)
	}
	s.o.ended.Add(1)
	s.o.mu.Lock()
	delete(s.o.open, s)
	s.o.mu.Unlock()
	s.o.live.Done()
}
