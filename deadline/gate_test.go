package deadline_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// one is the kinds whose request is one message, which connect reads before the
// handler runs.
var one = []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer}

// ungated is what limited is without the gate.
func ungated(i *deadline.Interceptor, config conntest.Config) conntest.Config {
	installed := limited(i, config)
	installed.HandlerOptions = slices.Concat(config.HandlerOptions, []connect.HandlerOption{connect.WithInterceptors(i)})
	return installed
}

// TestGateRefusesBeforeDecode: with the gate, a request that asks for too little
// time is refused whatever is in it. Without it connect decodes a unary one first.
func TestGateRefusesBeforeDecode(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeUnary}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Min: time.Minute, UnderMin: deadline.Reject})
		garbled := conntest.WithFaults()
		for _, tt := range []struct {
			name    string
			install func(*deadline.Interceptor, conntest.Config) conntest.Config
			code    connect.Code
			reason  deadline.Reason
		}{
			{"gate", limited, connect.CodeDeadlineExceeded, deadline.ReasonTooShort},
			{"no gate", ungated, connect.CodeInvalidArgument, ""},
		} {
			srv := c.Start(t, tt.install(i, conntest.Config{}))
			clients := conntest.NewClients(&garbler{srv.Client()}, srv.URL, c.Option(), connect.WithSendGzip())
			reply := clients.Do(asking(t.Context(), time.Second), c.Kind, garbled, "x")
			if got, _ := deadline.ReasonOf(reply.Err); connect.CodeOf(reply.Err) != tt.code || got != tt.reason {
				t.Errorf("%s: got %v of %q, want %v of %q", tt.name, reply.Err, got, tt.code, tt.reason)
			}
			if calls := srv.Calls(); len(calls) > 0 {
				t.Errorf("%s: a handler ran: %v", tt.name, calls)
			}
		}
	})
}

// garbler spoils the bodies of requests.
type garbler struct{ connect.HTTPClient }

func (g *garbler) Do(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	_ = req.Body.Close()
	for i := min(len(body)-1, 5); i < len(body); i++ { // behind the prefix that says how long it is
		body[i] = 0xff
	}
	req.Body, req.GetBody = io.NopCloser(bytes.NewReader(body)), nil
	return g.HTTPClient.Do(req)
}

// TestGateRefusesAtOnce: a refusal does not wait for the rest of the request.
func TestGateRefusesAtOnce(t *testing.T) {
	t.Parallel()
	matrix := conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}
	matrix.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Max: time.Second, OverMax: deadline.Reject})
		srv := c.Start(t, limited(i, conntest.Config{}))
		start := time.Now()
		reply := slowUploads(srv, c, 4).Do(asking(t.Context(), time.Minute), c.Kind, nil, "message")
		wantReason(t, reply.Err, deadline.ReasonTooLong, connect.CodeInvalidArgument)
		wantElapsed(t, start, 0)
	})
}

// TestGateInterruptsSlowUpload: with the gate an RPC's time begins before connect
// reads the request, and a client that takes too long over it is interrupted. It
// is told why, in the middle of its upload.
func TestGateInterruptsSlowUpload(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		policy deadline.Policy
		asks   time.Duration
		after  time.Duration
		reason deadline.Reason
	}{
		{
			name: "FirstMessage", policy: deadline.Policy{Max: time.Minute, FirstMessage: 3 * time.Second},
			after: 3 * time.Second, reason: deadline.ReasonFirstMessage,
		},
		{
			name: "Default", policy: deadline.Policy{Default: 5 * time.Second},
			after: 5 * time.Second, reason: deadline.ReasonDeadline,
		},
		{
			name: "the client's deadline", policy: deadline.Policy{FirstMessage: time.Minute}, asks: 7 * time.Second,
			after: 7 * time.Second, reason: deadline.ReasonDeadline,
		},
		{
			name: "Min", policy: deadline.Policy{Min: 9 * time.Second}, asks: 7 * time.Second,
			after: 9 * time.Second, reason: deadline.ReasonDeadline,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web, Kinds: one}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, limited(deadline.NewInterceptor(tt.policy), conntest.Config{}))
				ctx := t.Context()
				if tt.asks > 0 {
					ctx = asking(ctx, tt.asks)
				}
				start := time.Now()
				reply := slowUploads(srv, c, 4).Do(ctx, c.Kind, nil, "message")
				wantReason(t, reply.Err, tt.reason, connect.CodeDeadlineExceeded)
				wantElapsed(t, start, tt.after)
				for _, call := range srv.Calls() {
					if call.Received > 0 {
						t.Errorf("a handler ran: %v", call)
					}
				}
				// Nothing of it is left for the next RPC.
				next := conntest.WithFaults(conntest.Delay(2 * time.Second))
				if reply := c.Clients(srv).Do(t.Context(), c.Kind, next, "x"); reply.Err != nil {
					t.Errorf("the next RPC: %v", reply.Err)
				}
			})
		})
	}
}

