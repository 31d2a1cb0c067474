package mongostore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"
)

// front is between a client and the server. It plays a deployment of any kind: the client
// dials hosts that do not exist, and gets the server's answers as if they came from there.
// A script can replace, change or lose the answers.
type front struct {
	net.Dialer
	server string   // the real one's address
	hosts  []string // those of the deployment

	mu      sync.Mutex
	kind    deployment
	primary string                                   // one of hosts
	script  func(host string, cmd bson.Raw) reaction // nil passes everything on
	seen    []bson.Raw                               // all commands but hello
}

// deployment is what the answer to hello says about a deployment.
type deployment struct {
	set     bson.D
	unset   []string
	replica bool // hello names the hosts and the primary
}

// The fields are those of https://www.mongodb.com/docs/manual/reference/command/hello/.
var (
	sessions   = bson.E{Key: "logicalSessionTimeoutMinutes", Value: 30}
	replicaSet = deployment{set: bson.D{sessions}, replica: true}
	standalone = deployment{set: bson.D{sessions}}
	mongos     = deployment{set: bson.D{sessions, {Key: "msg", Value: "isdbgrid"}}}
	// mongodb44 has wire version 9, and may not know the command hello.
	mongodb44 = deployment{
		set:   bson.D{sessions, {Key: "minWireVersion", Value: 0}, {Key: "maxWireVersion", Value: 9}},
		unset: []string{"helloOk"}, replica: true,
	}
)

// reaction is what happens to one command.
type reaction struct {
	answer bson.D // instead of the server's; the server does not get the command
	add    bson.D // to the server's answer
	lost   bool   // the connection ends before the answer; without answer, the server executes the command
	// refuse returns an error code for a statement of the command that the server does not
	// get; 0 for the others. A statement is an element of updates or of documents.
	refuse func(statement bson.Raw) int
}

// The connection ends before the server gets the command, or after it has executed it.
var (
	lostRequest = reaction{lost: true, answer: bson.D{}}
	lostAnswer  = reaction{lost: true}
)

// failed answers a command with an error of the whole command.
func failed(code int, labels ...string) reaction {
	answer := bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: code}, {Key: "errmsg", Value: "of ada@example.com"}}
	if labels != nil {
		answer = append(answer, bson.E{Key: "errorLabels", Value: labels})
	}
	return reaction{answer: answer}
}

// refused answers a command with an error of its first write.
func refused(code int) reaction {
	return reaction{answer: bson.D{{Key: "ok", Value: 1.0}, {Key: "n", Value: 0}, {Key: "writeErrors", Value: bson.A{
		bson.D{{Key: "index", Value: 0}, {Key: "code", Value: code}, {Key: "errmsg", Value: "of ada@example.com"}},
	}}}}
}

// newFront returns coll on a client of a deployment of this kind. The server must be one
// that is reached without TLS.
func newFront(t testing.TB, coll *mongo.Collection, kind deployment, set func(*options.ClientOptions)) (*mongo.Collection, *front) {
	t.Helper()
	f := &front{server: options.Client().ApplyURI(uri).Hosts[0], kind: kind, hosts: []string{"one.test:27017"}}
	if kind.replica {
		f.hosts = append(f.hosts, "two.test:27017")
	}
	f.primary = f.hosts[0]
	client := newClient(t, func(o *options.ClientOptions) {
		o.SetHosts(f.hosts).SetDialer(f)
		if set != nil {
			set(o)
		}
	})
	return client.Database(coll.Database().Name()).Collection(coll.Name()), f
}

// play replaces the script. It also forgets the commands seen so far.
func (f *front) play(script func(host string, cmd bson.Raw) reaction) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.script, f.seen = script, nil
}

// commands returns the commands seen since the last play.
func (f *front) commands() []bson.Raw {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.seen)
}

// elect makes another host the primary. Scripts call it, which run under the lock.
func (f *front) elect() {
	next := slices.Index(f.hosts, f.primary) + 1
	f.primary = f.hosts[next%len(f.hosts)]
}

func (f *front) react(host string, cmd bson.Raw) reaction {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, slices.Clone(cmd))
	if f.script == nil {
		return reaction{}
	}
	return f.script(host, cmd)
}

// hello changes the server's answer into that of host.
func (f *front) hello(host string, answer bson.D) bson.D {
	f.mu.Lock()
	defer f.mu.Unlock()
	add := slices.Clone(f.kind.set)
	drop := append([]string{"setName", "hosts", "me", "primary", "msg", "topologyVersion", "electionId", "setVersion"}, f.kind.unset...)
	if f.kind.replica {
		isPrimary := host == f.primary
		add = append(add,
			bson.E{Key: "setName", Value: "rs"}, bson.E{Key: "hosts", Value: f.hosts}, bson.E{Key: "me", Value: host},
			bson.E{Key: "primary", Value: f.primary}, bson.E{Key: "secondary", Value: !isPrimary},
			bson.E{Key: "ismaster", Value: isPrimary}, bson.E{Key: "isWritablePrimary", Value: isPrimary})
	}
	return replace(answer, drop, add)
}

