package retry_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/retry"
)

// TestStreamReplayNeedsAReader: a server that does not read on until its client has
// read must not stop a replay for ever (P18).
func TestStreamReplayNeedsAReader(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: []conntest.Transport{conntest.H2C}, Kinds: []connect.StreamType{connect.StreamTypeBidi}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Window: 64 << 10})
		srv.Inject(conntest.Fail(connect.CodeUnavailable, "not now"))
		conn := openConn(t.Context(), t, retrying(c, srv, eager(), retry.WithBufferLimits(1<<20, 1<<20)), c.Kind)
		random := rand.New(rand.NewPCG(1, 2)) // the server compresses
		var texts []string
		for range 40 {
			text := make([]byte, 16<<10)
			for i := range text {
				text[i] = byte(random.Uint32())
			}
			texts = append(texts, string(text))
		}
		if err := conn.Send(conntest.Text(texts[0])); err != nil {
			t.Fatal(err)
		}
		waitReturned(srv, 1) // so that no Send blocks on the first attempt
		upload(t, conn, texts[1:]...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		context.AfterFunc(ctx, func() { _ = conn.CloseResponse() })
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, "") != strings.Join(texts, "") {
			t.Errorf("%d messages came back, not the ones that were sent", len(got))
		}
	})
}

// TestStreamSendBlockedOnADeadAttempt: a Send that waits for a server that is hung
// is released when the attempt is given up, and what it sent is not lost (P19).
func TestStreamSendBlockedOnADeadAttempt(t *testing.T) {
	t.Parallel()
	uploads.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Window: 64 << 10, Service: stubborn(hang(1, 0))})
		p := eager()
		p.AttemptTimeout = 5 * time.Second
		conn := openConn(t.Context(), t, retrying(c, srv, p, retry.WithBufferLimits(8<<20, 8<<20)), c.Kind)
		start := time.Now()
		var texts []string
		for i := range 32 {
			texts = append(texts, fmt.Sprint(i, strings.Repeat("x", 32<<10)))
		}
		released := make(chan time.Duration, 1)
		go func() {
			for _, text := range texts {
				if err := conn.Send(conntest.Text(text)); err != nil {
					t.Errorf("send: %v", err)
				}
			}
			released <- time.Since(start)
			if err := conn.CloseRequest(); err != nil {
				t.Errorf("close request: %v", err)
			}
		}()
		got, err := drain(conn)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0] != strings.Join(texts, " ") {
			t.Error("the second attempt did not see what was sent")
		}
		// HTTP/1.1 servers that are hung do not notice, and block nobody else.
		if at := <-released; at < 5*time.Second || at > 6*time.Second {
			t.Errorf("Send was released after %v", at)
		}
		wantElapsed(t, start, 6*time.Second)
		wantTruncated(t, srv.Calls()[:1])
	})
}

// TestStreamAttemptTimeout: a hung server costs the attempt's time, not the RPC's,
// for server streams too, whose Send waits for the response (P20).
func TestStreamAttemptTimeout(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(hang(2, 1))})
		p := eager()
		p.AttemptTimeout = 2 * time.Second
		var log events
		start := time.Now()
		got, err := exchange(t.Context(), t, retrying(c, srv, p, retry.WithObserver(log.observe)), c.Kind, "one", "two")
		if err != nil {
			t.Fatalf("%v: %v", &log, err)
		}
		wantMessages(t, got, "one two")
		wantElapsed(t, start, 6*time.Second)
		wantEvents(t, &log, "1 attempt_timeout 2 attempt_timeout 3 committed:message success")
	})
}

// TestStreamAttemptTimeoutForGood: the error says that time was up.
func TestStreamAttemptTimeoutForGood(t *testing.T) {
	t.Parallel()
	streams.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{Service: stubborn(hang(3, 1))})
		p := eager()
		p.AttemptTimeout = 2 * time.Second
		start := time.Now()
		_, err := exchange(t.Context(), t, retrying(c, srv, p), c.Kind, "one", "two")
		wantElapsed(t, start, 8*time.Second)
		if n := len(retry.HistoryOf(err)); n != 3 {
			t.Errorf("%d attempts in the history of %v, want 3", n, err)
		}
		wantCode(t, err, connect.CodeDeadlineExceeded)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v is not context.DeadlineExceeded", err)
		}
	})
}

// TestStreamAttemptTimeoutEndsWithTheFirstMessage: what follows may take longer.
func TestStreamAttemptTimeoutEndsWithTheFirstMessage(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web, Kinds: []connect.StreamType{connect.StreamTypeServer}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		srv := c.Start(t, conntest.Config{})
		srv.Inject(conntest.Delay(time.Minute).After(1))
		p := eager()
		p.AttemptTimeout = time.Second
		start := time.Now()
		got, err := download(t.Context(), retrying(c, srv, p), "text")
		if err != nil {
			t.Fatal(err)
		}
		wantMessages(t, got, "text", "text", "text")
		wantElapsed(t, start, time.Minute)
	})
}
