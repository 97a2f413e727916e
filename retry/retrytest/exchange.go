package retrytest

import (
	"io"
	"net/http"
	"time"
)

// exchange is a request with a fault, and the writer of its response.
type exchange struct {
	http.ResponseWriter

	network  *Network
	request  *http.Request
	conn     *conn
	fault    Fault
	begin    int // bytes that the connection had sent before
	written  int // bytes of the response's body
	messages envelopes
	answered bool
}

// serve serves a request, as far as its fault lets it.
func (e *exchange) serve(next http.Handler) {
	if e.fault.before != nil && e.fault.before(e) {
		if !e.answered {
			panic(http.ErrAbortHandler) //nolint:forbidigo // it is how net/http is told to reset a stream
		}
		return
	}
	if e.fault.read != nil {
		e.fault.read(e, 0)
		e.request.Body = &body{ReadCloser: e.request.Body, e: e}
	}
	next.ServeHTTP(e, e.request)
}

// Unwrap is for [http.ResponseController].
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// Flush implements [http.Flusher].
func (e *exchange) Flush() { e.flush() }

func (e *exchange) flush() { _ = http.NewResponseController(e.ResponseWriter).Flush() }

func (e *exchange) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		piece := p
		if e.fault.limit != nil {
			if limit := e.fault.limit(e); limit >= 0 && limit < len(piece) {
				piece = piece[:max(limit, 1)]
			}
		}
		var n int
		n, err = e.ResponseWriter.Write(piece)
		p, written = p[n:], written+n
		e.written += n
		e.messages.pass(piece[:n])
		if e.fault.wrote != nil {
			e.flush()
			e.fault.wrote(e)
		}
	}
	return written, err
}

// wait waits, unless the request ends.
func (e *exchange) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.request.Context().Done():
	case <-e.network.closed:
	}
}

// body is a request's body whose bytes are counted.
type body struct {
	io.ReadCloser

	e     *exchange
	total int
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.total += n
	if n > 0 {
		b.e.fault.read(b.e, b.total)
	}
	return n, err
}

// envelopes counts the messages of a stream: each has five bytes in front, a flag
// and its size.
type envelopes struct {
	complete int
	head     []byte
	rest     int // bytes of the message that are still to come
}

func (m *envelopes) pass(p []byte) {
	for len(p) > 0 {
		if m.rest == 0 {
			n := min(5-len(m.head), len(p))
			m.head, p = append(m.head, p[:n]...), p[n:]
			if len(m.head) < 5 {
				return
			}
			m.rest = int(m.head[1])<<24 | int(m.head[2])<<16 | int(m.head[3])<<8 | int(m.head[4])
		}
		n := min(m.rest, len(p))
		m.rest, p = m.rest-n, p[n:]
		if m.rest == 0 {
			m.complete++
			m.head = m.head[:0]
		}
	}
}

// until returns how many bytes may pass at once without missing the end of message n.
func (m *envelopes) until(n int) int {
	switch {
	case m.complete >= n:
		return -1
	case m.rest > 0:
		return m.rest
	default:
		return 5 - len(m.head)
	}
}
