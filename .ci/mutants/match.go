package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mutant is one fault: a function of the library, and what to change in it.
type mutant struct {
	name   string
	in     function
	change change
}

// function is a function or method in a package's directory: "Decide" in "clerksync", or
// "Store.Upsert" in "clerksync/memstore". A method's name does not say whether its
// receiver is a pointer.
type function struct{ dir, name string }

// change replaces the only piece of the function that has the syntax of old with the text new.
// Comments, spaces and line breaks do not matter.
type change struct{ old, new string }

func in(dir, name string) function { return function{dir, name} }

// replace puts new in the place of old: an expression, one or more statements in a row, or
// cases of a switch. A single case without statements ("case a, b:") stands for the line
// with "case", whatever statements follow it.
func replace(old, new string) change { return change{old, new} }

// remove deletes statements.
func remove(old string) change { return change{old, ""} }

// insertBefore puts new before old, which is a statement or a case.
func insertBefore(old, new string) change { return change{old, new + "\n" + old} }

// apply makes the change in the source tree at root. It returns the path of the changed
// file and its new text; the file itself stays as it is.
func (m mutant) apply(root string) (path string, text []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("mutant %q: %w", m.name, err)
		}
	}()
	old, err := parseFragment(m.change.old)
	if err != nil {
		return "", nil, err
	}
	p, err := parsePackage(root, m.in.dir)
	if err != nil {
		return "", nil, err
	}
	fn, err := p.function(m.in)
	if err != nil {
		return "", nil, err
	}
	found := old.find(fn)
	if len(found) != 1 {
		return "", nil, p.notOnce(m, old, found)
	}
	start, end := p.fset.Position(found[0].start), p.fset.Position(found[0].end)
	source, err := os.ReadFile(start.Filename)
	if err != nil {
		return "", nil, err
	}
	text = slices.Concat(source[:start.Offset], []byte(m.change.replacement()), source[end.Offset:])
	if _, err := parser.ParseFile(token.NewFileSet(), start.Filename, text, parser.SkipObjectResolution); err != nil {
		return "", nil, fmt.Errorf("the changed file does not parse: %w", err)
	}
	return start.Filename, text, nil
}

// replacement is new, in parentheses if the operators around it could take it apart.
func (c change) replacement() string {
	expr, err := parser.ParseExpr(c.new)
	if _, binary := expr.(*ast.BinaryExpr); err == nil && binary {
		return "(" + c.new + ")"
	}
	return c.new
}

// fragment is a piece of source to look for: one expression, or statements in a row. The
// cases of a switch count as statements.
type fragment []ast.Node

func parseFragment(source string) (fragment, error) {
	if expr, err := parser.ParseExpr(source); err == nil {
		return fragment{expr}, nil
	}
	before, after := "func() {\n", "\n}"
	isCase := strings.HasPrefix(source, "case ") || strings.HasPrefix(source, "default:")
	if isCase {
		before, after = "func() { switch {\n", "\n} }"
	}
	expr, err := parser.ParseExpr(before + source + after)
	if err != nil {
		return nil, fmt.Errorf("not an expression, statement or case: %q: %w", source, err)
	}
	list := expr.(*ast.FuncLit).Body.List
	if isCase {
		list = list[0].(*ast.SwitchStmt).Body.List
	}
	if len(list) == 0 {
		return nil, errors.New("nothing to look for")
	}
	f := make(fragment, len(list))
	for i, s := range list {
		f[i] = s
	}
	return f, nil
}

// span is the place of a piece of source: from start up to, not including, end.
type span struct{ start, end token.Pos }

// find returns the places in fn that have the fragment's syntax.
func (f fragment) find(fn *ast.FuncDecl) (found []span) {
	want := normal(f...)
	try := func(start, end token.Pos, nodes ...ast.Node) {
		if normal(nodes...) == want {
			found = append(found, span{start, end})
		}
	}
	_, isExpr := f[0].(ast.Expr)
	clause, isCase := f[0].(*ast.CaseClause)
	isHead := isCase && len(f) == 1 && clause.Body == nil
	ast.Inspect(fn, func(n ast.Node) bool {
		switch expr, ok := n.(ast.Expr); {
		case isExpr && ok:
			try(expr.Pos(), expr.End(), expr)
		case isHead:
			if c, ok := n.(*ast.CaseClause); ok {
				try(c.Case, c.Colon+1, &ast.CaseClause{List: c.List})
			}
		case !isExpr:
			for list := statements(n); len(list) >= len(f); list = list[1:] {
				try(list[0].Pos(), list[len(f)-1].End(), list[:len(f)]...)
			}
		}
		return true
	})
	return found
}

