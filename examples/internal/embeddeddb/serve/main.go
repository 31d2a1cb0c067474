// Command serve runs the embedded database as a separate program.
//
//	serve [-dir DIR] [-listen 127.0.0.1:0]
//
// It prints one line, the connection string. It runs until its standard input
// ends, or until SIGINT or SIGTERM. If a test starts it with a pipe as standard
// input, it ends with the test, however that ends. In a shell without a terminal,
// give it an input that stays open.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/clerksync/clerksync-go/examples/internal/embeddeddb"
)

func main() {
	debug.SetGCPercent(1000) // it serves tests: time matters more than memory
	dir := flag.String("dir", "", "`directory` of the data; by default a temporary one, which is removed at the end")
	listen := flag.String("listen", "127.0.0.1:0", "loopback `address` to listen on")
	flag.Parse()
	if flag.NArg() > 0 {
		_, _ = fmt.Fprintf(flag.CommandLine.Output(), "serve: unexpected argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := serve(ctx, *dir, *listen, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, dir, listen string, stdin io.Reader, stdout io.Writer) (err error) {
	if dir == "" {
		dir, err = os.MkdirTemp("", "embeddeddb-data-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	server, err := embeddeddb.StartAt(ctx, dir, listen)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if _, err := fmt.Fprintln(stdout, server.URI()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	<-ctx.Done()
	return nil
}
