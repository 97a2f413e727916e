// A soak test of all interceptors together, over a network that fails. What it depends
// on stays away from users in a module of its own.
module github.com/interconnect-go/interconnect/internal/soak

go 1.26.0

replace github.com/interconnect-go/interconnect => ../..

require (
	connectrpc.com/connect v1.21.1
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/interconnect-go/interconnect v0.0.0
	golang.org/x/time v0.16.0
	google.golang.org/protobuf v1.36.12
)

require google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e // indirect
