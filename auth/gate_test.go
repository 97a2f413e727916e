package auth_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
	"github.com/interconnect-go/interconnect/streamwrap/streamwraptest"
)

// accepting accepts everybody who says who they are, in the header "Name", and counts.
func accepting(n *atomic.Int64) auth.Authenticator {
	return auth.AuthenticatorFunc(func(_ context.Context, r *auth.Request) (*auth.Identity, error) {
		n.Add(1)
		name := r.Header.Get("Name")
		if name == "" {
			return nil, auth.ErrMissing
		}
		return &auth.Identity{Subject: name, Method: "test"}, nil
	})
}

// TestGateRefusesBeforeDecoding: a body that cannot be decoded, or that is a gzip bomb,
// is of no interest if the caller may not call at all, nor do interceptors run.
func TestGateRefusesBeforeDecoding(t *testing.T) {
	t.Parallel()
	bomb := &bytes.Buffer{}
	w := gzip.NewWriter(bomb)
	for range 16 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close()
	types := map[conntest.Protocol][2]string{ // unary and streams
		conntest.Connect: {"application/proto", "application/connect+proto"},
		conntest.GRPC:    {"application/grpc", "application/grpc"},
		conntest.GRPCWeb: {"application/grpc-web", "application/grpc-web"},
	}
	procedures := map[connect.StreamType]string{
		connect.StreamTypeUnary: conntest.UnaryProcedure, connect.StreamTypeClient: conntest.ClientProcedure,
		connect.StreamTypeServer: conntest.ServerProcedure, connect.StreamTypeBidi: conntest.BidiProcedure,
	}
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var inflated, authenticated atomic.Int64
		inner := streamwraptest.NewRecorder()
		var seen events
		i := auth.NewServerInterceptor(accepting(&authenticated), seen.option())
		config := behind(i, conntest.Config{})
		config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(inner),
			connect.WithCompression("gzip", func() connect.Decompressor { return &counting{n: &inflated} },
				func() connect.Compressor { return gzip.NewWriter(io.Discard) }))
		srv := c.Start(t, config)
		unaryConnect := c.Kind == connect.StreamTypeUnary && c.Protocol == conntest.Connect
		for name, body := range map[string][]byte{"garbage": []byte("\xff\xff\xff"), "bomb": bomb.Bytes()} {
			contentType := types[c.Protocol][min(int(c.Kind), 1)]
			header := http.Header{"Content-Type": {contentType}}
			flags := byte(0)
			if name == "bomb" {
				header.Set(map[bool]string{true: "Content-Encoding", false: map[bool]string{
					true: "Connect-Content-Encoding", false: "Grpc-Encoding",
				}[c.Protocol == conntest.Connect]}[unaryConnect], "gzip")
				flags = 1
			}
			if !unaryConnect {
				prefix := binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(body)))
				body = append(prefix, body...)
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+procedures[c.Kind], bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header
			res, err := srv.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			all, _ := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if got := res.Header.Values("WWW-Authenticate"); len(got) != 1 {
				t.Errorf("%s: challenges %q, status %s: %s", name, got, res.Status, all)
			}
			if unaryConnect && res.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s", name, res.Status)
			}
		}
		if inflated.Load() != 0 || len(inner.Calls()) != 0 || len(srv.Calls()) != 0 {
			t.Errorf("%d bytes were inflated, interceptors saw %d RPCs, handlers %d", inflated.Load(), len(inner.Calls()), len(srv.Calls()))
		}
		if got, want := seen.reasons(), "CREDENTIALS_MISSING CREDENTIALS_MISSING"; got != want || authenticated.Load() != 2 {
			t.Errorf("events %q, want %q; authenticated %d times", got, want, authenticated.Load())
		}
	})
}

// counting is a Decompressor that counts what it inflates.
type counting struct {
	*gzip.Reader

	n *atomic.Int64
}

