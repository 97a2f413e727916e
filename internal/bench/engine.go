package bench

import "github.com/interconnect-go/interconnect/streamwrap"

// newEngine returns the engine of the contenders that have one.
func newEngine(opts ...streamwrap.EngineOption) *streamwrap.Engine {
	return streamwrap.NewEngine(opts...)
}
