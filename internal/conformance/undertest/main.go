//go:build conformance

// Command undertest is what the Connect conformance suite tests: its client or
// its server, as the runner's protocol wants them on stdin and stdout.
//
//	undertest [-variant name] [-report dir] client|server
//
// It fails if an RPC was not observed from its Open to exactly one End. The
// runner does not look at how a server exits, so that the verdict also goes
// into a file in the report folder: "ok" and the counts, or what is wrong.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	name := flag.String("variant", "none", "what stands around connect: "+variantNames())
	dir := flag.String("report", "", "a folder for the verdict")
	flag.Parse()
	if err := run(flag.Arg(0), *name, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "undertest:", err)
		os.Exit(1)
	}
}

func run(side, name, dir string) error {
	v, err := newVariant(name)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s-%d", side, os.Getpid()))
	if err := report(dir, path, "still running, or killed\n"); err != nil {
		return err
	}
	switch side {
	case "client":
		err = runClient(os.Stdin, os.Stdout, v)
	case "server":
		err = runServer(os.Stdin, os.Stdout, v)
	default:
		err = fmt.Errorf("neither client nor server: %q", side)
	}
	if err = errors.Join(err, v.observer.verdict()); err != nil {
		return errors.Join(err, report(dir, path, err.Error()+"\n"))
	}
	return report(dir, path, "ok "+v.observer.String()+"\n")
}

// report writes a verdict, if there is a folder for it.
func report(dir, path, text string) error {
	if dir == "" {
		return nil
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
