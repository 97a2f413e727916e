package deadline_test

import (
	"bytes"
	"context"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/deadline"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// TestExpiredOnArrival: an RPC whose time is up when it arrives reaches no handler
// of any kind, with a gate and without one. connect would run those of streams.
func TestExpiredOnArrival(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		install func(*deadline.Interceptor, conntest.Config) conntest.Config
	}{
		{"everything", limited},
		{"no Handler", behindEngine},
		{"neither", alone},
		{"no gate", func(i *deadline.Interceptor, config conntest.Config) conntest.Config {
			config.HandlerOptions = append(config.HandlerOptions, connect.WithInterceptors(i))
			return config
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				for _, policy := range []deadline.Policy{
					{},
					{Default: time.Minute, Max: time.Hour},
					{Min: time.Second, UnderMin: deadline.Reject},
				} {
					var got timed
					srv := c.Start(t, tt.install(deadline.NewInterceptor(policy), conntest.Config{Service: watching(&got)}))
					value := "0"
					if c.Protocol != conntest.Connect {
						value = "0n"
					}
					start := time.Now()
					reply := saying(srv, c, value).Do(t.Context(), c.Kind, nil, "x")
					want := deadline.ReasonDeadline
					if policy.UnderMin == deadline.Reject {
						want = deadline.ReasonTooShort
					}
					wantReason(t, reply.Err, want, connect.CodeDeadlineExceeded)
					wantElapsed(t, start, 0)
					if got.ran {
						t.Error("a handler ran")
					}
				}
			})
		})
	}
}

// TestHandlerRaisesTimeouts: Min gives an RPC more time than it asked for, which
// takes Handler: connect's context cannot be lengthened from within. Without it
// the Info does not claim that it was.
func TestHandlerRaisesTimeouts(t *testing.T) {
	t.Parallel()
	const asked, lowest, work = time.Second, 10 * time.Second, 5 * time.Second
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		for _, tt := range []struct {
			name    string
			install func(*deadline.Interceptor, conntest.Config) conntest.Config
			raised  bool
		}{
			{name: "Handler", install: limited, raised: true},
			{name: "no Handler", install: behindEngine},
		} {
			var infos []deadline.Info
			serve := func(ctx context.Context) error {
				info, _ := deadline.FromContext(ctx)
				infos = append(infos, info)
				select {
				case <-time.After(work):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			service := conntest.ServeStreams(func(ctx context.Context, _ connect.StreamingHandlerConn) error { return serve(ctx) })
			service.Unary = func(ctx context.Context, req *connect.Request[conntest.Message]) (*connect.Response[conntest.Message], error) {
				return connect.NewResponse(req.Msg), serve(ctx)
			}
			srv := c.Start(t, tt.install(deadline.NewInterceptor(deadline.Policy{Min: lowest}), conntest.Config{Service: service}))
			value := "1000"
			if c.Protocol != conntest.Connect {
				value = "1S"
			}
			start := time.Now()
			reply := saying(srv, c, value).Do(t.Context(), c.Kind, nil)
			if len(infos) != 1 {
				t.Fatalf("%s: %d handlers ran: %v", tt.name, len(infos), reply.Err)
			}
			info := infos[0]
			if !tt.raised {
				wantReason(t, reply.Err, deadline.ReasonDeadline, connect.CodeDeadlineExceeded)
				wantElapsed(t, start, asked)
				if info.Source != deadline.FromCaller || !info.Deadline.Equal(start.Add(asked)) {
					t.Errorf("%s: %+v", tt.name, info)
				}
				continue
			}
			if reply.Err != nil {
				t.Errorf("%s: %v", tt.name, reply.Err)
			}
			wantElapsed(t, start, work)
			if info.Source != deadline.FromMin || info.Asked != asked || !info.Deadline.Equal(start.Add(lowest)) {
				t.Errorf("%s: %+v", tt.name, info)
			}
		}
	})
}

// TestHandlerTellsNobodyElse: requests that are no RPCs pass as they are, and the
// request that middleware outside has is not changed.
func TestHandlerTellsNobodyElse(t *testing.T) {
	t.Parallel()
	conntest.Matrix{
		Transports: web, Kinds: []connect.StreamType{connect.StreamTypeUnary}, Protocols: []conntest.Protocol{conntest.Connect},
	}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		i := deadline.NewInterceptor(deadline.Policy{Default: time.Second, Max: time.Second})
		var inside, outside []string
		config := conntest.Config{
			Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
				mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
					inside = r.Header["Connect-Timeout-Ms"]
					_, _ = io.WriteString(w, "ok")
				})
			},
			Wrap: func(next http.Handler) http.Handler {
				bounds := i.Handler(next)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					bounds.ServeHTTP(w, r)
					outside = r.Header["Connect-Timeout-Ms"]
				})
			},
		}
		srv := c.Start(t, config)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/healthz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Connect-Timeout-Ms", "5000")
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if strings.Join(inside, " ") != "5000" {
			t.Errorf("a request that is no RPC has the timeout %q", inside)
		}
		if reply := saying(srv, c, "5000").Do(t.Context(), c.Kind, nil, "x"); reply.Err != nil {
			t.Error(reply.Err)
		}
		if strings.Join(outside, " ") != "5000" {
			t.Errorf("middleware outside sees the timeout %q", outside)
		}
	})
}

// TestHandlerHandsBack: what a handler made of the request, which looks like an RPC's, is
// there for middleware outside, and for net/http, which removes the files of a form.
func TestHandlerHandsBack(t *testing.T) {
	t.Parallel()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	if err := form.WriteField("a", "b"); err != nil {
		t.Fatal(err)
	}
	_ = form.Close()
	const pattern = "/api/upload"
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			t.Error(err)
		}
		panic(http.ErrAbortHandler)
	})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, pattern, &body)
	r.Header.Set("Content-Type", form.FormDataContentType())
	func() {
		defer func() { _ = recover() }()
		deadline.NewInterceptor(deadline.Policy{Default: time.Second}).Handler(mux).ServeHTTP(httptest.NewRecorder(), r)
	}()
	if r.Pattern != pattern || r.MultipartForm == nil || r.Form.Get("a") != "b" || r.PostForm.Get("a") != "b" {
		t.Errorf("pattern %q, form %v, %v, %v", r.Pattern, r.MultipartForm, r.Form, r.PostForm)
	}
}
