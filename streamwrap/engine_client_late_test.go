package streamwrap_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// lateClient answers when the context of the request has ended, as a transport may
// that has seen the answer first.
type lateClient struct{ closed atomic.Bool }

func (c *lateClient) Do(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	<-time.After(time.Second)
	return &http.Response{
		StatusCode: http.StatusOK,
		ProtoMajor: 2,
		Header:     http.Header{"Content-Type": {"application/connect+proto"}},
		Body:       c,
	}, nil
}

func (c *lateClient) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (c *lateClient) Close() error {
	c.closed.Store(true)
	return nil
}

// TestEngineClientClosesALateResponse: connect leaves a response open that it gets
// after the context has ended.
func TestEngineClientClosesALateResponse(t *testing.T) {
	t.Parallel()
	for name, interceptors := range map[string][]connect.Interceptor{
		"hooks": {streamwrap.NewInterceptor(streamwrap.Hooks[life]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *life, error) { return nil, &life{}, nil },
		})},
		"Engine alone": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log exchangeLog
				late := &lateClient{}
				e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(log.observe))
				clients := conntest.NewClients(e.HTTPClient(late), "http://example.test",
					connect.WithInterceptors(append(interceptors, e)...))
				ctx, cancel := context.WithCancel(t.Context())
				stream := clients.Bidi.CallBidiStream(ctx)
				if err := stream.Send(nil); err != nil {
					t.Fatal(err)
				}
				cancel()
				if err := stream.Send(conntest.Text(strings.Repeat("x", 10))); err == nil {
					t.Error("a Send after the end succeeded")
				}
				<-time.After(5 * time.Second)
				if !late.closed.Load() {
					t.Error("nobody closed the response")
				}
				if end := log.only(t); connect.CodeOf(end.Err) != connect.CodeCanceled {
					t.Errorf("the exchange ended with %v", end.Err)
				}
			})
		})
	}
}
