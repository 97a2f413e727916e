package streamwrap_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestGateThatOutlastsItsRequest: what Open returns when the request has ended in the
// meantime gets its End, too, if no interceptor claims it.
func TestGateThatOutlastsItsRequest(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		type nothing struct{}
		var opened, ended atomic.Int64
		i := streamwrap.NewInterceptor(streamwrap.Hooks[nothing]{
			Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *nothing, error) {
				<-ctx.Done()
				time.Sleep(time.Second) // everybody else has noticed
				opened.Add(1)
				return nil, &nothing{}, nil
			},
			End: func(*nothing, context.Context, *streamwrap.End) { ended.Add(1) },
		})
		quick := streamwrap.NewInterceptor(streamwrap.Hooks[nothing]{
			Open: func(context.Context, *streamwrap.Call) (context.Context, *nothing, error) {
				return nil, &nothing{}, nil
			},
		})
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{
			connect.WithRequestGate(quick.Gate()), connect.WithRequestGate(i.Gate()),
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = c.Clients(srv).Do(ctx, c.Kind, nil, "one")
		time.Sleep(time.Minute)
		if opened.Load() != 1 || ended.Load() != 1 {
			t.Errorf("opened %d times, ended %d times", opened.Load(), ended.Load())
		}
	})
}
