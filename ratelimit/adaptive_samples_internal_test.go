package ratelimit

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// slowClient is a handler's stream whose client takes its time: to send, and to read.
type slowClient struct {
	connect.StreamingHandlerConn

	kind     connect.StreamType
	messages int
	header   http.Header
}

func (c *slowClient) Spec() connect.Spec {
	return connect.Spec{StreamType: c.kind, Procedure: conntest.BidiProcedure}
}
func (c *slowClient) Peer() connect.Peer           { return connect.Peer{} }
func (c *slowClient) RequestHeader() http.Header   { return c.header }
func (c *slowClient) ResponseHeader() http.Header  { return c.header }
func (c *slowClient) ResponseTrailer() http.Header { return c.header }

func (c *slowClient) Receive(any) error {
	if c.messages == 0 {
		return io.EOF
	}
	time.Sleep(10 * time.Second)
	c.messages--
	return nil
}

func (c *slowClient) Send(any) error {
	time.Sleep(time.Minute)
	return nil
}

var errBoom = errors.New("boom")

// TestSamples: what counts as work, and what does not. Work takes 10 ms.
func TestSamples(t *testing.T) {
	t.Parallel()
	const work = 10 * time.Millisecond
	receive := func(c connect.StreamingHandlerConn) bool { return c.Receive(nil) == nil }
	for _, tt := range []struct {
		name     string
		kind     connect.StreamType
		messages int
		handler  func(connect.StreamingHandlerConn) error
		samples  int
	}{
		{"unary", connect.StreamTypeUnary, 0, func(connect.StreamingHandlerConn) error {
			time.Sleep(work)
			return nil
		}, 1},
		{"unary, a quick error", connect.StreamTypeUnary, 0, func(connect.StreamingHandlerConn) error { return errBoom }, 0},
		{"unary, an error that took long", connect.StreamTypeUnary, 0, func(connect.StreamingHandlerConn) error {
			time.Sleep(work)
			return errBoom
		}, 1},
		{"until it sends", connect.StreamTypeBidi, 5, func(c connect.StreamingHandlerConn) error {
			for receive(c) {
				time.Sleep(work)
				_ = c.Send(1)
			}
			return nil
		}, 5},
		{"until it asks for more", connect.StreamTypeClient, 5, func(c connect.StreamingHandlerConn) error {
			for receive(c) {
				time.Sleep(work)
			}
			time.Sleep(time.Second)
			return nil
		}, 5},
		{"what it does after it has sent", connect.StreamTypeBidi, 1, func(c connect.StreamingHandlerConn) error {
			receive(c)
			time.Sleep(work)
			for range 10 {
				_ = c.Send(1)
				time.Sleep(work / 2)
			}
			return nil
		}, 1},
		{"a server's stream, whose request connect ends with another Receive", connect.StreamTypeServer, 1, func(c connect.StreamingHandlerConn) error {
			receive(c)
			receive(c)
			time.Sleep(work)
			_ = c.Send(1)
			return nil
		}, 1},
		{"a server's stream", connect.StreamTypeServer, 1, func(c connect.StreamingHandlerConn) error {
			receive(c)
			time.Sleep(work)
			_ = c.Send(1)
			time.Sleep(work / 2)
			_ = c.Send(2)
			return nil
		}, 1},
		{"silence", connect.StreamTypeBidi, 1, func(c connect.StreamingHandlerConn) error {
			receive(c)
			time.Sleep(silentPatience)
			_ = c.Send(1)
			return nil
		}, 0},
		{"headers", connect.StreamTypeBidi, 1, func(c connect.StreamingHandlerConn) error {
			receive(c)
			_ = c.Send(nil)
			time.Sleep(work / 2)
			_ = c.Send(1)
			return nil
		}, 0},
		{"a return", connect.StreamTypeBidi, 1, func(c connect.StreamingHandlerConn) error {
			receive(c)
			time.Sleep(work / 2)
			return nil
		}, 0},
		{"what comes before the first message", connect.StreamTypeBidi, 1, func(c connect.StreamingHandlerConn) error {
			time.Sleep(work / 2)
			_ = c.Send(1)
			time.Sleep(work / 2)
			_ = c.Send(2)
			return nil
		}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := fixed(4)
				a.limit.usual = work / 2
				i := NewInterceptor(a)
				if tt.kind == connect.StreamTypeUnary {
					_, _ = i.WrapUnary(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
						return connect.NewResponse(conntest.Text("")), tt.handler(nil)
					})(t.Context(), connect.NewRequest(conntest.Text("")))
				} else {
					_ = i.WrapStreamingHandler(func(_ context.Context, c connect.StreamingHandlerConn) error {
						return tt.handler(c)
					})(t.Context(), &slowClient{kind: tt.kind, messages: tt.messages, header: make(http.Header)})
				}
				if a.limit.count != tt.samples || a.limit.sum != time.Duration(tt.samples)*work {
					t.Errorf("%d samples of %v in all, want %d of %v each", a.limit.count, a.limit.sum, tt.samples, work)
				}
				if _, _, noted := a.lines(); a.InFlight() != 0 || noted != 0 {
					t.Errorf("%d in flight, %d are noted", a.InFlight(), noted)
				}
			})
		})
	}
}

