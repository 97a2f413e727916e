package retry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// refuser is a streamwrap interceptor that refuses messages with a text, from some
// attempt on.
func refuser(text string, from int, err error) connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[streamwrap.Attempt]{
		Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *streamwrap.Attempt, error) {
			a, _ := streamwrap.AttemptFromContext(ctx)
			return ctx, a, nil
		},
		Send: func(a *streamwrap.Attempt, _ context.Context, msg any) error {
			if m, ok := msg.(*conntest.Message); ok && string(m.GetValue()) == text && a.Number >= from {
				return err
			}
			return nil
		},
	})
}

// TestStreamLocalErrors: what cannot be sent is the sender's business, at once. It
// is not part of a replay, and the stream goes on without it.
func TestStreamLocalErrors(t *testing.T) {
	t.Parallel()
	codes := []connect.Code{connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodePermissionDenied}
	type local struct {
		msg  any
		opts []connect.ClientOption
		code connect.Code
	}
	cases := map[string]local{
		"does not marshal": {wrapperspb.String("\xff"), nil, connect.CodeInternal},
		"too large":        {conntest.Text(strings.Repeat("x", 100)), []connect.ClientOption{connect.WithSendMaxBytes(50)}, connect.CodeResourceExhausted},
	}
	for _, code := range codes {
		err := connect.NewError(code, errors.New("refused"))
		cases["refused: "+code.String()] = local{conntest.Text("refuse"), []connect.ClientOption{
			connect.WithInterceptors(refuser("refuse", 0, err)),
		}, code}
	}
	for name, test := range cases {
		for _, dead := range []bool{false, true} {
			if dead {
				name += ", attempt is dead"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
					if dead && name[:len("too large")] != "too large" && !c.Transport.HTTP2() {
						return // the server does not say that it refused
					}
					after := 2
					if dead {
						after = 1
					}
					srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, after))})
					var log events
					opts := append([]connect.ClientOption{
						connect.WithInterceptors(retry.NewInterceptor(eager(), retry.WithObserver(log.observe))),
					}, test.opts...)
					conn := openConn(t.Context(), t, c.Clients(srv, opts...), c.Kind)
					if err := conn.Send(conntest.Text("one")); err != nil {
						t.Fatal(err)
					}
					if dead {
						waitReturned(srv, 1)
						// The transport has to notice, too.
						if err := conn.Send(conntest.Text("two")); err != nil {
							t.Fatal(err)
						}
						synctest.Wait()
					}
					err := conn.Send(test.msg)
					if !dead || err != nil {
						wantCode(t, err, test.code)
						if errors.Is(err, io.EOF) {
							t.Errorf("%v is EOF, which means that Receive knows better", err)
						}
					}
					want := "one three"
					if dead {
						want = "one two three"
					}
					if !dead {
						upload(t, conn, "three")
						got, receiveErr := drain(conn)
						if receiveErr != nil {
							t.Fatalf("%v: %v", &log, receiveErr)
						}
						wantMessages(t, got, want)
						wantEvents(t, &log, "1 wire 2 committed:message success")
						return
					}
					// A dead attempt may not look at a message any more. Then it is the
					// replay that fails, which nobody waits for: Receive tells.
					upload(t, conn, "three")
					got, receiveErr := drain(conn)
					switch {
					case err != nil && receiveErr == nil:
						wantMessages(t, got, want)
					case err != nil:
						t.Errorf("Send returned %v, and Receive %v", err, receiveErr)
					default:
						wantCode(t, receiveErr, test.code)
						if n := len(retry.HistoryOf(receiveErr)); n != 2 {
							t.Errorf("%v: %d attempts, want 2: the third will not come out otherwise", &log, n)
						}
					}
				})
			})
		}
	}
}

