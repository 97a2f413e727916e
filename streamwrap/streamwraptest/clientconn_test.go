package streamwraptest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

type text = wrapperspb.StringValue

// pass is an interceptor that does nothing at all.
var pass = connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc { return next })

func TestClientConnFollowsItsScript(t *testing.T) {
	t.Parallel()
	boom := connect.NewError(connect.CodeUnavailable, errors.New("boom"))
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		Receive: []streamwraptest.Step{
			streamwraptest.Message(wrapperspb.String("one")).Times(2),
			streamwraptest.Do(func(_ context.Context, msg any) error {
				proto.Merge(msg.(proto.Message), wrapperspb.String("made up"))
				return nil
			}),
			streamwraptest.Fail(boom),
		},
		Send: []streamwraptest.Step{streamwraptest.Accept().Times(2), streamwraptest.Fail(boom)},
	})
	stream := streamwraptest.OpenStream(t.Context(), pass, conn)
	for i, want := range []error{nil, nil, boom, nil} {
		if err := stream.Send(wrapperspb.String("hi")); err != want {
			t.Errorf("Send %d: %v, want %v", i+1, err, want)
		}
	}
	for _, want := range []string{"one", "one", "made up"} {
		got := wrapperspb.String("old")
		if err := stream.Receive(got); err != nil || got.GetValue() != want {
			t.Errorf("Receive: %q, %v, want %q", got.GetValue(), err, want)
		}
	}
	for range 2 {
		if err := stream.Receive(&text{}); err != boom {
			t.Errorf("Receive: %v, want %v, again and again", err, boom)
		}
	}
	_ = stream.CloseResponse()
	want := "Send Send Send=error Send Receive Receive Receive Receive=error Receive=error CloseResponse"
	if got := conn.String(); got != want {
		t.Errorf("operations:\n got %s\nwant %s", got, want)
	}
	if diff := cmp.Diff([]any{wrapperspb.String("hi"), wrapperspb.String("hi"), wrapperspb.String("hi")}, conn.Sent(), protocmp.Transform()); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	if sent, received := conn.Counts(); sent != 3 || received != 3 {
		t.Errorf("Counts() = %d, %d, want 3, 3", sent, received)
	}
	if diff := cmp.Diff(any(wrapperspb.String("one")), conn.Operations()[4].Msg, protocmp.Transform()); diff != "" {
		t.Errorf("the first Receive's message (-want +got):\n%s", diff)
	}
}

func TestZeroClientConnEndsLikeConnect(t *testing.T) {
	t.Parallel()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{})
	stream := streamwraptest.OpenStream(t.Context(), pass, conn)
	if spec := stream.Spec(); spec.StreamType != connect.StreamTypeBidi || !spec.IsClient || spec.Procedure == "" {
		t.Errorf("Spec() = %+v", spec)
	}
	if peer := stream.Peer(); peer.Addr == "" || peer.Protocol != connect.ProtocolConnect {
		t.Errorf("Peer() = %+v", peer)
	}
	_ = stream.Send(nil)
	for range 2 {
		err := stream.Receive(&text{})
		if err == io.EOF || !errors.Is(err, io.EOF) || connect.CodeOf(err) != connect.CodeUnknown {
			t.Errorf("Receive() = %#v, want a coded error that wraps io.EOF", err)
		}
	}
	if got, want := conn.String(), "Send(nil) Receive=EOF Receive=EOF"; got != want {
		t.Errorf("operations %q, want %q", got, want)
	}
}

func TestClientConnSendsHeadersWithTheFirstOperation(t *testing.T) {
	t.Parallel()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		RPC: streamwraptest.RPC{Header: http.Header{"A": {"1"}}},
	})
	stream := streamwraptest.OpenStream(t.Context(), pass, conn)
	stream.RequestHeader().Add("A", "2")
	if conn.Opened() || conn.SentHeader() != nil {
		t.Error("the request was made before anything was sent")
	}
	_ = stream.CloseRequest()
	stream.RequestHeader().Add("A", "3")
	if diff := cmp.Diff(http.Header{"A": {"1", "2"}}, conn.SentHeader()); diff != "" || !conn.Opened() {
		t.Errorf("SentHeader() (-want +got):\n%s", diff)
	}
	if err := stream.Send(wrapperspb.String("late")); !errors.Is(err, io.EOF) {
		t.Errorf("Send after CloseRequest: %v, want EOF", err)
	}
}

