// Command clerksync keeps the users collection of an app in step with Clerk, from the command line.
// Use it for the first backfill, after lost webhooks, and in cron or CI to detect drift:
//
//	clerksync drift                # what would a reconcile change? writes nothing
//	clerksync reconcile            # bring the whole collection in step
//	clerksync user user_2abcDEF    # show one record beside Clerk's state
//	clerksync jobs                 # what OnCreate and OnDelete still owe, or failed at
//	clerksync indexes              # list the collection's indexes, and make the one on clerkId
//	clerksync help COMMAND         # explain a command and its flags
//
// It reads CLERK_SECRET_KEY and MONGODB_URI from the environment or from .env. README.md beside
// this file is the manual.
//
// The command uses the standard mapping. An app with a Map, a RoleOf, Fields or Adopt builds its own
// command with package cli.
package main

import "github.com/clerksync/clerksync-go/clerksync/cli"

func main() { cli.Main(nil) }
