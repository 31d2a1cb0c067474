package mongostore

// SetBackfillSize sets how many new users make a batch part of a backfill, so that tests
// need not write a hundred.
func (s *Store) SetBackfillSize(n int) { s.backfillSize = n }

// SetGuess makes the Store expect a batch like one after new or newer users, after a
// backfill, or after users that it had to read.
func (s *Store) SetGuess(g int) { s.next.Store(int32(g)) }

// The guesses for SetGuess.
const (
	GuessWritable  = int(guessWritable)
	GuessNew       = int(guessNew)
	GuessReadFirst = int(guessReadFirst)
)
