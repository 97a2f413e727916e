package streamwraptest_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

func TestHandlerConnFollowsItsScript(t *testing.T) {
	t.Parallel()
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
		RPC: streamwraptest.RPC{
			Spec:   connect.Spec{StreamType: connect.StreamTypeClient, Procedure: "/acme.v1.Files/Upload"},
			Peer:   connect.Peer{Addr: "10.0.0.1:5", Protocol: connect.ProtocolGRPC},
			Header: http.Header{"A": {"1"}},
		},
		Receive: streamwraptest.Messages(wrapperspb.String("one"), wrapperspb.String("two")),
	})
	failure := errors.New("disk full")
	err := streamwraptest.ServeStream(t.Context(), pass, conn, func(_ context.Context, c connect.StreamingHandlerConn) error {
		if c.Spec().Procedure != "/acme.v1.Files/Upload" || c.Spec().IsClient || c.Peer().Addr != "10.0.0.1:5" || c.RequestHeader().Get("A") != "1" {
			t.Errorf("Spec %+v, Peer %+v, header %v", c.Spec(), c.Peer(), c.RequestHeader())
		}
		for c.Receive(&text{}) == nil {
		}
		c.ResponseHeader().Set("B", "2")
		_ = c.Send(nil)
		c.ResponseHeader().Set("B", "late")
		_ = c.Send(wrapperspb.String("done"))
		return failure
	})
	if err != failure {
		t.Errorf("ServeStream() = %v, want the handler's error", err)
	}
	if got, want := conn.String(), "Receive Receive Receive=EOF Send(nil) Send"; got != want {
		t.Errorf("operations %q, want %q", got, want)
	}
	if diff := cmp.Diff(http.Header{"B": {"2"}}, conn.SentHeader()); diff != "" {
		t.Errorf("SentHeader() (-want +got):\n%s", diff)
	}
}

func TestHandlerConnHeadersLeaveAtTheReturn(t *testing.T) {
	t.Parallel()
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{})
	_ = streamwraptest.ServeStream(t.Context(), pass, conn, func(_ context.Context, c connect.StreamingHandlerConn) error {
		c.ResponseHeader().Set("B", "2")
		if conn.SentHeader() != nil {
			t.Error("the headers left too early")
		}
		return nil
	})
	if conn.SentHeader().Get("B") != "2" {
		t.Errorf("SentHeader() = %v", conn.SentHeader())
	}
}

func TestHandlerConnEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn := streamwraptest.NewHandlerConn(streamwraptest.Script{
			Receive: []streamwraptest.Step{streamwraptest.Block()},
		})
		err := streamwraptest.ServeStream(ctx, pass, conn, func(_ context.Context, c connect.StreamingHandlerConn) error {
			return c.Receive(&text{})
		})
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("Receive: %v, want deadline_exceeded", err)
		}
	})
}

func TestHandlerConnReportsUseAfterReturn(t *testing.T) {
	t.Parallel()
	fake := &fakeTB{TB: t}
	conn := streamwraptest.NewHandlerConn(streamwraptest.Script{TB: fake})
	var leaked connect.StreamingHandlerConn
	_ = streamwraptest.ServeStream(t.Context(), pass, conn, func(_ context.Context, c connect.StreamingHandlerConn) error {
		leaked = c
		return nil
	})
	for name, err := range map[string]error{"Send": leaked.Send(&text{}), "Receive": leaked.Receive(&text{})} {
		if connect.CodeOf(err) != connect.CodeInternal {
			t.Errorf("late %s: %v, want an internal error", name, err)
		}
	}
	if conn.Misuse() == nil || fake.errors != 2 {
		t.Errorf("Misuse() = %v, the test failed %d times, want 2", conn.Misuse(), fake.errors)
	}
}
