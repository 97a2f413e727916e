package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	"github.com/interconnect-go/interconnect/examples/gen/greet/v1/greetv1connect"
)

// account plays scenarios and tells how they went.
type account struct {
	out            io.Writer
	served, called *observer
	rows           []string
	wrong          int
}

// play runs one scenario, prints what each side saw, and compares.
func (a *account) play(ctx context.Context, protocol string, s scenario, client greetv1connect.GreetServiceClient) {
	err := s.call(ctx, client)
	clientSaw, clientOK := a.called.check(s.client)
	serverSaw, serverOK := a.served.check(s.server)
	fmt.Fprintf(a.out, "%s over %s: %s\n", s.name, protocol, result(err))
	fmt.Fprintln(a.out, "    client", strings.Join(clientSaw.messages, ", "))
	if !s.server.unseen {
		fmt.Fprintln(a.out, "    server", strings.Join(serverSaw.messages, ", "))
	}
	verdict := "as it must"
	if !clientOK || !serverOK || codeOf(err) != s.client.code {
		verdict = "WRONG"
		a.wrong++
	}
	a.rows = append(a.rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s",
		protocol, s.name, clientSaw.summary(s.client), serverSaw.summary(s.server), verdict))
}

// check waits for the record of the RPC, if there must be one.
func (o *observer) check(w want) (record, bool) {
	if w.unseen {
		return record{}, len(o.ends) == 0
	}
	select {
	case r := <-o.ends:
		ok := r.end.Outcome == w.outcome && r.end.Code == w.code &&
			(r.end.Sent == w.sent || w.sent < 0) && r.end.Received == w.received
		return r, ok
	case <-time.After(5 * time.Second):
		return record{}, false
	}
}

func (r record) summary(w want) string {
	if w.unseen {
		return "refused by the gate"
	}
	return fmt.Sprintf("%v, %d sent, %d received", r.end.Outcome, r.end.Sent, r.end.Received)
}

func result(err error) string {
	if err == nil {
		return "success"
	}
	return err.Error()
}

// codeOf is connect.CodeOf, with 0 for success.
func codeOf(err error) connect.Code {
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

// close prints the summary, and fails if anything went otherwise than it must.
func (a *account) close() error {
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PROTOCOL\tCALL\tCLIENT\tSERVER\tVERDICT")
	for _, row := range a.rows {
		fmt.Fprintln(table, row)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if a.wrong > 0 {
		return errors.New("not everything came out as it must")
	}
	return nil
}
