package ratelimit_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/internal/conntest"
	"github.com/interconnect-go/interconnect/ratelimit"
)

// answer is an HTTP response as it arrived.
type answer struct {
	status          int
	header, trailer http.Header
	body            *bytes.Buffer
}

// tap is a connect.HTTPClient that keeps all answers.
type tap struct {
	connect.HTTPClient

	mu      sync.Mutex
	answers []*answer
}

type tapped struct {
	io.ReadCloser

	res *http.Response
	a   *answer
}

func (b *tapped) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.a.body.Write(p[:n])
	if err != nil {
		b.a.trailer = b.res.Trailer
	}
	return n, err
}

func (c *tap) Do(req *http.Request) (*http.Response, error) {
	res, err := c.HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	a := &answer{status: res.StatusCode, header: res.Header.Clone(), body: &bytes.Buffer{}}
	res.Body = &tapped{res.Body, res, a}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answers = append(c.answers, a)
	return res, nil
}

// last returns the last answer. Its trailers are those of the gRPC-Web body, too.
func (c *tap) last() *answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[len(c.answers)-1]
}

// late returns what of a header came after the headers, in lower case.
func (a *answer) late() string {
	var b strings.Builder
	_ = a.trailer.Write(&b)
	return strings.ToLower(b.String() + a.body.String())
}

const secret = "s3cr3t-ada"

