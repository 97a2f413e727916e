package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// coded is an error as connect makes it of the transport's.
func coded(code connect.Code, err error) error { return connect.NewError(code, err) }

func text(code connect.Code, text string) error { return coded(code, errors.New(text)) }

var (
	refused = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	reset   = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	broken  = &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
)

func TestClassify(t *testing.T) {
	t.Parallel()
	waiting := retry.Trace{Traced: true, Connections: 1}
	sent := retry.Trace{Traced: true, Connections: 1, WroteHeaders: true}
	expired := retry.Trace{Ended: context.DeadlineExceeded}
	canceled := retry.Trace{Ended: context.Canceled}
	for name, test := range map[string]struct {
		err   error
		trace retry.Trace
		want  retry.Class
	}{
		"success":                          {nil, retry.Trace{}, retry.Success},
		"success in the last moment":       {nil, expired, retry.Success},
		"the deadline":                     {text(connect.CodeDeadlineExceeded, "late"), expired, retry.Expired},
		"the deadline, by the server":      {connect.NewWireError(connect.CodeDeadlineExceeded, nil), expired, retry.Expired},
		"an error after the deadline":      {connect.NewWireError(connect.CodeUnavailable, nil), expired, retry.Expired},
		"a reset after the deadline":       {coded(connect.CodeCanceled, reset), expired, retry.Expired},
		"the caller":                       {text(connect.CodeCanceled, "gone"), canceled, retry.Canceled},
		"an error after the caller":        {connect.NewWireError(connect.CodeUnavailable, nil), canceled, retry.Canceled},
		"the server":                       {connect.NewWireError(connect.CodeUnavailable, nil), sent, retry.Wire},
		"the server, wrapped":              {fmt.Errorf("w: %w", connect.NewWireError(connect.CodeInternal, nil)), sent, retry.Wire},
		"the server, with a text":          {connect.NewWireError(connect.CodeInternal, errors.New("REFUSED_STREAM")), sent, retry.Wire},
		"the server is late":               {connect.NewWireError(connect.CodeDeadlineExceeded, nil), sent, retry.Wire},
		"the server gave up":               {connect.NewWireError(connect.CodeCanceled, nil), sent, retry.Wire},
		"no listener":                      {coded(connect.CodeUnavailable, refused), waiting, retry.NeverSent},
		"no listener, untraced":            {coded(connect.CodeUnavailable, refused), retry.Trace{}, retry.NeverSent},
		"no handshake":                     {text(connect.CodeUnavailable, "tls: bad certificate"), waiting, retry.NeverSent},
		"reset in the handshake":           {coded(connect.CodeCanceled, reset), waiting, retry.NeverSent},
		"a dial after headers were sent":   {coded(connect.CodeUnavailable, refused), sent, retry.Transport},
		"reset":                            {coded(connect.CodeCanceled, reset), sent, retry.Transport},
		"broken pipe":                      {coded(connect.CodeCanceled, broken), sent, retry.Transport},
		"reset, untraced":                  {coded(connect.CodeCanceled, reset), retry.Trace{}, retry.Transport},
		"end of the connection":            {coded(connect.CodeUnavailable, io.ErrUnexpectedEOF), sent, retry.Transport},
		"end in a message":                 {coded(connect.CodeInternal, fmt.Errorf("incomplete envelope: %w", io.ErrUnexpectedEOF)), sent, retry.Transport},
		"closed connection":                {coded(connect.CodeUnknown, net.ErrClosed), sent, retry.Transport},
		"closed connection, in a text":     {text(connect.CodeInternal, "write tcp: use of closed network connection"), sent, retry.Transport},
		"lost connection":                  {text(connect.CodeInternal, "http2: client connection lost"), sent, retry.Transport},
		"left with the stream":             {text(connect.CodeInternal, "http2: server sent GOAWAY and closed the connection; LastStreamID=1"), sent, retry.Transport},
		"RST INTERNAL_ERROR":               {text(connect.CodeInternal, "stream error: stream ID 1; INTERNAL_ERROR; received from peer"), sent, retry.Transport},
		"RST CANCEL":                       {text(connect.CodeCanceled, "stream error: stream ID 1; CANCEL; received from peer"), sent, retry.Transport},
		"RST ENHANCE_YOUR_CALM":            {text(connect.CodeResourceExhausted, "bandwidth exhausted: stream error: stream ID 1; ENHANCE_YOUR_CALM"), sent, retry.Transport},
		"RST PROTOCOL_ERROR":               {text(connect.CodeUnavailable, "http2: Transport: cannot retry err [stream error: stream ID 1; PROTOCOL_ERROR; received from peer] after Request.Body was written"), sent, retry.Transport},
		"refused stream":                   {text(connect.CodeUnavailable, "http2: Transport: cannot retry err [stream error: stream ID 1; REFUSED_STREAM; received from peer] after Request.Body was written"), sent, retry.NeverProcessed},
		"left without the stream":          {text(connect.CodeUnavailable, "http2: Transport: cannot retry err [http2: Transport received Server's graceful shutdown GOAWAY] after"), sent, retry.NeverProcessed},
		"somebody's deadline further in":   {coded(connect.CodeDeadlineExceeded, context.DeadlineExceeded), sent, retry.AttemptTimeout},
		"somebody's cancellation":          {coded(connect.CodeCanceled, context.Canceled), sent, retry.Transport},
		"too long to send":                 {text(connect.CodeResourceExhausted, "message size 9 exceeds sendMaxBytes 1"), retry.Trace{}, retry.Local},
		"a message that is none":           {text(connect.CodeInternal, "marshal message: not a proto.Message"), retry.Trace{}, retry.Local},
		"a response that is none":          {text(connect.CodeInternal, "unmarshal message: cannot parse invalid wire-format data"), sent, retry.Local},
		"no bidi":                          {text(connect.CodeUnimplemented, "bidi streams require at least HTTP/2"), sent, retry.Local},
		"an interceptor's":                 {text(connect.CodeUnauthenticated, "no token"), retry.Trace{}, retry.Local},
		"an error without a code":          {errors.New("text"), retry.Trace{}, retry.Local},
		"a cause that is nobody's of ours": {connect.NewWireError(connect.CodeUnavailable, nil), retry.Trace{Cause: errors.New("mine")}, retry.Wire},
	} {
		if got := retry.Classify(test.err, test.trace); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		retry.Success.String():        "success",
		retry.NeverSent.String():      "never_sent",
		retry.NeverProcessed.String(): "never_processed",
		retry.Transport.String():      "transport",
		retry.AttemptTimeout.String(): "attempt_timeout",
		retry.Wire.String():           "wire",
		retry.Local.String():          "local",
		retry.Canceled.String():       "canceled",
		retry.Expired.String():        "expired",
		retry.Class(99).String():      "unknown",
		retry.Began.String():          "began",
		retry.Ended.String():          "ended",
		retry.Committed.String():      "committed",
		retry.Throttled.String():      "throttled",
		retry.Resumed.String():        "resumed",
		retry.ByMessage.String():      "message",
		retry.ByOverflow.String():     "overflow",
		retry.ByUse.String():          "use",
		retry.ByFailure.String():      "failure",
		retry.ByMessageType.String():  "message_type",
		retry.Reason(99).String():     "unknown",
		retry.EventKind(99).String():  "unknown",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	a := retry.Attempt{Number: 2, Delay: time.Second, Class: retry.Wire, Err: text(connect.CodeUnavailable, "no")}
	if got, want := a.String(), "attempt 2 after 1s: wire: unavailable: no"; got != want || a.Code() != connect.CodeUnavailable {
		t.Errorf("%q %v", got, a.Code())
	}
	if got := (retry.Attempt{Number: 1}); got.String() != "attempt 1 after 0s: success" || got.Code() != 0 {
		t.Errorf("%q %v", got, got.Code())
	}
}

// scripted makes an RPC of which every attempt fails with err, and returns how many
// there were. A nil error is an attempt that never answers.
func scripted(t *testing.T, kind connect.StreamType, level connect.IdempotencyLevel, p retry.Policy, err error) (attempts int, failure error) {
	t.Helper()
	rpc := streamwraptest.RPC{Spec: connect.Spec{Procedure: conntest.UnaryProcedure, StreamType: kind, IdempotencyLevel: level}}
	i := retry.NewInterceptor(p)
	if kind == connect.StreamTypeUnary {
		next := func(ctx context.Context, _ *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			attempts++
			if err != nil {
				return nil, err
			}
			<-ctx.Done()
			return nil, coded(connect.CodeCanceled, ctx.Err())
		}
		_, failure = streamwraptest.CallUnary(t.Context(), i, rpc, conntest.Text("text"), next)
		return attempts, failure
	}
	rpc.Spec.IsClient = true
	step := streamwraptest.Block()
	if err != nil {
		step = streamwraptest.Fail(err)
	}
	conn := i.WrapStreamingClient(func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		attempts++
		return streamwraptest.NewClientConn(streamwraptest.Script{RPC: rpc, Receive: []streamwraptest.Step{step.Forever()}}).Open(ctx, spec)
	})(t.Context(), rpc.Spec)
	if err := conn.Send(conntest.Text("text")); err != nil {
		t.Fatal(err)
	}
	failure = conn.Receive(&conntest.Message{})
	_ = conn.CloseRequest()
	_ = conn.CloseResponse()
	return attempts, failure
}