// TestSlowUploadWithoutGate is the control: connect reads a unary request before
// the interceptors run, so that its deadline says nothing to a slow one.
func TestSlowUploadWithoutGate(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: one[:1]}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Default: 5 * time.Second, FirstMessage: 3 * time.Second})
		srv := c.Start(t, ungated(i, conntest.Config{}))
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(time.Minute, cancel)
		defer stop.Stop()
		reply := slowUploads(srv, c, 4).Do(ctx, c.Kind, nil, "message")
		if connect.CodeOf(reply.Err) != connect.CodeCanceled {
			t.Errorf("got %v", reply.Err)
		}
		wantElapsed(t, start, time.Minute)
	})
}

// TestFirstMessageSparesHandler: FirstMessage is for the request. However long the
// handler takes for its answer, and then a stream for the next message, it has
// nothing to do with it.
func TestFirstMessageSparesHandler(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const limit = 3 * time.Second
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{FirstMessage: limit}), conntest.Config{}))
		busy := conntest.WithFaults(conntest.Delay(2*limit), conntest.Delay(2*limit).After(1))
		messages := []string{"x", "y"}
		if c.Kind == connect.StreamTypeClient || c.Kind == connect.StreamTypeBidi {
			busy = conntest.WithFaults(conntest.Delay(2 * limit).After(1)) // the first one is there
		}
		reply := c.Clients(srv).Do(t.Context(), c.Kind, busy, messages...)
		if reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}

// TestRefusedByConnectLeavesNoTimer: an RPC that passed the gate and then does not
// decode never gets to the interceptor. Its limits end with it: they must not
// touch what the connection does next.
func TestRefusedByConnectLeavesNoTimer(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeUnary}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Default: 3 * time.Second, FirstMessage: 2 * time.Second})
		srv := c.Start(t, limited(i, conntest.Config{}))
		garbled := conntest.NewClients(&garbler{srv.Client()}, srv.URL, c.Option(), connect.WithSendGzip())
		clients := c.Clients(srv)
		for range 3 {
			if reply := garbled.Do(t.Context(), c.Kind, nil, "x"); connect.CodeOf(reply.Err) != connect.CodeInvalidArgument {
				t.Errorf("garbled: %v", reply.Err)
			}
			time.Sleep(time.Second)
			within := conntest.WithFaults(conntest.Delay(3*time.Second - time.Millisecond))
			if reply := clients.Do(t.Context(), c.Kind, within, "x"); reply.Err != nil {
				t.Errorf("the next one: %v", reply.Err)
			}
		}
		wantOneConnection(t, srv.WaitCalls(3))
	})
}

// TestLateResponse: a unary handler that does not look at its context may succeed
// after the deadline. The policy says what its client gets.
func TestLateResponse(t *testing.T) {
	t.Parallel()
	const limit = 3 * time.Second
	kinds := []connect.StreamType{connect.StreamTypeUnary}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, install := range []func(*deadline.Interceptor, conntest.Config) conntest.Config{limited, ungated, alone} {
			for _, tt := range []struct {
				name  string
				late  deadline.Late
				work  time.Duration
				err   error
				fails bool
			}{
				{name: "Pass, late", work: limit + 1},
				{name: "Pass, in time", work: limit - 1},
				{name: "Fail, late", late: deadline.Fail, work: limit + 1, fails: true},
				{name: "Fail, in time", late: deadline.Fail, work: limit - 1},
				// After its deadline an RPC that fails fails with it.
				{name: "Pass, failed", work: limit + 1, err: errors.New("other"), fails: true},
				{name: "Fail, failed", late: deadline.Fail, work: limit + 1, err: errors.New("other"), fails: true},
			} {
				i := deadline.NewInterceptor(deadline.Policy{Default: limit, LateResponse: tt.late})
				srv := c.Start(t, install(i, conntest.Config{Service: conntest.Service{
					Unary: func(_ context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
						time.Sleep(tt.work)
						return connect.NewResponse(req.Msg), tt.err
					},
				}}))
				start := time.Now()
				reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, "x")
				wantElapsed(t, start, tt.work)
				if tt.fails {
					wantReason(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				} else if reply.Err != nil {
					t.Errorf("%s: %v", tt.name, reply.Err)
				}
			}
		}
	})
}

// TestLateResponseOfStreams: Fail is for unary RPCs. A stream whose messages were
// sent, and that ends well, has not failed.
func TestLateResponseOfStreams(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Default: time.Second, LateResponse: deadline.Fail})
		srv := c.Start(t, limited(i, conntest.Config{
			Service: conntest.ServeStreams(func(context.Context, connect.StreamingHandlerConn) error {
				time.Sleep(2 * time.Second)
				return nil
			}),
		}))
		if reply := c.Clients(srv).Do(t.Context(), c.Kind, nil); reply.Err != nil {
			t.Error(reply.Err)
		}
	})
}
