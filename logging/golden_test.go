package logging_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/logging"
	"github.com/interconnect-go/interconnect/streamwrap"
)

var update = flag.Bool("update", false, "write the golden records anew")

// requestKeys are about a request that may or may not have left when its answer comes.
var requestKeys = []string{"rpc.request.messages", "rpc.request.wire_bytes"}

// errorKeys are about an error of a handler whose client's deadline has passed: the
// client's reset and the handler's timer come at once.
var errorKeys = []string{
	"error.type", "error.message", "rpc.response.status_code", "http.response.status_code", "connect.returned_status_code",
}

// scene is a way in which an RPC ends.
type scene struct {
	name   string
	faults []conntest.Fault
	kinds  []connect.StreamType // nil: all

	client connect.Interceptor // further in
	server connect.Interceptor

	unserved bool // no request arrives

	// Keys that are left out because both values are right.
	clientRace, handlerRace []string
	call                    func(context.Context, *conntest.Clients, connect.StreamType, http.Header)
}

// do makes the whole RPC.
func do(ctx context.Context, clients *conntest.Clients, kind connect.StreamType, header http.Header) {
	clients.Do(ctx, kind, header, "one")
}

// doTwice makes one with two messages, where there may be two.
func doTwice(ctx context.Context, clients *conntest.Clients, kind connect.StreamType, header http.Header) {
	clients.Do(ctx, kind, header, "one", "three")
}

// refusing is an interceptor that refuses every RPC.
func refusing() connect.Interceptor {
	return streamwrap.NewInterceptor(streamwrap.Hooks[struct{}]{
		Open: func(context.Context, *streamwrap.Call) (context.Context, *struct{}, error) {
			return nil, nil, connect.NewError(connect.CodePermissionDenied, errors.New("not you"))
		},
	})
}

// closeEarly receives one message of a stream and closes it.
func closeEarly(ctx context.Context, clients *conntest.Clients, kind connect.StreamType, header http.Header) {
	if kind == connect.StreamTypeServer {
		req := connect.NewRequest(conntest.Text("one"))
		for key, values := range header {
			req.Header()[key] = values
		}
		stream, err := clients.Server.CallServerStream(ctx, req)
		if err == nil && stream.Receive() {
			_ = stream.Close()
		}
		return
	}
	stream := clients.Bidi.CallBidiStream(ctx)
	for key, values := range header {
		stream.RequestHeader()[key] = values
	}
	_ = stream.Send(conntest.Text("one"))
	_, _ = stream.Receive()
	_ = stream.CloseResponse()
	_ = stream.CloseRequest()
}

func scenes() []scene {
	streams := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	return []scene{
		{name: "completed", faults: []conntest.Fault{conntest.Delay(time.Second).After(1)}, call: doTwice},
		{name: "failed", faults: []conntest.Fault{conntest.Delay(time.Second), conntest.Fail(connect.CodeUnavailable, "boom").After(1)}, call: do},
		{name: "internal", faults: []conntest.Fault{conntest.Fail(connect.CodeInternal, "boom").After(1)}, call: do},
		{name: "not_found", faults: []conntest.Fault{conntest.Fail(connect.CodeNotFound, "nobody").After(1)}, call: do},
		{name: "eof", faults: []conntest.Fault{conntest.ReturnEOF().After(1)}, call: do},
		{name: "refused_by_handler", server: refusing(), clientRace: requestKeys, call: do},
		{name: "refused_by_client", client: refusing(), unserved: true, call: do},
		{
			name: "canceled", faults: []conntest.Fault{conntest.Block().After(1)},
			call: func(ctx context.Context, clients *conntest.Clients, kind connect.StreamType, header http.Header) {
				ctx, cancel := context.WithCancel(ctx)
				defer time.AfterFunc(time.Second, cancel).Stop()
				do(ctx, clients, kind, header)
			},
		},
		{
			name: "deadline_exceeded", faults: []conntest.Fault{conntest.Block().After(1)}, handlerRace: errorKeys,
			call: func(ctx context.Context, clients *conntest.Clients, kind connect.StreamType, header http.Header) {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				do(ctx, clients, kind, header)
			},
		},
		{name: "closed_early", faults: []conntest.Fault{conntest.Block().After(1)}, kinds: streams, call: closeEarly},
		{name: "panicked", faults: []conntest.Fault{conntest.Panic("boom").After(1)}, call: do},
	}
}

