package streamwrap_test

import (
	"bufio"
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/streamwrap"
)

// TestEngineRequestPattern: middleware outside reads what the mux inside found.
func TestEngineRequestPattern(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, want string }{
		{"/things/7", "GET /things/{id}"},
		{"/panic", "/panic"},
		{"/missing", ""},
	} {
		t.Run(tt.path, func(t *testing.T) {
			t.Parallel()
			mux := http.NewServeMux()
			mux.HandleFunc("GET /things/{id}", func(_ http.ResponseWriter, r *http.Request) {
				if r.PathValue("id") != "7" {
					t.Errorf("id %q", r.PathValue("id"))
				}
			})
			mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic(errLineCut) })
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tt.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			func() {
				defer func() { _ = recover() }()
				streamwrap.NewEngine().Handler(mux).ServeHTTP(newRecorder(t), r)
			}()
			if r.Pattern != tt.want {
				t.Errorf("pattern %q, want %q", r.Pattern, tt.want)
			}
		})
	}
}

// TestEngineHandsFormsBack: net/http removes the temporary files of a form, if
// its own request has the form.
func TestEngineHandsFormsBack(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"return", "panic"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			var body bytes.Buffer
			form := multipart.NewWriter(&body)
			if err := form.WriteField("a", "b"); err != nil {
				t.Fatal(err)
			}
			_ = form.Close()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/upload", &body)
			r.Header.Set("Content-Type", form.FormDataContentType())
			func() {
				defer func() { _ = recover() }()
				streamwrap.NewEngine().Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if err := r.ParseMultipartForm(1 << 20); err != nil {
						t.Error(err)
					}
					if end == "panic" {
						panic(errLineCut)
					}
				})).ServeHTTP(newRecorder(t), r)
			}()
			if r.MultipartForm == nil || r.Form.Get("a") != "b" || r.PostForm.Get("a") != "b" {
				t.Errorf("form %v, %v, %v", r.MultipartForm, r.Form, r.PostForm)
			}
		})
	}
}

// TestEngineDoesNotContinue: a client that waits for 100 Continue gets it when
// the handler reads, and not if it never does.
func TestEngineDoesNotContinue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		reads bool
	}{{"unread", false}, {"read", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, contentType := range []string{"text/plain", "application/grpc+proto", "application/connect+proto", "application/proto"} {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					config, dial := dialing(behindEngine(conntest.Config{
						Transport: conntest.H1,
						Register: func(mux *http.ServeMux, _ ...connect.HandlerOption) {
							mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
								<-release
								if tt.reads {
									_, _ = io.ReadAll(r.Body)
								}
								w.WriteHeader(http.StatusForbidden)
							})
						},
					}))
					conntest.Start(t, config)
					conn := dial(t)
					_, _ = io.WriteString(conn, "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\nContent-Type: "+contentType+"\r\n\r\n")
					lines := make(chan string, 10)
					go func() {
						defer close(lines)
						for r := bufio.NewReader(conn); ; {
							line, err := r.ReadString('\n')
							if err != nil {
								return
							}
							lines <- strings.TrimSpace(line)
						}
					}()
					synctest.Wait()
					select {
					case line := <-lines:
						t.Fatalf("%q before the handler did anything", line)
					default:
					}
					close(release)
					want := "HTTP/1.1 403 Forbidden"
					if tt.reads {
						want = "HTTP/1.1 100 Continue"
					}
					if line := <-lines; line != want {
						t.Errorf("%q, want %q", line, want)
					}
					_, _ = io.WriteString(conn, "hello")
					time.Sleep(time.Second) // what else is sent
					_ = conn.Close()
					for range lines {
					}
				})
			}
		})
	}
}