func TestClientConnBlocksLikeConnect(t *testing.T) {
	t.Parallel()
	for name, operation := range map[string]func(connect.StreamingClientConn){
		"Receive":         func(s connect.StreamingClientConn) { _ = s.Receive(&text{}) },
		"ResponseHeader":  func(s connect.StreamingClientConn) { _ = s.ResponseHeader() },
		"ResponseTrailer": func(s connect.StreamingClientConn) { _ = s.ResponseTrailer() },
		"CloseResponse":   func(s connect.StreamingClientConn) { _ = s.CloseResponse() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				answer := make(chan struct{})
				conn := streamwraptest.NewClientConn(streamwraptest.Script{
					Receive: []streamwraptest.Step{streamwraptest.WaitFor(answer), streamwraptest.Delay(time.Second)},
				})
				stream := streamwraptest.OpenStream(t.Context(), pass, conn)
				returned := make(chan time.Time, 1)
				go func() {
					operation(stream)
					returned <- time.Now()
				}()
				synctest.Wait()
				_ = stream.Send(nil)
				synctest.Wait()
				if len(returned) > 0 {
					t.Errorf("it returned before the server answered: %v", conn)
				}
				close(answer)
				answered := time.Now()
				if after := (<-returned).Sub(answered); after != time.Second {
					t.Errorf("it returned %v after the answer, want 1s: %v", after, conn)
				}
				if op := conn.Operations()[0]; op.Early != (name != "Receive") {
					t.Errorf("Early is %v", op.Early)
				}
			})
		})
	}
}

func TestClientConnServerStreamSendWaitsForTheResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conn := streamwraptest.NewClientConn(streamwraptest.Script{
			RPC:     streamwraptest.RPC{Spec: connect.Spec{StreamType: connect.StreamTypeServer}},
			Receive: []streamwraptest.Step{streamwraptest.Delay(time.Second)},
		})
		stream := streamwraptest.OpenStream(t.Context(), pass, conn)
		start := time.Now()
		if err := stream.Send(wrapperspb.String("request")); err != nil || time.Since(start) != time.Second {
			t.Errorf("Send returned %v after %v, want success after 1s", err, time.Since(start))
		}
	})
}

func TestClientConnEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, ignores := range []bool{false, true} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			conn := streamwraptest.NewClientConn(streamwraptest.Script{
				Receive:       []streamwraptest.Step{streamwraptest.Message(wrapperspb.String("first")), streamwraptest.Block()},
				IgnoreContext: ignores,
			})
			stream := streamwraptest.OpenStream(ctx, pass, conn)
			_ = stream.Send(nil)
			_ = stream.Receive(&text{})
			time.AfterFunc(3*time.Second, func() { _ = stream.CloseResponse() })
			start := time.Now()
			err := stream.Receive(&text{})
			want := time.Second
			if ignores {
				want = 3 * time.Second
			}
			if connect.CodeOf(err) != connect.CodeDeadlineExceeded || time.Since(start) != want {
				t.Errorf("ignores the context %v: Receive returned %v after %v, want deadline_exceeded after %v",
					ignores, err, time.Since(start), want)
			}
			time.Sleep(5 * time.Second)
			cancel()
		}
	})
}

func TestClientConnReceiveAfterCloseResponse(t *testing.T) {
	t.Parallel()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{})
	stream := streamwraptest.OpenStream(t.Context(), pass, conn)
	_ = stream.Send(nil)
	_ = stream.CloseResponse()
	if err := stream.Receive(&text{}); connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("Receive: %v, want an internal error", err)
	}
	if err := stream.Send(wrapperspb.String("late")); !errors.Is(err, io.EOF) {
		t.Errorf("Send: %v, want EOF", err)
	}
}

