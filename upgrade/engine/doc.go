// Package engine runs a procedure step by step so that it can be killed at any
// point and then resumed or rolled back.
package engine
