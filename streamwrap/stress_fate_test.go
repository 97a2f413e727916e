package streamwrap_test

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
)

// live runs the client's part of a fate.
func (l *fate) live(c *connect.Client[number, number]) {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), fateKey{}, l))
	defer cancel()
	switch l.fault {
	case "cancel":
		time.AfterFunc(time.Duration(l.rand.IntN(2000))*time.Microsecond, cancel)
	case "deadline":
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(l.rand.IntN(2000))*time.Microsecond)
		defer stop()
	}
	switch l.kind {
	case connect.StreamTypeUnary:
		_, l.result = c.CallUnary(ctx, connect.NewRequest(num(1)))
	case connect.StreamTypeClient:
		l.upload(c.CallClientStream(ctx))
	case connect.StreamTypeServer:
		s, err := c.CallServerStream(ctx, connect.NewRequest(num(1)))
		if err != nil {
			l.result = err
			return
		}
		l.download(s)
	default:
		l.converse(c.CallBidiStream(ctx))
	}
}

func (l *fate) upload(s *connect.ClientStreamForClient[number, number]) {
	for i := range l.messages {
		if err := s.Send(num(i)); err != nil && !errors.Is(err, io.EOF) {
			break
		}
		if i == 2 && l.gone(func() error { conn, _ := s.Conn(); return conn.CloseResponse() }) {
			return
		}
	}
	l.closedRequest.Store(true)
	_, l.result = s.CloseAndReceive()
}

func (l *fate) download(s *connect.ServerStreamForClient[number]) {
	for i := 0; s.Receive(); i++ {
		if s.Msg().GetValue() != int64(i) {
			l.misordered.Store(true)
		}
		if i == 2 && l.gone(s.Close) {
			return
		}
	}
	l.result = s.Err()
	if l.result == nil {
		l.result = io.EOF
	}
	_ = s.Close()
}

func (l *fate) converse(s *connect.BidiStreamForClient[number, number]) {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range l.messages {
			if err := s.Send(num(i)); err != nil {
				if !errors.Is(err, io.EOF) {
					_ = s.CloseResponse()
				}
				return
			}
			if i == 2 && (l.fault == "close" || l.fault == "abandon") {
				return
			}
		}
		l.closedRequest.Store(true)
		_ = s.CloseRequest()
	}()
	defer func() { <-sent }()
	for i := 0; ; i++ {
		m, err := s.Receive()
		if err != nil {
			l.result = err
			_ = s.CloseResponse()
			return
		}
		if m.GetValue() != int64(i) {
			l.misordered.Store(true)
		}
		if i == 2 && l.gone(s.CloseResponse) {
			return
		}
	}
}

// gone ends a stream in the ways in which a user does not wait for its end.
func (l *fate) gone(closeResponse func() error) bool {
	switch l.fault {
	case "close":
		_ = closeResponse()
		return true
	case "abandon":
		return true
	}
	return false
}
