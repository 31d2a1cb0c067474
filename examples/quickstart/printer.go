package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// printer writes what the demo has to say; in colour where that is a terminal. It is
// safe for concurrent use.
type printer struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
}

// newPrinter respects https://no-color.org.
func newPrinter(out io.Writer, lookup func(string) (string, bool)) *printer {
	p := &printer{out: out}
	noColour, _ := lookup("NO_COLOR")
	term, _ := lookup("TERM") // Windows sets none
	if f, ok := out.(*os.File); ok && noColour == "" && term != "" && term != "dumb" {
		info, err := f.Stat()
		p.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
)

func (p *printer) paint(colour, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (p *printer) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
}

func (p *printer) title(format string, args ...any) {
	p.printf("\n%s", p.paint(bold, fmt.Sprintf(format, args...)))
}

func (p *printer) say(format string, args ...any) { p.printf("   "+format, args...) }

// check prints a statement with a tick, or with a cross.
func (p *printer) check(ok bool, format string, args ...any) {
	mark := p.paint(green, "✓")
	if !ok {
		mark = p.paint(red, "✗ DID NOT HOLD:")
	}
	p.printf("   %s %s", mark, fmt.Sprintf(format, args...))
}

// record prints a record as the database holds it.
func (p *printer) record(doc bson.Raw) {
	for _, line := range layOut(doc) {
		p.printf("     %s", p.paint(dim, line))
	}
}

// layOut returns a document as relaxed Extended JSON, several fields to a line.
func layOut(doc bson.Raw) []string {
	const width = 100
	elements, err := doc.Elements()
	if err != nil {
		return []string{"not a document: " + err.Error()}
	}
	line := "{ "
	var lines []string
	for i, e := range elements {
		field, err := bson.MarshalExtJSON(bson.D{{Key: e.Key(), Value: e.Value()}}, false, false)
		if err != nil {
			return []string{"not a document: " + err.Error()}
		}
		text := string(field[1 : len(field)-1]) // without the braces
		if i < len(elements)-1 {
			text += ", "
		}
		if n := utf8.RuneCountInString(line + text); n > width && strings.TrimSpace(line) != "{" {
			lines = append(lines, strings.TrimRight(line, " "))
			line = "  "
		}
		line += text
	}
	return append(lines, line+" }")
}
