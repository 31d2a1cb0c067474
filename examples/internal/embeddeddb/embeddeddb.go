// Package embeddeddb runs a MongoDB-compatible database inside the process, so
// that the examples and the tests need no server.
//
// The engine is FerretDB v1 on SQLite: pure Go, with the data in a directory. It
// does not make updates atomic: it reads a document and writes it back, and
// does not keep other writes out in between. Concurrent updates of one document
// are lost, and a compare-and-set can have several winners. MongoDB's updates are
// atomic, and clerksync relies on that. Clients therefore connect to a front,
// which forwards the wire protocol to the engine and corrects it:
//
//   - The engine gets one message to a database at a time, over all connections.
//     So what MongoDB does to one document atomically is atomic.
//   - A write without acknowledgement gets no reply. The engine would send one,
//     and the driver would take it for the reply to its next message.
//   - The statements of a bulk of updates go one by one. A hundred in one
//     message hang the engine for good, and its reply names the wrong ones.
//   - An index can be created again right after it was dropped. The engine may still know it on
//     another connection to SQLite, and refuse it once.
//   - If a unique index refuses an update, a findAndModify or its own creation,
//     the code is 11000, as for an insert. The engine's code is 1.
//
// These differences from MongoDB remain:
//
//   - Only a query by _id uses an index. All others read the whole collection
//     (25 ms for a thousand documents), which is fine for hundreds.
//   - Every unique index is sparse, but is listed without that attribute.
//   - Indexes with partialFilterExpression, expireAfterSeconds or collation,
//     pipeline updates, transactions, change streams, findAndModify with a
//     projection and most aggregation operators are refused with an error.
//   - Decimal128 and NaN end the connection. Field names with a quotation mark
//     or a backslash are refused with code 1.
//
// It has no authentication, and therefore listens only on loopback addresses.
//
// The tag ferretdb_no_postgresql leaves out the engine's other backend, PostgreSQL:
//
//	go build -tags ferretdb_no_postgresql ./internal/embeddeddb/serve
package embeddeddb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// closeTimeout is how long Close waits for the engine. The engine cancels a
// request after 3 seconds.
const closeTimeout = 10 * time.Second

const (
	socketName    = "s"
	maxSocketName = 103 // bytes, with the directory; the limit of macOS (Linux: 107)
)

// Server is a running database. Its methods may be called concurrently.
type Server struct {
	front     *front
	stop      context.CancelFunc // ends the engine
	stopped   chan struct{}      // closed when the engine has ended
	unlockErr error              // set before stopped is closed
	socketDir string

	closeOnce sync.Once
	closeErr  error
}

// Start serves the data in dir, which it creates if missing, on a free port of
// 127.0.0.1. The server runs until Close. ctx bounds only the start.
//
// A directory can have one Server at a time, over all processes. A second Start
// fails until the first Server is closed or its process has ended.
func Start(ctx context.Context, dir string) (*Server, error) {
	return StartAt(ctx, dir, "127.0.0.1:0")
}

// StartAt is like Start, with the address to listen on. Its host must be a
// loopback address. Port 0 picks a free port.
func StartAt(ctx context.Context, dir, addr string) (_ *Server, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("embeddeddb: %w", err)
		}
	}()

	lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lis.Close())
		}
	}()
	if ip := lis.Addr().(*net.TCPAddr).IP; !ip.IsLoopback() {
		return nil, fmt.Errorf("listen address %q is not a loopback address, and the database has no authentication", addr)
	}

	dir, err = prepareDir(dir)
	if err != nil {
		return nil, err
	}
	unlock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	// Only this user can enter the directory of the engine's socket, so that clients must use the
	// front.
	socketDir, err := os.MkdirTemp("", "embeddeddb-")
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	socket := filepath.Join(socketDir, socketName)
	if len(socket) > maxSocketName {
		err := fmt.Errorf("%q is too long a name for a socket; set TMPDIR to a shorter one", socket)
		return nil, errors.Join(err, unlock(), os.Remove(socketDir))
	}
	engine, err := newEngine(&ferretdb.Config{
		Listener: ferretdb.ListenerConfig{Unix: socket},
		Logger:   slog.New(slog.DiscardHandler),
		Handler:  "sqlite",
		// In WAL mode, synchronous=normal survives a crash of the process. A power cut may lose the
		// last writes.
		SQLiteURL: fileURL(dir+"/", "_pragma=synchronous(normal)"),
	})
	if err != nil {
		return nil, errors.Join(err, unlock(), os.RemoveAll(socketDir))
	}

	engineCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{stop: stop, stopped: make(chan struct{}), socketDir: socketDir}
	go func() {
		defer close(s.stopped)
		_ = engine.Run(engineCtx) // always nil
		s.unlockErr = unlock()
	}()
	s.front = startFront(lis, socket, maxConnections)
	return s, nil
}

var newEngineMu sync.Mutex

// newEngine runs one ferretdb.New at a time, because it writes a package
// variable.
func newEngine(config *ferretdb.Config) (*ferretdb.FerretDB, error) {
	newEngineMu.Lock()
	defer newEngineMu.Unlock()
	return ferretdb.New(config)
}

// URI is the connection string for MongoDB drivers, such as
// "mongodb://127.0.0.1:49152/".
func (s *Server) URI() string {
	return "mongodb://" + s.front.listener.Addr().String() + "/"
}

// Close ends the server and all connections to it. Requests under way may or may
// not take effect. If it returns nil, nothing of the server is left running, and
// the directory is free. If the engine is still busy after ten seconds, Close
// returns an error and leaves it behind. Further calls return the same.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.front.close()
		s.stop()
		timeout := time.NewTimer(closeTimeout)
		defer timeout.Stop()
		select {
		case <-s.stopped:
			s.closeErr = s.unlockErr
		case <-timeout.C:
			s.closeErr = errors.New("embeddeddb: the engine is still busy")
		}
		s.closeErr = errors.Join(s.closeErr, os.RemoveAll(s.socketDir))
	})
	return s.closeErr
}

// prepareDir creates dir and returns its absolute path with slashes, as the
// engine needs it.
func prepareDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	// The engine puts the name into a URI, without escaping it, and into a glob pattern.
	if i := strings.IndexAny(filepath.ToSlash(dir), `?#%*[\`); i >= 0 {
		return "", fmt.Errorf("directory %q: the engine cannot use a name with %q", dir, filepath.ToSlash(dir)[i])
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.ToSlash(dir), nil
}

// fileURL returns the SQLite URI of a path with slashes.
func fileURL(path, query string) string {
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query}).String()
}