// TestGoldenRecords: what the one record of an RPC says, for every way to end, kind,
// side and protocol; without an Engine, and with one on either side and an access log.
func TestGoldenRecords(t *testing.T) {
	t.Parallel()
	for name, engine := range map[string]bool{"plain": false, "engine": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := make(map[string]string)
			conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, s := range scenes() {
					if s.kinds != nil && !slices.Contains(s.kinds, c.Kind) {
						continue
					}
					client, server := s.play(t, c, engine)
					key := c.Protocol.String() + "/" + c.Kind.String() + "/" + s.name
					got[key+"/client"] = normal(t, client.only(t, ""), s.clientRace)
					if !s.unserved {
						got[key+"/handler"] = normal(t, server.only(t, ""), s.handlerRace)
					}
				}
			})
			compareGolden(t, filepath.Join("testdata", name+".golden"), got)
		})
	}
}

// play plays the scene and returns what both sides logged.
func (s scene) play(t *testing.T, c conntest.Case, engine bool) (client, server *journal) {
	t.Helper()
	client, server = &journal{}, &journal{}
	logger := server.logger(slog.LevelDebug)
	config := conntest.Config{HandlerOptions: []connect.HandlerOption{
		connect.WithCompressMinBytes(0),
		connect.WithInterceptors(append([]connect.Interceptor{logging.NewInterceptor(logger)}, some(s.server)...)...),
	}}
	opts := []connect.ClientOption{
		c.Option(), connect.WithInterceptors(logging.NewInterceptor(client.logger(slog.LevelDebug))),
		connect.WithInterceptors(some(s.client)...),
	}
	if engine {
		e := streamwrap.NewEngine(streamwrap.WithExchangeObserver(logging.AccessLog(logger)))
		config.Wrap = e.Handler
		srv := c.Start(t, config)
		opts = append(opts, connect.WithInterceptors(e))
		s.call(t.Context(), conntest.NewClients(e.HTTPClient(srv.Client()), srv.URL, opts...), c.Kind, conntest.WithFaults(s.faults...))
		s.await(srv)
		return client, server
	}
	srv := c.Start(t, config)
	s.call(t.Context(), srv.Clients(opts...), c.Kind, conntest.WithFaults(s.faults...))
	s.await(srv)
	return client, server
}

// await waits until the request is over.
func (s scene) await(srv *conntest.Server) {
	switch {
	case s.unserved:
	case s.server != nil:
		synctest.Wait() // no handler runs, of which the server would know
	default:
		srv.WaitCalls(1)
	}
}

func some(i connect.Interceptor) []connect.Interceptor {
	if i == nil {
		return nil
	}
	return []connect.Interceptor{i}
}

// normal returns a record without what differs each time.
func normal(tb testing.TB, record map[string]any, race []string) string {
	tb.Helper()
	for _, key := range race {
		delete(record, key)
	}
	if id, ok := record["call.id"].(float64); !ok || id < 1 {
		tb.Errorf("call.id is %v", record["call.id"])
	}
	delete(record, "call.id")
	if stack, ok := record["exception.stacktrace"].(string); ok {
		if !strings.Contains(stack, "conntest.(*script)") {
			tb.Errorf("the stack is not that of the panic: %s", stack)
		}
		record["exception.stacktrace"] = "..."
	}
	text, err := json.Marshal(record)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

var goldenMu sync.Mutex

// compareGolden compares records with those in a file, a line each.
func compareGolden(t *testing.T, path string, got map[string]string) {
	t.Helper()
	goldenMu.Lock()
	defer goldenMu.Unlock()
	var lines []string
	for key, record := range got {
		lines = append(lines, key+"\t"+record)
	}
	slices.Sort(lines)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSuffix(string(file), "\n"), "\n"), lines); diff != "" {
		t.Errorf("records differ from %s (-want +got); see -update:\n%s", path, diff)
	}
}
