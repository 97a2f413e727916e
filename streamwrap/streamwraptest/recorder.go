package streamwraptest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/interconnect-go/interconnect/streamwrap"
)

// Recorder is an interceptor that records what happens to the RPCs that pass
// it, and changes nothing. Put it outside of the interceptor under test to see
// what callers (or connect, on handlers) get, inside to see what gets through.
// One Recorder may stand on several clients and handlers.
//
// It copies every message: it is for tests of behaviour, not of cost. Its
// methods are safe for concurrent use.
type Recorder struct {
	*streamwrap.Interceptor

	mu     sync.Mutex
	calls  []*streamwrap.Call
	events []Event
}

// NewRecorder returns a Recorder that has seen nothing.
func NewRecorder() *Recorder {
	r := &Recorder{}
	r.Interceptor = streamwrap.NewInterceptor(streamwrap.Hooks[recording]{
		Open:     r.open,
		Header:   (*recording).header,
		Send:     (*recording).send,
		Sent:     (*recording).sent,
		Receive:  (*recording).receive,
		Received: (*recording).received,
		Return:   (*recording).result,
		End:      (*recording).end,
	})
	return r
}

// Calls returns the RPCs so far in the order of their opening.
func (r *Recorder) Calls() []*streamwrap.Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// Events returns what happened so far to one RPC, or to all if call is nil.
func (r *Recorder) Events(call *streamwrap.Call) []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []Event
	for _, event := range r.events {
		if call == nil || event.Call == call {
			events = append(events, event)
		}
	}
	return events
}

// Ends returns how the RPCs ended, in the order of their ends. An RPC that is
// under way has none.
func (r *Recorder) Ends() []streamwrap.End {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ends []streamwrap.End
	for _, event := range r.events {
		if event.End != nil {
			ends = append(ends, *event.End)
		}
	}
	return ends
}

// Reset forgets everything.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls, r.events = nil, nil
}

// String returns one line for each RPC: its side, kind, procedure and events.
func (r *Recorder) String() string {
	var b strings.Builder
	for _, call := range r.Calls() {
		side := "handler"
		if call.IsClient() {
			side = "client"
		}
		fmt.Fprintf(&b, "%s %v %s: %s\n", side, call.StreamType(), call.Procedure(), Format(r.Events(call)))
	}
	return b.String()
}

func (r *Recorder) add(event Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

// recording is what a Recorder keeps for one RPC.
type recording struct {
	recorder *Recorder
	call     *streamwrap.Call
}

func (r *Recorder) open(_ context.Context, call *streamwrap.Call) (context.Context, *recording, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, call)
	r.events = append(r.events, Event{Kind: EventOpen, Call: call})
	return nil, &recording{recorder: r, call: call}, nil
}

func (s *recording) add(event Event) {
	event.Call = s.call
	s.recorder.add(event)
}

func (s *recording) header(_ context.Context, h http.Header) error {
	s.add(Event{Kind: EventHeader, Header: cloneHeader(h)})
	return nil
}

func (s *recording) send(_ context.Context, msg any) error {
	s.add(Event{Kind: EventSend, Msg: copyMessage(msg)})
	return nil
}

func (s *recording) sent(_ context.Context, m *streamwrap.Message) {
	s.add(Event{Kind: EventSent, Seq: m.Seq, Msg: copyMessage(m.Msg), Err: m.Err})
}

func (s *recording) receive(context.Context) error {
	s.add(Event{Kind: EventReceive})
	return nil
}

func (s *recording) received(_ context.Context, m *streamwrap.Message) error {
	s.add(Event{Kind: EventReceived, Seq: m.Seq, Msg: copyMessage(m.Msg), Err: m.Err})
	return nil
}

func (s *recording) result(_ context.Context, err error) error {
	s.add(Event{Kind: EventReturn, Err: err})
	return nil
}

func (s *recording) end(_ context.Context, end *streamwrap.End) {
	copied := *end
	s.add(Event{Kind: EventEnd, End: &copied})
}