// refused makes RPCs as the secret user until one is refused, and returns its answer.
func refused(t *testing.T, c conntest.Case, config conntest.Config) (*answer, *connect.Error) {
	t.Helper()
	srv := c.Start(t, config)
	client := &tap{HTTPClient: srv.Client()}
	// What is compressed could hide the secret.
	clients := conntest.NewClients(client, srv.URL, c.Option(), connect.WithAcceptCompression("gzip", nil, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	srv.Inject(conntest.Delay(time.Millisecond)) // two at once
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Clients(srv).Do(ctx, c.Kind, http.Header{"X-User": {secret}}, "one")
	}()
	synctest.Wait()
	defer func() { <-done }()
	for range 4 {
		err := clients.Do(t.Context(), c.Kind, http.Header{"X-User": {secret}}, "one").Err
		if e := (*connect.Error)(nil); errors.As(err, &e) {
			return client.last(), e
		}
	}
	t.Fatal("nothing was refused")
	return nil, nil
}

// TestWireContract: what a refusal is on the wire, for each cause and protocol.
func TestWireContract(t *testing.T) {
	t.Parallel()
	user := ratelimit.ByHeader("X-User")
	for name, tt := range map[string]struct {
		rule          ratelimit.Rule
		never         bool
		policy, limit string
		least         time.Duration
		remaining     string
		quota         int64
	}{
		"quota": {
			rule:   ratelimit.Rule{Name: "per-user", Key: user, Limiter: ratelimit.NewKeyed(ratelimit.Per(2, time.Minute))},
			policy: `"per-user";q=2;w=60`, limit: `"per-user";r=0;t=30`, least: 30 * time.Second, remaining: "0", quota: 2,
		},
		"uneven": {
			rule:   ratelimit.Rule{Name: "per-user", Key: user, Limiter: ratelimit.NewKeyed(ratelimit.Limit{Rate: 0.3, Burst: 1})},
			policy: `"per-user";q=1;w=4`, limit: `"per-user";r=0;t=4`, least: 10 * time.Second / 3, remaining: "0", quota: 1,
		},
		"cost": {
			rule:   ratelimit.Rule{Name: "per-user", Key: user, Limiter: ratelimit.NewKeyed(ratelimit.Per(3, time.Minute)), Cost: costs(2)},
			policy: `"per-user";q=3;w=60`, limit: `"per-user";r=1;t=20`, least: 20 * time.Second, remaining: "1", quota: 3,
		},
		"fast": {
			rule:   ratelimit.Rule{Key: user, Limiter: ratelimit.NewKeyed(ratelimit.Limit{Rate: 1000, Burst: 1})},
			policy: `"default";q=1;w=1`, limit: `"default";r=0;t=1`, remaining: "0", quota: 1,
		},
		"concurrent": {
			rule:   ratelimit.Rule{Name: "streams", Key: user, On: ratelimit.Concurrent, Max: 1},
			policy: `"streams";q=1;qu="concurrent-requests"`, limit: `"streams";r=0;t=1`, remaining: "0", quota: 1,
		},
		"never": {
			rule:  ratelimit.Rule{Name: "per-user", Key: user, Limiter: ratelimit.NewKeyed(ratelimit.Per(2, time.Minute)), Cost: costs(3)},
			never: true, remaining: "2", quota: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				rule := tt.rule
				if rule.Limiter != nil { // each case has its bubble, and its clock
					rule.Limiter = ratelimit.NewKeyed(rule.Limiter.Limit())
				}
				a, err := refused(t, c, behind(ratelimit.NewInterceptor(rule), conntest.Config{}))
				wantCode(t, err, connect.CodeResourceExhausted)
				status := http.StatusOK
				if c.Protocol == conntest.Connect && c.Kind == connect.StreamTypeUnary {
					status = http.StatusTooManyRequests
				}
				if a.status != status {
					t.Errorf("status %d", a.status)
				}
				info, quota, retry := details(t, err)
				reason := ratelimit.ReasonExceeded
				if tt.never {
					reason = ratelimit.ReasonTooLarge
				}
				m := info.GetMetadata()
				ruleName := tt.rule.Name
				if ruleName == "" {
					ruleName = "default"
				}
				if info.GetReason() != reason || info.GetDomain() != ratelimit.Domain || m["rule"] != ruleName ||
					m["limit"] != strconv.FormatInt(tt.quota, 10) || m["remaining"] != tt.remaining || len(m) != 3 {
					t.Errorf("info %v", info)
				}
				if v := quota.GetViolations(); len(v) != 1 || v[0].GetSubject() != "rule:"+ruleName || v[0].GetQuotaId() != ruleName ||
					v[0].GetQuotaValue() != tt.quota || v[0].GetDescription() == "" {
					t.Errorf("quota %v", quota)
				}
				if got := a.header.Get("RateLimit-Policy"); got != tt.policy {
					t.Errorf("RateLimit-Policy %s, want %s", got, tt.policy)
				}
				if got := a.header.Get("RateLimit"); got != tt.limit {
					t.Errorf("RateLimit %s, want %s", got, tt.limit)
				}
				if late := a.late(); strings.Contains(late, "ratelimit:") || strings.Contains(late, "ratelimit-policy") || strings.Contains(late, "retry-after") {
					t.Errorf("headers after the headers: %s", late)
				}
				if tt.never {
					if retry != nil || a.header.Get("Retry-After") != "" || len(err.Meta().Values("Grpc-Retry-Pushback-Ms")) != 0 {
						t.Errorf("%v, Retry-After %q, %v", retry, a.header.Get("Retry-After"), err.Meta())
					}
				} else {
					wantRetry(t, a, err, tt.least)
				}
				wantNoSecret(t, a, err)
			})
		})
	}
}

