package conntest

import (
	"runtime"
	"sync"
	"testing"
	"time"
)

// stopLimit is how long a server's connections and handlers have to end.
const stopLimit = 5 * time.Second

// stop ends everything: clients close what is idle, the cut ends what is not,
// and then handlers and connections are waited for. The wait for connections
// matters in bubbles, whose time stands still once the test function returned,
// while net/http's HTTP/1.1 server may sleep before it closes one.
func (s *Server) stop() {
	s.Release()
	s.RefuseDials(true)
	s.mu.Lock()
	for _, client := range s.clients {
		client.CloseIdleConnections()
	}
	s.mu.Unlock()
	s.CutConnections() // first, because closing TLS writes, which may block
	_ = s.HTTP.Close()
	<-s.served
	s.CutConnections() // those accepted meanwhile
	// net/http does not notice the end of an HTTP/1.1 connection while the
	// request has a body left to read, nor a client's while it is to write one.
	s.end()
	if !s.journal.wait(stopLimit, func() bool { return s.journal.running == 0 }) {
		s.tb.Errorf("conntest: a handler still runs %v after its connection ended\n%s", stopLimit, stacks())
	} else if !s.network.wait(stopLimit) {
		s.tb.Errorf("conntest: a connection is still in use %v after it was cut\n%s", stopLimit, stacks())
	}
	s.log.stop()
}

func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// logWriter passes the HTTP server's log on to a test while that test runs:
// connections may log their end after it, which testing answers with a panic.
type logWriter struct {
	mu sync.Mutex
	tb testing.TB // nil: stopped
}

func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tb != nil {
		w.tb.Logf("http server: %s", b)
	}
	return len(b), nil
}

func (w *logWriter) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tb = nil
}
