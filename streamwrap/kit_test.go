package streamwrap_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// life is what one interceptor saw of one RPC: a line of events such as
//
//	Open Header Send Sent(1) Receive Received(EOF) Return(ok) End(completed 1/0)
//
// where a number is a message's, a name a code, and "!" a hook that refused.
// The numbers of End are messages sent and received.
type life struct {
	call *streamwrap.Call
	name string

	sending, receiving, all atomic.Int32 // hooks under way

	mu       sync.Mutex
	events   []string
	broken   []string // rules that did not hold
	refused  bool     // by its own Open: no End will come
	returned error    // by Return
	results  int
	ends     int
	end      streamwrap.End
	endCtx   context.Context
	sendErr  error // the last Message.Err of a Sent
	recvErr  error // the last Message.Err of a Received
}

// note adds an event, and checks the rules that always hold.
func (l *life) note(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends > 0 && !strings.HasPrefix(event, "End") {
		l.broken = append(l.broken, event+" after End")
	}
	if event == "Header" && slices.Contains(l.events, event) {
		l.broken = append(l.broken, "a second Header")
	}
	l.events = append(l.events, event)
}

func (l *life) breaks(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = append(l.broken, fmt.Sprintf(format, args...))
}

// enter notes an event of a hook and that the hook runs. Side is nil for Open.
func (l *life) enter(side *atomic.Int32, event string) (leave func()) {
	l.note(event)
	l.all.Add(1)
	if side != nil && side.Add(1) > 1 {
		l.breaks("%s beside another hook of its side", event)
	}
	return func() {
		l.all.Add(-1)
		if side != nil {
			side.Add(-1)
		}
	}
}

// outcome marks the last event if its hook refused, and passes the error on.
func (l *life) outcome(err error) error {
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events[len(l.events)-1] += "!"
	}
	return err
}

func (l *life) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.events, " ")
}

// End returns what End got.
func (l *life) End() streamwrap.End {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// hasExchange reports whether the RPC goes through an Engine.
func (l *life) hasExchange() bool {
	_, ok := l.call.Exchange()
	return ok
}

// faults returns what was wrong with a life that should be over.
func (l *life) faults() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	faults := l.broken
	if want := 1; !l.refused && l.ends != want {
		faults = append(faults, fmt.Sprintf("%d Ends", l.ends))
	}
	if l.refused && l.ends != 0 {
		faults = append(faults, "an End though Open refused")
	}
	return faults
}

// probe is an interceptor that records lives. The test's own hooks run after
// the recording ones.
type probe struct {
	*streamwrap.Interceptor

	name      string
	own       streamwrap.Hooks[life]
	rawReturn bool // hand out what the test's own Return does, nil included

	mu    sync.Mutex
	lives []*life
}

// newProbe returns a probe that checks, at the end of the test, that every RPC
// ended exactly once and no rule was broken.
func newProbe(tb testing.TB, name string, own streamwrap.Hooks[life]) *probe {
	tb.Helper()
	p := &probe{name: name, own: own}
	hooks := streamwrap.Hooks[life]{
		Open: p.open, Header: p.header, Send: p.send, Sent: p.sent, Receive: p.receive,
		Received: p.received, Return: p.result, End: p.end, Timing: own.Timing,
	}
	if own.Attempt != nil {
		hooks.Attempt = p.attempt
	}
	p.Interceptor = streamwrap.NewInterceptor(hooks)
	tb.Cleanup(func() { p.check(tb) })
	return p
}

// check reports broken rules, once every RPC had time to end.
func (p *probe) check(tb testing.TB) {
	tb.Helper()
	for range 60 {
		if p.faults() == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	tb.Errorf("%s:%s", p.name, p.faults())
}

func (p *probe) faults() string {
	var all strings.Builder
	for i, l := range p.Lives() {
		for _, fault := range l.faults() {
			fmt.Fprintf(&all, "\n\tRPC %d: %s: %s", i+1, fault, l)
		}
	}
	return all.String()
}

// Lives returns the RPCs so far.
func (p *probe) Lives() []*life {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*life(nil), p.lives...)
}

