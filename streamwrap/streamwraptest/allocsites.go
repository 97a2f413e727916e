package streamwraptest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
)

// allocSites is where a function allocates.
type allocSites struct {
	culprits []string // what allocates often, by its stack
	pooled   bool     // something does so only because a sync.Pool was empty
}

// allocationSites runs f and returns where it allocates at least often times. It
// uses the memory profile, so that what others allocate at the same time does not
// count.
func allocationSites(f func(), often int64) allocSites {
	defer func(rate int) { runtime.MemProfileRate = rate }(runtime.MemProfileRate)
	runtime.MemProfileRate = 1
	before := allocationsByStack()
	f()
	var sites allocSites
	for stack, n := range allocationsByStack() {
		if n-before[stack] < often {
			continue
		}
		frames, ours, pooled := framesOf(stack)
		switch {
		case !ours:
		case pooled && raceEnabled:
			sites.pooled = true
		default:
			sites.culprits = append(sites.culprits, strings.Join(frames, "\n\t\t"))
		}
	}
	slices.Sort(sites.culprits)
	sites.culprits = slices.Compact(sites.culprits)
	return sites
}

type stackKey [32]uintptr

// allocationsByStack returns the number of objects allocated since the program
// began. The profile is complete up to the last but one collection.
func allocationsByStack() map[stackKey]int64 {
	runtime.GC()
	runtime.GC()
	var records []runtime.MemProfileRecord
	for n, ok := runtime.MemProfile(nil, true); !ok; {
		records = make([]runtime.MemProfileRecord, n+100)
		n, ok = runtime.MemProfile(records, true)
		if ok {
			records = records[:n]
		}
	}
	counts := make(map[stackKey]int64, len(records))
	for _, r := range records {
		var key stackKey
		copy(key[:], r.Stack())
		counts[key] += r.AllocObjects
	}
	return counts
}

// framesOf returns the innermost frames of a stack that say something, whether
// sendAndReceive is on it, and whether a sync.Pool is.
func framesOf(key stackKey) (lines []string, ours, pooled bool) {
	pcs := slices.DeleteFunc(key[:], func(pc uintptr) bool { return pc == 0 })
	frames := runtime.CallersFrames(pcs)
	for {
		frame, more := frames.Next()
		switch {
		case frame.Function == packagePath+"sendAndReceive":
			ours = true
		case strings.HasPrefix(frame.Function, "sync.(*Pool)."):
			pooled = true
		}
		if frame.Function != "" && !uninteresting(frame.Function) && len(lines) < 3 {
			lines = append(lines, fmt.Sprintf("%s (%s:%d)", frame.Function, frame.File, frame.Line))
		}
		if !more {
			return lines, ours, pooled
		}
	}
}
