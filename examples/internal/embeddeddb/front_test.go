package embeddeddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

const testConnections = 64

// newTestFront puts a front before an engine that answers as the test says.
// answer gets a whole message; where it returns nil, there is no reply.
func newTestFront(t *testing.T, answer func(msg []byte) []byte) *front {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	engine, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := engine.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				var buf bytes.Buffer
				for readMessage(conn, &buf) == nil {
					if reply := answer(buf.Bytes()); reply != nil {
						if _, err := conn.Write(reply); err != nil {
							return
						}
					}
				}
			})
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := startFront(listener, socket, testConnections)
	t.Cleanup(func() {
		f.close()
		_ = engine.Close()
		wg.Wait()
	})
	return f
}

func (f *front) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", f.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// message makes an OP_MSG.
func message(t testing.TB, id uint32, doc any) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := writeMessage(&buf, id, 0, doc); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func withFlags(msg []byte, flags uint32) []byte {
	msg = slices.Clone(msg)
	binary.LittleEndian.PutUint32(msg[headerLen:], flags)
	return msg
}

func withLength(msg []byte, n int) []byte {
	msg = slices.Clone(msg)
	binary.LittleEndian.PutUint32(msg, uint32(n))
	return msg
}

// echo replies with ok and the request's id.
func echo(t testing.TB) func([]byte) []byte {
	ok := message(t, 0, bson.D{{Key: "ok", Value: 1.0}})
	return func(msg []byte) []byte {
		reply := slices.Clone(ok)
		copy(reply[8:12], msg[4:8])
		return reply
	}
}

func roundTripID(conn net.Conn, msg []byte) (responseTo uint32, err error) {
	if _, err := conn.Write(msg); err != nil {
		return 0, err
	}
	var buf bytes.Buffer
	if err := readMessage(conn, &buf); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(buf.Bytes()[8:]), nil
}

var ping = bson.D{{Key: "ping", Value: 1}, {Key: "$db", Value: "admin"}}

