package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// exported is what stdout has of a span.
type exported struct {
	Name        string
	SpanContext struct{ SpanID string }
	Parent      struct{ SpanID string }
	SpanKind    int
	Attributes  []struct {
		Key   string
		Value struct{ Value any }
	}
	Events []struct{ Name string }
	Status struct{ Code string }
}

func (e *exported) value(key string) any {
	for _, a := range e.Attributes {
		if a.Key == key {
			return a.Value.Value
		}
	}
	return nil
}

func TestStdout(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out, "", false); err != nil {
		t.Fatal(err)
	}
	spans := make(map[string]*exported)
	for line := range strings.Lines(out.String()) {
		var e exported
		if json.Unmarshal([]byte(line), &e) == nil && e.Name != "" {
			spans[map[int]string{2: "server ", 3: "client "}[e.SpanKind]+e.Name] = &e
		}
	}
	const service = "greet.v1.GreetService/"
	for name, want := range map[string]struct {
		outcome, code any
		status        string
	}{
		"Greet":           {nil, "OK", "Unset"},
		"Converse":        {"failed", "UNAVAILABLE", "Error"},
		"GreetRepeatedly": {"canceled", "CANCELLED", "Error"},
	} {
		client, server := spans["client "+service+name], spans["server "+service+name]
		if client == nil || server == nil {
			t.Errorf("spans of %s are missing:\n%s", name, out.String())
			continue
		}
		if server.Parent.SpanID != client.SpanContext.SpanID {
			t.Errorf("%s: the server's span has another parent than the client's", name)
		}
		for _, s := range []*exported{client, server} {
			if s.value("interconnect.outcome") != want.outcome || s.value("rpc.response.status_code") != want.code {
				t.Errorf("%s: %v, %v; want %v, %v", name, s.value("interconnect.outcome"), s.value("rpc.response.status_code"), want.outcome, want.code)
			}
		}
		if client.Status.Code != want.status {
			t.Errorf("%s: the client's span has status %s", name, client.Status.Code)
		}
	}
	for _, want := range []string{
		"/metrics: interconnect_server_stream_active{", "/metrics: interconnect_client_stream_active{",
		"/metrics: interconnect_client_stream_time_to_first_message_seconds_total{",
		"/metrics: interconnect_client_stream_first_messages_total{",
		`/metrics: interconnect_server_refused_total{interconnect_refusal_reason="http_415"`, "rpc.client.call.duration",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
}

// TestOTLP: with the flag, a collector gets it all.
func TestOTLP(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	sent := make(map[string]int)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		sent[r.URL.Path] += len(body)
	}))
	defer collector.Close()
	var out bytes.Buffer
	if err := run(t.Context(), &out, collector.URL, false); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if sent["/v1/traces"] == 0 || sent["/v1/metrics"] == 0 || strings.Contains(out.String(), "SpanContext") {
		t.Errorf("sent %v, printed\n%s", sent, out.String())
	}
}

// TestRunFails checks that what goes wrong is told.
func TestRunFails(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, io.Discard, "", false); err == nil {
		t.Error("success without time for it")
	}
}