// TestStreamRefusedReplay: an interceptor further in that refuses a message only in
// a replay ends the RPC, whatever its code: no server has said so.
func TestStreamRefusedReplay(t *testing.T) {
	t.Parallel()
	for _, code := range []connect.Code{connect.CodeUnavailable, connect.CodePermissionDenied, connect.CodeDeadlineExceeded, connect.CodeCanceled} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{Service: stubborn(refuseFirst(1, 2))})
				refusal := connect.NewError(code, errors.New("refused"))
				var log events
				conn := openConn(t.Context(), t, c.Clients(srv, connect.WithInterceptors(
					retry.NewInterceptor(eager(), retry.WithObserver(log.observe)), refuser("two", 2, refusal))), c.Kind)
				upload(t, conn, "one", "two", "three")
				_, err := drain(conn)
				if coded := (*connect.Error)(nil); !errors.As(err, &coded) || coded != refusal {
					t.Errorf("error %v, want the refusal", err)
				}
				wantEvents(t, &log, "1 wire 2 local committed:failure")
				if calls := srv.Calls(); c.Transport.HTTP2() && len(calls) > 1 {
					wantTruncated(t, srv.WaitCalls(2)[1:])
				}
			})
		})
	}
}

// TestStreamRefusedHeaders: an RPC whose headers an interceptor further in refuses
// is over, and never leaves.
func TestStreamRefusedHeaders(t *testing.T) {
	t.Parallel()
	for _, code := range []connect.Code{connect.CodeUnavailable, connect.CodePermissionDenied} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, conntest.Config{})
				refusal := connect.NewError(code, errors.New("refused"))
				inner := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
					Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
						return ctx, &struct{}{}, nil
					},
					Header: func(*struct{}, context.Context, http.Header) error { return refusal },
				})
				clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), inner))
				if c.Kind == connect.StreamTypeServer {
					_, err := download(t.Context(), clients, "text")
					wantCode(t, err, code)
				} else {
					conn := openConn(t.Context(), t, clients, c.Kind)
					err := conn.Send(conntest.Text("one"))
					wantCode(t, err, code)
					_, err = drain(conn)
					wantCode(t, err, code)
				}
				if n := srv.Requests(); n != 0 {
					t.Errorf("%d requests left", n)
				}
			})
		})
	}
}

// TestServerStreamRefusedMessage: CallServerStream fails, without a request.
func TestServerStreamRefusedMessage(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		refusal := connect.NewError(connect.CodeUnavailable, errors.New("refused"))
		clients := c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(eager()), refuser("text", 0, refusal)))
		_, err := download(t.Context(), clients, "text")
		if coded := (*connect.Error)(nil); !errors.As(err, &coded) || coded != refusal {
			t.Errorf("error %v, want the refusal", err)
		}
		if n := srv.Requests(); n != 0 {
			t.Errorf("%d requests left", n)
		}
	})
}

// TestStreamRetriedBeforeTheFirstSend: the headers that the user sets later reach
// the attempt that is under way by then.
func TestStreamRetriedBeforeTheFirstSend(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(hang(1, 0))})
		opened := 0
		token := streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *struct{}, error) {
				if opened++; opened == 1 {
					return nil, nil, connect.NewError(connect.CodeUnavailable, errors.New("no token"))
				}
				return ctx, &struct{}{}, nil
			},
		})
		p := eager()
		p.AttemptTimeout = 10 * time.Second
		conn := openConn(t.Context(), t, c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(p), token)), c.Kind)
		start := time.Now()
		done := make(chan struct{})
		var got []string
		var err error
		go func() {
			defer close(done)
			got, err = drain(conn)
		}()
		time.Sleep(5 * time.Second)
		conn.RequestHeader().Set("User", "user")
		upload(t, conn, "one")
		<-done
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, "one")
		for i, call := range srv.Calls() {
			if got := call.Header.Get("User"); got != "user" {
				t.Errorf("call %d has the header %q, want user", i+1, got)
			}
		}
		wantElapsed(t, start, 16*time.Second) // the server is hung, the attempt's time counts
	})
}