// Life returns the only RPC.
func (p *probe) Life(tb testing.TB) *life {
	tb.Helper()
	lives := p.Lives()
	if len(lives) != 1 {
		tb.Fatalf("%s saw %d RPCs, want 1", p.name, len(lives))
	}
	return lives[0]
}

// want checks the events of the only RPC. Alternatives are separated by " | ".
func (p *probe) want(tb testing.TB, want string) {
	tb.Helper()
	got := p.Life(tb).String()
	for w := range strings.SplitSeq(want, " | ") {
		if got == w {
			return
		}
	}
	tb.Errorf("%s:\n\tgot  %s\n\twant %s", p.name, got, want)
}

// wantEnd checks how the only RPC ended: the events' last one.
func (p *probe) wantEnd(tb testing.TB, want string) {
	tb.Helper()
	got := p.Life(tb).String()
	for w := range strings.SplitSeq(want, " | ") {
		if strings.HasSuffix(got, " End("+w+")") {
			return
		}
	}
	tb.Errorf("%s:\n\tgot  %s\n\twant End(%s)", p.name, got, want)
}

func (p *probe) open(ctx context.Context, call *streamwrap.Call) (context.Context, *life, error) {
	l := &life{call: call, name: p.name}
	p.mu.Lock()
	p.lives = append(p.lives, l)
	p.mu.Unlock()
	defer l.enter(nil, "Open")()
	if p.own.Open == nil {
		return nil, l, nil
	}
	octx, own, err := p.own.Open(ctx, call)
	if err != nil {
		l.refused = true
		return nil, nil, l.outcome(err)
	}
	if own == skip {
		l.refused = true
		return octx, nil, nil
	}
	return octx, l, nil
}

// skip is the state with which a test's own Open says that it wants none.
var skip = new(life)

func (p *probe) header(l *life, ctx context.Context, h http.Header) error {
	defer l.enter(&l.sending, "Header")()
	if p.own.Header != nil {
		return l.outcome(p.own.Header(l, ctx, h))
	}
	return nil
}

func (p *probe) send(l *life, ctx context.Context, msg any) error {
	defer l.enter(&l.sending, "Send")()
	if msg == nil {
		l.breaks("Send hook without a message")
	}
	if p.own.Send != nil {
		return l.outcome(p.own.Send(l, ctx, msg))
	}
	return nil
}

func (p *probe) sent(l *life, ctx context.Context, m *streamwrap.Message) {
	l.checkMessage("Sent", m)
	defer l.enter(&l.sending, "Sent("+seqOrError(m)+")")()
	l.mu.Lock()
	l.sendErr = m.Err
	l.mu.Unlock()
	if p.own.Sent != nil {
		p.own.Sent(l, ctx, m)
	}
}

func (p *probe) receive(l *life, ctx context.Context) error {
	defer l.enter(&l.receiving, "Receive")()
	if p.own.Receive != nil {
		return l.outcome(p.own.Receive(l, ctx))
	}
	return nil
}

func (p *probe) received(l *life, ctx context.Context, m *streamwrap.Message) error {
	l.checkMessage("Received", m)
	defer l.enter(&l.receiving, "Received("+seqOrError(m)+")")()
	l.mu.Lock()
	l.recvErr = m.Err
	l.mu.Unlock()
	if p.own.Received != nil {
		return l.outcome(p.own.Received(l, ctx, m))
	}
	return nil
}