func TestOneMessageAtATime(t *testing.T) {
	t.Parallel()
	var inside, most atomic.Int64
	reply := echo(t)
	f := newTestFront(t, func(msg []byte) []byte {
		if n := inside.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer inside.Add(-1)
		return reply(msg)
	})
	var wg sync.WaitGroup
	for c := range uint32(32) {
		conn := f.dial(t)
		msgs := [][]byte{}
		for i := range uint32(50) {
			msgs = append(msgs, message(t, c<<16|i, ping))
		}
		wg.Go(func() {
			for i, msg := range msgs {
				if id, err := roundTripID(conn, msg); err != nil || id != c<<16|uint32(i) {
					t.Errorf("reply to %d: %v", id, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := most.Load(); got != 1 {
		t.Errorf("%d messages in the engine at once", got)
	}
}

func TestNoReplyWhereNoneIsWanted(t *testing.T) {
	t.Parallel()
	reply := echo(t)
	f := newTestFront(t, reply)
	conn := f.dial(t)
	for id := uint32(0); id < 20; id += 2 {
		if _, err := conn.Write(withFlags(message(t, id, ping), flagMoreToCome)); err != nil {
			t.Fatal(err)
		}
		if got, err := roundTripID(conn, message(t, id+1, ping)); err != nil || got != id+1 {
			t.Fatalf("got the reply to %d, %v; want that to %d", got, err, id+1)
		}
	}
}

func TestFlagsAndChecksumStayBehind(t *testing.T) {
	t.Parallel()
	got := make(chan []byte, 1)
	reply := echo(t)
	f := newTestFront(t, func(msg []byte) []byte {
		got <- slices.Clone(msg)
		return reply(msg)
	})
	plain := message(t, 7, ping)
	sent := withFlags(append(slices.Clone(plain), 1, 2, 3, 4), flagChecksumPresent|flagExhaustAllowed)
	if _, err := roundTripID(f.dial(t), withLength(sent, len(sent))); err != nil {
		t.Fatal(err)
	}
	if got := <-got; !bytes.Equal(got, plain) {
		t.Errorf("the engine got\n%q, want\n%q", got, plain)
	}
}

func TestNonsenseEndsTheConnection(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	reply := echo(t)
	f := newTestFront(t, func(msg []byte) []byte {
		reached.Add(1)
		return reply(msg)
	})
	good := message(t, 1, ping)
	withOpcode := func(op uint32) []byte {
		msg := slices.Clone(good)
		binary.LittleEndian.PutUint32(msg[12:], op)
		return msg
	}
	withKind := func(kind byte) []byte {
		msg := slices.Clone(good)
		msg[headerLen+4] = kind
		return msg
	}
	for name, msg := range map[string][]byte{
		"length 0":                withLength(good, 0),
		"length of half a header": withLength(good, headerLen-1),
		"negative length":         withLength(good, -1),
		"too long":                withLength(good, maxMessageLen+1),
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":                     append([]byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3}, make([]byte, 32)...),
		"OP_COMPRESSED":           withOpcode(2012),
		"OP_INSERT":               withOpcode(2002),
		"no flags":                withLength(good[:headerLen], headerLen),
		"no section":              withLength(good[:headerLen+4], headerLen+4),
		"checksum missing":        withFlags(withLength(good[:headerLen+4], headerLen+4), flagChecksumPresent),
		"document cut short":      withLength(good[:len(good)-1], len(good)-1),
		"unknown section":         withKind(2),
		"sequence for a body":     withKind(sectionSequence),
		"two bodies":              withLength(append(slices.Clone(good), good[headerLen+4:]...), 2*len(good)-headerLen-4),
		"empty command":           message(t, 1, bson.D{}),
		"statement of four bytes": statementOfFourBytes(t),
		"updates of no documents": message(t, 1, bson.D{{Key: "update", Value: "c"}, {Key: "updates", Value: bson.A{1, 2}}}),
	} {
		t.Run(name, func(t *testing.T) {
			conn := f.dial(t)
			if _, err := conn.Write(msg); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d bytes, %v; want the end of the connection", n, err)
			}
		})
	}
	if _, err := roundTripID(f.dial(t), good); err != nil {
		t.Errorf("a good message afterwards: %v", err)
	}
	if got := reached.Load(); got != 1 {
		t.Errorf("%d messages reached the engine, want the good one", got)
	}
}

// TestStuckEngine has one request that is never answered: getMore passes it,
// the others wait, and close still ends everything.
func TestStuckEngine(t *testing.T) {
	t.Parallel()
	stuck := make(chan struct{})
	reply := echo(t)
	var pings atomic.Int64
	f := newTestFront(t, func(msg []byte) []byte {
		req, err := parseRequest(msg)
		if err != nil {
			t.Error(err)
			return nil
		}
		switch req.command {
		case "find":
			close(stuck)
			return nil
		case "ping":
			pings.Add(1)
		}
		return reply(msg)
	})
	if _, err := f.dial(t).Write(message(t, 1, bson.D{{Key: "find", Value: "c"}})); err != nil {
		t.Fatal(err)
	}
	<-stuck
	waiting := f.dial(t)
	if _, err := waiting.Write(message(t, 2, ping)); err != nil {
		t.Fatal(err)
	}
	if _, err := roundTripID(f.dial(t), message(t, 3, bson.D{{Key: "getMore", Value: int64(1)}})); err != nil {
		t.Errorf("getMore: %v", err)
	}
	f.close()
	if n, err := waiting.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a waiting client got a reply")
	}
	if pings.Load() != 0 {
		t.Error("a message reached the engine out of its turn")
	}
}

func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	f := newTestFront(t, echo(t))
	var conns []net.Conn
	for range testConnections {
		conn := f.dial(t)
		conns = append(conns, conn)
		if _, err := roundTripID(conn, message(t, 1, ping)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := roundTripID(f.dial(t), message(t, 1, ping)); err == nil {
		t.Error("no limit")
	}
	if _, err := roundTripID(conns[0], message(t, 1, ping)); err != nil {
		t.Errorf("earlier connection: %v", err)
	}
}

// TestUpdateStatements checks that both ways to send statements are taken
// apart: in the command, and in a sequence beside it.
func TestUpdateStatements(t *testing.T) {
	t.Parallel()
	statements := []bson.D{{{Key: "q", Value: bson.D{{Key: "_id", Value: int32(1)}}}}, {{Key: "q", Value: bson.D{{Key: "_id", Value: int32(2)}}}}}
	command := bson.D{{Key: "update", Value: "c"}, {Key: "ordered", Value: false}, {Key: "$db", Value: "test"}}

	sequence := []byte("updates\x00")
	for _, s := range statements {
		doc, err := bson.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		sequence = append(sequence, doc...)
	}
	section := binary.LittleEndian.AppendUint32([]byte{sectionSequence}, uint32(4+len(sequence)))
	section = append(section, sequence...)
	beside := message(t, 5, command)
	before := slices.Concat(beside[:headerLen+4], section, beside[headerLen+4:])
	beside = append(beside, section...)
	for name, msg := range map[string][]byte{
		"inside":   message(t, 5, append(slices.Clone(command), bson.E{Key: "updates", Value: statements})),
		"beside":   withLength(beside, len(beside)),
		"in front": withLength(before, len(before)),
	} {
		t.Run(name, func(t *testing.T) {
			var got []bson.D
			f := newTestFront(t, func(msg []byte) []byte {
				body, err := replyBody(msg)
				if err != nil {
					t.Error(err)
				}
				var doc struct {
					Update  string   `bson:"update"`
					Ordered *bool    `bson:"ordered"`
					DB      string   `bson:"$db"`
					Updates []bson.D `bson:"updates"`
				}
				if err := bson.Unmarshal(body, &doc); err != nil {
					t.Error(err)
				}
				if doc.Update != "c" || doc.DB != "test" || doc.Ordered == nil || *doc.Ordered {
					t.Errorf("command %v", body)
				}
				got = append(got, doc.Updates...)
				return message(t, 9, bson.D{{Key: "n", Value: 1}, {Key: "nModified", Value: 1}, {Key: "ok", Value: 1.0}})
			})
			conn := f.dial(t)
			if _, err := conn.Write(msg); err != nil {
				t.Fatal(err)
			}
			var buf bytes.Buffer
			if err := readMessage(conn, &buf); err != nil {
				t.Fatal(err)
			}
			if id := binary.LittleEndian.Uint32(buf.Bytes()[8:]); id != 5 {
				t.Errorf("reply to %d", id)
			}
			body, err := replyBody(buf.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if n := body.Lookup("n").Int32(); n != 2 {
				t.Errorf("n is %d", n)
			}
			if len(got) != 2 || got[0][0].Value.(bson.D)[0].Value != int32(1) || got[1][0].Value.(bson.D)[0].Value != int32(2) {
				t.Errorf("statements %v", got)
			}
		})
	}
}

// statementOfFourBytes makes an update command whose one statement claims a length of 4 bytes, too short for a document.
// A fuzz run found that the driver's DocumentOK accepts it.
func statementOfFourBytes(t testing.TB) []byte {
	t.Helper()
	short := bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: []byte{4, 0, 0, 0}}
	return message(t, 1, bson.D{{Key: "update", Value: "c"}, {Key: "updates", Value: bson.A{short}}})
}

func FuzzParseRequest(f *testing.F) {
	f.Add(message(f, 1, ping))
	f.Add(withFlags(message(f, 1, ping), flagChecksumPresent|flagMoreToCome))
	f.Add(message(f, 1, bson.D{{Key: "update", Value: "c"}, {Key: "updates", Value: bson.A{bson.D{{Key: "q", Value: 1}}}}}))
	f.Add(statementOfFourBytes(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) < headerLen {
			return // readMessage gives whole headers
		}
		req, err := parseRequest(raw)
		if err != nil {
			return
		}
		if binary.LittleEndian.Uint32(raw[12:]) == opMsg && req.command == "" && len(req.body) == 0 {
			t.Error("OP_MSG without a command")
		}
		for _, u := range req.updates {
			if len(u) < 5 {
				t.Errorf("statement of %d bytes", len(u))
			}
		}
	})
}