func (c *counting) Reset(r io.Reader) (err error) {
	if c.Reader == nil {
		c.Reader, err = gzip.NewReader(r)
		return err
	}
	return c.Reader.Reset(r)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

func (c *counting) Close() error { return nil }

// TestAuthenticatesOnce: a call is authenticated once by each interceptor, in its gate or
// not, and the handler gets the innermost one's identity.
func TestAuthenticatesOnce(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, p := range placings {
			var first, second atomic.Int64
			var seen, seen2 events
			var subject atomic.Value
			outer := auth.NewServerInterceptor(accepting(&first), seen.option())
			inner := auth.NewServerInterceptor(auth.AuthenticatorFunc(func(context.Context, *auth.Request) (*auth.Identity, error) {
				second.Add(1)
				return &auth.Identity{Subject: "inner"}, nil
			}), seen2.option())
			config := p.config(outer)
			if p.gate {
				config.HandlerOptions = append(config.HandlerOptions, inner.HandlerOption())
			} else {
				config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(inner))
			}
			look := streamwrap.NewInterceptor(streamwrap.Hooks[int]{
				Open: func(ctx context.Context, _ *streamwrap.Call) (context.Context, *int, error) {
					id, _ := auth.FromContext(ctx)
					subject.Store(id.Subject)
					return nil, nil, nil
				},
			})
			config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(look))
			srv := c.Start(t, config)
			if err := c.Clients(srv).Do(t.Context(), c.Kind, http.Header{"Name": {"ada"}}, "one").Err; err != nil {
				t.Fatal(err)
			}
			srv.WaitCalls(1)
			if first.Load() != 1 || second.Load() != 1 || seen.reasons() != "ok" || seen2.reasons() != "ok" {
				t.Errorf("%v: authenticated %d and %d times; events %q and %q", p, first.Load(), second.Load(), seen.reasons(), seen2.reasons())
			}
			if subject.Load() != "inner" {
				t.Errorf("%v: the handler serves %v", p, subject.Load())
			}
			if outer.Active() != 0 || inner.Active() != 0 {
				t.Errorf("%v: %d and %d streams are active", p, outer.Active(), inner.Active())
			}
		}
	})
}

// TestLaterGateRefuses: what the first gate has let in is not left open when another one
// refuses.
func TestLaterGateRefuses(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		var n atomic.Int64
		outer := auth.NewServerInterceptor(accepting(&n), auth.WithMaxStreamAge(1<<40))
		inner := auth.NewServerInterceptor(auth.AuthenticatorFunc(func(context.Context, *auth.Request) (*auth.Identity, error) {
			return nil, auth.ErrRevoked
		}))
		config := behind(outer, conntest.Config{})
		config.HandlerOptions = append(config.HandlerOptions, inner.HandlerOption())
		srv := c.Start(t, config)
		err := c.Clients(srv).Do(t.Context(), c.Kind, http.Header{"Name": {"ada"}}, "one").Err
		wantReason(t, err, auth.ReasonRevoked, connect.CodeUnauthenticated)
		eventually(t, func() bool { return outer.Active() == 0 })
	})
}

// TestEventsHaveNoToken: what an observer is told names the caller and never has the
// credential, neither for gates that admit nor for those that refuse.
func TestEventsHaveNoToken(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		a := newAuthority(t, "key")
		var seen events
		srv := c.Start(t, behind(auth.NewServerInterceptor(a.verifier(t), seen.option()), conntest.Config{}))
		good := a.sign(t, claims(1<<40))
		for _, token := range []string{good, good + "x", strings.ToUpper(good), "short"} {
			_ = c.Clients(srv).Do(t.Context(), c.Kind, with(token), "one")
		}
		list := seen.all()
		if len(list) != 4 || list[0].Err != nil || list[0].Identity.Subject != "ada" || list[0].Call.Procedure() == "" {
			t.Fatalf("events: %+v", list)
		}
		signature := good[strings.LastIndexByte(good, '.')+1:]
		for n, e := range list {
			if n > 0 && (e.Err == nil || e.Reason == "" || e.Identity != nil) {
				t.Errorf("%d: %+v", n, e)
			}
			text := fmt.Sprintf("%+v %v %s", e.Identity, e.Err, e.Reason)
			for _, part := range []string{good, signature, strings.ToUpper(signature), "short"} {
				if strings.Contains(text, part) {
					t.Errorf("%d has the token: %s", n, text)
				}
			}
		}
	})
}
