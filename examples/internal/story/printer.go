package story

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Printer writes the story, in colour if the output is a terminal. It is safe for concurrent use.
type Printer struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
}

// NewPrinter reads NO_COLOR and TERM with lookup. See https://no-color.org.
func NewPrinter(out io.Writer, lookup func(name string) (value string, ok bool)) *Printer {
	p := &Printer{out: out}
	noColour, _ := lookup("NO_COLOR")
	term, _ := lookup("TERM") // not set on Windows
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

func (p *Printer) paint(colour, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func (p *Printer) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
}

func (p *Printer) title(format string, args ...any) {
	p.printf("\n%s", p.paint(bold, fmt.Sprintf(format, args...)))
}

func (p *Printer) say(format string, args ...any) { p.printf("   "+format, args...) }

// check prints the result of a check, with a tick or a cross.
func (p *Printer) check(ok bool, format string, args ...any) {
	mark := p.paint(green, "✓")
	if !ok {
		mark = p.paint(red, "✗ FAILED:")
	}
	p.printf("   %s %s", mark, fmt.Sprintf(format, args...))
}

// record prints a record as it is in the database.
func (p *Printer) record(doc bson.Raw) {
	for _, line := range layOut(doc) {
		p.printf("     %s", p.paint(dim, line))
	}
}

// layOut returns a document as relaxed Extended JSON, in lines of several fields.
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
