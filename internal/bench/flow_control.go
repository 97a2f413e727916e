package bench

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// FlowControl is what the contenders do about flow control and buffers if
// nothing is tuned. None of it can be asked for at run time: it is what the
// sources of net/http (Go 1.26) and grpc-go v1.85 say.
const FlowControl = `Defaults, unless a table says otherwise:

* net/http receives up to 1 MiB for each stream and for each connection on servers, 4 MiB and 1 GiB on clients.
  Its clients accept frames of 16 KiB, its servers of 1 MiB. Both write through buffers of 4 KiB.
* grpc-go starts with windows of 64 KiB for each stream and connection, and enlarges them by measuring (BDP), up to
  16 MiB. Frames have up to 16 KiB. It reads and writes through buffers of 32 KiB.
`

// Environment names what was measured, and where.
func Environment() string {
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			versions[dep.Path] = dep.Version
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %s/%s with GOMAXPROCS %d", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
	for _, module := range []struct{ name, path string }{
		{"connect", "connectrpc.com/connect"},
		{"grpc-go", "google.golang.org/grpc"},
		{"protobuf", "google.golang.org/protobuf"},
	} {
		if version := versions[module.path]; version != "" {
			fmt.Fprintf(&b, ", %s %s", module.name, version)
		}
	}
	return b.String()
}
