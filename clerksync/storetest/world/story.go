package world

import (
	"fmt"
	"strings"
	"time"
)

// traced is one operation of the history.
type traced struct {
	at    time.Time
	depth int
	op    op
}

func (w *world) trace(o op, around *run) {
	depth := 0
	if around != nil {
		depth = 1 + w.depth
	}
	w.history = append(w.history, traced{w.clock.Now(), depth, o})
}

// story lists the last operations.
func (w *world) story() string {
	var b strings.Builder
	for _, h := range w.history[max(0, len(w.history)-80):] {
		fmt.Fprintf(&b, "%s %s%v\n", h.at.Format("Jan 2 15:04:05.000"), strings.Repeat("    ", h.depth), h.op)
	}
	return b.String()
}
