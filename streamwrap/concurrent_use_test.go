package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestConcurrentUseIsRefused: connect's streams allow one Send and one Receive
// at a time; a second one must be loud, and harm neither.
func TestConcurrentUseIsRefused(t *testing.T) {
	t.Parallel()
	type conn interface {
		Send(any) error
		Receive(any) error
	}
	// misuse runs two operations of one side at once; hold blocks the first.
	misuse := func(t *testing.T, what string, operation func() error, held, release chan struct{}) {
		t.Helper()
		first := make(chan error)
		go func() { first <- operation() }()
		<-held
		wantCode(t, "second "+what, operation(), connect.CodeInternal)
		close(release)
		if err := <-first; err != nil {
			t.Errorf("first %s: %v", what, err)
		}
	}
	for _, client := range []bool{true, false} {
		for _, what := range []string{"Send", "Receive"} {
			side := map[bool]string{true: "client", false: "server"}[client]
			t.Run(side+"/"+what, func(t *testing.T) {
				t.Parallel()
				conntest.Matrix{Transports: h2, Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
					held, release := make(chan struct{}), make(chan struct{})
					hold := once(func() error {
						close(held)
						<-release
						return nil
					})
					use := func(conn conn) {
						operation := func() error { return conn.Send(conntest.Text("x")) }
						if what == "Receive" {
							operation = func() error { return conn.Receive(&conntest.Message{}) }
						}
						misuse(t, what, operation, held, release)
					}
					s := setup{}
					if client {
						s.client = failing(what, hold)
					} else {
						s.server = failing(what, hold)
						s.config = bidiService(func(_ context.Context, stream *bidiStream) error {
							use(stream.Conn())
							return nil
						})
					}
					r := newRig(t, c, s)
					stream := r.clients.Bidi.CallBidiStream(t.Context())
					conn, _ := stream.Conn()
					if client && what == "Send" {
						use(conn)
					} else if err := conn.Send(conntest.Text("one")); err != nil && !errors.Is(err, io.EOF) {
						t.Fatal(err) // the handler may have returned already
					}
					if client && what == "Receive" {
						use(conn)
					}
					_ = stream.CloseRequest()
					_, err := drain(conn)
					wantEOF(t, "the end", err)
					r.WaitCalls(1)
					for _, p := range []*probe{r.client, r.server} {
						if end := p.Life(t).End(); end.Outcome != streamwrap.Completed {
							t.Errorf("%s: %s", p.name, p.Life(t))
						}
					}
				})
			})
		}
	}
}
