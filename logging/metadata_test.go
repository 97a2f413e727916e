package logging_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
)

// TestMetadata: what is asked for is told, on both sides, of headers and trailers, and
// of failed RPCs too; what holds secrets is not.
func TestMetadata(t *testing.T) {
	t.Parallel()
	opts := []logging.Option{
		logging.WithRequestMetadata("X-Tenant", "x-many", "X-Wild-*", "authorization", "*-id"),
		logging.WithResponseMetadata("conntest-header-*", "conntest-trailer-x", "conntest-header-set-cookie"),
		logging.WithDeniedMetadata("*-hidden-id", "conntest-header-private"),
	}
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, fails := range []bool{false, true} {
			var client, server journal
			srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{
				connect.WithInterceptors(logging.NewInterceptor(server.logger(slog.LevelDebug), opts...)),
			}})
			clients := c.Clients(srv, connect.WithInterceptors(logging.NewInterceptor(client.logger(slog.LevelDebug), opts...)))
			header := make(http.Header)
			if fails {
				header = conntest.WithFaults(conntest.Fail(connect.CodeNotFound, "no").After(1))
			}
			for key, value := range map[string]string{
				"X-Tenant": "acme", "X-Wild-A": "a", "X-Wild-Token": "secret-token", "Authorization": "Bearer secret", "Request-Id": "7",
				"X-Hidden-Id": "secret-id", "X-Other": "other", "Conntest-Header-Shown": "h", "Conntest-Header-Private": "secret-header",
				"Conntest-Trailer-X": "t", "X-Wild-Long": strings.Repeat("l", 1000),
			} {
				header.Set(key, value)
			}
			header["X-Many"] = []string{"1", "2"}
			clients.Do(t.Context(), c.Kind, header, "text")
			srv.WaitCalls(1)
			for side, j := range map[string]*journal{"client": &client, "handler": &server} {
				record := j.only(t, "rpc")
				values := map[string]any{
					"rpc.request.metadata.x-tenant": "acme", "rpc.request.metadata.x-wild-a": "a", "rpc.request.metadata.request-id": "7",
					"rpc.request.metadata.x-wild-token": "[REDACTED]", "rpc.request.metadata.authorization": "[REDACTED]",
					"rpc.request.metadata.x-hidden-id": "[REDACTED]", "rpc.request.metadata.x-other": nil,
					"rpc.request.metadata.x-wild-long":            strings.Repeat("l", 256) + "…",
					"rpc.response.metadata.conntest-header-shown": "h", "rpc.response.metadata.conntest-header-private": "[REDACTED]",
					"rpc.response.metadata.conntest-trailer-x": "t",
				}
				if many := record["rpc.request.metadata.x-many"]; many != "1, 2" && many != "1,2" {
					t.Errorf("%s: several values are %v", side, many)
				}
				want(t, record, values)
				if strings.Contains(j.String(), "secret") {
					t.Errorf("%s: a secret is in %s", side, j)
				}
			}
		}
	})
}

// TestMetadataIsBounded: a peer does not choose how many headers a record has.
func TestMetadataIsBounded(t *testing.T) {
	t.Parallel()
	var j journal
	i := logging.NewInterceptor(j.logger(slog.LevelDebug), logging.WithRequestMetadata("*"))
	req := conntest.UnaryRequest(t, false)
	for n := range 500 {
		req.Header().Set(fmt.Sprintf("X-%d-%s", n, strings.Repeat("k", 1000)), "v")
	}
	failWith(t, i, req, nil)
	told := 0
	for key := range j.only(t, "rpc") {
		if strings.HasPrefix(key, "rpc.request.metadata.") {
			told++
			if len(key) > 300 {
				t.Errorf("the key has %d bytes", len(key))
			}
		}
	}
	if told != 32 {
		t.Errorf("%d headers", told)
	}
}

// TestMetadataOfResponsesIsBounded: they are in up to three places, which have room for
// as many together.
func TestMetadataOfResponsesIsBounded(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var client, server journal
		opt := logging.WithResponseMetadata("*")
		header := conntest.WithFaults(conntest.Fail(connect.CodeNotFound, "no").After(1))
		for n := range 100 {
			header.Set(fmt.Sprintf("Conntest-Header-%d", n), "h")
			header.Set(fmt.Sprintf("Conntest-Trailer-%d", n), "t")
		}
		srv := c.Start(t, conntest.Config{HandlerOptions: []connect.HandlerOption{
			connect.WithInterceptors(logging.NewInterceptor(server.logger(slog.LevelDebug), opt)),
		}})
		c.Clients(srv, connect.WithInterceptors(logging.NewInterceptor(client.logger(slog.LevelDebug), opt))).Do(t.Context(), c.Kind, header, "text")
		srv.WaitCalls(1)
		for side, j := range map[string]*journal{"client": &client, "handler": &server} {
			told := 0
			for key := range j.only(t, "rpc") {
				if strings.HasPrefix(key, "rpc.response.metadata.") {
					told++
				}
			}
			if told != 32 {
				t.Errorf("%s: %d headers", side, told)
			}
		}
	})
}
