// The distributed limiter. Its client of Redis stays away from users of the
// other packages in a module of its own.
module github.com/interconnect-go/interconnect/ratelimit/redislimit

go 1.26.0

replace github.com/interconnect-go/interconnect => ../..

require (
	connectrpc.com/connect v1.21.1
	github.com/alicebob/miniredis/v2 v2.40.0
	github.com/interconnect-go/interconnect v0.0.0
	github.com/redis/rueidis v1.0.79
	github.com/yuin/gopher-lua v1.1.2
	golang.org/x/time v0.16.0
)

require (
	golang.org/x/sys v0.48.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
