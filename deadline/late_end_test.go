package deadline_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// deadlineWriter notes that the read deadline is set after ServeHTTP has returned,
// when the connection may serve the next request.
type deadlineWriter struct {
	*httptest.ResponseRecorder

	mu       sync.Mutex
	returned bool
	set      int
	late     int
}

func (w *deadlineWriter) SetReadDeadline(time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set++
	if w.returned {
		w.late++
	}
	return nil
}

// TestReadDeadlineOfAnEndedRequest: a stream that only a gate has begun ends with the
// context of its request, whose connection is another's by then.
func TestReadDeadlineOfAnEndedRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deadlines := deadline.NewInterceptor(deadline.Policy{Idle: time.Minute})
		handler := deadlines.Handler(connect.NewBidiStreamHandler(conntest.BidiProcedure,
			func(context.Context, *connect.BidiStream[conntest.Message, conntest.Message]) error { return nil },
			connect.WithRequestGate(deadlines.Gate())))
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), http.ServerContextKey, &http.Server{ReadTimeout: time.Second})) //nolint:gosec // it never serves
		defer cancel()
		request := httptest.NewRequestWithContext(ctx, http.MethodPost, conntest.BidiProcedure, strings.NewReader(""))
		request.Header.Set("Content-Type", "application/connect+proto")
		request.ProtoMajor = 2
		w := &deadlineWriter{ResponseRecorder: httptest.NewRecorder()}
		handler.ServeHTTP(w, request)
		w.mu.Lock()
		w.returned = true
		w.mu.Unlock()
		cancel()
		synctest.Wait()
		if w.set == 0 || w.late != 0 {
			t.Errorf("the read deadline was set %d times, %d of them late", w.set, w.late)
		}
	})
}