// replace removes fields and adds others, in place of those of the same name.
func replace(doc bson.D, drop []string, add bson.D) bson.D {
	for _, e := range add {
		drop = append(drop, e.Key)
	}
	doc = slices.DeleteFunc(doc, func(e bson.E) bool { return slices.Contains(drop, e.Key) })
	return append(doc, add...)
}

// DialContext implements options.Dialer.
func (f *front) DialContext(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := f.Dialer.DialContext(ctx, network, f.server)
	if err != nil {
		return nil, err
	}
	return &frontConn{Conn: conn, front: f, host: host}, nil
}

// frontConn is one connection of the client. The driver sends a message and waits for the
// answer, so at most one is under way.
type frontConn struct {
	net.Conn
	front *front
	host  string

	mu      sync.Mutex
	out     bytes.Buffer // of the client, not yet a whole message
	in      bytes.Buffer // for the client
	pending func(doc bson.D) bson.D
	lost    bool
}

const headerLen = 16

// Write implements net.Conn.
func (c *frontConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Write(p)
	for {
		length, _, _, _, _, ok := wiremessage.ReadHeader(c.out.Bytes())
		if !ok || c.out.Len() < int(length) {
			return len(p), nil
		}
		if err := c.request(slices.Clone(c.out.Next(int(length)))); err != nil {
			return 0, err
		}
	}
}

// request handles a message of the client.
func (c *frontConn) request(msg []byte) error {
	_, id, _, opcode, rest, _ := wiremessage.ReadHeader(msg)
	c.pending = nil
	if opcode != wiremessage.OpMsg { // the first hello
		c.pending = func(doc bson.D) bson.D { return c.front.hello(c.host, doc) }
		_, err := c.Conn.Write(msg)
		return err
	}
	cmd, sequences, err := parseMsg(rest)
	if err != nil {
		return err
	}
	switch name := cmd[0].Key; name {
	case "hello", "isMaster":
		c.pending = func(doc bson.D) bson.D { return c.front.hello(c.host, doc) }
	default:
		react := c.front.react(c.host, withSequences(cmd, sequences))
		switch {
		case react.lost && react.answer != nil:
			return c.Close()
		case react.answer != nil:
			c.in.Write(appendMsg(id, react.answer, nil))
			return nil
		}
		var refusals refusals
		if react.refuse != nil {
			if refusals = refuse(sequences, react.refuse); refusals.all {
				c.in.Write(appendMsg(id, refusals.in(bson.D{{Key: "ok", Value: 1.0}, {Key: "n", Value: 0}}), nil))
				return nil
			}
		}
		c.lost = react.lost
		c.pending = func(doc bson.D) bson.D { return replace(refusals.in(doc), nil, react.add) }
	}
	// The server may be of another kind, which does not take these.
	cmd = replace(cmd, []string{"lsid", "txnNumber", "$clusterTime", "topologyVersion", "maxAwaitTimeMS", "$readPreference"}, nil)
	forward := appendMsg(0, cmd, sequences)
	copy(forward[4:8], msg[4:8]) // the request's id
	_, err = c.Conn.Write(forward)
	return err
}

// Read implements net.Conn.
func (c *frontConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if c.in.Len() > 0 {
		defer c.mu.Unlock()
		return c.in.Read(p)
	}
	c.mu.Unlock()
	header := make([]byte, headerLen)
	if _, err := io.ReadFull(c.Conn, header); err != nil {
		return 0, err
	}
	length, _, responseTo, opcode, _, _ := wiremessage.ReadHeader(header)
	body := make([]byte, int(length)-headerLen)
	if _, err := io.ReadFull(c.Conn, body); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost {
		return 0, errors.Join(io.ErrUnexpectedEOF, c.Close())
	}
	c.answer(responseTo, opcode, body)
	return c.in.Read(p)
}

// answer gives the client a message of the server, changed.
func (c *frontConn) answer(responseTo int32, opcode wiremessage.OpCode, body []byte) {
	start := 4 + 1 // OP_MSG: flags, kind of section
	if opcode == wiremessage.OpReply {
		start = 20
	}
	var doc bson.D
	if err := bson.Unmarshal(body[start:], &doc); err != nil {
		panic(err)
	}
	if c.pending != nil {
		doc = c.pending(doc)
	}
	if opcode == wiremessage.OpMsg {
		c.in.Write(appendMsg(responseTo, doc, nil))
		return
	}
	raw, err := bson.Marshal(doc)
	if err != nil {
		panic(err)
	}
	at, msg := wiremessage.AppendHeaderStart(nil, 0, responseTo, opcode)
	msg = append(append(msg, body[:start]...), raw...)
	c.in.Write(bsoncore.UpdateLength(msg, at, int32(len(msg))))
}

