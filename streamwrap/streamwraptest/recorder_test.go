package streamwraptest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

func TestRecorderOnScriptedConns(t *testing.T) {
	t.Parallel()
	recorder := streamwraptest.NewRecorder()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		Receive: []streamwraptest.Step{
			streamwraptest.Message(wrapperspb.String("one")),
			streamwraptest.Fail(connect.NewError(connect.CodeUnavailable, errors.New("boom"))),
		},
	})
	stream := streamwraptest.OpenStream(t.Context(), recorder, conn)
	stream.RequestHeader().Set("A", "1")
	_ = stream.Send(nil)
	_ = stream.Send(wrapperspb.String("hi"))
	_ = stream.Receive(&text{})
	_ = stream.Receive(&text{})
	_ = stream.CloseResponse()

	handlerConn := streamwraptest.NewHandlerConn(streamwraptest.Script{})
	_ = streamwraptest.ServeStream(t.Context(), recorder, handlerConn, func(_ context.Context, c connect.StreamingHandlerConn) error {
		_ = c.Receive(&text{})
		return nil
	})
	want := "client bidi /streamwraptest.v1.TestService/Method: " +
		"open header send sent:1 receive received:1 receive received:unavailable return:unavailable end:failed(unavailable,1/1)\n" +
		"handler bidi /streamwraptest.v1.TestService/Method: " +
		"open receive received:EOF header return end:completed(0/0)\n"
	if got := recorder.String(); got != want {
		t.Errorf("recorded\n%swant\n%s", got, want)
	}
	call := recorder.Calls()[0]
	events := recorder.Events(call)
	if got := events[1].Header.Get("A"); got != "1" {
		t.Errorf("the header event has %q", got)
	}
	if diff := cmp.Diff(any(wrapperspb.String("hi")), events[3].Msg, protocmp.Transform()); diff != "" {
		t.Errorf("the sent event's message (-want +got):\n%s", diff)
	}
	ends := recorder.Ends()
	if len(ends) != 2 || ends[0].Outcome != streamwrap.Failed || ends[1].Outcome != streamwrap.Completed {
		t.Errorf("Ends() = %v", ends)
	}
	recorder.Reset()
	if recorder.String() != "" || recorder.Ends() != nil || recorder.Events(call) != nil {
		t.Error("Reset forgot to forget")
	}
}

func TestRecorderSeesBothSides(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		client, server := streamwraptest.NewRecorder(), streamwraptest.NewRecorder()
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{connect.WithInterceptors(server)}})
		reply := c.Clients(srv, connect.WithInterceptors(client)).Do(t.Context(), c.Kind, nil, "one", "two")
		synctest.Wait()
		if reply.Err != nil || len(client.Ends()) != 1 || len(server.Ends()) != 1 {
			t.Fatalf("error %v\n%v%v", reply.Err, client, server)
		}
		if c, s := client.Ends()[0], server.Ends()[0]; c.Sent != s.Received || c.Received != s.Sent {
			t.Errorf("the sides disagree:\n%v%v", client, server)
		}
	})
}
