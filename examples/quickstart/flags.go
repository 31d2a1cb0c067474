package main

import (
	"regexp"
	"strconv"
	"strings"
)

// explainFlag tells what is wrong with the flags without the values that package flag
// quotes: an argument in the wrong place may be a secret.
func explainFlag(err error) string {
	text := err.Error()
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		return "the value of " + m[1] + " is wrong: " + m[2]
	}
	if name, unknown := strings.CutPrefix(text, "flag provided but not defined: "); unknown {
		return "there is no flag " + word(name)
	}
	if strings.HasPrefix(text, "bad flag syntax: ") {
		return "an argument that begins with - is no flag"
	}
	return text
}

var (
	wrongValue = regexp.MustCompile(`^invalid (?:boolean )?value .* for (?:flag )?(-[a-z-]+): (.*)$`)
	isWord     = regexp.MustCompile(`^[a-zA-Z-]{1,20}$`)
)

// word quotes what is a word; anything else might be a secret.
func word(argument string) string {
	if isWord.MatchString(argument) {
		return strconv.Quote(argument)
	}
	return "(not shown: it may be a secret)"
}
