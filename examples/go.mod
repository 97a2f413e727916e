module github.com/interconnect-go/interconnect/examples

go 1.26.0

replace github.com/interconnect-go/interconnect => ../

replace github.com/interconnect-go/interconnect/ratelimit/redislimit => ../ratelimit/redislimit

require (
	connectrpc.com/connect v1.21.1
	github.com/cedar-policy/cedar-go v1.9.0
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/interconnect-go/interconnect v0.0.0
	github.com/interconnect-go/interconnect/ratelimit/redislimit v0.0.0
	github.com/redis/rueidis v1.0.79
	golang.org/x/oauth2 v0.37.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20261026165753-2ffab32bce7e
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3 // indirect
	golang.org/x/exp v0.0.0-20220921023135-46d9e7742f1e // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

tool (
	connectrpc.com/connect/cmd/protoc-gen-connect-go
	google.golang.org/protobuf/cmd/protoc-gen-go
)
