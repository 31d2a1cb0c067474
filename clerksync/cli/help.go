package cli

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

// what says in one line what a command is for.
var what = map[string]string{
	"inspect":   "say whether a collection with records of your app's is ready; writes nothing",
	"reconcile": "bring the whole collection in step with Clerk",
	"drift":     "report what a reconcile would change; writes nothing",
	"user":      "show one record beside Clerk's state of the user",
	"jobs":      "list what OnCreate and OnDelete still owe, or failed at; retry or discard it",
	"indexes":   "list the collection's indexes, and make the one on clerkId",
	"version":   "print the version",
}

// help explains the program.
func help() string {
	var b strings.Builder
	b.WriteString(`clerksync keeps the users collection of an app in step with Clerk.

Usage: clerksync COMMAND [flags]

`)
	var rows [][]string
	for _, c := range commands() {
		rows = append(rows, []string{c.name + c.args, what[c.name]})
	}
	rows = append(rows, []string{"help COMMAND", "explain a command and its flags"})
	b.WriteString(layOut(rows))
	b.WriteString("\n" + variablesHelp + "\n" + exitHelp + `
Examples:
  clerksync inspect                # an app with users: what would the first reconcile do to their records?
  clerksync drift                  # is there anything to do? 2 means yes: for cron and CI
  clerksync reconcile -dry-run     # what would be written?
  clerksync reconcile              # write it
  clerksync user user_2abcDEF      # why does this one differ?

In an app: go install github.com/clerksync/clerksync-go/clerksync/cmd/clerksync@latest
From a clone of the module: go run ./clerksync/cmd/clerksync drift
(go run turns every exit status except 0 into 1. For scripts: go install ./clerksync/cmd/clerksync)
`)
	return b.String()
}

const variablesHelp = `Variables, from the environment or from .env in the working directory (the environment wins):
` + clerkVariables + mongoVariables

const (
	clerkVariables = `  CLERK_SECRET_KEY     sk_test_… or sk_live_…: Clerk Dashboard > Configure > API keys
  CLERK_API_URL        Clerk's Backend API (default https://api.clerk.com)
`
	mongoVariables = `  MONGODB_URI          mongodb://… or mongodb+srv://…
  MONGODB_DATABASE     the database (default the one in the path of MONGODB_URI); -db wins
  MONGODB_COLLECTION   the collection (default users); -collection wins
Secrets are read from there only and never printed. In .env, put a value with a $ in single quotes.
`
)

// commandVariables are the variables that each command reads. Others read them all.
var commandVariables = map[string]string{
	"jobs":    strings.Replace(variablesHelp, clerkVariables, "", 1),
	"indexes": strings.Replace(variablesHelp, clerkVariables, "", 1),
	"version": "",
}

const exitHelp = `Exit status:
  0    done; drift and user: everything is in step; inspect: nothing needs a decision;
       jobs: none has failed
  1    an error, an incomplete run, or users that could not be written
  2    drift and user: not in step; inspect: something needs a decision; jobs: some have
       failed
  64   wrong flags or variables; no record was written
`

// commandExits are the exit statuses of each command. Others have all of exitHelp.
var commandExits = map[string]string{
	"inspect": exitStatus("nothing needs a decision", "an error", "something needs a decision"),
	"reconcile": exitStatus("done, or what a dry run would do is reported",
		"an error, an incomplete run, or users that could not be written", ""),
	"drift":   exitStatus("everything is in step", "an error, or an incomplete run", "not in step"),
	"user":    exitStatus("the record is in step", "an error, or neither Clerk nor the collection has the user", "not in step"),
	"jobs":    exitStatus("done, and no job has failed", "an error, more jobs than one run changes, or a user without such a job", "some jobs have failed"),
	"indexes": exitStatus("done", "an error", ""),
	"version": "",
}

