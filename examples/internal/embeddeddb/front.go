package embeddeddb

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"net"
	"sync"
	"time"
)

const (
	maxConnections = 1000
	keepBuffer     = 1 << 20 // bytes; a connection releases a larger buffer after use
	queues         = 16      // databases share one if their names have the same hash
)

// front is between the clients and the engine. Each client connection has one
// connection to the engine. A message waits for its turn before it is sent
// there, so that the engine handles one message to a database at a time.
type front struct {
	listener net.Listener
	socket   string                // the engine's
	turns    [queues]chan struct{} // each holds a token while the engine handles a message of that queue
	slots    chan struct{}         // holds a token for each connection
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

func startFront(listener net.Listener, socket string, connections int) *front {
	ctx, cancel := context.WithCancel(context.Background())
	f := &front{
		listener: listener,
		socket:   socket,
		slots:    make(chan struct{}, connections),
		ctx:      ctx,
		cancel:   cancel,
	}
	for i := range f.turns {
		f.turns[i] = make(chan struct{}, 1)
	}
	f.wg.Go(f.accept)
	return f
}

// close ends all connections and waits for the front's goroutines. It does not
// wait for the engine.
func (f *front) close() {
	f.cancel()
	_ = f.listener.Close()
	f.wg.Wait()
}

func (f *front) accept() {
	for {
		client, err := f.listener.Accept()
		switch {
		case f.ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if err == nil {
				_ = client.Close()
			}
			return
		case err != nil: // typically out of file descriptors
			select {
			case <-time.After(50 * time.Millisecond):
			case <-f.ctx.Done():
			}
			continue
		}
		select {
		case f.slots <- struct{}{}:
			f.wg.Go(func() {
				defer func() { <-f.slots }()
				f.serve(client)
			})
		default:
			_ = client.Close()
		}
	}
}

// serve forwards messages until either side ends the connection, a message is
// malformed, or the front closes.
func (f *front) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	engine, err := (&net.Dialer{}).DialContext(f.ctx, "unix", f.socket)
	if err != nil {
		return
	}
	defer func() { _ = engine.Close() }()
	defer context.AfterFunc(f.ctx, func() {
		_ = client.Close()
		_ = engine.Close()
	})()

	requests, replies := newBufferedConn(client), newBufferedConn(engine)
	var in, out bytes.Buffer
	for {
		if err := readMessage(requests, &in); err != nil {
			return
		}
		req, err := parseRequest(in.Bytes())
		if err != nil {
			return
		}
		if err := f.handle(replies, req, &out); err != nil {
			return
		}
		if !req.noReply {
			if _, err := client.Write(out.Bytes()); err != nil {
				return
			}
		}
		if in.Cap() > keepBuffer {
			in = bytes.Buffer{}
		}
		if out.Cap() > keepBuffer {
			out = bytes.Buffer{}
		}
	}
}

// bufferedConn reads ahead, so that a message takes one read.
type bufferedConn struct {
	net.Conn
	buffer *bufio.Reader
}

func newBufferedConn(c net.Conn) net.Conn { return bufferedConn{c, bufio.NewReader(c)} }

func (c bufferedConn) Read(b []byte) (int, error) { return c.buffer.Read(b) }

// handle puts the reply to req into out.
func (f *front) handle(engine net.Conn, req *request, out *bytes.Buffer) error {
	switch {
	case req.command == "update" && len(req.updates) > 0:
		return f.update(engine, req, out)
	case req.command == "getMore":
		// On a tailable cursor it waits for other clients' writes, so it must not hold the turn. It
		// only reads.
		return roundTrip(engine, req.raw, out)
	default:
		err := f.exchange(engine, req, req.raw, out)
		if err == nil && req.command == "createIndexes" && bytes.Contains(out.Bytes(), []byte(indexExists)) {
			err = f.exchange(engine, req, req.raw, out)
		}
		if err != nil {
			return err
		}
		return correctDuplicateKey(req, out)
	}
}

// indexExists is SQLite's message if a new index has the name of another. The engine compares names
// itself, so this one was dropped, and the connection to SQLite that got the statement did not know. Now
// it does.
const indexExists = "already exists (1)"

// exchange waits for the turn of req, whose message or a part of it is msg. Then it does a
// roundTrip.
func (f *front) exchange(engine net.Conn, req *request, msg []byte, out *bytes.Buffer) error {
	turn := f.turns[queueOf(req)]
	select {
	case turn <- struct{}{}:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	defer func() { <-turn }()
	return roundTrip(engine, msg, out)
}

// queueOf returns the queue of the database that a request is for.
func queueOf(req *request) int {
	db, _ := req.body.Lookup("$db").StringValueOK()
	return int(crc32.ChecksumIEEE([]byte(db)) % queues)
}

// roundTrip sends msg to the engine and puts the reply into out.
func roundTrip(engine net.Conn, msg []byte, out *bytes.Buffer) error {
	if _, err := engine.Write(msg); err != nil {
		return err
	}
	return readMessage(engine, out)
}