// sequence is a section of an OP_MSG that holds an array of the command.
type sequence struct {
	name string
	docs []bsoncore.Document
}

// refusals are the statements that the server does not get.
type refusals struct {
	errs bson.A
	kept []int // the indexes of those that it gets
	all  bool  // it gets none
}

// refuse takes statements out of a command.
func refuse(sequences []sequence, code func(bson.Raw) int) (r refusals) {
	for i := range sequences {
		var kept []bsoncore.Document
		for n, doc := range sequences[i].docs {
			if code := code(bson.Raw(doc)); code != 0 {
				r.errs = append(r.errs, bson.D{{Key: "index", Value: n}, {Key: "code", Value: code}, {Key: "errmsg", Value: "of ada@example.com"}})
				continue
			}
			kept, r.kept = append(kept, doc), append(r.kept, n)
		}
		sequences[i].docs = kept
	}
	r.all = r.errs != nil && r.kept == nil
	return r
}

// in adds the refusals to the server's answer, and corrects its indexes.
func (r refusals) in(answer bson.D) bson.D {
	if r.errs == nil {
		return answer
	}
	errs := r.errs
	for _, e := range answer {
		list, _ := e.Value.(bson.A)
		if e.Key != "upserted" && e.Key != "writeErrors" {
			continue
		}
		for _, item := range list {
			index := &item.(bson.D)[0]
			for i := range item.(bson.D) {
				if item.(bson.D)[i].Key == "index" {
					index = &item.(bson.D)[i]
				}
			}
			index.Value = r.kept[index.Value.(int32)]
			if e.Key == "writeErrors" {
				errs = append(errs, item)
			}
		}
	}
	return replace(answer, nil, bson.D{{Key: "writeErrors", Value: errs}})
}

// parseMsg reads the sections of an OP_MSG. The client asks for no checksum.
func parseMsg(rest []byte) (cmd bson.D, sequences []sequence, err error) {
	for rest = rest[4:]; len(rest) > 0; {
		var kind wiremessage.SectionType
		kind, rest, _ = wiremessage.ReadMsgSectionType(rest)
		ok := false
		switch kind {
		case wiremessage.SingleDocument:
			var body bsoncore.Document
			if body, rest, ok = wiremessage.ReadMsgSectionSingleDocument(rest); ok {
				err = bson.Unmarshal(body, &cmd)
			}
		case wiremessage.DocumentSequence:
			var s sequence
			s.name, s.docs, rest, ok = wiremessage.ReadMsgSectionDocumentSequence(rest)
			sequences = append(sequences, s)
		}
		if !ok || err != nil {
			return nil, nil, fmt.Errorf("malformed section of kind %d: %w", kind, err)
		}
	}
	return cmd, sequences, nil
}

// withSequences returns the whole command, as the driver's monitor would show it.
func withSequences(cmd bson.D, sequences []sequence) bson.Raw {
	cmd = slices.Clone(cmd)
	for _, s := range sequences {
		array := bson.A{}
		for _, doc := range s.docs {
			array = append(array, bson.Raw(doc))
		}
		cmd = append(cmd, bson.E{Key: s.name, Value: array})
	}
	raw, err := bson.Marshal(cmd)
	if err != nil {
		panic(err)
	}
	return raw
}

func appendMsg(responseTo int32, doc bson.D, sequences []sequence) []byte {
	raw, err := bson.Marshal(doc)
	if err != nil {
		panic(err)
	}
	start, msg := wiremessage.AppendHeaderStart(nil, 0, responseTo, wiremessage.OpMsg)
	msg = wiremessage.AppendMsgFlags(msg, 0)
	msg = wiremessage.AppendMsgSectionType(msg, wiremessage.SingleDocument)
	msg = append(msg, raw...)
	for _, s := range sequences {
		var at int32
		msg = wiremessage.AppendMsgSectionType(msg, wiremessage.DocumentSequence)
		at, msg = bsoncore.ReserveLength(msg)
		msg = append(append(msg, s.name...), 0)
		for _, doc := range s.docs {
			msg = append(msg, doc...)
		}
		msg = bsoncore.UpdateLength(msg, at, int32(len(msg[at:])))
	}
	return bsoncore.UpdateLength(msg, start, int32(len(msg)))
}
