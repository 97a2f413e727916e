package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineInterruptAfterTheRequest: a request that was read to its end has
// nothing to interrupt, and its connection must not suffer.
func TestEngineInterruptAfterTheRequest(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		try := func(ctx context.Context) {
			x, _ := streamwrap.ExchangeFromContext(ctx)
			if x.Interrupt(newCause()) {
				t.Error("interrupted")
			}
			synctest.Wait()
			if err := ctx.Err(); err != nil {
				t.Errorf("context: %v", err)
			}
		}
		srv := c.Start(t, behindEngine(conntest.Config{Service: conntest.Service{
			Unary: func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				try(ctx)
				return connect.NewResponse(req.Msg), nil
			},
			Client: func(ctx context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
				if _, err := drain(stream.Conn()); !errors.Is(err, io.EOF) {
					return nil, err
				}
				try(ctx)
				return connect.NewResponse(conntest.Text("")), nil
			},
			Server: func(ctx context.Context, req *connect.Request[conntest.Message], stream *connect.ServerStream[conntest.Message]) error {
				try(ctx)
				for range 3 {
					if err := stream.Send(req.Msg); err != nil {
						return err
					}
					try(ctx)
				}
				return nil
			},
			Bidi: func(ctx context.Context, stream *bidiStream) error {
				if _, err := drain(stream.Conn()); !errors.Is(err, io.EOF) {
					return err
				}
				try(ctx)
				return stream.Send(conntest.Text(""))
			},
		}}))
		clients := c.Clients(srv)
		var addresses []string
		for range 3 {
			switch c.Kind {
			case connect.StreamTypeBidi:
				conn := upload(t.Context(), t, clients, c.Kind)
				_ = conn.CloseRequest()
				if n, err := drain(conn); n != 1 || !errors.Is(err, io.EOF) {
					t.Errorf("%d messages, %v", n, err)
				}
			default:
				if reply := clients.Do(t.Context(), c.Kind, nil, "one"); reply.Err != nil {
					t.Error(reply.Err)
				}
			}
		}
		for _, call := range srv.WaitCalls(3) {
			addresses = append(addresses, call.RemoteAddr)
		}
		if addresses[0] != addresses[1] || addresses[1] != addresses[2] {
			t.Errorf("the connection was not used again: %v", addresses)
		}
	})
}

// TestEngineInterruptAfterHeadersOnHTTP1: net/http may be reading for itself by
// then, so that an interrupted connection would break.
func TestEngineInterruptAfterHeadersOnHTTP1(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		config := conntest.Config{Transport: conntest.H1, Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
			mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				if x, _ := streamwrap.ExchangeFromContext(r.Context()); x.Interrupt(newCause()) {
					t.Error("interrupted")
				}
				_, _ = io.Copy(w, r.Body)
			})
		}}
		srv := conntest.Start(t, behindEngine(config))
		body, end := io.Pipe()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/x", body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.WriteString(end, "hello")
		_ = end.Close()
		if got, err := io.ReadAll(res.Body); string(got) != "hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}
