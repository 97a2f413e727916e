package deadline_test

import (
	"errors"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/interconnect-go/interconnect/deadline"
)

// errorInfo returns the google.rpc.ErrorInfo of an error.
func errorInfo(tb testing.TB, err error) *errdetails.ErrorInfo {
	tb.Helper()
	return detail[*errdetails.ErrorInfo](tb, err)
}

// detail returns the one detail of a type, its zero value if there is none.
func detail[D any](tb testing.TB, err error) (found D) {
	tb.Helper()
	e := (*connect.Error)(nil)
	if !errors.As(err, &e) {
		tb.Fatalf("%v is no connect.Error", err)
	}
	n := 0
	for _, d := range e.Details() {
		value, err := d.Value()
		if err != nil {
			tb.Fatal(err)
		}
		if v, ok := value.(D); ok {
			found = v
			n++
		}
	}
	if n > 1 {
		tb.Errorf("%d details of one type in %v", n, err)
	}
	return found
}

func wantMetadata(tb testing.TB, err error, want map[string]string) {
	tb.Helper()
	info := errorInfo(tb, err)
	if info == nil {
		tb.Errorf("no ErrorInfo in %v", err)
		return
	}
	if info.GetDomain() != deadline.Domain {
		tb.Errorf("domain is %q", info.GetDomain())
	}
	for key, value := range want {
		if got := info.GetMetadata()[key]; got != value {
			tb.Errorf("metadata has %s %q, want %q", key, got, value)
		}
	}
	if len(info.GetMetadata()) != 5 {
		tb.Errorf("metadata is %v", info.GetMetadata())
	}
}

// wantRetryInfo checks whether an error says that the client may come back at once.
func wantRetryInfo(tb testing.TB, err error, want bool) {
	tb.Helper()
	info := detail[*errdetails.RetryInfo](tb, err)
	e := (*connect.Error)(nil)
	_ = errors.As(err, &e)
	pushback := e.Meta()["Grpc-Retry-Pushback-Ms"]
	if !want {
		if info != nil || len(pushback) > 0 {
			tb.Errorf("%v invites to come back: %v, %q", err, info, pushback)
		}
		return
	}
	if info == nil || info.GetRetryDelay() == nil || info.GetRetryDelay().AsDuration() != 0 || !slices.Equal(pushback, []string{"0"}) {
		tb.Errorf("%v does not invite to come back at once: %v, %q", err, info, pushback)
	}
}
