package retry_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// web is what most tests run over: both versions of HTTP.
var web = []conntest.Transport{conntest.H2C, conntest.H1}

// eager tries again at once, whatever the procedure.
func eager() retry.Policy {
	return retry.Policy{AssumeIdempotent: true, Backoff: retry.Constant(time.Second)}
}

// events collects what an observer sees, a word for each.
type events struct {
	mu    sync.Mutex
	words []string
}

func (e *events) observe(_ context.Context, event retry.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	word := event.Kind.String()
	switch event.Kind {
	case retry.Ended:
		word = event.Attempt.Class.String()
	case retry.Committed:
		word += ":" + event.Reason.String()
	case retry.Began:
		word = strconv.Itoa(event.Attempt.Number)
	}
	e.words = append(e.words, word)
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.words, " ")
}

// retrying returns the case's clients with a retry interceptor.
func retrying(c conntest.Case, srv *conntest.Server, p retry.Policy, opts ...retry.Option) *conntest.Clients {
	return c.Clients(srv, connect.WithInterceptors(retry.NewInterceptor(p, opts...)))
}

func wantMessages(tb testing.TB, got []string, want ...string) {
	tb.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		tb.Errorf("messages %v, want %v", got, want)
	}
}
