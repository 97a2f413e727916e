package deadline

import (
	"sync"
	"time"
)

// Drainer ends the streams of handlers when a server shuts down:
// [net/http.Server.Shutdown] waits for them, and clients that follow a stream for
// hours do not end it. Their clients get [connect.CodeUnavailable] and may come
// back at once, to another server.
//
//	drainer := deadline.NewDrainer(5 * time.Second)
//	deadlines := deadline.NewInterceptor(policy, deadline.WithDrainer(drainer))
//	server.RegisterOnShutdown(drainer.Drain)
//
// Its methods are safe for concurrent use.
type Drainer struct {
	grace time.Duration
	done  chan struct{}

	mu       sync.Mutex
	draining bool
	first    *stream // of a list
	timer    *time.Timer
}

// NewDrainer returns a Drainer that gives handlers some time to return. Streams
// that are still there after it are cut off, which takes a streamwrap.Engine; on
// HTTP/1 the connection of a handler that neither sends nor receives stays even so,
// until it returns. It panics if grace is negative.
func NewDrainer(grace time.Duration) *Drainer {
	if grace < 0 {
		panic("deadline: NewDrainer: negative grace")
	}
	return &Drainer{grace: grace, done: make(chan struct{})}
}

// Drain interrupts all streams, and refuses new ones from now on; unary RPCs are
// still served. It does not wait, see Done. Only the first call does something.
func (d *Drainer) Drain() {
	for _, s := range d.begin() {
		s.call.Abort(s.expiry(ReasonDraining, d.grace, s.now()).coded())
	}
}

// begin begins to drain, and returns the streams to interrupt.
func (d *Drainer) begin() []*stream {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return nil
	}
	d.draining = true
	if d.first == nil {
		close(d.done)
		return nil
	}
	d.timer = time.AfterFunc(d.grace, d.cut)
	return d.all()
}

// Done is closed when Drain was called and no stream is left.
func (d *Drainer) Done() <-chan struct{} { return d.done }

// cut cuts off the streams that are left.
func (d *Drainer) cut() {
	d.mu.Lock()
	streams := d.all()
	d.mu.Unlock()
	for _, s := range streams {
		s.reset(s.expiry(ReasonDraining, d.grace, s.now()).coded())
	}
}

// all returns the streams.
func (d *Drainer) all() []*stream {
	var streams []*stream
	for s := d.first; s != nil; s = s.next {
		streams = append(streams, s)
	}
	return streams
}

// add adds a stream, unless it is too late.
func (d *Drainer) add(s *stream) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return false
	}
	s.drainer, s.next = d, d.first
	if d.first != nil {
		d.first.prev = s
	}
	d.first = s
	return true
}

// remove removes a stream that was added. The last one ends the draining.
func (d *Drainer) remove(s *stream) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		d.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.prev, s.next = nil, nil
	if d.draining && d.first == nil {
		d.timer.Stop()
		close(d.done)
	}
}
