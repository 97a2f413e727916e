package redislimit_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interconnect-go/interconnect/ratelimit"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// childEnv has the address and the name of a limiter, in processes that tests start.
const childEnv = "REDISLIMIT_TEST_CHILD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var processLimit = ratelimit.Limit{Rate: 500, Burst: 400}

// child takes as much as it can until its input ends, and writes a byte before each
// event that may happen: so its parent knows of all, even if it is killed.
func child(spec string) error {
	addr, name, _ := strings.Cut(spec, " ")
	client, err := address(addr).client()
	if err != nil {
		return err
	}
	defer client.Close()
	l := redislimit.New(client, name, processLimit, append(patient, redislimit.WithLease(40))...)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				r, err := l.Take(ctx, "key", 1)
				if err != nil {
					return
				}
				if r.OK {
					_, _ = os.Stdout.WriteString(".")
					continue
				}
				select {
				case <-time.After(min(r.RetryAfter, 5*time.Millisecond)):
				case <-ctx.Done():
				}
			}
		})
	}
	callers.Wait()
	return nil
}

// process is a child, and what it has let happen.
type process struct {
	command *exec.Cmd
	stop    io.Closer
	events  chan int
}

func startProcess(t *testing.T, addr address, name string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{command: exec.Command(exe), events: make(chan int, 1)}
	p.command.Env = append(os.Environ(), childEnv+"="+string(addr)+" "+name)
	p.command.Stderr = os.Stderr
	out, err := p.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stop, err = p.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{})
	go func() {
		n := 0
		for in := bufio.NewReader(out); ; n++ {
			if _, err := in.ReadByte(); err != nil {
				break
			}
			if n == 0 {
				close(began)
			}
		}
		p.events <- n
	}()
	select {
	case <-began:
	case <-time.After(30 * time.Second):
		t.Fatal("a process did nothing in 30 s")
	}
	return p
}

// end waits for the end of a process, and returns how many events there were.
func (p *process) end() int {
	_ = p.stop.Close()
	n := <-p.events
	_ = p.command.Wait()
	return n
}

// TestProcesses: several processes together never exceed the limit, also if one of them
// is killed; and the others get what it does not need any more.
func TestProcesses(t *testing.T) {
	t.Parallel()
	addr, name := anyRedis(t), unique(t)
	began := time.Now()
	var all []*process
	for range 3 {
		all = append(all, startProcess(t, addr, name))
	}
	time.Sleep(700 * time.Millisecond)
	if err := all[0].command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := all[0].end()
	late := startProcess(t, addr, name) // what recovers is not only what went on
	time.Sleep(700 * time.Millisecond)
	counts := []int{killed}
	for _, p := range append(all[1:], late) {
		counts = append(counts, p.end())
	}
	took, sum := time.Since(began), 0
	for _, n := range counts {
		sum += n
	}
	most := float64(processLimit.Burst) + took.Seconds()*float64(processLimit.Rate)
	if float64(sum) > most {
		t.Errorf("%v: %d in %v, more than %.0f", counts, sum, took, most)
	}
	// What the limit allows while all of them run, less what the killed one had and a
	// lease of each of the others.
	least := float64(processLimit.Burst) + 1.4*float64(processLimit.Rate) - 4*40
	if float64(sum) < least {
		t.Errorf("%v: %d in %v, less than %.0f", counts, sum, took, least)
	}
	t.Logf("%v: %d of %.0f in %v", counts, sum, most, took)
}
