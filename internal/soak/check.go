package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
)

// slack is how much longer than its deadline an RPC may take on a busy machine.
const slack = 5 * time.Second

// check compares what clients saw with what handlers and interceptors saw.
func (b *bed) check() {
	j := b.journal
	for side, name := range []string{"servers", "clients"} {
		if j.opens[side] != j.ends[side] {
			j.complain(fmt.Errorf("%s: %d RPCs opened, %d ended", name, j.opens[side], j.ends[side]))
		}
	}
	if calls := len(b.results); j.opens[1] != calls {
		j.complain(fmt.Errorf("%d RPCs were made, interceptors saw %d", calls, j.opens[1]))
	}
	if started, ended := b.spans.started.Load(), b.spans.ended.Load(); started != ended {
		j.complain(fmt.Errorf("%d spans started, %d ended", started, ended))
	}
	if servers, clients := int(b.records.servers.Load()), int(b.records.clients.Load()); servers != j.opens[0] || clients != j.opens[1] {
		j.complain(fmt.Errorf("%d and %d RPCs on servers and clients have %d and %d records", j.opens[0], j.opens[1], servers, clients))
	}
	if servers, clients := int(b.spans.servers.Load()), int(b.spans.clients.Load()); servers != j.opens[0] || clients != j.opens[1] {
		j.complain(fmt.Errorf("%d and %d RPCs on servers and clients have %d and %d spans", j.opens[0], j.opens[1], servers, clients))
	}
	for _, r := range b.results {
		if err := b.verify(r); err != nil {
			j.complain(fmt.Errorf("%+v, sent %d, got %d and in the end %q: %w", *r.plan, r.sent, r.received.got, fmt.Sprint(r.err), err))
		}
	}
}

// verify returns what is wrong with one RPC.
func (b *bed) verify(r *result) error {
	id := r.plan.id
	if n := len(b.journal.client[id]); n != 1 {
		return fmt.Errorf("ended %d times on the client", n)
	}
	if r.took > r.plan.limit+slack {
		return fmt.Errorf("took %v", r.took)
	}
	attempts := b.journal.attempts[id]
	if r.gaveUp && slices.ContainsFunc(attempts, func(a *attempt) bool { return a.whole }) {
		return errors.New("a handler took a request for complete that the client gave up")
	}
	end := b.journal.client[id][0]
	switch {
	case errors.Is(r.err, errMismatch):
		return r.err
	case errors.Is(r.err, errClosed):
		return nil
	case r.err == nil && end.code != 0:
		return fmt.Errorf("the client's interceptors saw %v", end.code)
	case r.err == nil:
		return r.served(attempts)
	case end.code != connect.CodeOf(r.err):
		return fmt.Errorf("the client's interceptors saw %v", end.code)
	case connect.IsWireError(r.err):
		return b.refused(id, connect.CodeOf(r.err))
	default:
		return nil
	}
}

// served returns what is wrong with a success.
func (r *result) served(attempts []*attempt) error {
	want := r.sent
	if r.plan.kind == connect.StreamTypeServer {
		want = 1
	}
	if r.plan.kind == connect.StreamTypeServer && r.received.got != r.plan.count {
		return errors.New("messages are missing")
	}
	for _, a := range attempts {
		if a.whole && a.err == nil && a.got == want {
			return nil
		}
	}
	return errors.New("no handler has served it")
}

// refused returns an error unless a server has sent the code.
func (b *bed) refused(id uint64, code connect.Code) error {
	for _, end := range b.journal.server[id] {
		if end.code == code {
			return nil
		}
	}
	return fmt.Errorf("no server has sent %v, but %v", code, b.journal.server[id])
}

// probe checks that the server has all its slots again.
func (b *bed) probe(s *server) error {
	c := newClient("http://"+s.address, b.issuer, nil)
	defer c.transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), slack)
	defer cancel()
	time.Sleep(time.Second) // the limit of calls
	var streams []*connect.BidiStreamForClient[message, message]
	defer func() {
		for _, stream := range streams {
			_ = stream.CloseRequest()
			_, _ = stream.Receive()
			_ = stream.CloseResponse()
		}
	}()
	for n := range maxConcurrent {
		stream := c.bidi.CallBidiStream(ctx)
		streams = append(streams, stream)
		(&plan{}).ask(stream.RequestHeader())
		if err := stream.Send(newMessage(0, 1, 0)); err != nil {
			return fmt.Errorf("slot %d: %w", n, err)
		}
		if _, err := stream.Receive(); err != nil {
			return fmt.Errorf("slot %d: %w", n, err)
		}
	}
	return nil
}

// report says what has happened.
func (b *bed) report() {
	codes := make(map[string]int)
	for _, r := range b.results {
		name := "success"
		switch {
		case errors.Is(r.err, errClosed):
			name = "closed early"
		case r.err != nil:
			name = connect.CodeOf(r.err).String()
		}
		codes[name]++
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(codes)) {
		lines = append(lines, fmt.Sprintf("%s %d", name, codes[name]))
	}
	b.Log("%d RPCs, %d attempts, %d restarts, connections %v: %s",
		len(b.results), b.journal.opens[0], b.restarts, b.proxy.counts, strings.Join(lines, ", "))
}
