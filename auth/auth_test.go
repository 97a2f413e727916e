package auth_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestAuthenticates: with a token RPCs of all kinds get through, without one they are
// refused before a handler runs.
func TestAuthenticates(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		a := newAuthority(t, "key")
		srv := c.Start(t, behind(auth.NewServerInterceptor(a.verifier(t)), conntest.Config{}))
		clients := c.Clients(srv)
		if err := clients.Do(t.Context(), c.Kind, with(a.sign(t, claims(time.Hour))), "one").Err; err != nil {
			t.Error(err)
		}
		err := clients.Do(t.Context(), c.Kind, nil, "one").Err
		wantReason(t, err, auth.ReasonMissing, connect.CodeUnauthenticated)
		if n := len(srv.Calls()); n != 1 {
			t.Errorf("%d handlers ran", n)
		}
	})
}

// TestStreamEndsWithItsToken: a handler that waits for its client is interrupted when
// the token expires, and the client is told why.
func TestStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		a := newAuthority(t, "key")
		var handler error
		interceptor := auth.NewServerInterceptor(a.verifier(t, func(c *auth.JWTConfig) { c.Leeway = -1 }))
		srv := c.Start(t, behind(interceptor, conntest.Config{
			Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
				for handler == nil {
					handler = conn.Receive(&conntest.Message{})
				}
				return handler
			}),
		}))
		start := time.Now()
		clients := c.Clients(srv)
		var err error
		token := with(a.sign(t, claims(time.Minute)))
		if c.Kind == connect.StreamTypeBidi {
			stream := clients.Bidi.CallBidiStream(t.Context())
			stream.RequestHeader().Set("Authorization", token.Get("Authorization"))
			if err := stream.Send(conntest.Text("one")); err != nil {
				t.Fatal(err)
			}
			_, err = stream.Receive()
			_ = stream.CloseRequest()
		} else {
			stream := clients.Client.CallClientStream(t.Context())
			stream.RequestHeader().Set("Authorization", token.Get("Authorization"))
			if err := stream.Send(conntest.Text("one")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			_, err = stream.CloseAndReceive()
		}
		wantReason(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
		if call := srv.WaitCalls(1)[0]; call.Ended.Sub(start) > time.Minute {
			t.Errorf("it ended after %v", call.Ended.Sub(start))
		}
		wantReason(t, handler, auth.ReasonExpired, connect.CodeUnauthenticated)
		if n := interceptor.Active(); n != 0 {
			t.Errorf("%d streams are active", n)
		}
	})
}
