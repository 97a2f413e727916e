package auth

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/request"
	"github.com/interconnect-go/interconnect/streamwrap"
)

const authorization = "Authorization"

// ClientInterceptor adds a token to the RPCs of clients. It implements
// [connect.Interceptor], and on handlers it does nothing. It belongs inside of retries,
// so that each attempt has a fresh token. It is safe for concurrent use.
type ClientInterceptor struct {
	streams *streamwrap.Interceptor
	source  TokenSource
	last    atomic.Pointer[credential] // most RPCs have the same
}

// credential is a token and what the header has.
type credential struct {
	token, header string
	scheme        string // Token.Type
}

var _ connect.Interceptor = (*ClientInterceptor)(nil)

// NewClientInterceptor returns an interceptor that sends tokens of a source, unless the
// caller has set an Authorization header. If there is no token the RPC fails with
// [connect.CodeUnavailable] without being sent, or with the source's own
// *[connect.Error].
//
// A token that the server refuses is dropped, if the source is a [CachedSource]. A unary
// RPC is then made once more, with another token, if the server says that it was the
// token, or the procedure may be executed twice. Streams are not: the next one has the
// other token. It panics if source is nil.
//
// Send tokens over TLS only: see [HTTPClient].
func NewClientInterceptor(source TokenSource) *ClientInterceptor {
	if source == nil {
		panic("auth: NewClientInterceptor: nil TokenSource")
	}
	c := &ClientInterceptor{source: source}
	c.streams = streamwrap.NewInterceptor(streamwrap.Hooks[clientStream]{
		Open: func(_ context.Context, call *streamwrap.Call) (context.Context, *clientStream, error) {
			if !call.IsClient() {
				return nil, nil, nil
			}
			return nil, &clientStream{c: c}, nil
		},
		Header: (*clientStream).header,
		Return: (*clientStream).returns,
	})
	return c
}

// clientStream is a client's stream and the token that it was sent with.
type clientStream struct {
	c *ClientInterceptor
	// Header, of the send side, sets it. Return may run at the same time if what is
	// further in ends a stream that it has not sent.
	sent atomic.Pointer[credential]
}

// header implements the Header hook.
func (s *clientStream) header(ctx context.Context, h http.Header) error {
	if len(h[authorization]) > 0 {
		return nil
	}
	credential, err := s.c.credential(ctx)
	if err != nil {
		return unavailable(err)
	}
	s.sent.Store(credential)
	h.Set(authorization, credential.header)
	return nil
}

// returns implements the Return hook.
func (s *clientStream) returns(_ context.Context, err error) error {
	if sent := s.sent.Load(); sent != nil && refused(err) {
		s.c.invalidate(sent.token)
	}
	return err
}

// WrapStreamingClient implements [connect.Interceptor].
func (c *ClientInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return c.streams.WrapStreamingClient(next)
}

// WrapStreamingHandler implements [connect.Interceptor].
func (c *ClientInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// WrapUnary implements [connect.Interceptor].
func (c *ClientInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if !req.Spec().IsClient || len(req.Header()[authorization]) > 0 {
			return next(ctx, req)
		}
		first, err := c.credential(ctx)
		if err != nil {
			return nil, unavailable(err)
		}
		res, err := send(ctx, req, first, nil, next)
		if err == nil || !refused(err) {
			return res, err
		}
		c.invalidate(first.token)
		if !repeats(err, req.Spec()) {
			return res, err
		}
		second, failed := c.credential(ctx)
		if failed != nil || second.token == first.token {
			return res, err
		}
		res, err = again(ctx, req, second, err, next)
		if err != nil && refused(err) {
			c.invalidate(second.token)
		}
		return res, err
	}
}

// again makes an RPC once more, with another token.
func again(ctx context.Context, req connect.AnyRequest, t *credential, previous error, next connect.UnaryFunc) (connect.AnyResponse, error) {
	attempt := &streamwrap.Attempt{Number: 2, Previous: previous}
	ctx, end := streamwrap.BeginAttempt(ctx, attempt)
	defer end(connect.NewError(connect.CodeInternal, errPanic)) // only if it panics: the first end counts
	res, err := send(ctx, req, t, attempt.Header, next)
	end(err)
	return res, err
}

// send makes an RPC with a token and more headers, in a copy of the request: its caller
// may use it for another server, while net/http may still read the headers of one that
// has no answer.
func send(ctx context.Context, req connect.AnyRequest, t *credential, more http.Header, next connect.UnaryFunc) (connect.AnyResponse, error) {
	header := req.Header()
	if request.Copyable {
		header = header.Clone()
	}
	maps.Copy(header, more)
	header.Set(authorization, t.header)
	if !request.Copyable {
		res, err := next(ctx, req)
		if err == nil || connect.IsWireError(err) { // else net/http may still read them
			header.Del(authorization)
		}
		return res, err
	}
	copied := request.Copy(req, header)
	res, err := next(ctx, copied)
	request.TakeMethod(copied, req)
	return res, err
}

// credential returns the token for an RPC.
func (c *ClientInterceptor) credential(ctx context.Context) (*credential, error) {
	t, err := c.source.Token(ctx)
	if err != nil {
		return nil, err
	}
	if last := c.last.Load(); last != nil && last.token == t.Value && last.scheme == t.Type {
		return last, nil
	}
	fresh := &credential{token: t.Value, header: t.header(), scheme: t.Type}
	c.last.Store(fresh)
	return fresh, nil
}

func (c *ClientInterceptor) invalidate(token string) {
	if cached, ok := c.source.(interface{ Invalidate(value string) }); ok {
		cached.Invalidate(token)
	}
}

// refused reports whether the server does not know who calls.
func refused(err error) bool {
	return connect.IsWireError(err) && connect.CodeOf(err) == connect.CodeUnauthenticated
}

// repeats reports whether an RPC may be made once more with another token: if it was
// not begun because of the token, or may be begun twice.
func repeats(err error, spec connect.Spec) bool {
	if spec.IdempotencyLevel != connect.IdempotencyUnknown {
		return true
	}
	switch reason, _ := ReasonOf(err); reason {
	case ReasonExpired, ReasonInvalid, ReasonRevoked:
		return true
	}
	e := (*connect.Error)(nil)
	return errors.As(err, &e) && strings.Contains(e.Meta().Get("WWW-Authenticate"), `error="invalid_token"`)
}
