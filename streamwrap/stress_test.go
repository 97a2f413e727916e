package streamwrap_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/streamwrap"
)

var (
	lives = flag.Int("lives", 600, "how many random stream lives TestRandomLives runs")
	seed  = flag.Uint64("seed", 0, "the seed of TestRandomLives; 0 chooses one")
)

// fate is the random plan of one RPC and what is known of its course.
type fate struct {
	id   int
	rand *rand.Rand

	kind     connect.StreamType
	protocol int
	messages int
	fault    string

	closedRequest atomic.Bool // the client ended its request cleanly
	serverEOF     atomic.Bool // the handler saw a clean end of the request
	misordered    atomic.Bool // a message came out of order
	result        error       // what the client's user got last

	mu     sync.Mutex
	opened int
	ends   []string
	client []streamwrap.End
}

var faults = []string{
	"", "", "cancel", "cancel", "deadline", "close", "abandon", "abort",
	"server error", "server panic", "server return",
	"refuse open", "refuse send", "refuse receive", "refuse received", "refuse server",
}

func newFate(id int, r *rand.Rand) *fate {
	return &fate{
		id:       id,
		rand:     r,
		kind:     []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}[r.IntN(4)],
		protocol: r.IntN(3),
		messages: 1 + r.IntN(8),
		fault:    faults[r.IntN(len(faults))],
	}
}

func (l *fate) String() string {
	return fmt.Sprintf("fate %d: kind %v, protocol %d, %d messages, fault %q", l.id, l.kind, l.protocol, l.messages, l.fault)
}

// fateKey finds the fate in a context.
type fateKey struct{}

// TestRandomLives runs streams of random kinds, protocols, lengths and faults
// at the same time, and checks what must hold for every one of them: End comes
// exactly once for each Open, agrees with what the user got, no message is
// lost, doubled or reordered, and a handler sees a clean end of the request
// only if the client ended it.
func TestRandomLives(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-lives=%d -seed=%d", *lives, *seed)
	before := runtime.NumGoroutine()
	p := &population{}
	for id := range *lives {
		p.all = append(p.all, newFate(id, rand.New(rand.NewPCG(*seed, uint64(id)))))
	}
	chain := connect.WithInterceptors(p.watching("outer"), foreign{}, p.watching("middle"), p.watching("inner"))
	engine := streamwrap.NewEngine()
	handler := p.mux(chain)
	if engineOn(false) {
		handler = engine.Handler(handler)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	transport := &http.Transport{Protocols: server.Config.Protocols}
	var client connect.HTTPClient = &http.Client{Transport: transport}
	clientChain := chain
	if engineOn(true) {
		client = engine.HTTPClient(client)
	}
	if *engineMode == "conn" || *engineMode == "all" {
		clientChain = connect.WithOptions(chain, connect.WithInterceptors(engine))
	}

	var running sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, l := range p.all {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			method := map[connect.StreamType]string{
				connect.StreamTypeUnary: "U", connect.StreamTypeClient: "C",
				connect.StreamTypeServer: "V", connect.StreamTypeBidi: "B",
			}[l.kind]
			option := []connect.ClientOption{
				connect.WithProtoJSON(), connect.WithGRPC(), connect.WithGRPCWeb(),
			}[l.protocol]
			l.live(connect.NewClient[number, number](client, server.URL+"/l.S/"+method, option, clientChain))
		})
	}
	running.Wait()
	for _, l := range p.all {
		l.check(t)
	}
	transport.CloseIdleConnections()
	server.Close()
	eventually(t, "goroutines above the baseline", func() bool { return runtime.NumGoroutine() <= before })
}

func (l *fate) check(t *testing.T) {
	t.Helper()
	l.await(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.misordered.Load() {
		t.Errorf("%v: a message came out of order", l)
	}
	if l.serverEOF.Load() && !l.closedRequest.Load() {
		t.Errorf("%v: the handler saw a clean end of a request that the client did not end", l)
	}
	if len(l.client) != 1 {
		t.Errorf("%v: %d client ends: %v", l, len(l.client), l.ends)
		return
	}
	end := l.client[0]
	switch {
	case errors.Is(l.result, io.EOF), l.result == nil && l.fault != "close" && l.fault != "abandon":
		if end.Outcome != streamwrap.Completed {
			t.Errorf("%v: the user saw success, End says %v, %v", l, end.Outcome, end.Err)
		}
	case l.result != nil:
		if end.Code != connect.CodeOf(l.result) {
			t.Errorf("%v: the user saw %v, End says %v, %v", l, l.result, end.Outcome, end.Err)
		}
	}
}

// await waits until every Open has its End. Abandoned streams need the garbage
// collector.
func (l *fate) await(t *testing.T) {
	t.Helper()
	eventually(t, l.String(), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.opened == len(l.ends)
	})
}

// eventually waits for what real time and the garbage collector must bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Errorf("still waiting: %s", what)
			return
		}
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}
