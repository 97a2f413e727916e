package redislimit_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/interconnect-go/interconnect/ratelimit"
	"github.com/redis/rueidis"

	"github.com/interconnect-go/interconnect/ratelimit/redislimit"
)

// address is where a Redis is: network and address, with a colon in between.
type address string

func (a address) dial(ctx context.Context) (net.Conn, error) {
	network, addr, _ := strings.Cut(string(a), ":")
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// connect returns a client, which tells nothing of its own accord.
func (a address) connect(tb testing.TB) rueidis.Client {
	tb.Helper()
	client, err := a.client()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	return client
}

func (a address) client() (rueidis.Client, error) {
	return rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"redis:6379"},
		DialCtxFn: func(ctx context.Context, _ string, _ *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return a.dial(ctx)
		},
		DisableCache:      true, // miniredis has no client tracking
		ForceSingleClient: true,
	})
}

// anyRedis returns the one at REDIS_ADDR if that is set, else one of its own.
func anyRedis(tb testing.TB) address {
	tb.Helper()
	if addr := os.Getenv("REDIS_ADDR"); addr != "" {
		return address("tcp:" + addr)
	}
	addr, _ := ownRedis(tb)
	return addr
}

// ownRedis returns a Redis that the test may do anything with: a redis-server if there
// is one, else miniredis, of which kill is nil.
func ownRedis(tb testing.TB) (addr address, kill func()) {
	tb.Helper()
	if path, err := exec.LookPath("redis-server"); err == nil {
		dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // its path may be too long for a socket
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = os.RemoveAll(dir) })
		socket := filepath.Join(dir, "s")
		return address("unix:" + socket), runRedis(tb, path, socket)
	}
	return address("tcp:" + miniredis.RunT(tb).Addr()), nil
}

// runRedis starts a redis-server, and returns what ends it.
func runRedis(tb testing.TB, path, socket string) (kill func()) {
	tb.Helper()
	server := exec.Command(path, "--save", "", "--appendonly", "no", "--port", "0", "--unixsocket", socket, "--dir", filepath.Dir(socket))
	if err := server.Start(); err != nil {
		tb.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	tb.Cleanup(kill)
	eventually(tb, "redis-server accepts connections", func() bool {
		conn, err := address("unix:" + socket).dial(tb.Context())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return kill
}

// eventually waits until something is true.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not in 20 s: %s", what)
		}
	}
}

// patient waits for Redis however busy this machine is, and never decides without.
var patient = []redislimit.Option{redislimit.WithTimeout(20 * time.Second), redislimit.WithOnError(redislimit.FailClosed)}

// unique returns a name that no other test has, nor had.
func unique(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("test-%d-%d", os.Getpid(), time.Now().UnixNano())
}

// TestRedis: a Redis does with the script what the tests in bubbles rely on.
func TestRedis(t *testing.T) {
	t.Parallel()
	client, name := anyRedis(t).connect(t), unique(t)
	t.Logf("%s", serverOf(t, client))
	l := redislimit.New(client, name, ratelimit.Per(100, time.Hour), patient...)
	if n := drain(t, l, "key"); n != 100 {
		t.Errorf("%d of 100", n)
	}
	if n := l.RoundTrips(); n > 12 {
		t.Errorf("%d round trips", n)
	}
	r := take(t, l, "key", 50)
	if r.OK || r.RetryAfter < 29*time.Minute || r.RetryAfter > 31*time.Minute || r.ResetAfter < 59*time.Minute {
		t.Errorf("refused: %+v", r)
	}
	if r := take(t, l, "key", 101); !r.Never {
		t.Errorf("more than the burst: %+v", r)
	}
	life, err := client.Do(t.Context(), client.B().Pttl().Key(name+":key").Build()).AsInt64()
	if err != nil || life < 59*60e3 || life > 60*60e3+100 {
		t.Errorf("lives for %d ms: %v", life, err)
	}
	take(t, l, "other", 1)
	if life, err := client.Do(t.Context(), client.B().Pttl().Key(name+":other").Build()).AsInt64(); err != nil || life > 11*36e3+100 {
		t.Errorf("a lease of 10 lives for %d ms: %v", life, err)
	}
}

func serverOf(tb testing.TB, client rueidis.Client) string {
	tb.Helper()
	info, err := client.Do(tb.Context(), client.B().Info().Section("server").Build()).ToString()
	if err != nil || !strings.Contains(info, "redis_version") {
		return "miniredis"
	}
	_, version, _ := strings.Cut(info, "redis_version:")
	version, _, _ = strings.Cut(version, "\r")
	return "redis-server " + version
}

