package retrytest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/retry/retrytest"
)

type text = wrapperspb.StringValue

const (
	upload   = "/test.v1.Test/Upload"
	download = "/test.v1.Test/Download"
)

// serve returns a handler of two streams: one joins what it receives, one repeats it
// three times.
func serve(opts ...connect.HandlerOption) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(upload, connect.NewClientStreamHandler(upload,
		func(_ context.Context, s *connect.ClientStream[text]) (*connect.Response[text], error) {
			var all []string
			for s.Receive() {
				all = append(all, s.Msg().GetValue())
			}
			return connect.NewResponse(wrapperspb.String(strings.Join(all, " "))), s.Err()
		}, opts...))
	mux.Handle(download, connect.NewServerStreamHandler(download,
		func(_ context.Context, req *connect.Request[text], s *connect.ServerStream[text]) error {
			for range 3 {
				if err := s.Send(req.Msg); err != nil {
					return err
				}
			}
			return nil
		}, opts...))
	return mux
}

// send makes an upload.
func send(ctx context.Context, client *connect.Client[text, text], texts ...string) (string, error) {
	stream := client.CallClientStream(ctx)
	for _, t := range texts {
		if err := stream.Send(wrapperspb.String(t)); err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return "", err
	}
	return res.Msg.GetValue(), nil
}

// TestFaults: each is what it says, to the classes of package retry, on either version
// of HTTP; and the RPC after it has none.
func TestFaults(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		fault        retrytest.Fault
		http2, http1 retry.Class
	}{
		"refuse dial":   {retrytest.RefuseDial(), retry.NeverSent, retry.NeverSent},
		"reset":         {retrytest.Reset(0), retry.Transport, retry.Transport},
		"late reset":    {retrytest.Reset(3), retry.Transport, retry.Transport},
		"reset request": {retrytest.ResetRequest(4), retry.Transport, retry.Transport},
		"refuse stream": {retrytest.RefuseStream(), retry.NeverProcessed, retry.Transport},
		"go away":       {retrytest.GoAway(), retry.NeverProcessed, retry.Transport},
		"black hole":    {retrytest.BlackHole(), retry.AttemptTimeout, retry.AttemptTimeout},
		"stall":         {retrytest.Stall(0, time.Hour), retry.AttemptTimeout, retry.AttemptTimeout},
		"503":           {retrytest.Unavailable(time.Second), retry.Wire, retry.Wire},
	}
	for name, test := range cases {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprint(name, "/", version), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					recorder := retrytest.NewRecorder()
					network := retrytest.NewNetwork(t, serve(connect.WithInterceptors(recorder)))
					httpClient, want := network.Client(), test.http2
					if version == 1 {
						httpClient, want = network.HTTP1Client(), test.http1
					}
					var classes []retry.Class
					retries := retry.NewInterceptor(retry.Policy{AssumeIdempotent: true, AttemptTimeout: time.Minute},
						retry.WithObserver(func(_ context.Context, e retry.Event) {
							if e.Kind == retry.Ended {
								classes = append(classes, e.Attempt.Class)
							}
						}))
					client := connect.NewClient[text, text](retry.HTTPClient(httpClient), network.URL()+upload,
						connect.WithInterceptors(recorder, retries))
					for range 2 {
						network.Inject(test.fault)
						got, err := send(t.Context(), client, "one", "two")
						if err != nil || got != "one two" {
							t.Fatalf("%q, %v, %v", got, err, classes)
						}
					}
					if !slices.Equal(classes, []retry.Class{want, retry.Success, want, retry.Success}) {
						t.Errorf("attempts %v, want %v and success, twice", classes, want)
					}
					if network.Pending() != 0 || test.fault.String() == "none" {
						t.Errorf("%d faults of %q are pending", network.Pending(), test.fault)
					}
					recorder.Check(t)
				})
			})
		}
	}
}

// TestStall: messages before it arrive, the others later.
func TestStall(t *testing.T) {
	t.Parallel()
	for _, protocol := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON()} {
		synctest.Test(t, func(t *testing.T) {
			network := retrytest.NewNetwork(t, serve())
			network.Inject(retrytest.Stall(2, time.Minute))
			client := connect.NewClient[text, text](network.Client(), network.URL()+download, protocol)
			start := time.Now()
			stream, err := client.CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("text")))
			if err != nil {
				t.Fatal(err)
			}
			var at []time.Duration
			for stream.Receive() {
				at = append(at, time.Since(start))
			}
			if err := errors.Join(stream.Err(), stream.Close()); err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(at) != "[0s 0s 1m0s]" {
				t.Errorf("messages came after %v", at)
			}
		})
	}
}

// TestResetInTheMiddle: what was sent before arrives.
func TestResetInTheMiddle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := retrytest.NewNetwork(t, serve())
		network.Inject(retrytest.Reset(5 + 6)) // an envelope with the text
		client := connect.NewClient[text, text](network.Client(), network.URL()+download, connect.WithAcceptCompression("gzip", nil, nil))
		stream, err := client.CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("text")))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for stream.Receive() {
			n++
		}
		if n != 1 || stream.Err() == nil {
			t.Errorf("%d messages, %v", n, stream.Err())
		}
		_ = stream.Close()
	})
}

// fakeTB notes whether a check failed.
type fakeTB struct {
	testing.TB

	failures []string
}

func (*fakeTB) Helper() {}

func (f *fakeTB) Errorf(format string, args ...any) {
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}

// TestRecorderFindsTruncation: an interceptor that loses a message, or sends one
// twice, is found out.
func TestRecorderFindsTruncation(t *testing.T) {
	t.Parallel()
	for name, times := range map[string]int{"lost": 0, "doubled": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				recorder := retrytest.NewRecorder()
				network := retrytest.NewNetwork(t, serve(connect.WithInterceptors(recorder)))
				client := connect.NewClient[text, text](network.Client(), network.URL()+upload, connect.WithInterceptors(recorder, broken(times)))
				if _, err := send(t.Context(), client, "one", "two"); err != nil {
					t.Fatal(err)
				}
				fake := &fakeTB{TB: t}
				recorder.Check(fake)
				if len(fake.failures) == 0 {
					t.Error("Check found nothing")
				}
			})
		})
	}
}

// broken is an interceptor that sends the message "two" as often as it says.
type broken int

func (broken) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (broken) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (b broken) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return &brokenConn{next(ctx, spec), int(b)}
	}
}

type brokenConn struct {
	connect.StreamingClientConn

	times int
}

func (c *brokenConn) Send(msg any) error {
	times := 1
	if m, ok := msg.(*text); ok && m.GetValue() == "two" {
		times = c.times
	}
	for range times {
		if err := c.StreamingClientConn.Send(msg); err != nil {
			return err
		}
	}
	return nil
}

func Example() {
	t := new(testing.T) // of the test function
	recorder := retrytest.NewRecorder()
	network := retrytest.NewNetwork(t, serve(connect.WithInterceptors(recorder)))
	retries := retry.NewInterceptor(retry.Policy{AssumeIdempotent: true})
	client := connect.NewClient[text, text](network.Client(), network.URL()+upload,
		connect.WithInterceptors(recorder, retries))

	network.Inject(retrytest.RefuseDial(), retrytest.Reset(0), retrytest.GoAway())
	fmt.Println(send(context.Background(), client, "one", "two"))
	recorder.Check(t)
	fmt.Println("failed:", t.Failed())
	// Output:
	// one two <nil>
	// failed: false
}
