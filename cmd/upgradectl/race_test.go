//go:build race

package main

// raceDetector thins out what runs the whole program again and again.
const raceDetector = true
