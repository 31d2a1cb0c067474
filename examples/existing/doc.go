// Package existing shows how an app that already has users opens its collection: one file for
// each situation of the guide mongostore/EXISTING_USERS.md.
package existing
