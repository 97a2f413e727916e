package deadline

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// asked is what connect makes of a timeout in a request's headers.
type asked struct {
	accepted bool // it was not refused
	timeout  time.Duration
	asks     bool
}

// oracle asks a real handler of connect. It must run in a bubble, where the
// deadline tells the timeout exactly.
func oracle(header http.Header) (a asked) {
	gate := func(ctx context.Context, _ connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
		a.accepted = true
		if deadline, ok := ctx.Deadline(); ok {
			a.timeout, a.asks = time.Until(deadline), true
		}
		return ctx, connect.NewError(connect.CodeAborted, context.Canceled) // that was all
	}
	handler := connect.NewBidiStreamHandler(conntest.BidiProcedure,
		func(context.Context, *connect.BidiStream[conntest.Message, conntest.Message]) error { return nil },
		connect.WithRequestGate(gate))
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, conntest.BidiProcedure, bytes.NewReader(nil))
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0
	r.Header = header
	handler.ServeHTTP(httptest.NewRecorder(), r)
	return a
}

// protocols is what the fuzz tests know of the two ways to say a timeout.
var protocols = []struct {
	name        string
	encoding    encoding
	contentType string
}{
	{"connect", connectTimeout, "application/connect+proto"},
	{"grpc", grpcTimeout, "application/grpc"},
	{"grpc-web", grpcTimeout, "application/grpc-web+proto"},
}

// FuzzTimeout: a timeout is what connect takes it for; and what is made of it is
// well-formed, and not longer.
func FuzzTimeout(f *testing.F) {
	for _, text := range []string{
		"", "0", "1", "+5000", "007", "-1", "-0", "+0", "abc", "1.5", "9999999999", "10000000000", "00000000001", " 1", "1 ", "1_0", "0x1",
		"0n", "1n", "5u", "100m", "7S", "3M", "2H", "99999999n", "99999999H", "2562047H", "2562048H", "100000000S", "000000001S",
		"-1S", "+1S", "1s", "1", "S", "1 S", "٣S", "9999999M", "1SS", "\x00", "H",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		synctest.Test(t, func(t *testing.T) {
			for _, p := range protocols {
				header := http.Header{"Content-Type": {p.contentType}, p.encoding.key: {text, "1"}}
				if got := encodingOf(header); got.key != p.encoding.key {
					t.Fatalf("%s: takes it for %q", p.name, got.key)
				}
				timeout, asks, ok := p.encoding.read(header)
				want := oracle(header)
				if ok != want.accepted || ok && (asks != want.asks || timeout != want.timeout) {
					t.Fatalf("%s: %q is %v, %v, %v; connect has %+v", p.name, text, timeout, asks, ok, want)
				}
				if ok && asks {
					wantFormat(t, header, timeout)
				}
			}
		})
	})
}

// FuzzFormat: whatever a policy or the clock makes of a timeout can be sent, and is
// rounded down, but never to nothing or to no limit.
func FuzzFormat(f *testing.F) {
	for _, d := range []time.Duration{
		-1, 0, 1, 999_999, time.Millisecond, 99_999_999, 100_000_000, time.Hour - 1,
		maxTimeout - 1, maxTimeout, maxTimeout + 1, -1 << 63, 1<<63 - 1,
	} {
		f.Add(int64(d))
	}
	f.Fuzz(func(t *testing.T, nanos int64) {
		synctest.Test(t, func(t *testing.T) {
			for _, p := range protocols {
				wantFormat(t, http.Header{"Content-Type": {p.contentType}}, time.Duration(nanos))
			}
		})
	})
}

