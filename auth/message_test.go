package auth_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// TestNoMessageAfterTheEnd: without an Engine a handler that waits for a message goes on
// waiting, but one that arrives after the credential's end is not given to it.
func TestNoMessageAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		i := auth.NewServerInterceptor(living(time.Minute))
		conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
			Receive: []streamwraptest.Step{streamwraptest.Delay(2 * time.Minute), streamwraptest.Message(conntest.Text("late"))},
		})
		// connect's own conns do not know the context that the interceptor ends.
		deaf := &deafConn{StreamingHandlerConn: conn, late: 2 * time.Minute}
		err := i.WrapStreamingHandler(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			m := &conntest.Message{}
			err := conn.Receive(m)
			wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
			return err
		})(t.Context(), deaf)
		wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
	})
}

// TestMessageAuthorizer: it sees each message of every kind of RPC before the handler
// does, and what it refuses the handler never gets.
func TestMessageAuthorizer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		refuse func() error
		reason auth.Reason
		code   connect.Code
	}{
		{"denied", func() error { return secretly(auth.ErrDenied) }, auth.ReasonDenied, connect.CodePermissionDenied},
		{"panic", func() error { panic(private) }, auth.ReasonBroken, connect.CodeInternal},
		{"plain error", func() error { return errors.New(private) }, auth.ReasonBroken, connect.CodeInternal},
		{"unavailable", func() error { return auth.ErrUnavailable }, auth.ReasonUnavailable, connect.CodeUnavailable},
		{"connect error", func() error { return connect.NewError(connect.CodeOutOfRange, errors.New("no")) }, "", connect.CodeOutOfRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				var seen events
				var procedures atomic.Value
				i := auth.NewServerInterceptor(living(time.Hour), seen.option(), auth.WithMessageAuthorizer(
					func(ctx context.Context, id *auth.Identity, call *streamwrap.Call, msg any) error {
						from, ok := auth.FromContext(ctx)
						if !ok || from != id || id.Subject != "ada" {
							t.Errorf("identity %v, in the context %v", id, from)
						}
						procedures.Store(call.Procedure())
						if string(msg.(*conntest.Message).GetValue()) == "bad" {
							return tt.refuse()
						}
						return nil
					}))
				srv := c.Start(t, behind(i, conntest.Config{}))
				header := http.Header{"Name": {"ada"}}
				if err := c.Clients(srv).Do(t.Context(), c.Kind, header, "good", "good").Err; err != nil {
					t.Fatal(err)
				}
				messages := []string{"good", "bad", "good"}
				if c.Kind == connect.StreamTypeUnary || c.Kind == connect.StreamTypeServer {
					messages = []string{"bad"}
				}
				err := c.Clients(srv).Do(t.Context(), c.Kind, header, messages...).Err
				wantReason(t, err, tt.reason, tt.code)
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Error(err)
				}
				last := srv.WaitFor(func(calls []conntest.Call) bool { return i.Active() == 0 })
				if n := last[len(last)-1].Received; len(last) == 2 && n != len(messages)/2 {
					t.Errorf("the handler got %d messages", n)
				}
				want := "ok ok stream:" + string(tt.reason)
				if c.Kind == connect.StreamTypeUnary { // nothing had begun
					want = "ok ok " + string(tt.reason)
				}
				if got := seen.reasons(); got != want {
					t.Errorf("events %q, want %q", got, want)
				}
			})
		})
	}
}

// TestRefusedMessageOfUnary: nothing had begun, so that the client is told what a gate
// would have told it, with a challenge. A stream's client is not.
func TestRefusedMessageOfUnary(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := auth.NewServerInterceptor(living(time.Hour), auth.WithMessageAuthorizer(
			func(context.Context, *auth.Identity, *streamwrap.Call, any) error { return auth.ErrExpired }))
		srv := c.Start(t, behind(i, conntest.Config{}))
		err := c.Clients(srv).Do(t.Context(), c.Kind, http.Header{"Name": {"ada"}}, "message").Err
		if c.Kind != connect.StreamTypeUnary {
			wantStreamEnd(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
			return
		}
		wantReason(t, err, auth.ReasonExpired, connect.CodeUnauthenticated)
		coded := (*connect.Error)(nil)
		if !errors.As(err, &coded) {
			t.Fatal(err)
		}
		if got := coded.Meta().Values("WWW-Authenticate"); len(got) != 1 || !strings.Contains(got[0], "invalid_token") {
			t.Errorf("challenges %q", got)
		}
		if d := details(t, err); len(d) == 0 || d[0].(*errdetails.ErrorInfo).GetMetadata()["phase"] != "" {
			t.Errorf("details %v", d)
		}
	})
}

// TestRefusedMessageIsNotTheEnd: a handler that takes a refused message for the end of
// the client's messages, as those do that forget to look at the error, does not make a
// success of it.
func TestRefusedMessageIsNotTheEnd(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := auth.NewServerInterceptor(living(time.Hour), auth.WithMessageAuthorizer(
			func(_ context.Context, _ *auth.Identity, _ *streamwrap.Call, msg any) error {
				if string(msg.(*conntest.Message).GetValue()) == "bad" {
					return auth.ErrDenied
				}
				return nil
			}))
		srv := c.Start(t, behind(i, conntest.Config{Service: conntest.ServeStreams(func(_ context.Context, conn connect.StreamingHandlerConn) error {
			for conn.Receive(&conntest.Message{}) == nil {
			}
			return nil
		})}))
		clients := c.Clients(srv)
		var err error
		if c.Kind == connect.StreamTypeClient {
			err = clients.Do(t.Context(), c.Kind, nil, "good", "bad").Err
		} else {
			s := clients.Bidi.CallBidiStream(t.Context())
			_, _ = s.Send(conntest.Text("good")), s.Send(conntest.Text("bad"))
			_ = s.CloseRequest()
			_, err = s.Receive()
			_ = s.CloseResponse()
		}
		wantReason(t, err, auth.ReasonDenied, connect.CodePermissionDenied)
	})
}