// TestDeaths: 10 000 RPCs end in all ways at random, waiting ones included. Then there
// are as many slots as before, and nobody is remembered.
func TestDeaths(t *testing.T) {
	t.Parallel()
	a := fixed(6)
	engine := streamwrap.NewEngine()
	var gated atomic.Int64
	srv := conntest.Start(t, conntest.Config{
		Wrap: engine.Handler,
		HandlerOptions: []connect.HandlerOption{
			NewInterceptor(a).HandlerOption(),
			connect.WithRequestGate(func(ctx context.Context, _ connect.Spec, _ connect.Peer, h http.Header) (context.Context, error) {
				if h.Get("Gate") != "" {
					gated.Add(1)
					return nil, connect.NewError(connect.CodePermissionDenied, nil)
				}
				return ctx, nil
			}),
		},
		Unobserved: true,
		TuneServer: func(s *http.Server) { s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) }, // of panics
	})
	faults := []conntest.Fault{
		{},
		conntest.Fail(connect.CodeInternal, "boom"), conntest.Panic("boom"), conntest.Panic("boom").After(2),
		conntest.ReturnEarly().After(1), conntest.ReturnEOF(), conntest.Delay(time.Millisecond), conntest.Block(),
		conntest.Block().After(1), conntest.Delay(2 * time.Millisecond).After(1),
	}
	blocks := map[conntest.Fault]bool{conntest.Block(): true, conntest.Block().After(1): true}
	kinds := conntest.AllKinds()
	protocols := conntest.AllProtocols()
	var left atomic.Int64
	left.Store(10_000)
	var codes [17]atomic.Int64
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				fault := faults[rand.IntN(len(faults))]
				header := conntest.WithFaults(fault)
				if rand.IntN(10) == 0 {
					header.Set("Gate", "no")
				}
				patience := time.Millisecond << rand.IntN(8)
				if rand.IntN(2) == 0 && header.Get("Gate") == "" && !blocks[fault] {
					patience = time.Minute
				}
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				clients := srv.Clients(protocols[rand.IntN(len(protocols))].Option())
				err := clients.Do(ctx, kinds[rand.IntN(len(kinds))], header, "one", "two", "three").Err
				if err != nil {
					codes[connect.CodeOf(err)].Add(1)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	refused, ended, late := codes[connect.CodeUnavailable].Load(), codes[connect.CodeDeadlineExceeded].Load(), gated.Load()
	if refused == 0 || ended == 0 || late == 0 {
		t.Errorf("%d refused, %d too late, %d refused by the other gate", refused, ended, late)
	}
	for end := time.Now().Add(10 * time.Second); a.InFlight() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // handlers may outlive their clients
	}
	if queue, backlog, noted := a.lines(); a.InFlight()+queue+backlog+noted != 0 {
		t.Errorf("%d in flight, %d and %d wait, %d are noted", a.InFlight(), queue, backlog, noted)
	}
}
