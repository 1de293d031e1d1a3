//go:build !race

package slb_test

const raceDetector = false
