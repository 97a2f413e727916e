package streamwrap_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// foreignChain puts somebody else's conn wrapper between two of our
// interceptors, the probe outermost.
func foreignChain(p *probe) connect.Option {
	return connect.WithInterceptors(p, plain(), foreignWrapper{}, plain(), plain())
}

// plain is an interceptor of ours that does nothing.
func plain() connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
			return nil, new(struct{}), nil
		},
	})
}

// foreignWrapper wraps conns as other people do.
type foreignWrapper struct{}

type (
	foreignClientConn  struct{ connect.StreamingClientConn }
	foreignHandlerConn struct{ connect.StreamingHandlerConn }
)

func (foreignWrapper) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return next }

func (foreignWrapper) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return foreignClientConn{next(ctx, spec)}
	}
}

func (foreignWrapper) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return next(ctx, foreignHandlerConn{conn})
	}
}

// chains are the chains that the guard is tested with.
var chains = []struct {
	name  string
	chain func(*probe) connect.Option
}{
	{"alone", nil},
	{"split by a foreign wrapper", foreignChain},
	{"outside of a foreign wrapper", func(p *probe) connect.Option { return connect.WithInterceptors(p, foreignWrapper{}) }},
}

// steady is a handler that sends without a pause and receives at the same time.
func steady(_ context.Context, stream *connect.BidiStream[conntest.Message, conntest.Message]) error {
	msg := conntest.Text(strings.Repeat("steady", 20))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for stream.Send(msg) == nil {
		}
	}()
	_, err := drain(stream.Conn())
	<-done
	return err
}

// TestCancelDuringASteadyStream is the hard case: messages arrive all the time,
// so that connect itself sees the end of the context and would end the request
// cleanly. The server must see CANCEL each time.
func TestCancelDuringASteadyStream(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		cancel func(cancel func()) // with the stream's messages coming in
	}{
		{"from another goroutine", func(cancel func()) { go cancel() }},
		{"between two Receives", func(cancel func()) { cancel() }},
	} {
		for _, ch := range chains {
			streams := 200
			if ch.chain != nil {
				streams = 50
			}
			t.Run(tt.name+"/"+ch.name, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					r := newRig(t, c, setup{clientChain: ch.chain, config: conntest.Config{
						Window: 8 << 10, Service: conntest.Service{Bidi: steady},
						HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)},
					}})
					for i := range streams {
						ctx, cancel := context.WithCancel(t.Context())
						conn := r.mustStart(ctx, t, nil)
						for range 1 + i%7 {
							if err := conn.Receive(&conntest.Message{}); err != nil {
								t.Fatal(err)
							}
						}
						tt.cancel(cancel)
						_, err := drain(conn)
						wantCode(t, "Receive", err, connect.CodeCanceled)
					}
					wantAllCanceled(t, r, streams)
				})
			})
		}
	}
}

// wantAllCanceled checks that n uploads ended as canceled on both sides.
func wantAllCanceled(t *testing.T, r *rig, n int) {
	t.Helper()
	calls := r.WaitCalls(n)
	synctest.Wait()
	bad := slices.DeleteFunc(calls, func(call conntest.Call) bool { return call.SawCancel() && !call.SawEOF() })
	if len(bad) > 0 {
		t.Errorf("%d of %d calls were not canceled: %v", len(bad), n, bad[0])
	}
	for _, p := range []*probe{r.client, r.server} {
		lives := slices.DeleteFunc(p.Lives(), func(l *life) bool { return l.End().Outcome == streamwrap.Canceled })
		if len(lives) > 0 {
			t.Errorf("%s: %d of %d did not end as canceled: %s", p.name, len(lives), n, lives[0])
		}
	}
}

// slowClose is a response body that takes its time to close, as one does whose
// connection is busy.
type slowClose struct{ io.ReadCloser }

func (b slowClose) Close() error {
	time.Sleep(5 * time.Millisecond)
	return b.ReadCloser.Close()
}

// TestContextEndsAfterTheReset: until the stream is reset, neither connect nor
// net/http may see that the context ended, for they would end the request.
func TestContextEndsAfterTheReset(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: h2, Kinds: bidiKind}, func(t *testing.T, c conntest.Case, e ending) {
		// Messages come in while the body closes.
		r := newRig(t, c, setup{config: bidiService(func(_ context.Context, stream *bidiStream) error {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = stream.Conn().Send(nil)
				time.Sleep(990 * time.Millisecond)
				for stream.Send(conntest.Text("steady")) == nil {
					time.Sleep(time.Millisecond)
				}
			}()
			_, err := drain(stream.Conn())
			<-done
			return err
		})})
		withoutTimeout := roundTrips(func(req *http.Request) (*http.Response, error) {
			for _, header := range []string{"Connect-Timeout-Ms", "Grpc-Timeout"} {
				req.Header.Del(header) // the server's own timer would be as fast
			}
			res, err := r.Client().Do(req)
			if err == nil {
				res.Body = slowClose{res.Body}
			}
			return res, err
		})
		r.clients = conntest.NewClients(withoutTimeout, r.URL, c.Option(), connect.WithInterceptors(r.client))
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		conn := r.mustStart(ctx, t, nil)
		_, err := drain(conn)
		e.wantErr(t, "Receive", err)
		promptly(t, "Receive", due)
		wantCanceledUpload(t, r.WaitCalls(1)[0])
	})
}
