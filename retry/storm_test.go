package retry_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// leaver is a server of HTTP/2 that answers every request with the same frame. It
// counts requests.
type leaver struct {
	requests atomic.Int64
	answer   func(stream uint32) []byte
}

// frame returns a frame of HTTP/2 without flags.
func frame(kind byte, stream uint32, payload ...uint32) []byte {
	p := []byte{0, 0, byte(4 * len(payload)), kind, 0}
	p = binary.BigEndian.AppendUint32(p, stream)
	for _, word := range payload {
		p = binary.BigEndian.AppendUint32(p, word)
	}
	return p
}

// goAway disclaims every stream, resetStream only one.
func goAway(uint32) []byte { return frame(7, 0, 0, 0) }

func resetStream(code uint32) func(uint32) []byte {
	return func(stream uint32) []byte { return frame(3, stream, code) }
}

// client returns a client whose every connection is to the server.
func (l *leaver) client(t *testing.T) *http.Client {
	t.Helper()
	var mu sync.Mutex
	var conns []net.Conn
	t.Cleanup(func() {
		synctest.Wait() // net/http may still dial for a request that is over
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		Protocols: protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, server)
			go l.serve(server)
			return client, nil
		},
	}
	return &http.Client{Transport: transport}
}

func (l *leaver) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	if _, err := r.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		return
	}
	// Writing waits for the reader, which may wait for its own writes.
	answers := make(chan []byte, 100)
	defer close(answers)
	go func() {
		for answer := range answers {
			_, _ = conn.Write(answer)
		}
	}()
	answers <- frame(4, 0) // SETTINGS
	for {
		var header [9]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return
		}
		size := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
		if _, err := r.Discard(size); err != nil {
			return
		}
		if header[3] == 1 { // HEADERS
			l.requests.Add(1)
			answers <- l.answer(binary.BigEndian.Uint32(header[5:]))
		}
	}
}

// TestTransportStorm: what net/http repeats by itself, without a limit or a delay, is
// repeated MaxTransportRetries times in an attempt.
func TestTransportStorm(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		answer func(uint32) []byte
		class  string
	}{
		"GOAWAY":         {goAway, "transport"},
		"PROTOCOL_ERROR": {resetStream(1), "transport"},
		"REFUSED_STREAM": {resetStream(7), "transport"},
	}
	cases := map[string]struct {
		limit, attempts int
		idempotent      bool
		requests        int64
	}{
		"default":    {0, 3, true, 3 * 4},
		"one":        {1, 2, true, 2 * 2},
		"none":       {-1, 2, true, 2},
		"idempotent": {0, 3, false, 4},
	}
	for answer, server := range answers {
		for name, test := range cases {
			t.Run(answer+"/"+name, func(t *testing.T) {
				t.Parallel()
				for _, protocol := range conntest.AllProtocols() {
					for _, kind := range []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer} {
						synctest.Test(t, func(t *testing.T) {
							l := &leaver{answer: server.answer}
							p := retry.Policy{MaxAttempts: test.attempts, MaxTransportRetries: test.limit, AssumeIdempotent: test.idempotent, Backoff: retry.Constant(time.Second)}
							var log events
							clients := conntest.NewClients(l.client(t), "http://storm", protocol.Option(),
								connect.WithInterceptors(retry.NewInterceptor(p, retry.WithObserver(log.observe))))
							ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
							defer cancel()
							reply := clients.Do(ctx, kind, nil, "one")
							// A connection that is gone by the time it is used costs a repetition
							// too; and while an attempt is given up one more may leave.
							attempts := int64(strings.Count(log.String(), server.class))
							if got := l.requests.Load(); got < 1 || got > test.requests+attempts {
								t.Errorf("%v %v: %d requests, want up to %d: %v", protocol, kind, got, test.requests, &log)
							}
							if reply.Err == nil || ctx.Err() != nil {
								t.Errorf("%v %v: %v, %v", protocol, kind, reply.Err, ctx.Err())
							}
							if !strings.Contains(log.String(), server.class) {
								t.Errorf("%v %v: events %q", protocol, kind, &log)
							}
						})
					}
				}
			})
		}
	}
}

// TestUploadsThatNeverWereProcessed: net/http does not repeat those, since it cannot;
// this package does, also if nothing is known of the procedure.
func TestUploadsThatNeverWereProcessed(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(uint32) []byte{"GOAWAY": goAway, "REFUSED_STREAM": resetStream(7)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, protocol := range conntest.AllProtocols() {
				for _, kind := range uploadKinds {
					synctest.Test(t, func(t *testing.T) {
						l := &leaver{answer: answer}
						p := retry.Policy{Backoff: retry.Constant(time.Second)}
						var log events
						clients := conntest.NewClients(l.client(t), "http://storm", protocol.Option(),
							connect.WithInterceptors(retry.NewInterceptor(p, retry.WithObserver(log.observe))))
						conn := openConn(t.Context(), t, clients, kind)
						start := time.Now()
						upload(t, conn, "one", "two")
						_, err := drain(conn)
						wantCode(t, err, connect.CodeUnavailable)
						// The first costs nothing, the third to come counts.
						wantEvents(t, &log, "1 never_processed 2 never_processed 3 never_processed 4 never_processed 5 never_processed 6 never_processed committed:failure")
						wantElapsed(t, start, 4*time.Second)
						if got := l.requests.Load(); got != 6 {
							t.Errorf("%d requests, want 6", got)
						}
					})
				}
			}
		})
	}
}

// TestTransportStormError: the error says that the server cannot be reached, not that
// somebody gave up.
func TestTransportStormError(t *testing.T) {
	t.Parallel()
	for _, kind := range []connect.StreamType{connect.StreamTypeUnary, connect.StreamTypeServer} {
		synctest.Test(t, func(t *testing.T) {
			l := &leaver{answer: goAway}
			clients := conntest.NewClients(l.client(t), "http://storm", connect.WithInterceptors(retry.NewInterceptor(retry.Policy{})))
			wantCode(t, clients.Do(t.Context(), kind, nil, "one").Err, connect.CodeUnavailable)
		})
	}
}

// TestTransportStormWorstCase: no server sees more requests than Policy.WorstCase says,
// but for one in each attempt that leaves while the transport is being told to stop.
func TestTransportStormWorstCase(t *testing.T) {
	t.Parallel()
	for _, protocol := range conntest.AllProtocols() {
		for range 20 {
			synctest.Test(t, func(t *testing.T) {
				l := &leaver{answer: resetStream(7)}
				p := retry.Policy{MaxAttempts: 2, MaxTransportRetries: -1, AssumeIdempotent: true, Backoff: retry.Constant(time.Second)}
				clients := conntest.NewClients(l.client(t), "http://storm", protocol.Option(), connect.WithInterceptors(retry.NewInterceptor(p)))
				_ = clients.Do(t.Context(), connect.StreamTypeServer, nil, "one")
				if got := l.requests.Load(); got > int64(p.WorstCase(1)+p.MaxAttempts) {
					t.Errorf("%d requests, more than the worst case of %d", got, p.WorstCase(1))
				}
			})
		}
	}
}
