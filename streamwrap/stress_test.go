package streamwrap_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

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

type population struct{ all []*fate }

const fateHeader = "Life"

func (p *population) of(h http.Header) *fate {
	id, err := strconv.Atoi(h.Get(fateHeader))
	if err != nil {
		return nil
	}
	return p.all[id]
}

// lived is the state of a watching interceptor for one RPC.
type lived struct {
	l     *fate
	name  string
	ended atomic.Bool
	steps atomic.Int32
}

// watching returns an interceptor that keeps the books of each fate and plays
// the faults of hooks.
func (p *population) watching(name string) connect.Interceptor {
	refuses := func(s *lived, fault string) error {
		if s.l.fault == fault && name == "inner" && s.steps.Add(1) == 2 {
			return connect.NewError(connect.CodeDataLoss, errors.New(fault))
		}
		return nil
	}
	check := func(s *lived) {
		if s.ended.Load() {
			panic("a hook ran after End: " + s.l.String())
		}
	}
	return streamwrap.NewInterceptor(streamwrap.Hooks[lived]{
		Open: func(ctx context.Context, call *streamwrap.Call) (context.Context, *lived, error) {
			l, _ := ctx.Value(fateKey{}).(*fate)
			side := "server " + name
			if call.IsClient() {
				side = "client " + name
				call.RequestHeader().Set(fateHeader, strconv.Itoa(l.id))
			} else {
				l = p.of(call.RequestHeader())
			}
			if call.IsClient() && name == "inner" {
				switch l.fault {
				case "refuse open":
					return nil, nil, connect.NewError(connect.CodeDataLoss, errors.New(l.fault))
				case "abort":
					time.AfterFunc(time.Duration(l.id%7)*100*time.Microsecond, func() {
						call.Abort(connect.NewError(connect.CodeDataLoss, errors.New("abort")))
					})
				}
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.opened++
			return nil, &lived{l: l, name: side}, nil
		},
		Header: func(s *lived, _ context.Context, _ http.Header) error { check(s); return nil },
		Send: func(s *lived, ctx context.Context, _ any) error {
			check(s)
			runtime.Gosched()
			if s.name == "server inner" {
				return refuses(s, "refuse server")
			}
			return refuses(s, "refuse send")
		},
		Sent:    func(s *lived, _ context.Context, _ *streamwrap.Message) { check(s) },
		Receive: func(s *lived, _ context.Context) error { check(s); return refuses(s, "refuse receive") },
		Received: func(s *lived, _ context.Context, m *streamwrap.Message) error {
			check(s)
			if m.Err != nil {
				return nil
			}
			return refuses(s, "refuse received")
		},
		Return: func(s *lived, _ context.Context, _ error) error { check(s); return nil },
		End: func(s *lived, _ context.Context, e *streamwrap.End) {
			if s.ended.Swap(true) {
				panic("two Ends: " + s.l.String())
			}
			s.l.mu.Lock()
			defer s.l.mu.Unlock()
			s.l.ends = append(s.l.ends, fmt.Sprintf("%s %v", s.name, e.Outcome))
			if s.name == "client outer" {
				s.l.client = append(s.l.client, *e)
			}
		},
	})
}

// step returns what the handler does at the n-th message.
func (l *fate) step(n int) (stop bool, err error) {
	if n != l.messages/2 {
		return false, nil
	}
	switch l.fault {
	case "server error":
		return true, connect.NewError(connect.CodeAborted, errors.New("server error"))
	case "server panic":
		panic(http.ErrAbortHandler)
	case "server return":
		return true, nil
	}
	return false, nil
}

// got notes a message at the server, or how receiving ended.
func (l *fate) got(want int, m *wrapperspb.Int64Value, err error) {
	switch {
	case err == nil && m.GetValue() != int64(want):
		l.misordered.Store(true)
	case errors.Is(err, io.EOF):
		l.serverEOF.Store(true)
	}
}

type number = wrapperspb.Int64Value

func num(i int) *number { return wrapperspb.Int64(int64(i)) }

func (p *population) mux(opts ...connect.HandlerOption) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/l.S/U", connect.NewUnaryHandler("/l.S/U", func(_ context.Context, r *connect.Request[number]) (*connect.Response[number], error) {
		l := p.of(r.Header())
		if stop, err := l.step(0); stop && err != nil {
			return nil, err
		}
		return connect.NewResponse(r.Msg), nil
	}, opts...))
	mux.Handle("/l.S/C", connect.NewClientStreamHandler("/l.S/C", func(_ context.Context, s *connect.ClientStream[number]) (*connect.Response[number], error) {
		l := p.of(s.RequestHeader())
		for i := range l.messages + 1 {
			if stop, err := l.step(i); stop {
				return connect.NewResponse(num(i)), err
			}
			if !s.Receive() {
				if s.Err() == nil {
					l.serverEOF.Store(true)
				}
				return connect.NewResponse(num(i)), s.Err()
			}
			l.got(i, s.Msg(), nil)
		}
		return connect.NewResponse(num(0)), nil
	}, opts...))
	mux.Handle("/l.S/V", connect.NewServerStreamHandler("/l.S/V", func(_ context.Context, r *connect.Request[number], s *connect.ServerStream[number]) error {
		l := p.of(r.Header())
		for i := range l.messages {
			if stop, err := l.step(i); stop {
				return err
			}
			if err := s.Send(num(i)); err != nil {
				return err
			}
		}
		return nil
	}, opts...))
	mux.Handle("/l.S/B", connect.NewBidiStreamHandler("/l.S/B", func(_ context.Context, s *connect.BidiStream[number, number]) error {
		l := p.of(s.RequestHeader())
		for i := 0; ; i++ {
			if stop, err := l.step(i); stop {
				return err
			}
			m, err := s.Receive()
			l.got(i, m, err)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}, opts...))
	return mux
}