func TestClientConnMetadata(t *testing.T) {
	t.Parallel()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{
		ResponseHeader:  http.Header{"H": {"1"}},
		ResponseTrailer: http.Header{"T": {"2"}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	stream := streamwraptest.OpenStream(ctx, pass, conn)
	_ = stream.Send(nil)
	if got := stream.ResponseHeader().Get("H") + stream.ResponseTrailer().Get("T"); got != "12" {
		t.Errorf("metadata is %q", got)
	}
	cancel()
	unanswered := streamwraptest.OpenStream(ctx, pass, streamwraptest.NewClientConn(streamwraptest.Script{
		ResponseHeader: http.Header{"H": {"1"}},
	}))
	if h := unanswered.ResponseHeader(); h == nil || len(h) != 0 {
		t.Errorf("ResponseHeader() of a canceled stream is %v, want an empty map", h)
	}
}

func TestClientConnReportsMisuse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeTB{TB: t}
		release := make(chan struct{})
		wait := []streamwraptest.Step{streamwraptest.Accept(), streamwraptest.WaitFor(release)}
		conn := streamwraptest.NewClientConn(streamwraptest.Script{Send: wait, Receive: wait, TB: fake})
		stream := streamwraptest.OpenStream(t.Context(), pass, conn)
		_ = stream.Send(&text{})
		_ = stream.Receive(&text{})
		go func() { _ = stream.Send(&text{}) }()
		go func() { _ = stream.Receive(&text{}) }()
		synctest.Wait()
		for name, err := range map[string]error{"Send": stream.Send(&text{}), "Receive": stream.Receive(&text{})} {
			if connect.CodeOf(err) != connect.CodeInternal {
				t.Errorf("concurrent %s: %v, want an internal error", name, err)
			}
		}
		_ = conn.Open(t.Context(), connect.Spec{})
		close(release)
		if conn.Misuse() == nil || fake.errors != 3 {
			t.Errorf("Misuse() = %v, the test failed %d times, want 3", conn.Misuse(), fake.errors)
		}
	})
}

// fakeTB counts failures.
type fakeTB struct {
	testing.TB

	errors int
}

func (f *fakeTB) Errorf(string, ...any) { f.errors++ }

func TestQuietConnsAllocateNothing(t *testing.T) {
	script := func() streamwraptest.Script {
		return streamwraptest.Script{
			Quiet:   true,
			Receive: []streamwraptest.Step{streamwraptest.Message(wrapperspb.String("answer")).Forever()},
		}
	}
	client := streamwraptest.OpenStream(t.Context(), pass, streamwraptest.NewClientConn(script()))
	sent, received := wrapperspb.String("question"), &text{}
	if n := testing.AllocsPerRun(100, func() { _, _ = client.Send(sent), client.Receive(received) }); n != 0 {
		t.Errorf("client: %v allocations per message pair, want 0", n)
	}
	conn := streamwraptest.NewHandlerConn(script())
	_ = streamwraptest.ServeStream(t.Context(), pass, conn, func(_ context.Context, conn connect.StreamingHandlerConn) error {
		if n := testing.AllocsPerRun(100, func() { _, _ = conn.Send(sent), conn.Receive(received) }); n != 0 {
			t.Errorf("handler: %v allocations per message pair, want 0", n)
		}
		return nil
	})
	if sent, received := conn.Counts(); sent != 101 || received != 101 || conn.Operations() != nil {
		t.Errorf("a quiet conn counted %d and %d and recorded %v", sent, received, conn.Operations())
	}
}

func TestReceiveIntoTheWrongType(t *testing.T) {
	t.Parallel()
	conn := streamwraptest.NewClientConn(streamwraptest.Script{Receive: streamwraptest.Messages(wrapperspb.String("text"))})
	stream := streamwraptest.OpenStream(t.Context(), pass, conn)
	_ = stream.Send(nil)
	if err := stream.Receive(&wrapperspb.BoolValue{}); connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("Receive: %v, want an internal error", err)
	}
}
