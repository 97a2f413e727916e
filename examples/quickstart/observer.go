package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/interconnect-go/interconnect/streamwrap"

	greetv1 "github.com/interconnect-go/interconnect/examples/gen/greet/v1"
)

// observer watches every message of every RPC on one side, and leaves a record
// of each RPC.
type observer struct{ ends chan record }

// record is what an observer saw of one RPC.
type record struct {
	messages []string
	end      streamwrap.End
}

// watch is the state of one RPC. Sending and receiving run concurrently.
type watch struct {
	observer *observer

	mu       sync.Mutex
	messages []string
}

func (o *observer) interceptor() *streamwrap.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[watch]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *watch, error) {
			return nil, &watch{observer: o}, nil
		},
		Sent:     (*watch).sent,
		Received: (*watch).received,
		End:      (*watch).end,
	})
}

func (w *watch) sent(_ context.Context, m *streamwrap.Message) {
	if m.Err == nil {
		w.note("->", m)
	}
}

func (w *watch) received(_ context.Context, m *streamwrap.Message) error {
	if m.Err == nil {
		w.note("<-", m)
	}
	return nil
}

func (w *watch) note(arrow string, m *streamwrap.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = append(w.messages, fmt.Sprintf("%s %q", arrow, words(m.Msg)))
}

func (w *watch) end(_ context.Context, end *streamwrap.End) {
	w.observer.ends <- record{messages: w.messages, end: *end}
}

// words returns what a message says.
func words(msg any) string {
	switch m := msg.(type) {
	case interface{ GetName() string }:
		return m.GetName()
	case interface{ GetGreeting() string }:
		return m.GetGreeting()
	case *greetv1.ConverseRequest:
		return m.GetSentence()
	case *greetv1.ConverseResponse:
		return m.GetSentence()
	default:
		return fmt.Sprintf("%T", msg)
	}
}
