package conntest_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
)

// wantEcho is what the echo service returns for "one" and "two".
func wantEcho(kind connect.StreamType) []string {
	switch kind {
	case connect.StreamTypeClient:
		return []string{"onetwo"}
	case connect.StreamTypeServer:
		return []string{"one", "one", "one"}
	case connect.StreamTypeBidi:
		return []string{"one", "two"}
	default:
		return []string{"one"}
	}
}

func procedure(kind connect.StreamType) string {
	return map[connect.StreamType]string{
		connect.StreamTypeUnary:  conntest.UnaryProcedure,
		connect.StreamTypeClient: conntest.ClientProcedure,
		connect.StreamTypeServer: conntest.ServerProcedure,
		connect.StreamTypeBidi:   conntest.BidiProcedure,
	}[kind]
}

func TestEcho(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Codecs: conntest.AllCodecs()}.Each(t, testEcho)
}

func TestEchoInBubble(t *testing.T) {
	t.Parallel()
	conntest.EachBubble(t, testEcho)
}

func testEcho(t *testing.T, c conntest.Case) {
	srv := c.Start(t, conntest.Config{})
	clients := c.Clients(srv)
	header := http.Header{
		conntest.HeaderPrefix + "A":  {"1", "2"},
		conntest.TrailerPrefix + "B": {"3"},
	}
	for range 2 { // twice, over one connection
		reply := clients.Do(t.Context(), c.Kind, header, "one", "two")
		if reply.Err != nil {
			t.Fatal(reply.Err)
		}
		if diff := cmp.Diff(wantEcho(c.Kind), reply.Messages); diff != "" {
			t.Errorf("messages (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"1", "2"}, reply.Header.Values(conntest.HeaderPrefix+"A")); diff != "" {
			t.Errorf("header (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"3"}, reply.Trailer.Values(conntest.TrailerPrefix+"B")); diff != "" {
			t.Errorf("trailer (-want +got):\n%s", diff)
		}
	}
	if got := srv.Connections(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
	for _, call := range srv.WaitCalls(2) {
		checkCall(t, call, c)
	}
}

func checkCall(t *testing.T, call conntest.Call, c conntest.Case) {
	t.Helper()
	if want := procedure(c.Kind); call.Procedure != want {
		t.Errorf("procedure %q, want %q", call.Procedure, want)
	}
	if want := map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"}[c.Transport.HTTP2()]; call.Proto != want {
		t.Errorf("%s, want %s", call.Proto, want)
	}
	contentType := call.Header.Get("Content-Type")
	if want := map[conntest.Protocol]string{conntest.GRPC: "application/grpc", conntest.GRPCWeb: "application/grpc-web"}[c.Protocol]; !strings.HasPrefix(contentType, want) {
		t.Errorf("content type %q, want %s", contentType, want)
	}
	if isJSON := strings.HasSuffix(contentType, "json"); isJSON != (c.Codec == conntest.JSON) {
		t.Errorf("content type %q, want codec %v", contentType, c.Codec)
	}
	received, sent := 1, len(wantEcho(c.Kind))
	if c.Kind&connect.StreamTypeClient != 0 {
		received = 2
	}
	if call.Received != received || call.Sent != sent || !call.Returned || call.Err != nil || call.CtxErr != nil {
		t.Errorf("want %d received, %d sent: %v", received, sent, call)
	}
	if !call.SawEOF() || call.SawCancel() {
		t.Errorf("want EOF and no cancellation: %v", call)
	}
	if call.Started.IsZero() || call.Ended.Before(call.Started) {
		t.Errorf("started %v, ended %v", call.Started, call.Ended)
	}
}

func TestEchoCount(t *testing.T) {
	t.Parallel()
	clients := conntest.Start(t, conntest.Config{}).Clients()
	for count, want := range map[string]int{"": 3, "0": 0, "5": 5} {
		reply := clients.Do(t.Context(), connect.StreamTypeServer, http.Header{conntest.CountHeader: {count}}, "x")
		if reply.Err != nil || len(reply.Messages) != want {
			t.Errorf("count %q: %d messages, error %v, want %d messages", count, len(reply.Messages), reply.Err, want)
		}
	}
	reply := clients.Do(t.Context(), connect.StreamTypeServer, http.Header{conntest.CountHeader: {"many"}}, "x")
	if connect.CodeOf(reply.Err) != connect.CodeInvalidArgument {
		t.Errorf("error %v, want invalid_argument", reply.Err)
	}
}

// TestLargeMessages is the deadlock that an unbuffered pipe causes: both ends
// write at the same time, more than any buffer holds.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 512<<10)
	matrix := conntest.Matrix{Protocols: []conntest.Protocol{conntest.Connect}, Kinds: []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeBidi}}
	matrix.Each(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Window: 16 << 10})
		reply := c.Clients(srv).Do(t.Context(), c.Kind, nil, large)
		if reply.Err != nil || len(reply.Messages) != 1 || reply.Messages[0] != large {
			t.Errorf("%d messages, error %v", len(reply.Messages), reply.Err)
		}
	})
}

func TestTransportSecurity(t *testing.T) {
	t.Parallel()
	for _, transport := range conntest.AllTransports() {
		var state *tls.ConnectionState
		srv := conntest.Start(t, conntest.Config{Transport: transport, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				state = r.TLS
				next.ServeHTTP(w, r)
			})
		}})
		if reply := srv.Clients().Do(t.Context(), connect.StreamTypeUnary, nil); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		if got := state != nil; got != transport.TLS() {
			t.Errorf("%v: TLS %v", transport, got)
		}
		if scheme, _, _ := strings.Cut(srv.URL, ":"); (scheme == "https") != transport.TLS() {
			t.Errorf("%v: URL %s", transport, srv.URL)
		}
	}
}

func TestBidiOverHTTP1Fails(t *testing.T) {
	t.Parallel()
	srv := conntest.Start(t, conntest.Config{Transport: conntest.H1})
	if reply := srv.Clients().Do(t.Context(), connect.StreamTypeBidi, nil, "x"); reply.Err == nil {
		t.Error("want an error")
	}
	if calls := srv.Calls(); len(calls) != 0 || srv.Requests() != 1 {
		t.Errorf("%d requests, calls %v, want a request that no handler sees", srv.Requests(), calls)
	}
}
