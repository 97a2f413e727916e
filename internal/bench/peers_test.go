package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// peerTest tests one pair, which it starts, and one kind of RPC.
type peerTest func(t *testing.T, ctx context.Context, start starter, kind string)

// starter starts a pair with a handler.
type starter struct {
	start      func(peerHandler) peerPair
	compressed bool
}

// fewer divides the number or size of messages where they are compressed, which
// takes long with the race detector: its pools forget, and a new compressor is
// most of a mebibyte.
func (s starter) fewer(count, by int) int {
	if s.compressed {
		return count / by
	}
	return count
}

// everyPair runs a test with each pair of implementations, uncompressed and
// compressed, and with each of the kinds of RPC. It gives up after a while:
// these tests are about what might hang.
func everyPair(t *testing.T, kinds []string, test peerTest) {
	t.Helper()
	for name, start := range pairs {
		for _, compressed := range []bool{false, true} {
			for _, kind := range kinds {
				t.Run(fmt.Sprintf("%s/gzip=%t/%s", name, compressed, kind), func(t *testing.T) {
					t.Parallel()
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					test(t, ctx, starter{
						func(handler peerHandler) peerPair { return start(t, compressed, handler) },
						compressed,
					}, kind)
				})
			}
		}
	}
}

var (
	allKinds    = []string{unaryKind, serverKind, clientKind, bidiKind}
	streamKinds = []string{serverKind, clientKind, bidiKind}
)

// copies is a handler that answers count messages with as many, as far as the
// kind of RPC allows: every message of a bidi stream, the only one of a unary
// RPC, the last one of a client stream, and the request of a server stream
// count times.
func copies(kind string, count int) peerHandler {
	return func(_ context.Context, stream peerServerStream) error {
		stream.SetTrailer("Peer-Trailer", "after "+kind)
		var last *Message
		for n := 0; ; n++ {
			m, err := stream.Receive()
			if errors.Is(err, io.EOF) {
				if n != requests(kind, count) {
					return &peerError{code: connect.CodeDataLoss, message: fmt.Sprintf("got %d messages", n)}
				}
				break
			}
			if err != nil {
				return err
			}
			last = m
			if kind == bidiKind {
				if err := stream.Send(m); err != nil {
					return err
				}
			}
		}
		if kind == bidiKind {
			return nil
		}
		for range responses(kind, count) {
			if err := stream.Send(last); err != nil {
				return err
			}
		}
		return nil
	}
}

// requests returns how many messages a client sends if it may send count.
func requests(kind string, count int) int {
	if kind == unaryKind || kind == serverKind {
		return 1
	}
	return count
}

// responses returns how many messages a server sends if it may send count.
func responses(kind string, count int) int {
	if kind == unaryKind || kind == clientKind {
		return 1
	}
	return count
}

// exchange sends count messages of a size, and checks that they come back.
func exchange(t *testing.T, ctx context.Context, start starter, kind string, count, size int) {
	t.Helper()
	pair := start.start(copies(kind, count))
	stream, err := pair.open(ctx, kind)
	if err != nil {
		t.Fatal(err)
	}
	msg := payload(size)
	sent := make(chan error, 1)
	send := func() {
		var err error
		for range requests(kind, count) {
			err = errors.Join(err, stream.Send(msg))
		}
		sent <- errors.Join(err, stream.CloseSend())
	}
	// Only streams may send and receive at the same time; only bidi streams
	// have to, because an echo soon has nowhere to put its messages.
	if kind == bidiKind {
		go send()
	} else {
		send()
	}
	for n := range responses(kind, count) {
		got, err := stream.Receive()
		if err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
		if !bytes.Equal(got.GetValue(), msg.GetValue()) {
			t.Fatalf("message %d arrived changed", n)
		}
	}
	_, err = stream.Receive()
	if !errors.Is(err, io.EOF) {
		t.Fatalf("instead of the end of the stream: %v", err)
	}
	if err := <-sent; err != nil {
		t.Errorf("sending: %v", err)
	}
	if got, want := stream.Trailer("Peer-Trailer", err), "after "+kind; got != want {
		t.Errorf("trailer: got %q, want %q", got, want)
	}
}

func TestPeersExchangeMessages(t *testing.T) {
	t.Parallel()
	everyPair(t, allKinds, func(t *testing.T, ctx context.Context, start starter, kind string) {
		exchange(t, ctx, start, kind, 3, 100)
	})
}

func TestPeersExchangeEmptyMessages(t *testing.T) {
	t.Parallel()
	everyPair(t, allKinds, func(t *testing.T, ctx context.Context, start starter, kind string) {
		exchange(t, ctx, start, kind, 3, 0)
	})
}

func TestPeersExchangeLargeMessages(t *testing.T) {
	t.Parallel()
	everyPair(t, allKinds, func(t *testing.T, ctx context.Context, start starter, kind string) {
		exchange(t, ctx, start, kind, 3, start.fewer(maxSize, 8))
	})
}

func TestPeersExchangeManyMessages(t *testing.T) {
	t.Parallel()
	everyPair(t, streamKinds, func(t *testing.T, ctx context.Context, start starter, kind string) {
		exchange(t, ctx, start, kind, start.fewer(10_000, 20), 8)
	})
}