func (p *probe) result(l *life, ctx context.Context, err error) error {
	if !isCoded(err) || errors.Is(err, io.EOF) && l.call.IsClient() {
		l.breaks("Return got %#v", err)
	}
	defer l.enter(&l.receiving, "Return("+codeName(err)+")")()
	replaced := err
	if p.own.Return != nil {
		replaced = p.own.Return(l, ctx, err)
	}
	if replaced != nil {
		err = replaced
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.returned = err
	if l.results++; l.results > 1 {
		l.broken = append(l.broken, "a second Return")
	}
	if p.rawReturn {
		return replaced
	}
	return err
}

func (p *probe) end(l *life, ctx context.Context, e *streamwrap.End) {
	if l.all.Add(1) > 1 {
		l.breaks("End beside another hook")
	}
	defer l.all.Add(-1)
	l.checkEnd(e)
	text := e.Outcome.String()
	if e.Code != 0 {
		text += " " + e.Code.String()
	}
	l.note(fmt.Sprintf("End(%s %d/%d)", text, e.Sent, e.Received))
	l.mu.Lock()
	l.ends++
	l.end, l.endCtx = *e, ctx
	l.mu.Unlock()
	if p.own.End != nil {
		p.own.End(l, ctx, e)
	}
}

func (p *probe) attempt(l *life, ctx context.Context, a *streamwrap.Attempt) (context.Context, func(error)) {
	l.note("Attempt(" + strconv.Itoa(a.Number) + ")")
	actx, end := p.own.Attempt(l, ctx, a)
	return actx, func(err error) {
		l.note("Attempted(" + codeName(err) + ")")
		if end != nil {
			end(err)
		}
	}
}

// checkMessage checks what every Message keeps.
func (l *life) checkMessage(hook string, m *streamwrap.Message) {
	switch {
	case m.Err != nil && (m.Seq != 0 || !isCoded(m.Err)):
		l.breaks("%s: %+v", hook, *m)
	case m.Err == nil && (m.Seq == 0 || m.Msg == nil):
		l.breaks("%s: %+v", hook, *m)
	case m.Err != nil && hook == "Received" && m.Msg != nil:
		l.breaks("%s: %+v", hook, *m)
	case !l.hasExchange() && (m.WireBytes != -1 || m.Compressed):
		l.breaks("%s: sizes without an Engine: %+v", hook, *m)
	}
}

// checkEnd checks what every End keeps.
func (l *life) checkEnd(e *streamwrap.End) {
	l.mu.Lock()
	results, returned := l.results, l.returned
	sent, received := l.count("Sent("), l.count("Received(")
	l.mu.Unlock()
	success := e.Outcome == streamwrap.Completed
	switch {
	case success != (e.Err == nil), success != (e.Code == 0):
		l.breaks("End: Outcome, Err and Code disagree: %+v", *e)
	case e.Err != nil && (e.Code != connect.CodeOf(e.Err) || !isCoded(e.Err)):
		l.breaks("End: Code is not Err's: %+v", *e)
	case results > 0 && e.Outcome != streamwrap.Panicked && isCoded(returned) && returned != e.Err:
		l.breaks("End: Err %v, but Return handed %v outward", e.Err, returned)
	case e.Sent < sent || e.Received < received:
		l.breaks("End counts %d/%d, hooks saw %d/%d", e.Sent, e.Received, sent, received)
	case !l.hasExchange() && (e.SentBytes != -1 || e.ReceivedBytes != -1):
		l.breaks("End: sizes without an Engine: %+v", *e)
	case e.FirstMessage < 0 || e.FirstMessage > e.Elapsed:
		l.breaks("End: %v to the first message of %v", e.FirstMessage, e.Elapsed)
	}
}

// count counts messages among the events. The caller holds the mutex.
func (l *life) count(prefix string) (n int64) {
	for _, event := range l.events {
		rest, ok := strings.CutPrefix(event, prefix)
		if ok && rest[0] >= '0' && rest[0] <= '9' && !strings.HasSuffix(rest, "!") {
			n++
		}
	}
	return n
}

// seqOrError names a message by its number, or by its error.
func seqOrError(m *streamwrap.Message) string {
	switch {
	case m.Err == nil:
		return strconv.FormatInt(m.Seq, 10)
	case errors.Is(m.Err, io.EOF):
		return "EOF"
	default:
		return codeName(m.Err)
	}
}

func codeName(err error) string {
	if err == nil {
		return "ok"
	}
	return connect.CodeOf(err).String()
}

func isCoded(err error) bool {
	if err == nil {
		return true
	}
	_, ok := errors.AsType[*connect.Error](err)
	return ok
}

// setup says what a rig is made of. The zero value is the echo service with one
// probe on either side.
type setup struct {
	config        conntest.Config
	client        streamwrap.Hooks[life]      // the client probe's own hooks
	server        streamwrap.Hooks[life]      // the server probe's own hooks
	clientChain   func(*probe) connect.Option // default: the probe alone
	serverChain   func(*probe) connect.HandlerOption
	clientOptions []connect.ClientOption
}

// rig is a server and its clients with a probe on either side.
type rig struct {
	*conntest.Server

	c              conntest.Case
	clients        *conntest.Clients
	client, server *probe
}

func newRig(t *testing.T, c conntest.Case, s setup) *rig {
	t.Helper()
	t.Cleanup(func() { time.Sleep(50 * time.Millisecond) }) // the guard's goroutines end after the RPC
	r := &rig{c: c, client: newProbe(t, "client", s.client), server: newProbe(t, "server", s.server)}
	serverChain := connect.HandlerOption(connect.WithInterceptors(r.server))
	if s.serverChain != nil {
		serverChain = s.serverChain(r.server)
	}
	s.config.HandlerOptions = append([]connect.HandlerOption{serverChain}, s.config.HandlerOptions...)
	s.withEngine()
	r.Server = c.Start(t, s.config)
	clientChain := connect.WithInterceptors(r.client)
	if s.clientChain != nil {
		clientChain = s.clientChain(r.client)
	}
	r.clients = r.newClients(append(s.clientOptions, clientChain)...)
	return r
}

// engineMode makes all tests that use a rig run with an Engine: on the handlers,
// as HTTPClient, as the innermost interceptor of clients, or all three.
var engineMode = flag.String("engine", "", "put an Engine under the rigs: handler, client, conn or all")

// engineOn reports whether the tests run with an Engine on a side.
func engineOn(client bool) bool {
	switch *engineMode {
	case "":
		return false
	case "all":
		return true
	default:
		return client == (*engineMode != "handler")
	}
}

// withEngine puts an Engine around the server's mux, if the tests run with one.
func (s *setup) withEngine() {
	if !engineOn(false) {
		return
	}
	wrap := s.config.Wrap
	s.config.Wrap = func(next http.Handler) http.Handler {
		if wrap != nil {
			next = wrap(next)
		}
		return streamwrap.NewEngine().Handler(next)
	}
}

// newClients returns clients of the rig's server, with an Engine if the tests
// run with one.
func (r *rig) newClients(opts ...connect.ClientOption) *conntest.Clients {
	return r.clientsOver(r.Client(), opts...)
}

func (r *rig) clientsOver(client connect.HTTPClient, opts ...connect.ClientOption) *conntest.Clients {
	engine := streamwrap.NewEngine()
	switch *engineMode {
	case "conn", "all":
		opts = append(opts, connect.WithInterceptors(engine))
		client = engine.HTTPClient(client)
	case "client":
		client = engine.HTTPClient(client)
	}
	return conntest.NewClients(client, r.URL, append(opts, r.c.Option())...)
}

// do makes a whole RPC of the case's kind and waits for the server's end of it.
func (r *rig) do(t *testing.T, header http.Header, messages ...string) conntest.Reply {
	t.Helper()
	reply := r.clients.Do(t.Context(), r.c.Kind, header, messages...)
	r.WaitCalls(1)
	synctest.Wait()
	return reply
}

// unopened returns an upload on which nothing was sent.
func (r *rig) unopened(ctx context.Context) connect.StreamingClientConn {
	if r.c.Kind == connect.StreamTypeClient {
		conn, _ := r.clients.Client.CallClientStream(ctx).Conn()
		return conn
	}
	conn, _ := r.clients.Bidi.CallBidiStream(ctx).Conn()
	return conn
}

// start opens a stream of the case's kind, the first message sent: for a server
// stream that takes until the response's headers.
func (r *rig) start(ctx context.Context, header http.Header) (connect.StreamingClientConn, error) {
	switch r.c.Kind {
	case connect.StreamTypeServer:
		req := connect.NewRequest(conntest.Text("one"))
		maps.Copy(req.Header(), header.Clone())
		stream, err := r.clients.Server.CallServerStream(ctx, req)
		if err != nil {
			return nil, err
		}
		return stream.Conn()
	default:
		conn := r.unopened(ctx)
		maps.Copy(conn.RequestHeader(), header.Clone())
		return conn, conn.Send(conntest.Text("one"))
	}
}

// mustStart is start for streams that must open. A server that answers before it
// has read the message may end the request first: EOF says to ask Receive.
func (r *rig) mustStart(ctx context.Context, t *testing.T, header http.Header) connect.StreamingClientConn {
	t.Helper()
	conn, err := r.start(ctx, header)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return conn
}

// bidi opens a bidirectional stream and has one message echoed.
func (r *rig) pingPong(ctx context.Context, t *testing.T) connect.StreamingClientConn {
	t.Helper()
	conn := r.mustStart(ctx, t, nil)
	if err := conn.Receive(&conntest.Message{}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// drain receives until there is no more.
func drain(conn interface{ Receive(any) error }) (messages int, _ error) {
	for {
		if err := conn.Receive(&conntest.Message{}); err != nil {
			return messages, err
		}
		messages++
	}
}

// h2 and web are the transports of most tests: TLS has a smaller set.
var (
	h2  = []conntest.Transport{conntest.H2C}
	web = []conntest.Transport{conntest.H2C, conntest.H1}
)

// Sets of kinds.
var (
	unaryKind = []connect.StreamType{connect.StreamTypeUnary}
	uploads   = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeBidi}
	streams   = []connect.StreamType{connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi}
	bidiKind  = []connect.StreamType{connect.StreamTypeBidi}
)

// wantCode checks the code of an error and that there is one.
func wantCode(tb testing.TB, what string, err error, want connect.Code) {
	tb.Helper()
	if err == nil || !isCoded(err) || connect.CodeOf(err) != want {
		tb.Errorf("%s: %v (%T), want %v", what, err, err, want)
	}
}

// wantEOF checks for an error that means the end of a stream.
func wantEOF(tb testing.TB, what string, err error) {
	tb.Helper()
	if !errors.Is(err, io.EOF) || !isCoded(err) {
		tb.Errorf("%s: %v (%T), want EOF", what, err, err)
	}
}

// took checks that something happened promptly, in the bubble's time: the guard
// may use its few milliseconds, but nothing may wait for a watchdog.
func promptly(tb testing.TB, what string, start time.Time) {
	tb.Helper()
	if took := time.Since(start); took > 100*time.Millisecond {
		tb.Errorf("%s took %v", what, took)
	}
}

// wantCanceledUpload checks that the server was told of a cancellation, and
// never that the request was complete.
func wantCanceledUpload(tb testing.TB, call conntest.Call) {
	tb.Helper()
	if call.SawEOF() || !call.SawCancel() {
		tb.Errorf("the server must see the cancellation and no EOF: %v", call)
	}
	if strings.HasPrefix(call.Proto, "HTTP/2") && call.BodyErr != nil && !call.SawReset() {
		tb.Errorf("the server's body must end with CANCEL: %v", call)
	}
}