// TestWhatIsTriedAgain is the table of the documentation. Its errors are shared, and
// reading their metadata writes to them: it is not parallel.
func TestWhatIsTriedAgain(t *testing.T) {
	invited := connect.NewWireError(connect.CodeUnavailable, nil)
	invited.Meta().Set("Grpc-Retry-Pushback-Ms", "5")
	other := connect.NewWireError(connect.CodeAborted, nil)
	other.Meta().Set("Grpc-Retry-Pushback-Ms", "5")
	listed := retry.Policy{Codes: []connect.Code{connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeAborted}}
	tests := []struct {
		name       string
		policy     retry.Policy
		err        error
		idempotent int
		unknown    int
	}{
		{"never sent", retry.Policy{}, coded(connect.CodeUnavailable, refused), 6, 6},
		{"never sent, no transparent retries", retry.Policy{MaxTransportRetries: -1}, coded(connect.CodeUnavailable, refused), 3, 3},
		{"never processed", retry.Policy{}, text(connect.CodeUnavailable, "stream error: stream ID 1; REFUSED_STREAM"), 6, 6},
		{"the server's code", retry.Policy{}, connect.NewWireError(connect.CodeUnavailable, nil), 3, 1},
		{"the server's code, invited", retry.Policy{}, invited, 3, 3},
		{"another code", retry.Policy{}, connect.NewWireError(connect.CodeAborted, nil), 1, 1},
		{"another code, invited", retry.Policy{}, other, 1, 1},
		{"another code, listed", listed, connect.NewWireError(connect.CodeAborted, nil), 3, 1},
		{"unavailable, not listed", listed, connect.NewWireError(connect.CodeUnavailable, nil), 1, 1},
		{"the server was late", retry.Policy{}, connect.NewWireError(connect.CodeDeadlineExceeded, nil), 1, 1},
		{"the server was late, listed", listed, connect.NewWireError(connect.CodeDeadlineExceeded, nil), 3, 1},
		{"the server gave up", retry.Policy{}, connect.NewWireError(connect.CodeCanceled, nil), 1, 1},
		{"the server gave up, listed", listed, connect.NewWireError(connect.CodeCanceled, nil), 3, 1},
		{"transport", retry.Policy{}, coded(connect.CodeCanceled, reset), 3, 1},
		{"took too long", retry.Policy{AttemptTimeout: time.Second}, nil, 3, 1},
		{"took too long further in", retry.Policy{}, coded(connect.CodeDeadlineExceeded, context.DeadlineExceeded), 3, 1},
		{"local", retry.Policy{}, text(connect.CodeInternal, "marshal message"), 1, 1},
		{"one attempt", retry.Policy{MaxAttempts: 1, MaxTransportRetries: -1}, connect.NewWireError(connect.CodeUnavailable, nil), 1, 1},
		{"five attempts", retry.Policy{MaxAttempts: 5}, connect.NewWireError(connect.CodeUnavailable, nil), 5, 1},
	}
	levels := []connect.IdempotencyLevel{connect.IdempotencyUnknown, connect.IdempotencyNoSideEffects, connect.IdempotencyIdempotent}
	for _, test := range tests {
		for _, kind := range conntest.AllKinds() {
			for _, level := range levels {
				t.Run(fmt.Sprintf("%s/%s/%d", test.name, kind, level), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						want := test.idempotent
						if level == connect.IdempotencyUnknown {
							want = test.unknown
						}
						got, err := scripted(t, kind, level, test.policy, test.err)
						if got != want || err == nil {
							t.Errorf("%d attempts, want %d: %v", got, want, err)
						}
						assumed := test.policy
						assumed.AssumeIdempotent = true
						if got, _ := scripted(t, kind, level, assumed, test.err); got != test.idempotent {
							t.Errorf("%d attempts if idempotency is assumed, want %d", got, test.idempotent)
						}
					})
				})
			}
		}
	}
}

// TestAnInterceptorFurtherInUsesTheContext: what it asks of other servers is none of
// the attempt's connections.
func TestAnInterceptorFurtherInUsesTheContext(t *testing.T) {
	t.Parallel()
	for _, p := range []retry.Policy{{}, {MaxAttempts: 1, MaxTransportRetries: -1}} {
		synctest.Test(t, func(t *testing.T) {
			tokens := conntest.Start(t, conntest.Config{Transport: conntest.H1})
			srv := conntest.Start(t, conntest.Config{})
			asks := inner{unary: func(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
				r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://tokens.test/token", nil)
				res, err := tokens.Client().Do(r)
				if err != nil {
					return nil, err
				}
				_ = res.Body.Close()
				return next(ctx, req)
			}}
			clients := srv.Clients(connect.WithInterceptors(retry.NewInterceptor(p), asks))
			if _, err := clients.Unary.CallUnary(t.Context(), connect.NewRequest(conntest.Text("text"))); err != nil {
				t.Errorf("a healthy RPC fails: %v", err)
			}
		})
	}
}
