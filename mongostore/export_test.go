package mongostore

// SetBackfillSize sets how many new users make a batch part of a backfill, so that tests
// need not write a hundred.
func (s *Store) SetBackfillSize(n int) { s.backfillSize = n }
