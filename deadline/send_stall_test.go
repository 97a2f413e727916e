package deadline_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

const stall = 3 * time.Second

// TestSendStallResetsStream: a client that does not read holds a handler up for
// SendStall and no longer. The handler is told why; the client gets a reset, and
// no status, because there is no way to send one.
func TestSendStallResetsStream(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		// The server's WriteTimeout must not bring the stream back to life.
		for _, write := range []time.Duration{0, time.Minute} {
			var handlers, served results
			var cause error
			config := limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
				Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					for {
						if err := conn.Send(noise(32 << 10)); err != nil {
							cause = context.Cause(ctx)
							return handlers.add(err)
						}
					}
				}),
				Window: 16 << 10,
			})
			config.TuneServer = func(s *http.Server) {
				s.WriteTimeout = write
				s.Handler = noting(&served, s.Handler)
			}
			srv := c.Start(t, config)
			start := time.Now()
			conn := open(t.Context(), t, c.Clients(srv), c.Kind)
			srv.WaitCalls(1)
			at, err := handlers.last(t)
			wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			if at.Sub(start) != stall {
				t.Errorf("the handler was told after %v, want %v", at.Sub(start), stall)
			}
			wantReason(t, cause, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			synctest.Wait() // the call ended before its HTTP handler
			if done, _ := served.last(t); done.Sub(start) != stall {
				t.Errorf("the server was done after %v, want %v", done.Sub(start), stall)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no timeout", err)
			}
			// The client gets what was on its way, and then no end.
			var lost error
			for lost == nil {
				lost = conn.Receive(&conntest.Message{})
			}
			if errors.Is(lost, io.EOF) || connect.IsWireError(lost) {
				t.Errorf("the client got %v, want a broken stream", lost)
			}
			if reason, ok := deadline.ReasonOf(lost); ok {
				t.Errorf("the client got the reason %q, of which it cannot know", reason)
			}
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
			// Only the stream is lost. On HTTP/1.1 it is the connection, too.
			if reply := c.Clients(srv).Do(t.Context(), connect.StreamTypeUnary, nil, "x"); reply.Err != nil {
				t.Errorf("the next RPC: %v", reply.Err)
			}
		}
	})
}

// TestSendStallSparesSlowReader: a client that reads slowly, but reads, is none that
// does not read, though an Engine collects what it has not taken yet.
func TestSendStallSparesSlowReader(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		const messages, size = 16, 64 << 10
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for range messages {
					if err := conn.Send(noise(size)); err != nil {
						return err
					}
				}
				return nil
			}),
			Window: size,
		}))
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		start := time.Now()
		received := 0
		for {
			err := conn.Receive(&conntest.Message{})
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("after %d messages and %v: %v", received, time.Since(start), err)
			}
			received++
			time.Sleep(stall / 3) // one Send takes no longer, without an Engine
		}
		if received != messages {
			t.Errorf("got %d messages, want %d", received, messages)
		}
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	})
}

// TestSendStallEndsEarlyAnswer: on HTTP/1.1 net/http reads the rest of the request
// before it answers. A client that goes silent in the middle of it blocks a Send
// as one does that does not read.
func TestSendStallEndsEarlyAnswer(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient}
	conntest.Matrix{Transports: []conntest.Transport{conntest.H1}, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var handlers results
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				return handlers.add(conn.Send(conntest.Text("enough")))
			}),
		}))
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		srv.WaitCalls(1)
		at, err := handlers.last(t)
		wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		if at.Sub(start) != stall {
			t.Errorf("the handler was told after %v, want %v", at.Sub(start), stall)
		}
		_ = conn.CloseRequest() // net/http's client does not look at the response before
		if err := conn.Receive(&conntest.Message{}); err == nil || connect.IsWireError(err) {
			t.Errorf("the client got %v, want a broken stream", err)
		}
		_ = conn.CloseResponse()
	})
}

// TestSendStallTellsBlockedSend: it is the Send that was blocked that returns the
// reason, not only one that may come after it: the last message of a stream is
// lost like any other.
func TestSendStallTellsBlockedSend(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var handlers results
		srv := c.Start(t, limited(deadline.NewInterceptor(deadline.Policy{SendStall: stall}), conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				return handlers.add(conn.Send(noise(64 << 10)))
			}),
			Window: 16 << 10,
		}))
		start := time.Now()
		conn := open(t.Context(), t, c.Clients(srv), c.Kind)
		srv.WaitCalls(1)
		at, err := handlers.last(t)
		if at.Sub(start) != stall {
			t.Errorf("Send returned after %v, want %v", at.Sub(start), stall)
		}
		wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		_ = conn.CloseRequest()
		_ = conn.CloseResponse()
	})
}

// TestSendStallOfClient: a server that does not read holds a client up for SendStall.
// Its Send, and its Receive, return with the reason, and the server is told that
// the client is gone.
func TestSendStallOfClient(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, headers := range []bool{false, true} { // whether the response has begun
			if headers && !c.Transport.HTTP2() {
				continue // it has not, on HTTP/1.1, before the request is complete
			}
			srv := c.Start(t, conntest.Config{
				Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
					if headers {
						if err := conn.Send(nil); err != nil {
							return err
						}
					}
					if !c.Transport.HTTP2() {
						// net/http's server does not see that an HTTP/1.1 client is gone before
						// it has read all of the request.
						time.Sleep(2 * stall)
						for conn.Receive(&conntest.Message{}) == nil {
							continue
						}
						return nil
					}
					<-ctx.Done()
					return ctx.Err()
				}),
				Window: 64 << 10,
			})
			limits := deadline.NewInterceptor(deadline.Policy{SendStall: stall})
			clients := c.Clients(srv, connect.WithInterceptors(limits))
			start := time.Now()
			conn := open(t.Context(), t, clients, c.Kind)
			var err error
			for err == nil {
				err = conn.Send(noise(16 << 10))
			}
			wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, stall)
			err = conn.Receive(&conntest.Message{})
			wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
			wantElapsed(t, start, stall)
			_ = conn.CloseRequest()
			_ = conn.CloseResponse()
			for _, call := range srv.WaitCalls(1) {
				if !call.SawCancel() || call.SawEOF() {
					t.Errorf("the server does not know that the client is gone: %v", call)
				}
			}
		}
	})
}

// TestSendStallOfReceivingClient: a client whose two sides have a goroutine each
// gets the reason on both.
func TestSendStallOfReceivingClient(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{
			Service: conntest.ServeStreams(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
				_ = conn.Send(conntest.Text("welcome"))
				<-ctx.Done()
				return ctx.Err()
			}),
			Window: 64 << 10,
		})
		limits := deadline.NewInterceptor(deadline.Policy{SendStall: stall})
		clients := c.Clients(srv, connect.WithInterceptors(limits))
		start := time.Now()
		conn := open(t.Context(), t, clients, c.Kind)
		received := make(chan error)
		go func() {
			var err error
			for err == nil {
				err = conn.Receive(&conntest.Message{})
			}
			received <- err
		}()
		var err error
		for err == nil {
			err = conn.Send(noise(16 << 10))
		}
		wantReason(t, err, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		wantReason(t, <-received, deadline.ReasonSendStall, connect.CodeDeadlineExceeded)
		wantElapsed(t, start, stall)
		_ = conn.CloseResponse()
	})
}
