package auth_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"testing"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/auth"
	"github.com/interconnect-go/interconnect/internal/conntest"
)

// answering is a transport that answers by itself.
type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestHTTPClient: a token does not travel in plain text, but within this machine.
func TestHTTPClient(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url, authorization string
		passes             bool
	}{
		{"https://example.com", "Bearer t", true},
		{"http://example.com", "", true},
		{"http://example.com", "Bearer t", false},
		{"http://10.0.0.1", "Bearer t", false},
		{"http://localhost:80", "Bearer t", true},
		{"http://127.0.0.1:80", "Bearer t", true},
		{"http://127.1.2.3", "Bearer t", true},
		{"http://[::1]:80", "Bearer t", true},
		{"http://[::ffff:127.0.0.1]", "Bearer t", true},
		{"http://localhost.example.com", "Bearer t", false},
		{"http://127.0.0.1.example.com", "Bearer t", false},
		{"http://localhost@example.com", "Bearer t", false},
		{"http://ada:secret@example.com", "", false}, // net/http makes a header of it
		{"http://ada:secret@localhost", "", true},
		{"https://ada:secret@example.com", "", true},
		{"http://0.0.0.0", "Bearer t", false},
		{"http://[::2]", "Bearer t", false},
		{"h2c://example.com", "Bearer t", false},
	} {
		sent := 0
		client := auth.HTTPClient(&http.Client{Transport: answering(func(*http.Request) (*http.Response, error) {
			sent++
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}}, nil
		})})
		body := &closing{}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tt.url, body)
		if err != nil {
			t.Fatal(err)
		}
		if tt.authorization != "" {
			r.Header.Set("Authorization", tt.authorization)
		}
		res, err := client.Do(r)
		if res != nil {
			_ = res.Body.Close()
		}
		if (err == nil) != tt.passes || (sent == 1) != tt.passes {
			t.Errorf("%s %q: %v, %d sent", tt.url, tt.authorization, err, sent)
		}
		if !tt.passes && (connect.CodeOf(err) != connect.CodeUnauthenticated || !body.closed) {
			t.Errorf("%s: %v, closed=%v", tt.url, err, body.closed)
		}
	}
}

type closing struct{ closed bool }

func (b *closing) Read([]byte) (int, error) { return 0, io.EOF }

func (b *closing) Close() error { b.closed = true; return nil }

// TestHTTPClientThroughConnect: callers get the code, whatever the protocol and kind.
func TestHTTPClientThroughConnect(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		sent := 0
		inner := &http.Client{Transport: answering(func(*http.Request) (*http.Response, error) {
			sent++
			return nil, errors.New("it was sent")
		})}
		clients := conntest.NewClients(auth.HTTPClient(inner), "http://example.com", c.Option(),
			connect.WithInterceptors(auth.NewClientInterceptor(auth.StaticToken("t"))))
		err := clients.Do(t.Context(), c.Kind, nil, "one").Err
		if connect.CodeOf(err) != connect.CodeUnauthenticated || sent != 0 {
			t.Errorf("%v, %d sent", err, sent)
		}
	})
}

// TestHTTPClientAndRedirects: a redirection from TLS to plain text, which net/http follows
// with all headers if the host is the same, does not give the token away.
func TestHTTPClientAndRedirects(t *testing.T) {
	t.Parallel()
	var plain []string
	client := auth.HTTPClient(&http.Client{Transport: answering(func(r *http.Request) (*http.Response, error) {
		if r.URL.Scheme == "https" {
			return &http.Response{
				StatusCode: http.StatusPermanentRedirect, Body: http.NoBody, Request: r,
				Header: http.Header{"Location": {"http://example.com/other"}},
			}, nil
		}
		plain = append(plain, r.Header.Get("Authorization"))
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
	})})
	clients := conntest.NewClients(client, "https://example.com", connect.WithInterceptors(auth.NewClientInterceptor(auth.StaticToken("t"))))
	_ = clients.Do(t.Context(), connect.StreamTypeUnary, nil, "one")
	if slices.Contains(plain, "Bearer t") {
		t.Errorf("it travelled in plain text: %q", plain)
	}
}
