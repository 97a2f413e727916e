package bench

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// peerRetries is grpc-go's policy of three attempts, nearly without a delay.
const peerRetries = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.001s",
	"maxBackoff": "0.002s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// peerRefusals are errors of a handler, and how often grpc-go then tries.
var peerRefusals = map[string]struct {
	refuse   func() *connect.Error
	attempts int64
	least    time.Duration
}{
	"plain": {func() *connect.Error { return connect.NewError(connect.CodeUnavailable, errors.New("not now")) }, 3, 0},
	"metadata": {func() *connect.Error {
		err := connect.NewError(connect.CodeUnavailable, errors.New("not now"))
		err.Meta().Set("Own", "metadata")
		return err
	}, 3, 0},
	"pushback": {func() *connect.Error {
		return retry.Pushback(connect.NewError(connect.CodeUnavailable, errors.New("not now")), 50*time.Millisecond)
	}, 3, 100 * time.Millisecond},
	"no retry": {func() *connect.Error {
		return retry.NoRetry(connect.NewError(connect.CodeUnavailable, errors.New("not now")))
	}, 1, 0},
	"other code": {func() *connect.Error { return connect.NewError(connect.CodeInternal, errors.New("broken")) }, 1, 0},
}

// retryPeer is a connect server that refuses two attempts at each RPC, as often as it
// is asked, and the grpc-go client that calls it.
func retryPeer(t *testing.T, wrap func(http.Handler) http.Handler, refuse func() *connect.Error) (*grpc.ClientConn, *atomic.Int64) {
	t.Helper()
	calls := new(atomic.Int64)
	fail := func() error {
		if calls.Add(1) < 3 {
			return refuse()
		}
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle(unaryProcedure, connect.NewUnaryHandler(unaryProcedure,
		func(_ context.Context, req *connect.Request[Message]) (*connect.Response[Message], error) {
			return connect.NewResponse(req.Msg), fail()
		}))
	mux.Handle(echoProcedure, connect.NewBidiStreamHandler(echoProcedure,
		func(_ context.Context, s *connect.BidiStream[Message, Message]) error {
			m, err := s.Receive()
			if err == nil {
				err = fail()
			}
			if err != nil {
				return err
			}
			return s.Send(m)
		}))
	server := httptest.NewUnstartedServer(wrap(mux))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	conn, err := grpc.NewClient(strings.TrimPrefix(server.URL, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(peerRetries))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, calls
}

// peerCalls are one RPC of either kind.
var peerCalls = map[string]func(context.Context, *grpc.ClientConn) (string, error){
	"unary": func(ctx context.Context, conn *grpc.ClientConn) (string, error) {
		m := new(Message)
		err := conn.Invoke(ctx, unaryProcedure, &Message{Value: []byte("text")}, m)
		return string(m.GetValue()), err
	},
	"bidi": func(ctx context.Context, conn *grpc.ClientConn) (string, error) {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, echoProcedure)
		if err != nil {
			return "", err
		}
		if err := errors.Join(stream.SendMsg(&Message{Value: []byte("text")}), stream.CloseSend()); err != nil {
			return "", err
		}
		m := new(Message)
		err = stream.RecvMsg(m)
		return string(m.GetValue()), err
	},
}

// TestRetryOfPeers: grpc-go retries what a connect server refuses through
// retry.TrailersOnly, and does what it asks for.
func TestRetryOfPeers(t *testing.T) {
	t.Parallel()
	places := map[string]func(http.Handler) http.Handler{
		"alone":   retry.TrailersOnly,
		"inside":  func(next http.Handler) http.Handler { return streamwrap.NewEngine().Handler(retry.TrailersOnly(next)) },
		"outside": func(next http.Handler) http.Handler { return retry.TrailersOnly(streamwrap.NewEngine().Handler(next)) },
	}
	for place, wrap := range places {
		for name, test := range peerRefusals {
			for kind, call := range peerCalls {
				t.Run(place+"/"+name+"/"+kind, func(t *testing.T) {
					t.Parallel()
					conn, calls := retryPeer(t, wrap, test.refuse)
					start := time.Now()
					text, err := call(t.Context(), conn)
					if got := calls.Load(); got != test.attempts {
						t.Errorf("%d attempts, want %d: %v", got, test.attempts, err)
					}
					if elapsed := time.Since(start); elapsed < test.least {
						t.Errorf("it took %v, less than the server asked for", elapsed)
					}
					switch want := test.refuse(); {
					case test.attempts == 3 && (err != nil || text != "text"):
						t.Errorf("%q, %v", text, err)
					case test.attempts == 1 && status.Code(err) != codes.Code(want.Code()):
						t.Errorf("%v, want %v", err, want)
					}
				})
			}
		}
	}
}

// TestRetryOfPeersNeedsTrailersOnly: without it, grpc-go never retries.
func TestRetryOfPeersNeedsTrailersOnly(t *testing.T) {
	t.Parallel()
	places := map[string]func(http.Handler) http.Handler{
		"alone":  func(next http.Handler) http.Handler { return next },
		"engine": func(next http.Handler) http.Handler { return streamwrap.NewEngine().Handler(next) },
	}
	for place, wrap := range places {
		for kind, call := range peerCalls {
			t.Run(place+"/"+kind, func(t *testing.T) {
				t.Parallel()
				conn, calls := retryPeer(t, wrap, peerRefusals["pushback"].refuse)
				_, err := call(t.Context(), conn)
				if got := calls.Load(); got != 1 || status.Code(err) != codes.Unavailable {
					t.Errorf("%d attempts, %v", got, err)
				}
			})
		}
	}
}
