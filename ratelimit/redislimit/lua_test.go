package redislimit_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"
	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// luaServer runs the script as Redis does, but in this process and with its clock, so
// that tests have the time of a synctest bubble.
type luaServer struct {
	mu     sync.Mutex
	state  *lua.LState
	main   *lua.FunctionProto
	keys   map[string]string
	expiry map[string]time.Duration // the last PX

	skew    time.Duration        // of the clock
	latency func() time.Duration // there, and back again
	err     error                // of all scripts
	hangs   bool                 // until the context ends
	deaf    bool                 // and then, too
	calls   int
}

var _ redislimit.Evaler = (*luaServer)(nil)

func newLuaServer(tb testing.TB) *luaServer {
	tb.Helper()
	s := &luaServer{state: lua.NewState(), keys: map[string]string{}, expiry: map[string]time.Duration{}}
	tb.Cleanup(s.state.Close)
	redis := s.state.NewTable()
	s.state.SetField(redis, "call", s.state.NewFunction(s.call))
	s.state.SetField(redis, "error_reply", s.state.NewFunction(func(l *lua.LState) int {
		l.RaiseError("%s", l.CheckString(1))
		return 0
	}))
	s.state.SetGlobal("redis", redis)
	return s
}

// set changes the server.
func (s *luaServer) set(change func(s *luaServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// Calls returns how many scripts were run.
func (s *luaServer) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

func (s *luaServer) call(l *lua.LState) int {
	switch command := l.CheckString(1); command {
	case "TIME":
		now := time.Now().Add(s.skew).UnixMicro()
		reply := l.NewTable()
		reply.Append(lua.LString(strconv.FormatInt(now/1e6, 10)))
		reply.Append(lua.LString(strconv.FormatInt(now%1e6, 10)))
		l.Push(reply)
	case "GET":
		if value, ok := s.keys[l.CheckString(2)]; ok {
			l.Push(lua.LString(value))
		} else {
			l.Push(lua.LFalse)
		}
	case "SET":
		px, err := strconv.ParseInt(l.CheckString(5), 10, 64)
		if err != nil || px < 1 || l.CheckString(4) != "PX" {
			l.RaiseError("no time to live: %s", l.CheckString(5))
		}
		s.keys[l.CheckString(2)] = l.CheckString(3)
		s.expiry[l.CheckString(2)] = time.Duration(px) * time.Millisecond
		l.Push(lua.LString("OK"))
	default:
		l.RaiseError("no such command: %s", command)
	}
	return 1
}

func (s *luaServer) Eval(ctx context.Context, script string, keys []string, args ...any) ([]int64, error) {
	s.mu.Lock()
	s.calls++
	latency, hangs, deaf := s.latency, s.hangs, s.deaf
	s.mu.Unlock()
	if deaf {
		time.Sleep(time.Minute)
	}
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if latency != nil {
		time.Sleep(latency())
		defer func() { time.Sleep(latency()) }()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	return s.run(script, keys, args)
}

func (s *luaServer) run(script string, keys []string, args []any) ([]int64, error) {
	if s.main == nil {
		chunk, err := parse.Parse(strings.NewReader(script), "script")
		if err != nil {
			return nil, err
		}
		if s.main, err = lua.Compile(chunk, "script"); err != nil {
			return nil, err
		}
	}
	list := func(name string, values ...string) {
		table := s.state.NewTable()
		for _, value := range values {
			table.Append(lua.LString(value))
		}
		s.state.SetGlobal(name, table)
	}
	list("KEYS", keys...)
	strs := make([]string, len(args))
	for i, arg := range args {
		strs[i] = arg.(string)
	}
	list("ARGV", strs...)
	s.state.Push(s.state.NewFunctionFromProto(s.main))
	if err := s.state.PCall(0, 1, nil); err != nil {
		return nil, err
	}
	defer s.state.Pop(1)
	reply, ok := s.state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, errors.New("no array")
	}
	var ints []int64
	reply.ForEach(func(_, v lua.LValue) { ints = append(ints, int64(v.(lua.LNumber))) })
	return ints, nil
}

// take takes from a limiter that must know.
func take(tb testing.TB, l ratelimit.Limiter, key string, n int) ratelimit.Result {
	tb.Helper()
	r, err := l.Take(context.Background(), key, n)
	if err != nil {
		tb.Fatalf("Take(%q, %d): %v", key, n, err)
	}
	return r
}

// drain takes one at a time, until that is refused, and returns how often it was not.
func drain(tb testing.TB, l ratelimit.Limiter, key string) int {
	tb.Helper()
	for n := 0; ; n++ {
		if !take(tb, l, key, 1).OK {
			return n
		}
	}
}
