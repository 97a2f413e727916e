package frame_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/interconnect-go/interconnect/streamwrap/frame"
)

func TestScannerReportsBothBoundaries(t *testing.T) {
	t.Parallel()
	stream := message(1, "abc") + message(0, "") + message(2, "{}")
	abc, empty, end := frame.Header{Flags: 1, Length: 3}, frame.Header{}, frame.Header{Flags: 2, Length: 2}
	// Events by the number of bytes after which they come.
	want := map[int][]frame.Event{
		5:  {{Header: abc}},
		8:  {{Header: abc, Done: true}},
		13: {{Header: empty, Offset: 8}, {Header: empty, Offset: 8, Done: true}},
		18: {{Header: end, Offset: 13}},
		20: {{Header: end, Offset: 13, Done: true}},
	}
	got := map[int][]frame.Event{}
	var s frame.Scanner
	for i := range len(stream) {
		inside := i != 0 && i != 8 && i != 13
		if s.Inside() != inside {
			t.Errorf("after %d bytes: Inside() = %v", i, s.Inside())
		}
		err := s.Feed([]byte{stream[i]}, func(e frame.Event) { got[i+1] = append(got[i+1], e) })
		if err != nil {
			t.Fatal(err)
		}
		if s.Ended() != (i == 19) {
			t.Errorf("after %d bytes: Ended() = %v", i+1, s.Ended())
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if s.Offset() != 20 || got[20][0].End() != 20 {
		t.Errorf("ends at %d, %d", s.Offset(), got[20][0].End())
	}
}

func TestScannerCapturesTheEnd(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 1000)
	tests := []struct {
		name    string
		stream  string
		capture int
		want    string
		whole   bool
	}{
		{"none asked for", message(2, "{}"), 0, "", false},
		{"negative bound", message(2, "{}"), -1, "", false},
		{"fits", message(0, "message") + message(2, "{}"), 100, "{}", true},
		{"just fits", message(0x81, "12345"), 5, "12345", true},
		{"too long", message(0x80, "123456"), 5, "12345", false},
		{"long", message(2, long), len(long), long, true},
		{"long and bounded", message(2, long), 4321, long[:4321], false},
		{"empty", message(2, ""), 10, "", true},
		{"cut", message(2, "{}")[:6], 10, "{", false},
		{"no end", message(0, "message"), 10, "", false},
	}
	for _, tt := range tests {
		for name, next := range map[string]func(int) int{"whole": whole, "single": single, "random": random(3, 300)} {
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := frame.Scanner{Capture: tt.capture}
				for left := tt.stream; left != ""; {
					n := next(len(left))
					if err := s.Feed([]byte(left[:n]), nil); err != nil {
						t.Fatal(err)
					}
					left = left[n:]
				}
				got, whole := s.Captured()
				if string(got) != tt.want || whole != tt.whole {
					t.Errorf("captured %q, %v", got, whole)
				}
				if frame.CapturedSize(&s) > max(tt.capture, 0) {
					t.Errorf("holds %d bytes, more than %d", frame.CapturedSize(&s), tt.capture)
				}
			})
		}
	}
}

func TestScannerHoldsOnlyWhatArrived(t *testing.T) {
	t.Parallel()
	s := frame.Scanner{Capture: 1 << 30}
	head := frame.AppendHeader(nil, frame.Header{Flags: 2, Length: 1 << 30})
	if err := s.Feed(append(head, "0123456789"...), nil); err != nil {
		t.Fatal(err)
	}
	if got := frame.CapturedSize(&s); got > 20 {
		t.Errorf("10 bytes arrived, %d are held", got)
	}
}

func TestScannerStopsAtAnError(t *testing.T) {
	t.Parallel()
	s := frame.Scanner{MaxBytes: 3}
	events := 0
	count := func(frame.Event) { events++ }
	first := s.Feed([]byte(message(0, "abc")+message(0, "abcd")+message(0, "abc")), count)
	if !errors.Is(first, frame.ErrTooLarge) || events != 2 {
		t.Fatalf("%v after %d events", first, events)
	}
	if err := s.Feed([]byte(message(0, "a")), count); err != first || events != 2 {
		t.Errorf("%v after %d events", err, events)
	}
	if err := s.Close(); err != first {
		t.Errorf("Close: %v", err)
	}
	s.Reset()
	if err := s.Feed([]byte(message(0, "abcd")), count); !errors.Is(err, frame.ErrTooLarge) {
		t.Errorf("the limit was forgotten: %v", err)
	}
}

func TestScannerIsNotFedAfterClose(t *testing.T) {
	t.Parallel()
	var s frame.Scanner
	if err := s.Feed([]byte{0}, nil); err != nil {
		t.Fatal(err)
	}
	cut := s.Close()
	if !errors.Is(cut, frame.ErrTruncated) || s.Close() != cut {
		t.Errorf("Close: %v", cut)
	}
	if err := s.Feed([]byte{0, 0, 0, 0}, nil); err != cut {
		t.Errorf("Feed: %v", err)
	}
}
