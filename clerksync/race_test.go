//go:build race

package clerksync_test

func init() { raceEnabled = true }
