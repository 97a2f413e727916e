package streamwrap_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// encrypted is the transports of this file. What is tested here is tested in
// full without TLS elsewhere.
var encrypted = []conntest.Transport{conntest.H2TLS, conntest.H1TLS}

func TestTLSSuccess(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: encrypted}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		if reply := r.do(t, nil, "one", "two"); reply.Err != nil {
			t.Fatal(reply.Err)
		}
		want := map[connect.StreamType][2]string{
			connect.StreamTypeUnary: {"1/1", "1/1"}, connect.StreamTypeClient: {"2/1", "1/2"},
			connect.StreamTypeServer: {"1/3", "3/1"}, connect.StreamTypeBidi: {"2/2", "2/2"},
		}[c.Kind]
		r.client.wantEnd(t, "completed "+want[0])
		r.server.wantEnd(t, "completed "+want[1])
	})
}

func TestTLSServerError(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: encrypted}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{})
		wantServerError(t, r.do(t, conntest.WithFaults(conntest.Fail(connect.CodeAborted, "no").After(1)), "one").Err)
		for _, p := range []*probe{r.client, r.server} {
			if end := p.Life(t).End(); end.Outcome != streamwrap.Failed || end.Code != connect.CodeAborted {
				t.Errorf("%s: %s", p.name, p.Life(t))
			}
		}
	})
}

func TestTLSContextEndsDuringReceive(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: encrypted[:1], Kinds: uploads}, func(t *testing.T, c conntest.Case, e ending) {
		r := newRig(t, c, setup{config: conntest.Config{Service: waiting(true)}})
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		e.wantErr(t, "Receive", r.mustStart(ctx, t, nil).Receive(&conntest.Message{}))
		promptly(t, "Receive", due)
		wantCanceledUpload(t, r.WaitCalls(1)[0])
		promptly(t, "the server", due)
		synctest.Wait()
		if end := r.client.Life(t).End(); end.Code != e.code() || end.Sent != 1 {
			t.Errorf("client: %s", r.client.Life(t))
		}
	})
}

func TestTLSContextEndsDuringSend(t *testing.T) {
	t.Parallel()
	eachEnding(t, conntest.Matrix{Transports: encrypted, Kinds: uploads}, func(t *testing.T, c conntest.Case, e ending) {
		hold := func(conn connect.StreamingHandlerConn) error {
			time.Sleep(2 * time.Second)
			_, err := drain(conn)
			return err
		}
		r := newRig(t, c, setup{config: conntest.Config{Window: 64 << 10, Service: conntest.Service{
			Client: func(_ context.Context, stream *connect.ClientStream[conntest.Message]) (*connect.Response[conntest.Message], error) {
				return nil, hold(stream.Conn())
			},
			Bidi: func(_ context.Context, stream *bidiStream) error { return hold(stream.Conn()) },
		}}})
		ctx, cancel := e.context(t.Context())
		defer cancel()
		due := time.Now().Add(time.Second)
		conn := r.mustStart(ctx, t, nil)
		var err error
		for big := conntest.Text(strings.Repeat("x", 16<<10)); err == nil; {
			err = conn.Send(big)
		}
		e.wantErr(t, "Send", err)
		promptly(t, "Send", due)
		wantUnfinished(t, r.WaitCalls(1)[0])
	})
}

func TestTLSCancelDuringASteadyStream(t *testing.T) {
	t.Parallel()
	const streams = 20
	conntest.Matrix{Transports: encrypted[:1], Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{
			Window: 8 << 10, Service: conntest.Service{Bidi: steady},
			HandlerOptions: []connect.HandlerOption{connect.WithCompressMinBytes(1 << 20)},
		}})
		for i := range streams {
			ctx, cancel := context.WithCancel(t.Context())
			conn := r.mustStart(ctx, t, nil)
			for range 1 + i%7 {
				if err := conn.Receive(&conntest.Message{}); err != nil {
					t.Fatal(err)
				}
			}
			go cancel()
			_, err := drain(conn)
			wantCode(t, "Receive", err, connect.CodeCanceled)
		}
		wantAllCanceled(t, r, streams)
	})
}

func TestTLSAbort(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: encrypted[:1], Kinds: bidiKind}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		cause := connect.NewError(connect.CodeUnauthenticated, errors.New("expired"))
		r := newRig(t, c, setup{})
		conn := r.pingPong(t.Context(), t)
		time.AfterFunc(time.Second, func() { r.client.Life(t).call.Abort(cause) })
		if err := conn.Receive(&conntest.Message{}); err != error(cause) {
			t.Errorf("Receive: %v", err)
		}
		wantCanceledUpload(t, r.WaitCalls(1)[0])
	})
}

func TestTLSCloseEarly(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: encrypted, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		r := newRig(t, c, setup{config: conntest.Config{Service: greeting()}})
		conn := r.mustStart(t.Context(), t, nil)
		if err := errors.Join(conn.Receive(&conntest.Message{}), conn.CloseResponse()); err != nil {
			t.Fatal(err)
		}
		if call := r.WaitCalls(1)[0]; !call.SawCancel() {
			t.Errorf("call %v", call)
		}
		r.client.wantEnd(t, "closed_early canceled 1/1")
	})
}