// exitStatus is the part of a command's help about its exit status. An empty text leaves a line out.
func exitStatus(done, failed, differ string) string {
	text := "Exit status:\n"
	for _, line := range []struct {
		code int
		text string
	}{
		{exitDone, done}, {exitFailed, failed}, {exitDiffer, differ},
		{exitUsage, "wrong flags or variables; no record was written"},
	} {
		if line.text != "" {
			text += fmt.Sprintf("  %-4d %s\n", line.code, line.text)
		}
	}
	return text
}

// details explain each command.
var details = map[string]string{
	"inspect": `Reads the records of a collection that your app had before clerksync, and says what the
first sync would do to them: records without a Clerk id, and what keeps users from
adopting them; fields that may hold Clerk ids; values of other types than clerksync's;
values that a sync would replace; unique indexes in the way. It proposes lines for
mongostore.Options.Fields and for mongosh. It reads at most a million records, for at
most ten minutes.

With CLERK_SECRET_KEY it also says how many of Clerk's users would adopt a record, by
external id or by e-mail.

Some findings need a decision: lines for Fields, a change of the records, or -accept with
the field or the kind, if the first sync may do what the finding says. Only what keeps
clerksync from starting, an index or refused writes, cannot be accepted.

It changes nothing, makes no index, and needs no more than the right to read. To find
out whether the server takes writes, it sends updates that match no record. The output
holds no personal data: of the records only some _ids, and none that may be an address.
`,
	"reconcile": `Lists all users of Clerk, writes the records that are missing or differ, and marks
records deleted whose user Clerk no longer has. It can run while users visit and
events arrive: nothing older overwrites something newer. The fields that your app
owns stay as they are. It repairs what clerksync drift reports: both compare whole
records, or only versions with -versions, which reads less.

Records are written by the standard mapping. If your app has a Map, a RoleOf, Fields or
Adopt, use a program of your own that calls cli.Main with them. The command refuses a
collection in which it finds fields that a Map added, unless it has a Map itself. It
cannot see a RoleOf, or a Map that adds no fields.

The unique index on clerkId is made if it is missing. With -dry-run nothing is made
or written: run clerksync indexes first.

Progress is shown on standard error: a bar on a terminal, otherwise a line every five
seconds that ends with resume=TOKEN. The report is on standard output. An
interrupt (Ctrl-C, SIGTERM) ends the run cleanly and prints how to continue. A second
one ends it at once. A run that was killed continues with the TOKEN of its last line.
`,
	"drift": `Compares all users of Clerk with their records, field by field, and looks for records
whose user Clerk does not have. It writes nothing, and makes no collection and no
index: if the unique index on clerkId is missing, run clerksync indexes first.

Records are compared by the standard mapping. If your app has a Map, a RoleOf, Fields or
Adopt, use a program of your own that calls cli.Main with them. The command refuses a
collection in which it finds fields that a Map added, unless it has a Map itself, or with
-versions.
-versions reads less: it compares only the times of the last change, and misses edits by
hand.

Progress is shown on standard error, the report on standard output. An interrupt
ends the run cleanly and prints how to continue. A second one ends it at once.
`,
	"user": `Prints the record of one user beside what Clerk says now, with a ≠ if the two differ
in a field that Clerk owns, and says what that means. It writes nothing, and makes no
collection and no index: if the unique index on clerkId is missing, run clerksync
indexes first. The output holds personal data.

Clerk's side is made by the standard mapping, or by the Map and the RoleOf of the program
that calls cli.Main.
`,
	"jobs": `Lists the jobs of an app that has an OnCreate or an OnDelete: those that have failed, are
due, are running, or wait for their next attempt or for DeleteDelay. It reads the whole
collection once, in at most half an hour; of users whom you name, only their records,
and it lists jobs that have ended too. It shows 50 jobs, and counts all. Failed ones come
first, then those that have been due longest.

-retry makes the failed jobs due again, with all their attempts; -discard ends them for
good. Of the users whom you name, both take jobs that are due or waiting too, and -retry
those that were discarded. A running job is left alone. One run changes at most 10,000
jobs, and exits with 1 if there are more, or if a user named has no such job.

The command itself runs no job: the app does, in RunJobs, DrainJobs or at the user's
next visit. If your app has Fields, use a program of your own that calls cli.Main with
them. If its Options have EraseOnDelete, do so too, or give -erase-on-delete: a deleted
record is erased when its job ends. CLERK_SECRET_KEY is not needed.
`,
	"indexes": `Lists the indexes of the collection and says which one clerksync relies on. If that
one is missing, it is made. If records or other indexes prevent that, the error says
what to do. Clerk is not asked.
`,
	"version": `Prints the version of clerksync, the revision if it was built from a clone, and the Go
version. In an app's own program it is the version of the clerksync module.
`,
}

