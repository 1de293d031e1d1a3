//go:build race

package upgrade_test

const raceDetector = true
