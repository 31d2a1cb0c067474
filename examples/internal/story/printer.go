package story

import (
	"fmt"
	"io"
	"os"
	"sync"
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
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "1;33"
)

// highlight marks what has changed.
func (p *Printer) highlight(text string) string { return p.paint(yellow, text) }

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
