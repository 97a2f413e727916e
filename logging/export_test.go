package logging

import "google.golang.org/protobuf/proto"

// Renderer renders messages as the interceptor that has these options.
func Renderer(opts ...Option) func(proto.Message, int) (string, bool) {
	c := newConfig(opts)
	return func(m proto.Message, limit int) (string, bool) {
		text, truncated := c.redactor.render(m, limit)
		return string(text), truncated
	}
}