// TestPeersAgreeOnErrors has a handler fail with all that a status can have,
// before its first message and after the second.
func TestPeersAgreeOnErrors(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 2} {
		kinds := allKinds
		if before > 0 {
			kinds = []string{serverKind, bidiKind}
		}
		t.Run(fmt.Sprintf("after %d messages", before), func(t *testing.T) {
			t.Parallel()
			everyPair(t, kinds, func(t *testing.T, ctx context.Context, start starter, kind string) {
				want := &peerError{connect.CodeNotFound, "no such thing: 100 % ünknown\n", wrapperspb.String("detail")}
				pair := start.start(func(_ context.Context, stream peerServerStream) error {
					if _, err := stream.Receive(); err != nil {
						return err
					}
					for range before {
						if err := stream.Send(payload(10)); err != nil {
							return err
						}
					}
					stream.SetTrailer("Peer-Trailer", "failed")
					return want
				})
				stream, err := pair.open(ctx, kind)
				if err != nil {
					t.Fatal(err)
				}
				if err := stream.Send(payload(10)); err != nil {
					t.Fatal(err)
				}
				for range before {
					if _, err := stream.Receive(); err != nil {
						t.Fatal(err)
					}
				}
				if _, err = stream.Receive(); err == nil {
					t.Fatal("got a message instead of an error")
				}
				got := pair.parse(err)
				if got.code != want.code || got.message != want.message || !proto.Equal(got.detail, want.detail) {
					t.Errorf("got %v with %v, want %v with %v", got, got.detail, want, want.detail)
				}
				if got := stream.Trailer("Peer-Trailer", err); got != "failed" {
					t.Errorf("trailer: got %q", got)
				}
			})
		})
	}
}

// ending is what a handler saw when its RPC ended from outside.
type ending struct {
	received error // from Receive, if the kind of RPC lets it wait there
	context  error
}

// waits is a handler that answers one message, so that the RPC is under way,
// and then waits for the end: in Receive, where it can, and for its context. It
// closes began when it has the message.
func waits(kind string, began chan<- struct{}, ended chan<- ending) peerHandler {
	return func(ctx context.Context, stream peerServerStream) error {
		var e ending
		if _, err := stream.Receive(); err != nil {
			return err
		}
		close(began)
		if kind != clientKind && kind != unaryKind {
			if err := stream.Send(payload(10)); err != nil {
				return err
			}
		}
		if kind == clientKind || kind == bidiKind {
			_, e.received = stream.Receive()
		}
		<-ctx.Done()
		e.context = ctx.Err()
		ended <- e
		return ctx.Err()
	}
}

// TestPeersCancelMidStream cancels a stream that waits on both sides. The
// server must not take it for one that ended.
func TestPeersCancelMidStream(t *testing.T) {
	t.Parallel()
	everyPair(t, streamKinds, func(t *testing.T, ctx context.Context, start starter, kind string) {
		ended := make(chan ending, 1)
		began := make(chan struct{})
		pair := start.start(waits(kind, began, ended))
		canceled, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := pair.open(canceled, kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(payload(10)); err != nil {
			t.Fatal(err)
		}
		received := make(chan error, 1)
		if kind == clientKind {
			<-began
			cancel()
			go func() {
				_, err := stream.Receive()
				received <- err
			}()
		} else {
			if _, err := stream.Receive(); err != nil {
				t.Fatal(err)
			}
			go func() {
				_, err := stream.Receive()
				received <- err
			}()
			cancel()
		}
		if got := pair.parse(<-received).code; got != connect.CodeCanceled {
			t.Errorf("client: got %v", got)
		}
		select {
		case e := <-ended:
			if !errors.Is(e.context, context.Canceled) {
				t.Errorf("server's context: %v", e.context)
			}
			if kind != serverKind && (errors.Is(e.received, io.EOF) || pair.parseServer(e.received).code != connect.CodeCanceled) {
				t.Errorf("server's Receive: %v", e.received)
			}
		case <-ctx.Done():
			t.Fatal("the server was not told")
		}
	})
}

// TestPeersAgreeOnDeadlines has a deadline pass while both sides wait.
func TestPeersAgreeOnDeadlines(t *testing.T) {
	t.Parallel()
	everyPair(t, allKinds, func(t *testing.T, ctx context.Context, start starter, kind string) {
		ended := make(chan ending, 1)
		hasDeadline := make(chan bool, 1)
		handler := waits(kind, make(chan struct{}), ended)
		pair := start.start(func(ctx context.Context, stream peerServerStream) error {
			_, ok := ctx.Deadline()
			hasDeadline <- ok
			return handler(ctx, stream)
		})
		// Long enough for a message to come back from a busy machine.
		limited, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		stream, err := pair.open(limited, kind)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(payload(10)); err != nil {
			t.Fatal(err)
		}
		if kind == serverKind || kind == bidiKind {
			if _, err := stream.Receive(); err != nil {
				t.Fatal(err)
			}
		}
		if kind == clientKind {
			// connect's Receive ends the request first: let the deadline find
			// the request open.
			<-limited.Done()
		}
		if _, err := stream.Receive(); err == nil || pair.parse(err).code != connect.CodeDeadlineExceeded {
			t.Errorf("client: got %v", err)
		}
		select {
		case e := <-ended:
			if e.context == nil {
				t.Error("server: the context is live")
			}
			if errors.Is(e.received, io.EOF) {
				t.Error("server: the stream seems to have ended well")
			}
		case <-ctx.Done():
			t.Fatal("the server was not told")
		}
		if !<-hasDeadline {
			t.Error("server: no deadline")
		}
	})
}
