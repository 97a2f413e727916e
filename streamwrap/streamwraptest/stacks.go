package streamwraptest

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"
)

const packagePath = "github.com/interconnect-go/interconnect/streamwrap/streamwraptest."

// callers returns where the caller's caller was called from, innermost first:
// the frames outside of this package, protobuf and the runtime.
func callers() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	var lines []string
	for len(lines) < 4 {
		frame, more := frames.Next()
		if frame.Function != "" && !uninteresting(frame.Function) {
			lines = append(lines, fmt.Sprintf("%s (%s:%d)", frame.Function, frame.File, frame.Line))
		}
		if !more {
			break
		}
	}
	return strings.Join(lines, "\n\t\t")
}

// uninteresting reports whether a function is no news to somebody who looks for
// a fault of the interceptor.
func uninteresting(function string) bool {
	for _, prefix := range []string{
		packagePath, "runtime.", "testing.", "reflect.", "google.golang.org/protobuf/", "fmt.",
	} {
		if strings.HasPrefix(function, prefix) {
			return true
		}
	}
	return false
}

// stacks returns the stacks of all goroutines, each with its header.
func stacks() []string {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			return strings.Split(strings.TrimSpace(string(buf[:n])), "\n\n")
		}
		buf = make([]byte, 2*len(buf))
	}
}

var bubbleInHeader = regexp.MustCompile(`^goroutine \d+ \[.*(synctest bubble \d+).*\]:`) //nolint:gochecknoglobals // a constant

// currentBubble returns the name of the bubble that the caller is in, as it
// appears in the headers of stacks; "" outside.
func currentBubble() string {
	var buf [256]byte
	return bubbleOf(string(buf[:runtime.Stack(buf[:], false)]))
}

func bubbleOf(stack string) string {
	if m := bubbleInHeader.FindStringSubmatch(stack); m != nil {
		return m[1]
	}
	return ""
}

// stacksIn returns the stacks of a bubble's goroutines, without those that are
// running the kit's own code.
func stacksIn(bubble string, ignored func(stack string) bool) []string {
	var found []string
	for _, stack := range stacks() {
		if bubbleOf(stack) == bubble && !ignored(stack) {
			found = append(found, stack)
		}
	}
	return found
}
