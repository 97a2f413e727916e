package streamwraptest

import (
	"fmt"
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

// currentBubble returns the name of the bubble that the caller is in, as it
// appears in the headers of stacks: "synctest bubble 7]". It is "" outside.
func currentBubble() string {
	var buf [256]byte
	header, _, _ := strings.Cut(string(buf[:runtime.Stack(buf[:], false)]), ":")
	if i := strings.Index(header, "synctest bubble "); i >= 0 {
		return header[i:]
	}
	return ""
}

// stacksIn returns the stacks of a bubble's goroutines, but for some.
func stacksIn(bubble string, ignored func(stack string) bool) []string {
	var found []string
	for _, stack := range stacks() {
		header, _, _ := strings.Cut(stack, "\n")
		if bubble != "" && strings.HasSuffix(header, bubble+":") && !ignored(stack) {
			found = append(found, stack)
		}
	}
	return found
}
