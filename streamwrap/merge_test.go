package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// trace records what the interceptors of one chain saw, in order.
type trace struct {
	refuse string // the event that its hook refuses

	mu     sync.Mutex
	events []string
}

func (tr *trace) add(format string, args ...any) error {
	event := fmt.Sprintf(format, args...)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.events = append(tr.events, event)
	if tr.refuse != "" && strings.HasPrefix(event, tr.refuse) {
		return errors.New("refused " + tr.refuse)
	}
	return nil
}

// traced is the state of one interceptor that records into a trace.
type traced struct {
	*trace

	name string
}

func tracing(tr *trace, name string) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[traced]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *traced, error) {
			if err := tr.add("%s.open", name); err != nil {
				return nil, nil, err
			}
			return nil, &traced{tr, name}, nil
		},
		Header:  func(s *traced, _ context.Context, _ http.Header) error { return s.add("%s.header", s.name) },
		Send:    func(s *traced, _ context.Context, msg any) error { return s.add("%s.send %v", s.name, msg) },
		Sent:    func(s *traced, _ context.Context, m *streamwrap.Message) { _ = s.add("%s.sent %s", s.name, about(m)) },
		Receive: func(s *traced, _ context.Context) error { return s.add("%s.receive", s.name) },
		Received: func(s *traced, _ context.Context, m *streamwrap.Message) error {
			return s.add("%s.received %s", s.name, about(m))
		},
		Return: func(s *traced, _ context.Context, err error) error {
			if refused := s.add("%s.return %s", s.name, text(err)); refused != nil {
				return refused
			}
			return nil
		},
		End: func(s *traced, _ context.Context, e *streamwrap.End) {
			_ = s.add("%s.end %v %s %d/%d", s.name, e.Outcome, text(e.Err), e.Sent, e.Received)
		},
	})
}

func about(m *streamwrap.Message) string {
	if m.Err != nil {
		return fmt.Sprintf("#%d %s", m.Seq, text(m.Err))
	}
	return fmt.Sprintf("#%d %v", m.Seq, m.Msg)
}

// text renders an error the same on both sides and for all kinds of EOF.
func text(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, io.EOF):
		return "EOF"
	default:
		return err.Error()
	}
}

// foreign is somebody else's interceptor: it wraps conns in types of its own
// and changes nothing.
type foreign struct{}

type foreignClient struct{ connect.StreamingClientConn }

type foreignHandler struct{ connect.StreamingHandlerConn }

func (foreign) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) { return next(ctx, req) }
}

func (foreign) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &foreignClient{next(ctx, spec)}
	}
}

func (foreign) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, &foreignHandler{conn})
	}
}

// lifeOf runs one stream with two messages each way through the interceptors
// A to E and returns what they saw. Split puts foreign wrappers between them.
func lifeOf(client bool, refuse string, split bool) []string {
	tr := &trace{refuse: refuse}
	var is []connect.Interceptor
	for _, name := range []string{"A", "B", "C", "D", "E"} {
		if split && name != "A" {
			is = append(is, foreign{})
		}
		is = append(is, tracing(tr, name))
	}
	inner := newInstant(client)
	use := func(s stream) {
		var failed error
		for i := range 3 {
			if i == 2 {
				inner.over = true
			} else if err := s.Send(i); err != nil {
				_ = tr.add("user.send %s", text(err))
			}
			if failed == nil {
				failed = s.Receive(i)
				_ = tr.add("user.receive %s", text(failed))
			}
		}
	}
	chain := streamwrap.Chain(is...)
	if client {
		conn := chain.WrapStreamingClient(func(context.Context, connect.Spec) connect.StreamingClientConn {
			return inner
		})(context.Background(), inner.spec)
		use(conn)
		_ = conn.CloseResponse()
	} else {
		err := chain.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			use(conn)
			return nil
		})(context.Background(), inner)
		_ = tr.add("wire.result %s", text(err))
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.events
}

// Adjacent interceptors share a wrapper; with foreign wrappers between them
// each has its own. That must make no difference to what each of them sees,
// with two exceptions that follow from sharing: Send hooks of a group run
// before its Header hooks, and Received hooks before its Return hooks.
func TestMergedInterceptorsSeeWhatNestedOnesSee(t *testing.T) {
	t.Parallel()
	names := []string{"A", "B", "C", "D", "E"}
	for _, client := range []bool{true, false} {
		refusals := []string{""}
		for _, name := range []string{"A", "C", "E"} {
			for _, event := range []string{
				"open", "header", "send 0", "send 1", "receive", "received #1", "received #2", "return",
			} {
				refusals = append(refusals, name+"."+event)
			}
		}
		for _, refuse := range refusals {
			t.Run(sideName(client)+"/refuse "+refuse, func(t *testing.T) {
				t.Parallel()
				merged, split := lifeOf(client, refuse, false), lifeOf(client, refuse, true)
				for _, who := range append(names, "user", "wire") {
					diff := cmp.Diff(seenBy(who, refuse, split), seenBy(who, refuse, merged))
					if diff != "" {
						t.Errorf("%s: merged differs from nested (-nested +merged):\n%s", who, diff)
					}
				}
			})
		}
	}
}

