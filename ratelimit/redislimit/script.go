package redislimit

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/redis/rueidis"
)

//go:embed take.lua
var script string

const (
	// unitBits make a unit 2^-20 of a token, and a burst of maxBurst tokens 2^53 units,
	// which is as far as Lua's numbers are exact.
	unitBits = 20
	maxBurst = 1 << 33

	// maxSeconds is how long it takes until all of a burst is there: 30 years, which are
	// less than the script's "ever".
	maxSeconds = 30 * 365 * 24 * 3600
)

// Evaler runs a Lua script on Redis. It must be safe for concurrent use, and return
// soon after ctx ends.
type Evaler interface {
	// Eval runs a script, which is always the same one, by EVALSHA, or by EVAL if the
	// server does not have it. There is one key, and each of args is a string. The
	// reply is an array of integers. With go-redis it is:
	//
	//	redis.NewScript(script).Run(ctx, client, keys, args...).Int64Slice()
	Eval(ctx context.Context, script string, keys []string, args ...any) ([]int64, error)
}

// rueidisEvaler is an Evaler of rueidis.
type rueidisEvaler struct {
	client rueidis.Client
	lua    *rueidis.Lua
}

func (e rueidisEvaler) Eval(ctx context.Context, _ string, keys []string, args ...any) ([]int64, error) {
	list := make([]string, len(args))
	for i, arg := range args {
		list[i], _ = arg.(string)
	}
	return e.lua.Exec(ctx, e.client, keys, list).AsIntSlice()
}

// question is what the script is asked.
type question struct {
	key         string
	least, most int // tokens
	part        int // of what is there beyond least
}

// answer is what it says.
type answer struct {
	taken int
	left  int           // after that
	reset time.Duration // until all of the burst is there
}

var errReply = errors.New("redislimit: unexpected reply of the script")

// server is the limit as Redis keeps it.
type server struct {
	client Evaler
	speed  string
	burst  string
}

func newServer(client Evaler, limit ratelimit.Limit) server {
	// A bit less than nearest, so that products in the script are never too large.
	const below = 1 - 1.0/(1<<50)
	speed := float64(limit.Rate) * (1 << unitBits) / 1e6 * below
	return server{
		client: client,
		speed:  strconv.FormatFloat(speed, 'g', 17, 64),
		burst:  strconv.Itoa(limit.Burst << unitBits),
	}
}

// ask runs the script.
func (s *server) ask(ctx context.Context, q question) (answer, error) {
	reply, err := s.client.Eval(ctx, script, []string{q.key},
		strconv.Itoa(q.least), strconv.Itoa(q.most), strconv.Itoa(q.part), s.speed, s.burst)
	if err != nil {
		return answer{}, err
	}
	const ever = 1e15 // microseconds, as in the script
	if len(reply) != 3 || reply[0] < 0 || reply[0] > int64(q.most) || reply[1] < 0 || reply[2] < 0 || reply[2] > ever {
		return answer{}, errReply
	}
	return answer{taken: int(reply[0]), left: int(reply[1]), reset: time.Duration(reply[2]) * time.Microsecond}, nil
}
