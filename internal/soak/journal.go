package soak

import (
	"encoding/binary"
	"fmt"
	"sync"

	"connectrpc.com/connect"
	"github.com/interconnect-go/interconnect/streamwrap"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// message is what RPCs carry: which RPC it belongs to, which message of its direction it
// is, from 1, and bytes.
type message = wrapperspb.BytesValue

func newMessage(id uint64, seq, size int) *message {
	b := binary.BigEndian.AppendUint64(nil, id)
	b = binary.BigEndian.AppendUint32(b, uint32(seq)) //nolint:gosec // a number of a plan's at most 50 messages
	return &message{Value: append(b, make([]byte, size)...)}
}

// parse returns what newMessage has put into a message.
func parse(m *message) (id uint64, seq int) {
	b := m.GetValue()
	if len(b) < 12 {
		return 0, 0
	}
	return binary.BigEndian.Uint64(b), int(binary.BigEndian.Uint32(b[8:]))
}

// sequence checks that messages come in order.
type sequence struct {
	id  uint64
	got int
}

func (s *sequence) add(m *message) error {
	s.got++
	if id, seq := parse(m); id != s.id || seq != s.got {
		return fmt.Errorf("message %d of RPC %d is number %d of RPC %d", s.got, s.id, seq, id)
	}
	return nil
}

// attempt is what a handler did.
type attempt struct {
	sequence

	whole bool // it saw a clean end of the request
	sent  int
	err   error // what it returned
}

// ended is how an RPC ended, as an interceptor saw it.
type ended struct {
	outcome streamwrap.Outcome
	code    connect.Code // 0: success
}

// journal is what happened to all RPCs.
type journal struct {
	mu       sync.Mutex
	attempts map[uint64][]*attempt // of handlers
	server   map[uint64][]ended
	client   map[uint64][]ended
	wrong    []error

	opens, ends [2]int // of servers, and of clients
}

func newJournal() *journal {
	return &journal{
		attempts: make(map[uint64][]*attempt),
		server:   make(map[uint64][]ended), client: make(map[uint64][]ended),
	}
}

// complain notes that something is wrong.
func (j *journal) complain(err error) {
	if err == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.wrong = append(j.wrong, err)
}

// serve notes what a handler did.
func (j *journal) serve(a *attempt) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.attempts[a.id] = append(j.attempts[a.id], a)
}

func (j *journal) opened(client bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.opens[side(client)]++
}

func (j *journal) ended(id uint64, client bool, e *streamwrap.End) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ends[side(client)]++
	all := j.server
	if client {
		all = j.client
	}
	all[id] = append(all[id], ended{e.Outcome, e.Code})
}

func side(client bool) int {
	if client {
		return 1
	}
	return 0
}
