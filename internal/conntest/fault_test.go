package conntest_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// untilFault is what a caller gets for "one" and "two" from a handler that ends
// with a failure after its first message.
func untilFault(kind connect.StreamType) []string {
	if kind&connect.StreamTypeServer != 0 {
		return []string{"one"}
	}
	return nil
}

func TestFail(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		header := conntest.WithFaults(conntest.Fail(connect.CodeDataLoss, "oh ünicode; & no").After(1))
		header.Set(conntest.HeaderPrefix+"A", "header")
		header.Set(conntest.TrailerPrefix+"B", "trailer")
		reply := c.Clients(srv).Do(t.Context(), c.Kind, header, "one", "two")

		if diff := cmp.Diff(untilFault(c.Kind), reply.Messages); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		err, ok := errors.AsType[*connect.Error](reply.Err)
		if !ok || !connect.IsWireError(err) {
			t.Fatalf("%v, want an error from the server", reply.Err)
		}
		if err.Code() != connect.CodeDataLoss || err.Message() != "oh ünicode; & no" {
			t.Errorf("error %v", err)
		}
		for name, want := range map[string]string{
			conntest.ErrorHeader:         "data_loss",
			conntest.HeaderPrefix + "A":  "header",
			conntest.TrailerPrefix + "B": "trailer",
		} {
			if got := err.Meta().Values(name); len(got) == 0 || got[0] != want {
				t.Errorf("metadata %s: %q, want %q", name, got, want)
			}
		}
		if len(err.Details()) != 1 {
			t.Fatalf("details %v, want one", err.Details())
		}
		detail, detailErr := err.Details()[0].Value()
		if text, ok := detail.(*wrapperspb.StringValue); !ok || text.GetValue() != err.Message() {
			t.Errorf("detail %v, error %v", detail, detailErr)
		}
		call := srv.WaitCalls(1)[0]
		if !call.Returned || connect.CodeOf(call.Err) != connect.CodeDataLoss {
			t.Errorf("call %v", call)
		}
	})
}

func TestFaultBeforeAnything(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		header := conntest.WithFaults(conntest.Fail(connect.CodeAborted, "no").Before(1))
		reply := c.Clients(srv).Do(t.Context(), c.Kind, header, "one", "two")
		if len(reply.Messages) != 0 || connect.CodeOf(reply.Err) != connect.CodeAborted {
			t.Errorf("%d messages, error %v", len(reply.Messages), reply.Err)
		}
		call := srv.WaitCalls(1)[0]
		if takesOne := c.Kind&connect.StreamTypeClient == 0; call.Sent != 0 || (call.Received == 1) != takesOne {
			t.Errorf("call %v", call)
		}
	})
}

func TestPanic(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		reply := c.Clients(srv).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Panic("boom").After(1)), "one", "two")
		if reply.Err == nil || connect.IsWireError(reply.Err) {
			t.Errorf("error %v, want a broken connection or stream", reply.Err)
		}
		if call := srv.WaitCalls(1)[0]; !call.Panicked || call.Returned || call.Err != nil {
			t.Errorf("call %v", call)
		}
	})
}

func TestReturnEOF(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		reply := c.Clients(srv).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.ReturnEOF().After(1)), "one", "two")
		if connect.CodeOf(reply.Err) != connect.CodeUnknown || !connect.IsWireError(reply.Err) {
			t.Errorf("error %v, want unknown from the server", reply.Err)
		}
		if call := srv.WaitCalls(1)[0]; call.Err != io.EOF {
			t.Errorf("call %v", call)
		}
	})
}

func TestReturnEarly(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		reply := c.Clients(srv).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.ReturnEarly().After(1)), "one", "two")
		if diff := cmp.Diff([]string{"one"}, reply.Messages); diff != "" || reply.Err != nil {
			t.Errorf("error %v, messages (-want +got):\n%s", reply.Err, diff)
		}
		call := srv.WaitCalls(1)[0]
		if call.Received != 1 || call.Sent != 1 || call.Err != nil {
			t.Errorf("call %v", call)
		}
		if drained := c.Kind&connect.StreamTypeClient == 0; call.SawEOF() != drained {
			t.Errorf("call %v, want EOF seen: %v", call, drained)
		}
	})
}

func TestDelay(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		start := time.Now()
		reply := c.Clients(srv).Do(t.Context(), c.Kind, conntest.WithFaults(conntest.Delay(10*time.Second).After(1)), "one", "two")
		if diff := cmp.Diff(wantEcho(c.Kind), reply.Messages); diff != "" || reply.Err != nil {
			t.Errorf("error %v, messages (-want +got):\n%s", reply.Err, diff)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("took %v, want 10s", took)
		}
		if call := srv.WaitCalls(1)[0]; call.Ended.Sub(call.Started) != 10*time.Second {
			t.Errorf("handler took %v, want 10s", call.Ended.Sub(call.Started))
		}
	})
}

func TestDelayEndsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		reply := srv.Clients().Do(ctx, connect.StreamTypeUnary, conntest.WithFaults(conntest.Delay(time.Minute)))
		if connect.CodeOf(reply.Err) != connect.CodeDeadlineExceeded {
			t.Errorf("error %v, want deadline_exceeded", reply.Err)
		}
		if call := srv.WaitCalls(1)[0]; call.Ended.Sub(call.Started) != time.Second || call.CtxErr == nil {
			t.Errorf("call took %v: %v", call.Ended.Sub(call.Started), call)
		}
	})
}

func TestInject(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "first"), conntest.Fault{}, conntest.Fail(connect.CodeAborted, "third"))
		clients := c.Clients(srv)
		for i, want := range []connect.Code{connect.CodeUnavailable, 0, connect.CodeAborted, 0} {
			reply := clients.Do(t.Context(), c.Kind, nil, "one")
			if want == 0 && reply.Err != nil || want != 0 && connect.CodeOf(reply.Err) != want {
				t.Errorf("call %d: error %v, want %v", i, reply.Err, want)
			}
		}
	})
}

func TestFaultsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := conntest.Start(t, conntest.Config{})
		start := time.Now()
		header := conntest.WithFaults(conntest.Delay(time.Second), conntest.Delay(time.Minute).After(2),
			conntest.Fail(connect.CodeAborted, "third").After(2), conntest.Panic("never").After(9))
		reply := srv.Clients().Do(t.Context(), connect.StreamTypeServer, header, "one")
		if len(reply.Messages) != 2 || connect.CodeOf(reply.Err) != connect.CodeAborted || time.Since(start) != 61*time.Second {
			t.Errorf("%d messages and error %v after %v", len(reply.Messages), reply.Err, time.Since(start))
		}
	})
}

func TestMalformedFault(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{})
	header := conntest.WithFaults(conntest.Block())
	for name := range header {
		header.Set(name, "do=fail&after=soon")
	}
	for _, kind := range conntest.AllKinds() {
		if reply := srv.Clients().Do(t.Context(), kind, header, "one"); connect.CodeOf(reply.Err) != connect.CodeInvalidArgument {
			t.Errorf("%v: error %v, want invalid_argument", kind, reply.Err)
		}
	}
}
