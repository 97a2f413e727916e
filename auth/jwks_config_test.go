package auth_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interconnect-go/interconnect/auth"
)

// TestJWKSOverTLS: the real thing: a server with a certificate, its redirects, sizes and
// answers.
func TestJWKSOverTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "key")
	set := `{"keys":[` + a.jwk() + `]}`
	var asked atomic.Int32
	other := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, set)
	}))
	t.Cleanup(other.Close)
	plain := httptest.NewServer(other.Config.Handler)
	t.Cleanup(plain.Close)
	mux := http.NewServeMux()
	answer := func(path string, status int, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	redirect := func(path, to string) { mux.Handle(path, http.RedirectHandler(to, http.StatusFound)) }
	answer("/good", 200, set)
	answer("/created", 201, set)
	answer("/forbidden", 403, set)
	answer("/broken", 500, set)
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	answer("/large", 200, `{"keys":[`+a.jwk()+`],"x":"`+strings.Repeat("x", 512<<10)+`"}`)
	answer("/justfits", 200, set+strings.Repeat(" ", 512<<10-len(set)))
	answer("/onetoomany", 200, set+strings.Repeat(" ", 512<<10-len(set)+1))
	answer("/html", 200, "<html>")
	answer("/nothing", 200, "")
	answer("/cutoff", 200, set[:len(set)-1])
	answer("/twice", 200, set+set)
	answer("/array", 200, "["+a.jwk()+"]")
	answer("/null", 200, "null")
	answer("/nokeys", 200, `{"keys":[]}`)
	answer("/keysnull", 200, `{"keys":null}`)
	answer("/keysobject", 200, `{"keys":{}}`)
	answer("/deep", 200, `{"x":`+strings.Repeat("[", 100_000)+`}`)
	redirect("/same", "/good")
	redirect("/loop", "/loop")
	redirect("/other", other.URL+"/good")
	redirect("/plain", plain.URL+"/good")
	mux.HandleFunc("/downgrade", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+r.Host+"/good", http.StatusMovedPermanently)
	})
	redirect("/file", "file:///etc/passwd")
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of clients that do not trust it
	srv.StartTLS()
	t.Cleanup(srv.Close)
	for path, good := range map[string]bool{
		"/good": true, "/same": true, "/justfits": true,
		"/created": false, "/forbidden": false, "/broken": false, "/empty": false, "/missing": false,
		"/large": false, "/onetoomany": false, "/html": false, "/nothing": false, "/cutoff": false, "/twice": false,
		"/array": false, "/null": false, "/nokeys": false, "/keysnull": false, "/keysobject": false, "/deep": false,
		"/loop": false, "/other": false, "/plain": false, "/downgrade": false, "/file": false,
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			reports := make(chan error, 10)
			keys, err := auth.NewJWKS(auth.JWKSConfig{
				URL: srv.URL + path, Client: srv.Client(), Observe: func(err error) { reports <- err },
			})
			if err != nil {
				t.Fatal(err)
			}
			err = keys.Start(t.Context())
			if (err == nil) != good || good && len(reports) > 0 {
				t.Errorf("%v, %d reports", err, len(reports))
			}
			if !good {
				<-reports // it comes a little later
			}
		})
	}
	t.Cleanup(func() {
		if n := asked.Load(); n != 0 {
			t.Errorf("%d requests followed a redirect to another server", n)
		}
	})
	t.Run("other certificate", func(t *testing.T) {
		t.Parallel()
		keys, err := auth.NewJWKS(auth.JWKSConfig{URL: srv.URL + "/good"})
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, keys.Start(t.Context()), auth.ErrUnavailable)
	})
	t.Run("the caller's client is not changed", func(t *testing.T) {
		t.Parallel()
		if srv.Client().CheckRedirect != nil {
			t.Error("its redirects are refused too")
		}
	})
}

// TestNewJWKSRefuses: keys come over https only, unless that is asked for.
func TestNewJWKSRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		config auth.JWKSConfig
		good   bool
	}{
		{auth.JWKSConfig{URL: "https://issuer.example.com/keys"}, true},
		{auth.JWKSConfig{URL: "HTTPS://issuer.example.com/keys"}, true},
		{auth.JWKSConfig{URL: "http://issuer.example.com/keys", AllowHTTP: true}, true},
		{auth.JWKSConfig{URL: "https://issuer.example.com/keys", AllowHTTP: true}, true},
		{auth.JWKSConfig{}, false},
		{auth.JWKSConfig{URL: "http://issuer.example.com/keys"}, false},
		{auth.JWKSConfig{URL: "http://localhost/keys"}, false},
		{auth.JWKSConfig{URL: "issuer.example.com/keys"}, false},
		{auth.JWKSConfig{URL: "//issuer.example.com/keys"}, false},
		{auth.JWKSConfig{URL: "https:///keys"}, false},
		{auth.JWKSConfig{URL: "https:keys"}, false},
		{auth.JWKSConfig{URL: "file:///etc/keys"}, false},
		{auth.JWKSConfig{URL: "file://host/keys", AllowHTTP: true}, false},
		{auth.JWKSConfig{URL: "ftp://issuer.example.com/keys", AllowHTTP: true}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com/\x00"}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MaxRefresh: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", Cooldown: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: 2, MaxRefresh: 1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: 2 * time.Hour}, false}, // the default is an hour
		{auth.JWKSConfig{URL: "https://issuer.example.com", MinRefresh: time.Hour}, true},
		{auth.JWKSConfig{URL: "https://issuer.example.com", StaleFor: -1}, false},
		{auth.JWKSConfig{URL: "https://issuer.example.com", Timeout: -1}, false},
	} {
		if _, err := auth.NewJWKS(c.config); (err == nil) != c.good {
			t.Errorf("%+v: %v", c.config, err)
		}
	}
}

// TestRedirectsKeepTheScheme: on the same host too, keys never come without TLS.
func TestRedirectsKeepTheScheme(t *testing.T) {
	t.Parallel()
	set := `{"keys":[` + newAuthority(t, "key").jwk() + `]}`
	for to, good := range map[string]bool{"https://issuer.example.com/b": true, "http://issuer.example.com/b": false, "https://issuer.example.com:444/b": false} {
		client := &http.Client{Transport: answeredBy(func(r *http.Request) (*http.Response, error) {
			res := &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(set)), Request: r}
			if r.URL.Path == "/a" {
				res.StatusCode, res.Header = http.StatusFound, http.Header{"Location": {to}}
			}
			return res, nil
		})}
		keys, err := auth.NewJWKS(auth.JWKSConfig{URL: "https://issuer.example.com/a", Client: client})
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.Start(t.Context()); (err == nil) != good {
			t.Errorf("%s: %v", to, err)
		}
	}
}