// TestFlushedScripts: Redis may forget the script at any time, and keys.
func TestFlushedScripts(t *testing.T) {
	t.Parallel()
	addr, _ := ownRedis(t)
	client := addr.connect(t)
	l := redislimit.New(client, "flush", ratelimit.Per(10, time.Hour), append(patient, redislimit.WithLease(1))...)
	for i := range 10 {
		if r := take(t, l, "key", 1); !r.OK || r.Remaining != 9-i {
			t.Errorf("%d: %+v", i, r)
		}
		if err := client.Do(t.Context(), client.B().ScriptFlush().Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	if r := take(t, l, "key", 1); r.OK {
		t.Errorf("more than the burst: %+v", r)
	}
	// An evicted key starts anew.
	if err := client.Do(t.Context(), client.B().Del().Key("flush:key").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refusal is forgotten", func() bool { return take(t, l, "key", 1).OK })
	if n := drain(t, l, "key"); n != 9 {
		t.Errorf("%d after the key was evicted", n)
	}
}

// TestForeignKey: a key of another type is an error, and is not touched.
func TestForeignKey(t *testing.T) {
	t.Parallel()
	client, name := anyRedis(t).connect(t), unique(t)
	l := redislimit.New(client, name, ratelimit.Per(10, time.Hour), patient...)
	for key, set := range map[string]rueidis.Completed{
		"list":   client.B().Rpush().Key(name + ":list").Element("1").Build(),
		"string": client.B().Set().Key(name + ":string").Value("1").Build(),
	} {
		if err := client.Do(t.Context(), set).Error(); err != nil {
			t.Fatal(err)
		}
		if r, err := l.Take(t.Context(), key, 1); err == nil {
			t.Errorf("%s: %+v", key, r)
		}
		_ = client.Do(t.Context(), client.B().Del().Key(name+":"+key).Build())
	}
}

// TestContention: many goroutines of several clients, and many keys.
func TestContention(t *testing.T) {
	t.Parallel()
	addr, name := anyRedis(t), unique(t)
	limit := ratelimit.Per(200, time.Hour)
	var counts [5]atomic.Int64
	var callers sync.WaitGroup
	for range 3 {
		l := redislimit.New(addr.connect(t), name, limit, patient...)
		for range 16 {
			callers.Go(func() {
				for i := range 200 {
					key := i % len(counts)
					n := 1 + i%3
					if !take(t, l, strconv.Itoa(key), n).OK {
						continue
					}
					if i%7 == 0 {
						l.Give(t.Context(), strconv.Itoa(key), n)
					} else {
						counts[key].Add(int64(n))
					}
				}
			})
		}
	}
	callers.Wait()
	for key := range counts {
		// Each process may have some left that it has not asked for again.
		if n := counts[key].Load(); n > 200 || n < 200-3*(20+3) {
			t.Errorf("key %d: %d of 200", key, n)
		}
	}
}

// TestRestart: a Redis that goes away, and comes back without what it knew.
func TestRestart(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server found, and miniredis cannot be killed")
	}
	addr, kill := ownRedis(t)
	l := redislimit.New(addr.connect(t), "restart", ratelimit.Per(100, time.Hour),
		redislimit.WithLease(1), redislimit.WithExpectedReplicas(10), redislimit.WithTimeout(time.Second))
	for range 50 {
		take(t, l, "key", 1)
	}
	kill()
	// Of the local limiter; the first few may be of neither.
	if n := drain(t, l, "key"); n != 10 {
		t.Errorf("%d of 10 while it is away", n)
	}
	before := l.RoundTrips()
	for range 1000 {
		take(t, l, "key", 1)
	}
	if n := l.RoundTrips() - before; n > 10 {
		t.Errorf("%d round trips while it is away", n)
	}
	runRedis(t, path, strings.TrimPrefix(string(addr), "unix:"))
	// Some connections may still have to find out.
	n := 0
	eventually(t, "Redis has all of the burst", func() bool {
		if take(t, l, "key", 1).OK {
			n++
		}
		return n == 100
	})
	if n := drain(t, l, "key"); n != 0 {
		t.Errorf("%d more than that", n)
	}
}

// TestSlowRedis: rueidis, too, lets go when the time is over.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	addr, _ := ownRedis(t)
	var delay atomic.Int64
	client := slowly(t, addr, &delay).connect(t)
	l := redislimit.New(client, "slow", ratelimit.Per(1000, time.Second), redislimit.WithLease(1), redislimit.WithTimeout(50*time.Millisecond))
	if take(t, l, "key", 1); l.RoundTrips() != 1 {
		t.Fatal("not asked")
	}
	delay.Store(int64(3 * time.Second))
	began := time.Now()
	for range 1000 {
		take(t, l, "key", 1)
	}
	// 5 timeouts, and one in each second.
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("1000 decisions took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if _, err := l.Take(ctx, "key", 1); err == nil {
		t.Error("allowed after the deadline")
	}
	delay.Store(0)
	before := l.RoundTrips()
	eventually(t, "Redis decides again", func() bool {
		take(t, l, "key", 1)
		return l.RoundTrips() > before+10
	})
}

// slowly returns the address of a proxy that delays what a Redis says.
func slowly(tb testing.TB, to address, delay *atomic.Int64) address {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			back, err := to.dial(tb.Context())
			if err != nil {
				_ = conn.Close()
				continue
			}
			go pipe(back, conn, nil)
			go pipe(conn, back, delay)
		}
	}()
	return address("tcp:" + listener.Addr().String())
}

func pipe(to, from net.Conn, delay *atomic.Int64) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if delay != nil {
			time.Sleep(time.Duration(delay.Load()))
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestSkewedServer: two servers need not agree on what time it is, nor with this
// machine.
func TestSkewedServer(t *testing.T) {
	t.Parallel()
	mini := miniredis.RunT(t)
	client := address("tcp:" + mini.Addr()).connect(t)
	for _, when := range []time.Time{time.Unix(1, 0), time.Now().AddDate(20, 0, 0)} {
		mini.SetTime(when)
		l := redislimit.New(client, when.Format("2006"), ratelimit.Per(10, time.Second), append(patient, redislimit.WithLease(1))...)
		if n := drain(t, l, "key"); n != 10 {
			t.Errorf("%v: %d of 10", when, n)
		}
		time.Sleep(200 * time.Millisecond) // here, not there
		if n := drain(t, l, "key"); n != 0 {
			t.Errorf("%v: %d more, although the server's time stands still", when, n)
		}
		mini.SetTime(when.Add(500*time.Millisecond + time.Microsecond))
		eventually(t, "the server has some", func() bool { return take(t, l, "key", 1).OK })
		if n := drain(t, l, "key"); n != 4 {
			t.Errorf("%v: %d of 5 after half a second there", when, n+1)
		}
	}
}
