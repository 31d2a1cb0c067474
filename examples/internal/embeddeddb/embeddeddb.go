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
