package logging

import (
	"log/slog"
	"sync"
	"time"
)

// timers write records while an RPC is in flight.
type timers struct {
	mu       sync.Mutex // held while one is written: none comes after the end
	over     bool
	slow     *time.Timer
	progress *time.Timer
}

func (t *timers) start(s *stream) {
	progress := s.interval > 0 && s.streams()
	if s.slow == 0 && !progress {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.slow > 0 {
		t.slow = time.AfterFunc(s.slow, s.tellSlow)
	}
	if progress {
		t.progress = time.AfterFunc(s.interval, s.tellProgress)
	}
}

func (t *timers) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.slow != nil {
		t.slow.Stop()
	}
	if t.progress != nil {
		t.progress.Stop()
	}
}

func (s *stream) tellSlow() { s.tell(slog.LevelWarn, s.names.slow) }

func (s *stream) tellProgress() {
	if s.tell(slog.LevelInfo, s.names.progress) {
		s.timers.mu.Lock()
		defer s.timers.mu.Unlock()
		if !s.timers.over {
			s.timers.progress.Reset(s.interval)
		}
	}
}

// tell writes how far the RPC is, and reports whether it goes on.
func (s *stream) tell(level slog.Level, message string) bool {
	s.timers.mu.Lock()
	defer s.timers.mu.Unlock()
	if s.timers.over {
		return false
	}
	defer s.handler.isolate()
	ctx := (*callContext)(s)
	if !s.enabled(ctx, level) {
		return true
	}
	requests, responses := s.receives.Load(), s.sends.Load()
	if s.call.IsClient() {
		requests, responses = responses, requests
	}
	var room [roomyRecord]slog.Attr
	attrs := s.appendDuration(s.identify(room[:0]), time.Since(s.call.Start()))
	attrs = append(attrs, slog.Int64("rpc.request.messages", requests), slog.Int64("rpc.response.messages", responses))
	attrs = s.appendPeer(attrs)
	attrs = s.appendDeadline(ctx, attrs)
	s.write(ctx, level, message, s.appendTrace(ctx, attrs))
	return true
}
