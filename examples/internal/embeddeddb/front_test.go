package embeddeddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"
)

const (
	testConnections = 64
	sectionStart    = headerLen + flagsLen
)

// newTestFront starts a front with a fake engine. answer gets a whole message and returns the reply.
// It returns nil to send none.
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
	// It only bounds a test that fails: a busy machine needs far less.
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// message makes an OP_MSG.
func message(t testing.TB, id int32, doc any) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := writeMessage(&buf, id, 0, doc); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func withFlags(msg []byte, flags wiremessage.MsgFlag) []byte {
	msg = slices.Clone(msg)
	wiremessage.AppendMsgFlags(msg[:headerLen], flags)
	return msg
}

func withLength(msg []byte, n int) []byte {
	msg = slices.Clone(msg)
	binary.LittleEndian.PutUint32(msg, uint32(n))
	return msg
}

// echo replies with ok, as the reply to the request's id.
func echo(t testing.TB) func([]byte) []byte {
	ok := message(t, 0, bson.D{{Key: "ok", Value: 1.0}})
	return func(msg []byte) []byte {
		reply := slices.Clone(ok)
		copy(reply[8:12], msg[4:8])
		return reply
	}
}

// roundTripID sends msg and returns the id that the reply answers.
func roundTripID(conn net.Conn, msg []byte) (responseTo int32, err error) {
	if _, err := conn.Write(msg); err != nil {
		return 0, err
	}
	var buf bytes.Buffer
	if err := readMessage(conn, &buf); err != nil {
		return 0, err
	}
	_, _, responseTo, _, _, _ = wiremessage.ReadHeader(buf.Bytes())
	return responseTo, nil
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
	for c := range int32(32) {
		conn := f.dial(t)
		msgs := [][]byte{}
		for i := range int32(50) {
			msgs = append(msgs, message(t, c<<16|i, ping))
		}
		wg.Go(func() {
			for i, msg := range msgs {
				if id, err := roundTripID(conn, msg); err != nil || id != c<<16|int32(i) {
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

func TestNoReplyIfNoneIsWanted(t *testing.T) {
	t.Parallel()
	reply := echo(t)
	f := newTestFront(t, reply)
	conn := f.dial(t)
	for id := int32(0); id < 20; id += 2 {
		if _, err := conn.Write(withFlags(message(t, id, ping), wiremessage.MoreToCome)); err != nil {
			t.Fatal(err)
		}
		if got, err := roundTripID(conn, message(t, id+1, ping)); err != nil || got != id+1 {
			t.Fatalf("got the reply to %d, %v; want the reply to %d", got, err, id+1)
		}
	}
}

func TestEngineGetsNoFlagsAndNoChecksum(t *testing.T) {
	t.Parallel()
	got := make(chan []byte, 1)
	reply := echo(t)
	f := newTestFront(t, func(msg []byte) []byte {
		got <- slices.Clone(msg)
		return reply(msg)
	})
	plain := message(t, 7, ping)
	sent := withFlags(append(slices.Clone(plain), 1, 2, 3, 4), wiremessage.ChecksumPresent|wiremessage.ExhaustAllowed)
	if _, err := roundTripID(f.dial(t), withLength(sent, len(sent))); err != nil {
		t.Fatal(err)
	}
	if got := <-got; !bytes.Equal(got, plain) {
		t.Errorf("the engine got\n%q, want\n%q", got, plain)
	}
}

func TestMalformedMessageEndsTheConnection(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	reply := echo(t)
	f := newTestFront(t, func(msg []byte) []byte {
		reached.Add(1)
		return reply(msg)
	})
	good := message(t, 1, ping)
	withOpcode := func(opcode wiremessage.OpCode) []byte {
		msg := slices.Clone(good)
		binary.LittleEndian.PutUint32(msg[12:], uint32(opcode))
		return msg
	}
	withKind := func(kind wiremessage.SectionType) []byte {
		msg := slices.Clone(good)
		msg[sectionStart] = byte(kind)
		return msg
	}
	for name, msg := range map[string][]byte{
		"length 0":                withLength(good, 0),
		"length of half a header": withLength(good, headerLen-1),
		"negative length":         withLength(good, -1),
		"too long":                withLength(good, maxMessageLen+1),
		"HTTP":                    []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":                     append([]byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3}, make([]byte, 32)...),
		"OP_COMPRESSED":           withOpcode(wiremessage.OpCompressed),
		"OP_INSERT":               withOpcode(wiremessage.OpInsert),
		"no flags":                withLength(good[:headerLen], headerLen),
		"no section":              withLength(good[:sectionStart], sectionStart),
		"checksum missing":        withFlags(withLength(good[:sectionStart], sectionStart), wiremessage.ChecksumPresent),
		"document cut short":      withLength(good[:len(good)-1], len(good)-1),
		"unknown section":         withKind(2),
		"sequence for a body":     withKind(wiremessage.DocumentSequence),
		"two bodies":              withLength(append(slices.Clone(good), good[sectionStart:]...), 2*len(good)-sectionStart),
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

// The engine never answers one request. A getMore and requests of other databases pass it, the others
// wait, and close still ends everything.
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
	if _, err := f.dial(t).Write(message(t, 1, bson.D{{Key: "find", Value: "c"}, {Key: "$db", Value: "admin"}})); err != nil {
		t.Fatal(err)
	}
	<-stuck
	waiting := f.dial(t)
	if _, err := waiting.Write(message(t, 2, ping)); err != nil {
		t.Fatal(err)
	}
	if _, err := roundTripID(f.dial(t), message(t, 3, bson.D{{Key: "getMore", Value: int64(1)}, {Key: "$db", Value: "admin"}})); err != nil {
		t.Errorf("getMore: %v", err)
	}
	if _, err := roundTripID(f.dial(t), message(t, 4, bson.D{{Key: "count", Value: "c"}, {Key: "$db", Value: "other"}})); err != nil {
		t.Errorf("a request of another database: %v", err)
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

// updateCommand is an update command as the engine gets it.
type updateCommand struct {
	Update  string   `bson:"update"`
	Ordered *bool    `bson:"ordered"`
	DB      string   `bson:"$db"`
	Updates []bson.D `bson:"updates"`
}

// updateEngine matches one document in each message, and records the statements that it gets.
func updateEngine(t *testing.T, got *[]bson.D) func(msg []byte) []byte {
	return func(msg []byte) []byte {
		_, body, err := parseReply(msg)
		if err != nil {
			t.Error(err)
		}
		var command updateCommand
		if err := bson.Unmarshal(body, &command); err != nil {
			t.Error(err)
		}
		if command.Update != "c" || command.DB != "test" || command.Ordered == nil || *command.Ordered {
			t.Errorf("command %v", body)
		}
		if len(command.Updates) != 1 {
			t.Errorf("%d statements in one message, want 1", len(command.Updates))
		}
		*got = append(*got, command.Updates...)
		return message(t, 9, bson.D{{Key: "n", Value: 1}, {Key: "nModified", Value: 1}, {Key: "ok", Value: 1.0}})
	}
}

// updateMessages sends the same two statements in each way that the protocol allows: in the
// command, and in a sequence after or before it.
func updateMessages(t *testing.T, statements []bson.D) map[string][]byte {
	t.Helper()
	command := bson.D{{Key: "update", Value: "c"}, {Key: "ordered", Value: false}, {Key: "$db", Value: "test"}}
	sequence := []byte("updates\x00")
	for _, s := range statements {
		doc, err := bson.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		sequence = append(sequence, doc...)
	}
	section := binary.LittleEndian.AppendUint32([]byte{byte(wiremessage.DocumentSequence)}, uint32(4+len(sequence)))
	section = append(section, sequence...)
	plain := message(t, 5, command)
	start, body := plain[:sectionStart], plain[sectionStart:]
	length := len(plain) + len(section)
	return map[string][]byte{
		"inside": message(t, 5, append(command, bson.E{Key: "updates", Value: statements})),
		"after":  withLength(slices.Concat(start, body, section), length),
		"before": withLength(slices.Concat(start, section, body), length),
	}
}

func TestUpdateStatements(t *testing.T) {
	t.Parallel()
	statement := func(id int32) bson.D { return bson.D{{Key: "q", Value: bson.D{{Key: "_id", Value: id}}}} }
	want := []bson.D{statement(1), statement(2)}
	for name, msg := range updateMessages(t, want) {
		t.Run(name, func(t *testing.T) {
			var got []bson.D
			conn := newTestFront(t, updateEngine(t, &got)).dial(t)
			if _, err := conn.Write(msg); err != nil {
				t.Fatal(err)
			}
			var reply bytes.Buffer
			if err := readMessage(conn, &reply); err != nil {
				t.Fatal(err)
			}
			if _, _, responseTo, _, _, _ := wiremessage.ReadHeader(reply.Bytes()); responseTo != 5 {
				t.Errorf("reply to %d, want 5", responseTo)
			}
			_, body, err := parseReply(reply.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if n := body.Lookup("n").Int32(); n != 2 {
				t.Errorf("n is %d, want 2", n)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the engine got the statements %v, want %v", got, want)
			}
		})
	}
}

// statementOfFourBytes makes an update command whose one statement claims a length of 4 bytes, too
// short for a document. A fuzz run found that the driver's DocumentOK accepts it.
func statementOfFourBytes(t testing.TB) []byte {
	t.Helper()
	short := bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: []byte{4, 0, 0, 0}}
	return message(t, 1, bson.D{{Key: "update", Value: "c"}, {Key: "updates", Value: bson.A{short}}})
}

func FuzzParseRequest(f *testing.F) {
	f.Add(message(f, 1, ping))
	f.Add(withFlags(message(f, 1, ping), wiremessage.ChecksumPresent|wiremessage.MoreToCome))
	statements := bson.A{bson.D{{Key: "q", Value: 1}}}
	f.Add(message(f, 1, bson.D{{Key: "update", Value: "c"}, {Key: "updates", Value: statements}}))
	f.Add(statementOfFourBytes(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		req, err := parseRequest(raw)
		if err != nil {
			return
		}
		_, _, _, opcode, _, _ := wiremessage.ReadHeader(raw)
		if opcode == wiremessage.OpMsg && req.command == "" && len(req.body) == 0 {
			t.Error("OP_MSG without a command")
		}
		for _, u := range req.updates {
			if len(u) < minDocumentLen {
				t.Errorf("statement of %d bytes", len(u))
			}
		}
	})
}