// examples are the last part of a command's help.
var examples = map[string]string{
	"inspect": `  clerksync inspect -db app
  clerksync inspect -json | jq '.findings[] | select(.decision)'
`,
	"reconcile": `  clerksync reconcile -dry-run
  clerksync reconcile -db app -collection members -rate 40
  clerksync reconcile -versions                                    # quick
  clerksync reconcile -json > report.json 2> progress.log
`,
	"drift": `  clerksync drift || mail -s "clerksync: drift" ops@example.com    # in cron
  clerksync drift -versions                                        # quick
  clerksync drift -json | jq .fields
`,
	"user": `  clerksync user user_2abcDEF
  clerksync user user_2abcDEF -json | jq -r .verdict
`,
	"jobs": `  clerksync jobs || mail -s "clerksync: failed jobs" ops@example.com    # in cron
  clerksync jobs -retry                                            # all that have failed
  clerksync jobs -discard -kind create user_2abcDEF
  clerksync jobs -json | jq '.jobs[] | select(.state == "failed") | .clerkId'
`,
	"indexes": `  clerksync indexes -db app
`,
	"version": `  clerksync version
  clerksync version -json | jq -r .version
`,
}

// unused are flags that a command accepts without need, so that scripts can pass the same flags to
// each command. Its help does not have them.
var unused = map[string][]string{
	"user":    {"batch-size"},
	"jobs":    {"batch-size"},
	"indexes": {"batch-size"},
}

// help explains a command. f has its flags.
func (c command) help(f *flag.FlagSet) string {
	parts := []string{
		fmt.Sprintf("clerksync %s: %s.", c.name, what[c.name]),
		fmt.Sprintf("Usage: clerksync %s%s [flags]", c.name, c.args),
		details[c.name],
		"Flags:\n" + c.flagsHelp(f),
		partOf(commandVariables, c.name, variablesHelp),
		partOf(commandExits, c.name, exitHelp),
		"Examples:\n" + examples[c.name],
	}
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" })
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return strings.Join(parts, "\n\n") + "\n"
}

// partOf is a part of a command's help.
func partOf(parts map[string]string, name, otherwise string) string {
	if part, ok := parts[name]; ok {
		return part
	}
	return otherwise
}

// flagWidth is how long a line about a flag may be.
const flagWidth = 84

// flagsHelp describes the flags: each on a line, and its meaning on the lines below.
func (c command) flagsHelp(f *flag.FlagSet) string {
	var b strings.Builder
	f.VisitAll(func(f *flag.Flag) {
		if slices.Contains(unused[c.name], f.Name) {
			return
		}
		value, text := flag.UnquoteUsage(f)
		b.WriteString(strings.TrimRight("  -"+f.Name+" "+value, " ") + "\n")
		if !slices.Contains([]string{"", "0", "0s", "false"}, f.DefValue) {
			text += " (default " + f.DefValue + ")"
		}
		line := "       "
		for word := range strings.FieldsSeq(text) {
			if len(line)+1+len(word) > flagWidth {
				b.WriteString(line + "\n")
				line = "       "
			}
			line += " " + word
		}
		b.WriteString(line + "\n")
	})
	return b.String()
}
