package tracing

import "github.com/interconnect-go/interconnect/streamwrap"

// Infrastructure matches RPCs that machines make all the time: health checks and
// server reflection, as gRPC has them and connect's packages serve them.
func Infrastructure() streamwrap.Match {
	return streamwrap.Procedures(
		"/grpc.health.v1.Health/",
		"/grpc.reflection.v1.ServerReflection/",
		"/grpc.reflection.v1alpha.ServerReflection/",
	)
}
