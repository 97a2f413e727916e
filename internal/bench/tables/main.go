// Command tables measures and prints the tables of the README.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"time"

	"github.com/interconnect-go/interconnect/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tables:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, w io.Writer) error {
	flags := flag.NewFlagSet("tables", flag.ExitOnError)
	rounds := flags.Int("rounds", 9, "turns of each contender in each row; ratios mean little with fewer than 5")
	duration := flags.Duration("time", 100*time.Millisecond, "about how long a turn takes")
	experiments := flags.Bool("experiments", false, "measure what settings of net/http do instead")
	filter := flags.String("run", "", "only rows whose table/row matches this regular expression")
	absolute := flags.Bool("v", false, "also print medians in nanoseconds, which mean something on this machine only")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options := bench.Options{Rounds: max(*rounds, 1), Time: *duration, Absolute: *absolute}
	if *filter != "" {
		selected, err := regexp.Compile(*filter)
		if err != nil {
			return err
		}
		options.Run = selected
	}
	fmt.Fprintf(w, "%s; medians of %d rounds of %v, least and greatest in parentheses.\n\n%s\n",
		bench.Environment(), options.Rounds, options.Time, bench.FlowControl)
	sections := bench.Sections()
	if *experiments {
		sections = bench.Experiments()
	}
	for _, section := range sections {
		if err := section.Report(ctx, w, options); err != nil {
			return err
		}
	}
	return nil
}
