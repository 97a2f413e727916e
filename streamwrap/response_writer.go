package streamwrap

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
)

// responseWriter is what a handler behind the Engine writes to.
type responseWriter struct {
	x      *serverExchange
	header http.Header
	out    coalescer
	wrote  atomic.Bool // the headers
}

// What the ResponseWriter below can do decides what the one above is: one that
// flushes, one that can be hijacked, or both, as net/http's for HTTP/1.
type (
	flushWriter       struct{ *responseWriter }
	hijackWriter      struct{ *responseWriter }
	flushHijackWriter struct{ *responseWriter }
)

// unwrapper is how [http.ResponseController] sees through wrappers.
type unwrapper interface{ Unwrap() http.ResponseWriter }

// as returns the writer with what the one below it can do.
func (w *responseWriter) as() http.ResponseWriter {
	_, flushes := w.out.to.(http.Flusher)
	_, hijacks := w.out.to.(http.Hijacker)
	switch {
	case flushes && hijacks:
		return flushHijackWriter{w}
	case flushes:
		return flushWriter{w}
	case hijacks:
		return hijackWriter{w}
	default:
		return w
	}
}

// flush flushes a ResponseWriter, if it can.
func flush(w http.ResponseWriter) error {
	switch f := w.(type) {
	case interface{ FlushError() error }:
		return f.FlushError()
	case http.Flusher:
		f.Flush()
	}
	return nil
}

// Unwrap returns the ResponseWriter below, for [http.ResponseController].
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.out.to }

func (w *responseWriter) Header() http.Header { return w.header }

func (w *responseWriter) WriteHeader(status int) { w.x.writeHeader(status) }

func (w *responseWriter) Write(p []byte) (int, error) {
	if !w.wrote.Load() {
		w.x.writeHeader(http.StatusOK)
	}
	n, err := w.out.Write(p)
	if w.out.plain && w.x.observed != nil {
		w.x.noteBody(p[:n])
	}
	return n, w.x.writeError(err)
}

func (w flushWriter) Flush()            { _ = w.flush() }
func (w flushWriter) FlushError() error { return w.flush() }

func (w flushHijackWriter) Flush()            { _ = w.flush() }
func (w flushHijackWriter) FlushError() error { return w.flush() }

func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error)      { return w.hijack() }
func (w flushHijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

func (w *responseWriter) flush() error {
	if !w.wrote.Load() {
		w.x.writeHeader(http.StatusOK)
	}
	return w.x.writeError(w.out.Flush())
}

func (w *responseWriter) hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.out.to).Hijack()
	if err == nil {
		w.x.hijacked()
	}
	return conn, rw, err
}
