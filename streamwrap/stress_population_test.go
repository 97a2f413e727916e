package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/streamwrap"
)

type population struct{ all []*fate }

const fateHeader = "Life"

func (p *population) of(h http.Header) *fate {
	id, err := strconv.Atoi(h.Get(fateHeader))
	if err != nil {
		return nil
	}
	return p.all[id]
}

// lived is the state of a watching interceptor for one RPC.
type lived struct {
	l     *fate
	name  string
	ended atomic.Bool
	steps atomic.Int32
}

// watching returns an interceptor that keeps the books of each fate and plays
// the faults of hooks.
func (p *population) watching(name string) connect.Interceptor {
	refuses := func(s *lived, fault string) error {
		if s.l.fault == fault && name == "inner" && s.steps.Add(1) == 2 {
			return connect.NewError(connect.CodeDataLoss, errors.New(fault))
		}
		return nil
	}
	check := func(s *lived) {
		if s.ended.Load() {
			panic("a hook ran after End: " + s.l.String())
		}
	}
	return streamwrap.NewInterceptor(streamwrap.Hooks[lived]{
		Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *lived, error) {
			l, _ := ctx.Value(fateKey{}).(*fate)
			side := "server " + name
			if call.IsClient() {
				side = "client " + name
				call.RequestHeader().Set(fateHeader, strconv.Itoa(l.id))
			} else {
				l = p.of(call.RequestHeader())
			}
			if call.IsClient() && name == "inner" {
				switch l.fault {
				case "refuse open":
					return nil, nil, connect.NewError(connect.CodeDataLoss, errors.New(l.fault))
				case "abort":
					time.AfterFunc(time.Duration(l.id%7)*100*time.Microsecond, func() {
						call.Abort(connect.NewError(connect.CodeDataLoss, errors.New("abort")))
					})
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.opened++
			return nil, &lived{l: l, name: side}, nil
		},
		Header: func(s *lived, _ context.Context, _ http.Header) error { check(s); return nil },
		Send: func(s *lived, ctx context.Context, _ any) error {
			check(s)
			runtime.Gosched()
			if s.name == "server inner" {
				return refuses(s, "refuse server")
			}
			return refuses(s, "refuse send")
		},
		Sent:    func(s *lived, _ context.Context, _ *streamwrap.Message) { check(s) },
		Receive: func(s *lived, _ context.Context) error { check(s); return refuses(s, "refuse receive") },
		Received: func(s *lived, _ context.Context, m *streamwrap.Message) error {
			check(s)
			if m.Err != nil {
				return nil
			}
			return refuses(s, "refuse received")
		},
		Return: func(s *lived, _ context.Context, _ error) error { check(s); return nil },
		End: func(s *lived, _ context.Context, e *streamwrap.End) {
			if s.ended.Swap(true) {
				panic("two Ends: " + s.l.String())
			}
			s.l.mu.Lock()
			defer s.l.mu.Unlock()
			s.l.ends = append(s.l.ends, fmt.Sprintf("%s %v", s.name, e.Outcome))
			if s.name == "client outer" {
				s.l.client = append(s.l.client, *e)
			}
		},
	})
}

// step returns what the handler does at the n-th message.
func (l *fate) step(n int) (stop bool, err error) {
	if n != l.messages/2 {
		return false, nil
	}
	switch l.fault {
	case "server error":
		return true, connect.NewError(connect.CodeAborted, errors.New("server error"))
	case "server panic":
		panic(http.ErrAbortHandler)
	case "server return":
		return true, nil
	}
	return false, nil
}

// got notes a message at the server, or how receiving ended.
func (l *fate) got(want int, m *wrapperspb.Int64Value, err error) {
	switch {
	case err == nil && m.GetValue() != int64(want):
		l.misordered.Store(true)
	case errors.Is(err, io.EOF):
		l.serverEOF.Store(true)
	}
}

type number = wrapperspb.Int64Value

func num(i int) *number { return wrapperspb.Int64(int64(i)) }

func (p *population) mux(opts ...connect.HandlerOption) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/l.S/U", connect.NewUnaryHandler("/l.S/U", func(_ context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
		l := p.of(r.Header())
		if stop, err := l.step(0); stop && err != nil {
			return nil, err
		}
		return connect.NewResponse(r.Msg), nil
	}, opts...))
	mux.Handle("/l.S/C", connect.NewClientStreamHandler("/l.S/C", func(_ context.Context, s *connect.ClientStream[number]) (*connect.Response[number], error) {
		l := p.of(s.RequestHeader())
		for i := range l.messages + 1 {
			if stop, err := l.step(i); stop {
				return connect.NewResponse(num(i)), err
			}
			if !s.Receive() {
				if s.Err() == nil {
					l.serverEOF.Store(true)
				}
				return connect.NewResponse(num(i)), s.Err()
			}
			l.got(i, s.Msg(), nil)
		}
		return connect.NewResponse(num(0)), nil
	}, opts...))
	mux.Handle("/l.S/V", connect.NewServerStreamHandler("/l.S/V", func(_ context.Context, r *connect.Request[number], s *connect.ServerStream[number]) error {
		l := p.of(r.Header())
		for i := range l.messages {
			if stop, err := l.step(i); stop {
				return err
			}
			if err := s.Send(num(i)); err != nil {
				return err
			}
		}
		return nil
	}, opts...))
	mux.Handle("/l.S/B", connect.NewBidiStreamHandler("/l.S/B", func(_ context.Context, s *connect.BidiStream[number, number]) error {
		l := p.of(s.RequestHeader())
		for i := 0; ; i++ {
			if stop, err := l.step(i); stop {
				return err
			}
			m, err := s.Receive()
			l.got(i, m, err)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}, opts...))
	return mux
}
