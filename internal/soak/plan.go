package soak

import (
	"context"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
)

// ending is how a client means to end an RPC.
type ending uint8

const (
	complete ending = iota
	cancels         // its context, after some messages
	closes          // the stream, after some messages
	waits           // for a server that has nothing to say, until a limit or the token ends it
	endings
)

// plan is what a client does in one RPC.
type plan struct {
	id     uint64
	kind   connect.StreamType
	client int // which of the clients
	count  int // messages in the directions that stream
	size   int // bytes of each
	pause  time.Duration
	fail   connect.Code  // what the handler is asked to fail with
	token  time.Duration // how long the token lives, 0 for long
	limit  time.Duration // the deadline
	ending ending
	after  int // messages before the ending
}

// newPlan returns a random plan. Few RPCs are disturbed by their client: most errors are
// the network's.
func newPlan(random *rand.Rand, id uint64, clients int) *plan {
	kinds := []connect.StreamType{
		connect.StreamTypeUnary, connect.StreamTypeClient, connect.StreamTypeServer, connect.StreamTypeBidi,
	}
	p := &plan{
		id:     id,
		kind:   kinds[random.IntN(len(kinds))],
		client: random.IntN(clients),
		count:  1 + random.IntN(50),
		size:   random.IntN(4 << 10),
		pause:  time.Duration(random.IntN(4)) * time.Millisecond,
		limit:  2*time.Second + time.Duration(random.IntN(8))*time.Second,
	}
	if p.kind == connect.StreamTypeUnary {
		p.count = 1
	}
	switch random.IntN(10) {
	case 0:
		codes := []connect.Code{connect.CodeFailedPrecondition, connect.CodeUnavailable, connect.CodeAborted, connect.CodeDataLoss}
		p.fail = codes[random.IntN(len(codes))]
	case 1:
		p.token = time.Duration(50+random.IntN(500)) * time.Millisecond
	case 2:
		p.limit = time.Duration(random.IntN(200)) * time.Millisecond
	case 3, 4:
		p.ending = ending(random.IntN(int(endings)))
		p.after = random.IntN(p.count + 1)
	}
	if p.ending == waits {
		p.token = time.Duration(100+random.IntN(1000)) * time.Millisecond
	}
	return p
}

type planKey struct{}

// planOf returns the plan of the RPC whose context it is.
func planOf(ctx context.Context) (*plan, bool) {
	p, ok := ctx.Value(planKey{}).(*plan)
	return p, ok
}