// seenBy returns the events of one interceptor, those with which merging may
// interfere left out.
func seenBy(who, refuse string, events []string) []string {
	return slices.DeleteFunc(slices.Clone(events), func(event string) bool {
		switch {
		case !strings.HasPrefix(event, who+"."):
			return true
		case strings.HasSuffix(event, ".header"):
			return true
		case strings.HasSuffix(refuse, ".header"):
			return strings.Contains(event, ".sen")
		case strings.HasSuffix(refuse, ".open"): // known to a group when it opens
			return strings.Contains(event, ".sen") || strings.Contains(event, ".receive")
		case strings.HasSuffix(refuse, ".return"):
			return strings.Contains(event, ".received #0")
		default:
			return false
		}
	})
}

// Chains of any length, with foreign wrappers anywhere and one interceptor in
// several places, show every interceptor every message, and one End.
func TestChainsOfAnyShape(t *testing.T) {
	t.Parallel()
	for _, client := range []bool{true, false} {
		for _, shape := range []string{"a", "aa", "aFa", "aaFFaa", "FaF", strings.Repeat("a", 25), strings.Repeat("aFaa", 10)} {
			var states []*counter
			shared := streamwrap.NewInterceptor(streamwrap.Hooks[counter]{
				Open: func(context.Context, *streamwrap.Call) (context.Context, *counter, error) {
					states = append(states, &counter{})
					return nil, states[len(states)-1], nil
				},
				Header:   func(c *counter, _ context.Context, _ http.Header) error { c.header++; return nil },
				Sent:     func(c *counter, _ context.Context, _ *streamwrap.Message) { c.sent++ },
				Received: func(c *counter, _ context.Context, _ *streamwrap.Message) error { c.received++; return nil },
				End: func(c *counter, _ context.Context, e *streamwrap.End) {
					c.end++
					c.send, c.receive = int(e.Sent), int(e.Received)
				},
			})
			var is []connect.Interceptor
			for _, kind := range shape {
				if kind == 'F' {
					is = append(is, foreign{})
				} else {
					is = append(is, shared)
				}
			}
			onStream(streamwrap.Chain(is...), client, func(s stream) {
				for range 3 {
					_ = s.Send(t)
					_ = s.Receive(t)
				}
			})(t.Context())
			want := counter{header: 1, sent: 3, received: 3, end: 1, send: 3, receive: 3}
			if client {
				want.received++ // the end of the stream
			}
			if len(states) != strings.Count(shape, "a") {
				t.Errorf("client %v, %s: %d Opens", client, shape, len(states))
			}
			for i, got := range states {
				if *got != want {
					t.Errorf("client %v, %s: interceptor %d saw %+v, want %+v", client, shape, i, *got, want)
				}
			}
		}
	}
}

// TestMergeWithoutRoom: the first stream of a chain finds no room for all layers of a
// handler. They are one group all the same, whose End hooks wait for all other hooks.
func TestMergeWithoutRoom(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 10; n++ {
		synctest.Test(t, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			var ended atomic.Int64
			open := func(context.Context, *streamwrap.Call) (context.Context, *struct{ n int }, error) {
				return nil, &struct{ n int }{}, nil
			}
			var chain []connect.Interceptor
			for range n - 1 {
				chain = append(chain, streamwrap.NewInterceptor(streamwrap.Hooks[struct{ n int }]{
					Open: open,
					End:  func(*struct{ n int }, context.Context, *streamwrap.End) { ended.Add(1) },
				}))
			}
			chain = append(chain, streamwrap.NewInterceptor(streamwrap.Hooks[struct{ n int }]{
				Open: open,
				Receive: func(*struct{ n int }, context.Context) error {
					close(entered)
					<-release
					return nil
				},
			}))
			srv := conntest.Start(t, conntest.Config{
				HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(chain...)},
				Service: conntest.Service{Bidi: func(_ context.Context, s *connect.BidiStream[conntest.Message, conntest.Message]) error {
					go func() { _, _ = s.Receive() }()
					<-entered
					return nil
				}},
			})
			stream := srv.Clients().Bidi.CallBidiStream(t.Context())
			_ = stream.Send(nil)
			_, _ = stream.Receive()
			_ = stream.CloseRequest()
			_ = stream.CloseResponse()
			srv.WaitCalls(1)
			synctest.Wait()
			if got := ended.Load(); got != 0 {
				t.Errorf("%d of %d interceptors: %d ended while a hook ran", n-1, n, got)
			}
			close(release)
			synctest.Wait()
			if got := ended.Load(); got != int64(n-1) {
				t.Errorf("%d of %d interceptors ended", got, n-1)
			}
		})
	}
}
