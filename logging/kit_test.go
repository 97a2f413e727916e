package logging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
)

// journal collects records, as JSON.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

// String returns all that was written.
func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// logger returns a logger that writes JSON into the journal, from a level on, without
// the time.
func (j *journal) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}))
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// lines returns the records, one a line.
func (j *journal) lines() []string {
	var lines []string
	for line := range bytes.Lines([]byte(j.String())) {
		lines = append(lines, string(bytes.TrimSuffix(line, []byte("\n"))))
	}
	return lines
}

// records returns the records with a message, "" for any.
func (j *journal) records(tb testing.TB, message string) []map[string]any {
	tb.Helper()
	var records []map[string]any
	for _, line := range j.lines() {
		record := make(map[string]any)
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			tb.Fatalf("%v: %s", err, line)
		}
		if message == "" || record["msg"] == message {
			records = append(records, record)
		}
	}
	return records
}

// only returns the only record with a message.
func (j *journal) only(tb testing.TB, message string) map[string]any {
	tb.Helper()
	records := j.records(tb, message)
	if len(records) != 1 {
		tb.Fatalf("%d records %q, want one:\n%s", len(records), message, j)
	}
	return records[0]
}

// want checks values of a record. A nil value means that there is none.
func want(tb testing.TB, record map[string]any, values map[string]any) {
	tb.Helper()
	for key, value := range values {
		if n, ok := value.(int); ok {
			value = float64(n)
		}
		if got := record[key]; got != value {
			tb.Errorf("%s is %v, want %v, in %v", key, got, value, record)
		}
	}
}

// discard is a handler that is on from a level on and writes nothing.
type discard struct{ level slog.Level }

func (d discard) Enabled(_ context.Context, level slog.Level) bool { return level >= d.level }
func (discard) Handle(context.Context, slog.Record) error          { return nil }
func (d discard) WithAttrs([]slog.Attr) slog.Handler               { return d }
func (d discard) WithGroup(string) slog.Handler                    { return d }
