package embeddeddb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite" // the engine's own driver
	sqlite3 "modernc.org/sqlite/lib"
)

// lockDir keeps other servers, of this process and of others, away from dir. Two
// of them would lose each other's updates. It uses SQLite's lock, because that
// works on every system and ends with its process.
func lockDir(ctx context.Context, dir string) (unlock func() error, err error) {
	db, err := sql.Open("sqlite", fileURL(dir+"/embeddeddb.lock", ""))
	if err != nil {
		return nil, err
	}
	// The connection must outlive ctx.
	conn, err := db.Conn(context.WithoutCancel(ctx))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if _, err := conn.ExecContext(ctx, "BEGIN EXCLUSIVE"); err != nil {
		if e := (*sqlite.Error)(nil); errors.As(err, &e) && e.Code() == sqlite3.SQLITE_BUSY {
			err = fmt.Errorf("directory %q is in use by another server: %w", dir, err)
		}
		return nil, errors.Join(err, conn.Close(), db.Close())
	}
	return func() error { return errors.Join(conn.Close(), db.Close()) }, nil
}
