package streamwraptest

import (
	"strings"
	"testing"

	"connectrpc.com/connect"
)

// Run checks that an interceptor keeps the contract that connect's clients and
// handlers, and the interceptors next to it, rely on. Each rule is a subtest
// with its name; the package documentation lists them. A rule whose premise is
// broken is skipped.
//
// newInterceptor returns an interceptor that has nothing to refuse. It is called
// for each client and each handler anew, mostly inside synctest bubbles: the
// interceptor's clock is fake. If the interceptor implements io.Closer, it is
// closed after use; goroutines of its own must have ended then.
//
// Run takes some tenths of a second, with -race about one. It may be called by
// parallel tests, but not inside a bubble.
func Run(t *testing.T, newInterceptor func() connect.Interceptor, opts ...Option) {
	t.Helper()
	if newInterceptor == nil {
		panic("streamwraptest: Run: nil newInterceptor")
	}
	s := newSuite(newInterceptor, opts)
	for _, r := range rules() {
		t.Run(r.name, func(t *testing.T) {
			v := s.check(t, r)
			switch {
			case v.skipped != "":
				t.Skip(v.skipped)
			case len(v.findings) > 0:
				t.Errorf("%s\nWhy it matters: %s", strings.Join(v.findings, "\n"), r.why)
			}
		})
	}
}
