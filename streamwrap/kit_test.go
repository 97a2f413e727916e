package streamwrap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