// live runs the client's part of a fate.
func (l *fate) live(c *connect.Client[number, number]) {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), fateKey{}, l))
	defer cancel()
	switch l.fault {
	case "cancel":
		time.AfterFunc(time.Duration(l.rand.IntN(2000))*time.Microsecond, cancel)
	case "deadline":
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(l.rand.IntN(2000))*time.Microsecond)
		defer stop()
	}
	switch l.kind {
	case connect.StreamTypeUnary:
		_, l.result = c.CallUnary(ctx, connect.NewRequest(num(1)))
	case connect.StreamTypeClient:
		l.upload(c.CallClientStream(ctx))
	case connect.StreamTypeServer:
		s, err := c.CallServerStream(ctx, connect.NewRequest(num(1)))
		if err != nil {
			l.result = err
			return
		}
		l.download(s)
	default:
		l.converse(c.CallBidiStream(ctx))
	}
}

func (l *fate) upload(s *connect.ClientStreamForClient[number, number]) {
	for i := range l.messages {
		if err := s.Send(num(i)); err != nil && !errors.Is(err, io.EOF) {
			break
		}
		if i == 2 && l.gone(func() error { conn, _ := s.Conn(); return conn.CloseResponse() }) {
			return
		}
	}
	l.closedRequest.Store(true)
	_, l.result = s.CloseAndReceive()
}

func (l *fate) download(s *connect.ServerStreamForClient[number]) {
	for i := 0; s.Receive(); i++ {
		if s.Msg().GetValue() != int64(i) {
			l.misordered.Store(true)
		}
		if i == 2 && l.gone(s.Close) {
			return
		}
	}
	l.result = s.Err()
	if l.result == nil {
		l.result = io.EOF
	}
	_ = s.Close()
}

func (l *fate) converse(s *connect.BidiStreamForClient[number, number]) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range l.messages {
			if err := s.Send(num(i)); err != nil {
				if !errors.Is(err, io.EOF) {
					_ = s.CloseResponse()
				}
				return
			}
			if i == 2 && (l.fault == "close" || l.fault == "abandon") {
				return
			}
		}
		l.closedRequest.Store(true)
		_ = s.CloseRequest()
	}()
	defer func() { <-sent }()
	for i := 0; ; i++ {
		m, err := s.Receive()
		if err != nil {
			l.result = err
			_ = s.CloseResponse()
			return
		}
		if m.GetValue() != int64(i) {
			l.misordered.Store(true)
		}
		if i == 2 && l.gone(s.CloseResponse) {
			return
		}
	}
}

// gone ends a stream in the ways in which a user does not wait for its end.
func (l *fate) gone(closeResponse func() error) bool {
	switch l.fault {
	case "close":
		_ = closeResponse()
		return true
	case "abandon":
		return true
	}
	return false
}

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
