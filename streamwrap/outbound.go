package streamwrap

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
)

var (
	errSendOver    = errors.New("request body is closed")
	errPipeDropped = errors.New("request ended before it was complete")
)

// outbound is the body of a client's streaming request. It is connect's pipe,
// and more: it can fail, so that the server never takes for complete what was
// canceled. And it can carry frames past the pipe, which hands over each write
// to the transport and waits until that has it.
//
// The first message always goes through the pipe. So the frames that follow are
// queued only if it is certain that the transport reads this body, and not the
// pipe behind somebody else's HTTPClient.
type outbound struct {
	x     *clientExchange
	pipe  io.ReadCloser // nil until begin
	reads atomic.Int64

	mu       sync.Mutex
	changed  sync.Cond // there is something to read, or to send: never both are waited for
	waiting  *buffer   // frames; nil: none, or Send has it
	leaving  *buffer   // what Read returns from, from offset on
	offset   int
	failure  *outboundFailure
	queues   bool // after the first frame, the pipe is not read any more
	queued   bool // that has come
	complete bool // ended by CloseRequest
	drained  bool // the transport was told so
	closed   bool // by the transport
	probing  bool
	own      bool // a conn of the Engine's says when the request is complete
	answered bool // the response was read to its end
	filling  bool // Send has waiting, and adds a message
}

// outboundFailure is what the transport's Read, and the stream's Send, fail with.
type outboundFailure struct{ read, send error }

func newOutbound(x *clientExchange) *outbound {
	o := &outbound{x: x}
	o.changed.L = &o.mu
	return o
}

// begin says that the transport gets this body instead of the pipe.
func (o *outbound) begin(pipe io.ReadCloser) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pipe = pipe
	if _, ok := pipe.(*io.PipeReader); !ok || !o.x.sent.framed {
		o.queues = false // somebody wants to see, or change, all that passes
	}
}

// Read implements [io.Reader] for the transport.
func (o *outbound) Read(p []byte) (int, error) {
	o.reads.Add(1)
	o.mu.Lock()
	queued, failure := o.queued, o.failure
	o.mu.Unlock()
	switch {
	case failure != nil:
		return 0, failure.read
	case queued:
		return o.readQueue(p)
	default:
		return o.readPipe(p)
	}
}

// readPipe reads connect's pipe. No read returns more than was written at once:
// not more than a frame.
func (o *outbound) readPipe(p []byte) (int, error) {
	pipe := o.pipe
	n, err := pipe.Read(p)
	meter := &o.x.sent
	meter.feed(p[:n])
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.queues && n > 0 && meter.frames.Load() > 0 && !meter.scanner.Inside() {
		o.queued = true
		o.changed.Broadcast()             // Send waits for it
		if meter.frameBytes.Load() == 0 { // connect writes even a payload that is empty
			go func() { _, _ = pipe.Read(make([]byte, 1)) }()
		}
	}
	switch {
	case o.failure != nil:
		return n, o.failure.read
	case errors.Is(err, io.EOF):
		return n, o.endOfPipe()
	}
	return n, err
}

// endOfPipe returns what the transport is told when connect has closed the pipe:
// it does so too when the context has ended.
func (o *outbound) endOfPipe() error {
	ctx := o.x.ctx
	if err := ctx.Err(); err != nil {
		err = contextError(err, context.Cause(ctx))
		o.failure = &outboundFailure{read: err, send: err}
		return err
	}
	if o.own && !o.complete && !o.answered { // connect gave up on the response
		o.failure = &outboundFailure{read: errPipeDropped, send: io.EOF}
		return errPipeDropped
	}
	o.drained = true
	return io.EOF
}

// noteAnswer says that the response was read to its end.
func (o *outbound) noteAnswer() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answered = true
}

func (o *outbound) readQueue(p []byte) (int, error) {
	o.mu.Lock()
	for !o.readable() {
		o.changed.Wait()
	}
	n, err := o.take(p)
	o.mu.Unlock()
	return n, err
}

// readable reports whether take has something to say.
func (o *outbound) readable() bool {
	return o.leaving != nil || o.waiting != nil && len(o.waiting.b) > 0 ||
		o.failure != nil || o.closed || o.complete && !o.filling
}