// wantFormat checks the header that a request of a protocol gets for a timeout.
func wantFormat(t *testing.T, header http.Header, timeout time.Duration) {
	t.Helper()
	e := encodingOf(header)
	text := e.format(timeout)
	header[e.key] = []string{text}
	finest := time.Nanosecond
	if e.key == connectTimeout.key {
		finest = time.Millisecond
	}
	got := oracle(header)
	if !got.accepted || !got.asks {
		t.Fatalf("%q for %v: connect has %+v", text, timeout, got)
	}
	if got.timeout > max(timeout, finest) || got.timeout <= 0 {
		t.Fatalf("%q for %v is %v", text, timeout, got.timeout)
	}
	// At most a hundred-millionth is lost by the units of gRPC, of connect less
	// than a millisecond; and what its ten digits do not say.
	most := max(min(timeout, maxTimeout), finest)
	if lost := most - got.timeout; lost >= time.Millisecond && lost > most/1_000_000 {
		t.Fatalf("%q for %v is %v", text, timeout, got.timeout)
	}
}

// FuzzContentType: the protocol is the one for which connect takes a request.
func FuzzContentType(f *testing.F) {
	for _, contentType := range []string{
		"application/grpc", "application/grpc+proto", "application/grpc+json", "application/grpc-web", "application/grpc-web+proto",
		"application/grpc-web-text", "application/connect+proto", "application/connect+json", "APPLICATION/gRPC", "application/grpc; a=b",
		"application/json", "application/proto", "", " application/grpc", "application/grpcfoo", "Application/Connect+Proto;charset=utf-8",
	} {
		f.Add(contentType)
	}
	f.Fuzz(func(t *testing.T, contentType string) {
		synctest.Test(t, func(t *testing.T) {
			header := http.Header{"Content-Type": {contentType}}
			header.Set(connectTimeout.key, "1000")
			header.Set(grpcTimeout.key, "2S")
			timeout, asks, ok := encodingOf(header).read(header)
			want := oracle(header) // it changes the header into a canonical one
			if !want.accepted {
				return // no protocol at all
			}
			if !ok || asks != want.asks || timeout != want.timeout {
				t.Errorf("%q is %v, connect has %+v", contentType, timeout, want)
			}
		})
	})
}

// FuzzProcedureOf: the procedure of a path is the one that connect's handlers have,
// wherever they are mounted.
func FuzzProcedureOf(f *testing.F) {
	procedures := []string{conntest.UnaryProcedure, conntest.ClientProcedure, conntest.ServerProcedure, conntest.BidiProcedure}
	for _, path := range append(procedures,
		"", "/", "//", "///", "/a", "/a/", "/a/b", "a/b", "//b", "/a//", "/api/v1/a.B/C", "/a/b/", "http://x/a/b", "*") {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		procedure, ok := procedureOf(path)
		switch {
		case !ok && procedure != "":
			t.Errorf("%q: %q for nothing", path, procedure)
		case ok && !strings.HasSuffix(path, procedure):
			t.Errorf("%q does not end with %q", path, procedure)
		case ok:
			parts := strings.Split(procedure, "/")
			if len(parts) != 3 || parts[0] != "" || parts[1] == "" || parts[2] == "" {
				t.Errorf("%q has the procedure %q", path, procedure)
			}
		}
		for _, want := range procedures {
			if got, ok := procedureOf(path + want); !ok || got != want {
				t.Errorf("%q has the procedure %q, %v", path+want, got, ok)
			}
		}
	})
}

// TestProcedureOfAgrees: connect's Spec has the same name for what is mounted below
// a prefix or without one.
func TestProcedureOfAgrees(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "/api", "/api/v1"} {
		for _, want := range []string{conntest.UnaryProcedure, conntest.ClientProcedure, conntest.ServerProcedure, conntest.BidiProcedure} {
			var spec connect.Spec
			handler := connect.NewUnaryHandler(want,
				func(context.Context, *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
					return connect.NewResponse(&conntest.Message{}), nil
				},
				connect.WithRequestGate(func(ctx context.Context, s connect.Spec, _ connect.Peer, _ http.Header) (context.Context, error) {
					spec = s
					return ctx, nil
				}))
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, prefix+want, bytes.NewReader(nil))
			r.Header.Set("Content-Type", "application/proto")
			handler.ServeHTTP(httptest.NewRecorder(), r)
			if got, ok := procedureOf(prefix + want); !ok || got != spec.Procedure {
				t.Errorf("%s has the procedure %q, %v; connect has %q", prefix+want, got, ok, spec.Procedure)
			}
		}
	}
}
