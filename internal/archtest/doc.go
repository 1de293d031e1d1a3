// Package archtest holds the layers of the module as a test: which package
// may import which, and where each foreign module may be used. It has no code
// of its own outside the test.
package archtest
