package streamwrap_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestSameProcedureWithinTheProcess: an interceptor of somebody else's that has the same
// procedure served within the process, with the context that it has, causes an RPC of its
// own, not a part of the one that it stands in.
func TestSameProcedureWithinTheProcess(t *testing.T) {
	t.Parallel()
	var opened, ended []uint64
	watching := streamwrap.NewInterceptor(streamwrap.Hooks[uint64]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *uint64, error) {
			id := call.ID()
			opened = append(opened, id)
			return nil, &id, nil
		},
		End: func(id *uint64, _ context.Context, _ *streamwrap.End) { ended = append(ended, *id) },
	})
	var handler http.Handler
	status := 0
	again := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if status == 0 {
				status = -1
				w := httptest.NewRecorder()
				r := httptest.NewRequestWithContext(ctx, http.MethodPost, conntest.UnaryProcedure, http.NoBody)
				r.Header.Set("Content-Type", "application/proto")
				handler.ServeHTTP(w, r)
				status = w.Code
			}
			return next(ctx, req)
		}
	})
	handler = streamwrap.NewEngine().Handler(connect.NewUnaryHandler(conntest.UnaryProcedure,
		func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
			return connect.NewResponse(&conntest.Message{}), nil
		}, watching.HandlerOption(), connect.WithInterceptors(again)))
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, conntest.UnaryProcedure, http.NoBody)
	r.Header.Set("Content-Type", "application/proto")
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK || status != http.StatusOK {
		t.Errorf("status %d, within %d", w.Code, status)
	}
	slices.Reverse(ended)
	if len(opened) != 2 || opened[0] == opened[1] || !slices.Equal(opened, ended) {
		t.Errorf("opened %v, ended from the last %v", opened, ended)
	}
}