// wantRetry checks when the client is told to come back, in all the ways.
func wantRetry(t *testing.T, a *answer, err *connect.Error, least time.Duration) {
	t.Helper()
	_, _, retry := details(t, err)
	delay := retry.GetRetryDelay().AsDuration()
	if delay < least || least > 0 && delay > least*6/5+time.Microsecond || delay > 2*time.Minute {
		t.Errorf("RetryInfo %v, want %v and up to a fifth more", delay, least)
	}
	after := a.header.Values("Retry-After")
	if len(after) != 1 {
		t.Errorf("Retry-After %q", after)
		return
	}
	seconds, failed := strconv.Atoi(after[0])
	if failed != nil || time.Duration(seconds)*time.Second < delay || time.Duration(seconds-1)*time.Second >= delay {
		t.Errorf("Retry-After %q, RetryInfo %v", after, delay)
	}
	_, reset, _ := strings.Cut(a.header.Get("RateLimit"), ";t=")
	if at, failed := strconv.Atoi(reset); failed != nil || at > seconds || at < 1 {
		t.Errorf("Retry-After %d, RateLimit %q", seconds, a.header.Get("RateLimit"))
	}
	pushback := err.Meta().Values("Grpc-Retry-Pushback-Ms")
	if len(pushback) != 1 || pushback[0] != strconv.FormatInt(int64((delay+time.Millisecond-1)/time.Millisecond), 10) {
		t.Errorf("pushback %q, RetryInfo %v", pushback, delay)
	}
}

// wantNoSecret searches all bytes of an answer, and of its details.
func wantNoSecret(t *testing.T, a *answer, err *connect.Error) {
	t.Helper()
	var all bytes.Buffer
	_ = a.header.Write(&all)
	_ = a.trailer.Write(&all)
	_ = err.Meta().Write(&all)
	all.Write(a.body.Bytes())
	all.WriteString(err.Error())
	for _, detail := range err.Details() {
		all.Write(detail.Bytes())
	}
	if bytes.Contains(all.Bytes(), []byte(secret)) {
		t.Errorf("the key is in the answer:\n%s", all.String())
	}
}

// TestWireContractWithoutEngine: nothing of the RateLimit headers is in a trailer.
func TestWireContractWithoutEngine(t *testing.T) {
	t.Parallel()
	for _, gate := range []bool{true, false} {
		conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			limits := ratelimit.NewInterceptor(ratelimit.Rule{
				Name: "per-user", Key: ratelimit.ByHeader("X-User"), Limiter: ratelimit.NewKeyed(ratelimit.Per(1, time.Minute)),
			})
			option := connect.HandlerOption(connect.WithInterceptors(limits))
			if gate {
				option = limits.HandlerOption()
			}
			a, err := refused(t, c, conntest.Config{HandlerOptions: []connect.HandlerOption{option}})
			late := a.late()
			if strings.Contains(late, "ratelimit:") || strings.Contains(late, "ratelimit-policy") {
				t.Errorf("headers after the headers: %s", late)
			}
			if after := append(err.Meta().Values("Retry-After"), a.header.Values("Retry-After")...); len(after) == 0 {
				t.Error("no Retry-After")
			}
			if !gate && strings.Contains(late, "retry-after") {
				t.Errorf("headers after the headers: %s", late)
			}
			wantNoSecret(t, a, err)
		})
	}
}

// TestMessageRefusalsOnTheWire: a stream that is ended later has no header left to set.
func TestMessageRefusalsOnTheWire(t *testing.T) {
	t.Parallel()
	kinds := []connect.StreamType{connect.StreamTypeServer, connect.StreamTypeBidi}
	conntest.Matrix{Transports: web, Kinds: kinds}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{
			Name: "messages", Key: ratelimit.ByHeader("X-User"), On: ratelimit.SentMessages, Mode: ratelimit.Reject,
			Limiter: ratelimit.NewKeyed(ratelimit.Per(2, time.Minute)),
		})
		a, err := refused(t, c, behind(limits, conntest.Config{}))
		if late := a.late(); strings.Contains(late, "ratelimit:") || strings.Contains(late, "ratelimit-policy") {
			t.Errorf("headers after the headers: %s", late)
		}
		if _, _, retry := details(t, err); retry.GetRetryDelay().AsDuration() < 30*time.Second {
			t.Errorf("RetryInfo %v", retry)
		}
		wantNoSecret(t, a, err)
	})
}