// statements returns the statements directly in a block or in a case.
func statements(n ast.Node) (nodes []ast.Node) {
	var list []ast.Stmt
	switch n := n.(type) {
	case *ast.BlockStmt:
		list = n.List
	case *ast.CaseClause:
		list = n.Body
	case *ast.CommClause:
		list = n.Body
	}
	for _, s := range list {
		nodes = append(nodes, s)
	}
	return nodes
}

// normal prints nodes in a form that depends on their syntax alone. With an empty file set
// the printer knows nothing of lines and columns.
func normal(nodes ...ast.Node) string {
	var b bytes.Buffer
	for _, n := range nodes {
		if err := printer.Fprint(&b, token.NewFileSet(), n); err != nil {
			panic(err) // not of a parsed node
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// sourcePackage is the parsed source of a package, without its tests.
type sourcePackage struct {
	fset      *token.FileSet
	functions []*ast.FuncDecl
}

func parsePackage(root, dir string) (*sourcePackage, error) {
	paths, err := sourceFiles(filepath.Join(root, dir))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("no Go files in %s", dir)
	}
	p := &sourcePackage{fset: token.NewFileSet()}
	for _, path := range paths {
		file, err := parser.ParseFile(p.fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				p.functions = append(p.functions, fn)
			}
		}
	}
	return p, nil
}

// sourceFiles returns the paths of a directory's Go files but its tests.
func sourceFiles(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	return slices.DeleteFunc(paths, func(path string) bool { return strings.HasSuffix(path, "_test.go") }), err
}

// function returns the function named f. If there is none, the error lists those that differ
// in the receiver only.
func (p *sourcePackage) function(f function) (*ast.FuncDecl, error) {
	var found []*ast.FuncDecl
	var others []string
	for _, fn := range p.functions {
		if name := nameOf(fn); name == f.name {
			found = append(found, fn)
		} else if fn.Name.Name == f.name[strings.LastIndex(f.name, ".")+1:] {
			others = append(others, name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%s has %d functions %s", f.dir, len(found), f.name)
	case len(others) > 0:
		return nil, fmt.Errorf("%s has no function %s, but %s", f.dir, f.name, strings.Join(others, ", "))
	}
	return nil, fmt.Errorf("%s has no function %s", f.dir, f.name)
}

// nameOf returns a function's name, as in a mutant.
func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	receiver := fn.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	switch generic := receiver.(type) {
	case *ast.IndexExpr:
		receiver = generic.X
	case *ast.IndexListExpr:
		receiver = generic.X
	}
	return receiver.(*ast.Ident).Name + "." + fn.Name.Name
}

// notOnce is the error for a fragment found never or more than once. If never, it lists the
// other functions of the package that have it: it may have moved.
func (p *sourcePackage) notOnce(m mutant, old fragment, found []span) error {
	var places []string
	for _, s := range found {
		places = append(places, p.place(s))
	}
	if len(found) > 0 {
		return fmt.Errorf("%s in %s has this %d times, at %s: %q",
			m.in.name, m.in.dir, len(found), strings.Join(places, ", "), m.change.old)
	}
	for _, fn := range p.functions {
		for _, s := range old.find(fn) {
			places = append(places, nameOf(fn)+" ("+p.place(s)+")")
		}
	}
	elsewhere := ""
	if len(places) > 0 {
		elsewhere = ", but found in " + strings.Join(places, ", ")
	}
	return fmt.Errorf("not found in %s in %s%s: %q", m.in.name, m.in.dir, elsewhere, m.change.old)
}

func (p *sourcePackage) place(s span) string {
	at := p.fset.Position(s.start)
	return fmt.Sprintf("%s:%d", filepath.Base(at.Filename), at.Line)
}
