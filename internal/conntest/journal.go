package conntest

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

// journal records the requests of a server.
type journal struct {
	mu      sync.Mutex
	records []*record
	running int
	discard bool          // keep no records
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// record is one request in the journal, whose mutex guards it.
type record struct {
	journal *journal
	call    Call
	handled bool // an RPC handler ran
}

type recordKey struct{}

// observe is the journal's middleware. It wraps the request's body only: the
// ResponseWriter has optional methods that a wrapper would hide.
func (j *journal) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := j.begin(r)
		defer rec.update(func(c *Call) {
			c.Ended = time.Now()
			j.running--
		})
		r = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &body{ReadCloser: r.Body, record: rec}
		}
		next.ServeHTTP(w, r)
	})
}

func (j *journal) begin(r *http.Request) *record {
	j.mu.Lock()
	defer j.mu.Unlock()
	rec := &record{journal: j, call: Call{
		Procedure:  r.URL.Path,
		Proto:      r.Proto,
		RemoteAddr: r.RemoteAddr,
		Header:     r.Header.Clone(),
		Started:    time.Now(),
	}}
	if !j.discard {
		j.records = append(j.records, rec)
	}
	j.running++
	j.notify()
	return rec
}

// update changes a record and wakes the waiters. A nil record, of a handler
// that a test runs without a server, is left alone.
func (r *record) update(change func(*Call)) {
	if r == nil {
		return
	}
	r.journal.mu.Lock()
	defer r.journal.mu.Unlock()
	change(&r.call)
	r.journal.notify()
}

func (j *journal) notify() {
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}

func (j *journal) calls() []Call {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.handled()
}

// handled returns a copy of the calls that reached a handler. The caller holds
// the mutex.
func (j *journal) handled() []Call {
	var calls []Call
	for _, rec := range j.records {
		if rec.handled {
			calls = append(calls, rec.call)
		}
	}
	return calls
}

// wait waits until ready, which runs with the mutex held, reports true. It
// reports false after the limit.
func (j *journal) wait(limit time.Duration, ready func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		j.mu.Lock()
		done := ready()
		if j.changed == nil {
			j.changed = make(chan struct{})
		}
		changed := j.changed
		j.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// body notes how a request's body ended.
type body struct {
	io.ReadCloser
	record *record
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.record.update(func(c *Call) {
			if c.BodyErr == nil {
				c.BodyErr = err
			}
		})
	}
	return n, err
}