// TestHeadersAlways: each response says what is left, of all rules that count RPCs.
func TestHeadersAlways(t *testing.T) {
	t.Parallel()
	for _, engine := range []bool{true, false} {
		conntest.Matrix{Transports: web}.EachBubble(t, func(t *testing.T, c conntest.Case) {
			limits := ratelimit.NewInterceptor(
				ratelimit.Rule{Name: "minute", Limiter: ratelimit.NewGlobal(ratelimit.Per(3, time.Minute))},
				ratelimit.Rule{Name: "hour", Limiter: ratelimit.NewGlobal(ratelimit.Per(9, time.Hour))},
				ratelimit.Rule{Name: "bytes", On: ratelimit.SentBytes, Limiter: plenty()},
				ratelimit.WithHeadersAlways(),
			)
			config := conntest.Config{HandlerOptions: []connect.HandlerOption{limits.HandlerOption()}}
			if engine {
				config = withEngine(config)
			}
			srv := c.Start(t, config)
			client := &tap{HTTPClient: srv.Client()}
			clients := conntest.NewClients(client, srv.URL, c.Option())
			for n, want := range []string{`"minute";r=2;t=20, "hour";r=8;t=400`, `"minute";r=1;t=40, "hour";r=7;t=800`} {
				srv.Inject(conntest.Fault{})
				if n == 1 {
					srv.Inject(conntest.Fail(connect.CodeInternal, "boom"))
				}
				_ = clients.Do(t.Context(), c.Kind, nil, "one")
				if got := client.last().header.Get("RateLimit"); got != want {
					t.Errorf("engine %v: RateLimit %s, want %s", engine, got, want)
				}
				if got, want := client.last().header.Get("RateLimit-Policy"), `"minute";q=3;w=60, "hour";q=9;w=3600`; got != want {
					t.Errorf("engine %v: RateLimit-Policy %s, want %s", engine, got, want)
				}
			}
		})
	}
}

// TestHeadersAlwaysOfOddRules: what is announced is true of rules that took nothing, of
// slots, and leaves out what only observes.
func TestHeadersAlwaysOfOddRules(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rule ratelimit.Rule
		want string
	}{
		"free":  {ratelimit.Rule{Limiter: ratelimit.NewGlobal(ratelimit.Per(3, time.Minute)), Cost: costs(0)}, `"default";r=3;t=0`},
		"slots": {ratelimit.Rule{On: ratelimit.Concurrent, Max: 10}, `"default";r=9;t=0`},
		"dry":   {ratelimit.Rule{Limiter: never{time.Second}, DryRun: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conntest.Matrix{Transports: web[:1], Protocols: []conntest.Protocol{conntest.Connect}}.EachBubble(t, func(t *testing.T, c conntest.Case) {
				srv := c.Start(t, behind(ratelimit.NewInterceptor(tt.rule, ratelimit.WithHeadersAlways()), conntest.Config{}))
				client := &tap{HTTPClient: srv.Client()}
				_ = conntest.NewClients(client, srv.URL, c.Option()).Do(t.Context(), c.Kind, nil, "one")
				if got := client.last().header.Get("RateLimit"); got != tt.want {
					t.Errorf("RateLimit %s, want %s", got, tt.want)
				}
			})
		})
	}
}

// TestMissingIsNotTooLarge: who has no key is not told that the request is too large.
func TestMissingIsNotTooLarge(t *testing.T) {
	t.Parallel()
	conntest.Matrix{Transports: web[:1]}.EachBubble(t, func(t *testing.T, c conntest.Case) {
		limits := ratelimit.NewInterceptor(ratelimit.Rule{Key: ratelimit.ByHeader("X-User"), OnMissing: ratelimit.Refuse, Limiter: plenty()})
		err := c.Clients(c.Start(t, behind(limits, conntest.Config{}))).Do(t.Context(), c.Kind, nil, "one").Err
		info, _, retry := details(t, err)
		if info.GetReason() == ratelimit.ReasonTooLarge || strings.Contains(err.Error(), "exceeds") || retry != nil {
			t.Errorf("%v, %v, %v", err, info, retry)
		}
	})
}
