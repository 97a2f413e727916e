package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// journal is the slog.Handler of this program, and keeps what the log's records say of
// RPCs. Any other handler does as well.
type journal struct {
	mu      sync.Mutex
	records []record
}

// record is what is kept of one.
type record struct{ side, trace, span, text string }

// The sides of an RPC, as records have them.
const (
	onClient = "client"
	onServer = "server"
)

// Handle implements slog.Handler.
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	values := make(map[string]string)
	r.Attrs(func(a slog.Attr) bool {
		values[a.Key] = a.Value.String()
		return true
	})
	text := values["connect.outcome"] + " " + values["rpc.response.status_code"]
	if values["rpc.kind"] == onServer {
		text += fmt.Sprintf(", %s in, %s out", values["rpc.request.messages"], values["rpc.response.messages"])
	}
	if attempts := values["rpc.attempts"]; attempts > "1" {
		text += ", " + attempts + " attempts"
	}
	if panicked := values["exception.message"]; panicked != "" {
		text += ", panicked: " + panicked
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, record{values["rpc.kind"], values["trace_id"], values["span_id"], text})
	return nil
}

// told returns what the records of a side say of a trace.
func (j *journal) told(side, trace string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var texts []string
	times := make(map[string]int)
	for _, r := range j.records {
		if r.side == side && r.trace == trace {
			texts = append(texts, r.text)
			times[r.text]++
		}
	}
	slices.Sort(texts)
	texts = slices.Compact(texts)
	slices.Reverse(texts) // refused, failed, completed
	for i, t := range texts {
		if times[t] > 1 {
			texts[i] = fmt.Sprintf("%d × %s", times[t], t)
		}
	}
	return strings.Join(texts, "; ")
}

// spans returns the spans that the records of a side belong to, in order.
func (j *journal) spans(side string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var ids []string
	for _, r := range j.records {
		if r.side == side {
			ids = append(ids, r.trace+r.span)
		}
	}
	slices.Sort(ids)
	return ids
}

// Enabled implements slog.Handler.
func (*journal) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler. No record here has attributes of a logger.
func (j *journal) WithAttrs([]slog.Attr) slog.Handler { return j }

// WithGroup implements slog.Handler.
func (j *journal) WithGroup(string) slog.Handler { return j }
