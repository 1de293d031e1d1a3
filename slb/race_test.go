//go:build race

package slb_test

const raceDetector = true
