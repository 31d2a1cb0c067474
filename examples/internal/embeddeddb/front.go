package embeddeddb

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	maxConnections = 1000
	keepBuffer     = 1 << 20 // a connection gives a larger buffer back after use
)

// front stands between the clients and the engine. Each client's connection
// has one to the engine, and a message waits for its turn before it goes there:
// between a message and its reply the engine does nothing else.
type front struct {
	listener net.Listener
	socket   string        // of the engine
	turn     chan struct{} // holds a token while the engine is at work
	slots    chan struct{} // holds a token for each connection
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

func startFront(listener net.Listener, socket string, connections int) *front {
	ctx, cancel := context.WithCancel(context.Background())
	f := &front{
		listener: listener,
		socket:   socket,
		turn:     make(chan struct{}, 1),
		slots:    make(chan struct{}, connections),
		ctx:      ctx,
		cancel:   cancel,
	}
	f.wg.Go(f.accept)
	return f
}

// close ends all connections, to the clients and to the engine, and waits for
// the goroutines. It does not wait for the engine.
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
		case err != nil: // out of file descriptors, typically
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

// serve carries messages until either side ends the connection, sends
// something that is no message, or the front closes.
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

	var in, out bytes.Buffer
	for {
		if err := readMessage(client, &in); err != nil {
			return
		}
		req, err := parseRequest(in.Bytes())
		if err != nil {
			return
		}
		if err := f.handle(engine, req, &out); err != nil {
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

// handle leaves the reply to req in out.
func (f *front) handle(engine net.Conn, req *request, out *bytes.Buffer) error {
	switch {
	case req.command == "update" && len(req.updates) > 0:
		return f.update(engine, req, out)
	case req.command == "getMore":
		// It only reads, and on a tailable cursor it waits for other clients' writes: it must not hold the turn.
		return roundTrip(engine, req.raw, out)
	default:
		if err := f.exchange(engine, req.raw, out); err != nil {
			return err
		}
		return correctDuplicateKey(req, out)
	}
}

// exchange is roundTrip in its turn.
func (f *front) exchange(engine net.Conn, msg []byte, out *bytes.Buffer) error {
	select {
	case f.turn <- struct{}{}:
	case <-f.ctx.Done():
		return f.ctx.Err()
	}
	defer func() { <-f.turn }()
	return roundTrip(engine, msg, out)
}

// roundTrip sends msg to the engine and leaves its reply in out.
func roundTrip(engine net.Conn, msg []byte, out *bytes.Buffer) error {
	if _, err := engine.Write(msg); err != nil {
		return err
	}
	return readMessage(engine, out)
}