// take takes from what leaves, or from what waits.
//
//go:noinline
func (o *outbound) take(p []byte) (int, error) {
	if o.leaving == nil {
		switch {
		case o.failure != nil:
			return 0, o.failure.read
		case o.closed:
			return 0, errSendOver
		case o.waiting == nil || len(o.waiting.b) == 0:
			o.drained = true
			return 0, io.EOF
		}
		o.leaving, o.waiting, o.offset = o.waiting, nil, 0
		o.changed.Broadcast()
	}
	n := copy(p, o.leaving.b[o.offset:])
	o.offset += n
	if o.offset == len(o.leaving.b) {
		o.leaving.release()
		o.leaving = nil
		o.changed.Broadcast()
	}
	return n, nil
}

// Close implements [io.Closer] for the transport: nothing will be read any more.
func (o *outbound) Close() error {
	o.mu.Lock()
	o.closed = true
	o.drop()
	o.mu.Unlock()
	return o.pipe.Close()
}

// drop lets go of what waits, and wakes everybody.
func (o *outbound) drop() {
	o.waiting.release()
	o.leaving.release()
	o.waiting, o.leaving = nil, nil
	o.changed.Broadcast()
}

// fail makes the body end with an error, if the transport has not read it to its
// end, and Send fail with sendErr. It reports whether the server will see that.
func (o *outbound) fail(err, sendErr error) bool {
	o.mu.Lock()
	if o.failure != nil || o.drained || o.closed {
		defer o.mu.Unlock()
		return o.failure != nil
	}
	o.failure = &outboundFailure{read: err, send: sendErr}
	o.drop()
	pipe := o.pipe
	o.mu.Unlock()
	if pipe != nil {
		_ = pipe.Close() // a Read may wait for it
	}
	return true
}

// offer says whether the frames after the first can be queued. The request has
// not begun, or it is too late.
func (o *outbound) offer(queues bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queues = queues && o.pipe == nil
}

// accepts reports whether they will be: the transport reads this body.
func (o *outbound) accepts() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.queues && o.pipe != nil
}

// awaitQueue waits until the first frame has gone through the pipe. The
// transport has read it.
func (o *outbound) awaitQueue() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.queued && o.failure == nil && !o.closed {
		o.changed.Wait()
	}
}

// send queues a message.
func (o *outbound) send(f *framer, message any) error {
	o.mu.Lock()
	for o.failure == nil && !o.closed && !o.complete && o.full() {
		o.probe()
		o.changed.Wait()
	}
	if err := o.over(); err != nil {
		o.mu.Unlock()
		return err
	}
	b := o.waiting
	o.waiting, o.filling = nil, true
	o.mu.Unlock()

	b, h, err := f.append(b, message) // not under the lock: the transport may read

	o.mu.Lock()
	defer o.mu.Unlock()
	o.filling = false
	if o.failure != nil || o.closed {
		b.release()
		return o.over()
	}
	// The message came before a CloseRequest meanwhile.
	o.changed.Broadcast()
	if len(b.b) > 0 {
		o.waiting = b
	} else {
		b.release()
	}
	if err == nil {
		o.x.sent.count(h)
	}
	return err
}

// full reports whether Send has to wait: for half of the buffer, or all of it
// if a message that is leaving is longer.
func (o *outbound) full() bool {
	waiting, leaving := 0, 0
	if o.waiting != nil {
		waiting = len(o.waiting.b)
	}
	if o.leaving != nil {
		leaving = len(o.leaving.b) - o.offset
	}
	limit := o.x.engine.sendBuffer / 2
	return waiting >= limit || waiting+leaving >= 2*limit
}

// over returns why nothing can be sent any more.
func (o *outbound) over() error {
	switch {
	case o.failure != nil:
		return o.failure.send
	case o.closed, o.complete:
		return io.EOF
	default:
		return nil
	}
}

// end ends the request.
func (o *outbound) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.complete = true
	o.changed.Broadcast()
}

// probe watches the pipe, once, while a Send waits: connect closes it when it
// gives up on the response, which nothing else tells.
func (o *outbound) probe() {
	if o.probing {
		return
	}
	o.probing = true
	pipe := o.pipe
	go func() {
		var err error
		for one := make([]byte, 1); err == nil; {
			_, err = pipe.Read(one)
		}
		o.mu.Lock()
		complete := o.complete || o.answered
		o.mu.Unlock()
		if !complete && errors.Is(err, io.EOF) { // else the transport closed it
			o.fail(errPipeDropped, io.EOF)
		}
	}()
}
