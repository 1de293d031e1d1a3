// Package shellq quotes values for a POSIX shell command line.
//
// # Example
//
//	cmd := "cat " + shellq.Quote(name)
//	cmd = shellq.Join("mv", "-T", from, to)
//
// # Guarantees
//
//  1. A POSIX sh reads Quote(s) back as exactly one word with the bytes of s
//     (TestShell, FuzzQuote: the real /bin/sh is the judge).
//  2. Join(a, b, …) is read back as exactly these words (TestShell, FuzzJoin).
//  3. The first word of a Join is never read as an assignment, a keyword or an
//     alias (TestFirstWord).
//
// # Limits
//
// A NUL byte cannot be handed to a program at all. Quote keeps it, the shell
// drops it or refuses the line; ask Valid first where the value is foreign.
// Quote does not protect from a value that the program takes for an option:
// put "--" or "./" before it.
//
// # Errors
//
// None are returned.
package shellq

import "strings"

// Quote returns s as one word of a POSIX shell command line. Words made only
// of characters that no shell treats specially are returned as they are, so
// that ordinary commands stay readable in logs.
func Quote(s string) string {
	if plain(s) {
		return s
	}
	// Inside single quotes every byte but the quote stands for itself.
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Join quotes every argument and puts blanks between them. The result runs
// args[0] with the other arguments. Join of nothing is "".
func Join(args ...string) string {
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = Quote(a)
		if i == 0 && words[i] == a && reserved[a] {
			words[i] = "'" + a + "'" // quoted, it is a command name and no keyword
		}
	}
	return strings.Join(words, " ")
}

// Valid reports whether s can be an argument of a program: it holds no NUL.
func Valid(s string) bool { return strings.IndexByte(s, 0) < 0 }

// reserved are the words that a shell may read as syntax in command position.
// It is never written to.
var reserved = map[string]bool{
	"case": true, "do": true, "done": true, "elif": true, "else": true,
	"esac": true, "fi": true, "for": true, "function": true, "if": true,
	"in": true, "select": true, "then": true, "time": true, "until": true,
	"while": true, "coproc": true, "namespace": true,
}

// plain reports whether every byte of s is one that no shell expands. "=" is
// left out because a word like A=b in command position is an assignment, "~"
// and "%" because shells expand them at the start of words.
func plain(s string) bool {
	if s == "" {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("_-./:,@+", c) >= 0:
		default:
			return false
		}
	}
	return true
}
