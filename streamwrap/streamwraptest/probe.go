package streamwraptest

import (
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// probe is a message that notices when somebody looks at it who must not: before
// a Receive filled it, and after the Send or Receive returned.
type probe struct {
	inner  *wrapperspb.StringValue
	phase  atomic.Int32
	looked atomic.Pointer[look]
}

// look is a forbidden look at a probe.
type look struct {
	phase int32
	stack string
}

// The phases of a probe.
const (
	probeOpen  int32 = iota // anybody may look
	probeEmpty              // in Receive, not filled yet
	probeOver               // Send or Receive has returned
)

var _ proto.Message = (*probe)(nil)

func newProbe(text string, phase int32) *probe {
	p := &probe{inner: wrapperspb.String(text)}
	p.phase.Store(phase)
	return p
}

// ProtoReflect implements [proto.Message]: whatever protobuf does with a
// message goes through it.
func (p *probe) ProtoReflect() protoreflect.Message {
	p.look()
	return p.inner.ProtoReflect()
}

// String is what fmt and loggers look at.
func (p *probe) String() string {
	p.look()
	return p.inner.String()
}

func (p *probe) look() {
	if phase := p.phase.Load(); phase == probeEmpty || phase == probeOver {
		p.looked.CompareAndSwap(nil, &look{phase, callers()})
	}
}

// receive is what the scripted conn does in the place of the wire.
func (p *probe) receive(src proto.Message) {
	if m, ok := src.(*wrapperspb.StringValue); ok {
		p.inner.Value = m.GetValue()
	}
	p.phase.Store(probeOpen)
}

func (p *probe) copied() any {
	p.look()
	return proto.Clone(p.inner)
}
