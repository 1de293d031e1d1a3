package hostinv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
)

// maxSecret bounds a secret file.
const maxSecret = 4 << 10

// SecretFile returns a function for SSHConfig.Password, SudoPassword and
// Passphrase that reads the secret from a file each time it is asked: its
// first line, without the line break. The file must be readable by its owner
// only. Errors name the file, never its content.
func SecretFile(name string) func(ctx context.Context, _ string) (string, error) {
	return func(ctx context.Context, _ string) (string, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		info, err := os.Stat(name)
		if err != nil {
			return "", err
		}
		if !info.Mode().IsRegular() || info.Size() > maxSecret {
			return "", fmt.Errorf("%s is no file of up to %d bytes", name, maxSecret)
		}
		if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
			return "", fmt.Errorf("%s has mode %04o and others may read it: chmod 600 it", name, perm)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return "", fmt.Errorf("the first line of %s is empty", name)
		}
		if len(bytes.TrimSpace(rest)) > 0 {
			return "", errors.New(name + " holds more than one line")
		}
		return string(line), nil
	}
}

// hidden stands for a value that was taken out.
const hidden = "[hidden]"

var (
	// secretWord is what names of secrets contain.
	secretWord = `(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|encrypt[-_.]?key|auth)`

	// secretValue finds NAME= or NAME: (as in JSON) with such a name; all
	// that follows in the argument is taken out.
	secretValue = regexp.MustCompile(`(?i)` + secretWord + `[a-z0-9_.\-\]]*["']?\s*[=:]`)

	// secretOption is an option whose value is the next argument.
	secretOption = regexp.MustCompile(`(?i)^--?[a-z0-9_.\-]*` + secretWord + `[a-z0-9_.\-]*$`)

	// urlUser finds the password in SCHEME://USER:PASSWORD@HOST.
	urlUser = regexp.MustCompile(`(://[^/\s:@]*:)[^/\s@]*@`)
)

// secretStems begin the words of secretWord. Never written to.
var secretStems = []string{"pass", "pwd", "secret", "token", "credential", "api", "access", "private", "encrypt", "auth"}

// maySecret is false of what holds no secretWord: of most texts, and quicker
// than the expressions.
func maySecret(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return true // letters that fold to others
		}
		switch s[i] | 0x20 {
		case 'p', 's', 't', 'c', 'a', 'e':
			for _, stem := range secretStems {
				if len(s)-i >= len(stem) && strings.EqualFold(s[i:i+len(stem)], stem) {
					return true
				}
			}
		}
	}
	return false
}

// redactURL hides the password of a URL.
func redactURL(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	return urlUser.ReplaceAllString(s, "${1}"+hidden+"@")
}

// redactArgs returns args without the values that look like secrets. It
// would rather hide too much.
func redactArgs(args []string) []string {
	out := make([]string, len(args))
	hide := false
	for i, a := range args {
		switch {
		case hide && !strings.HasPrefix(a, "--"):
			out[i] = hidden
		default:
			a = redactURL(a)
			if maySecret(a) {
				if m := secretValue.FindStringIndex(a); m != nil && m[1] < len(a) {
					a = a[:m[1]] + hidden
				}
			}
			out[i] = a
		}
		hide = i > 0 && strings.HasPrefix(a, "-") && maySecret(a) && secretOption.MatchString(a)
	}
	return out
}

var (
	// optionValue finds an option of that name and its value in a command
	// line: --password VALUE, -token='a b'.
	optionValue = regexp.MustCompile(`(?i)(--?[a-z0-9_.\-]*` + secretWord + `[a-z0-9_.\-]*["']?[ =])("[^"]*"|'[^']*'|[^\s;|&)"']+)`)

	// authorization finds the header, whose value has more than one word.
	authorization = regexp.MustCompile(`(?i)(authorization["']?\s*[:=]\s*["']?)[^"'\n]+`)

	// lineValue finds NAME=VALUE and NAME: VALUE in a command line.
	lineValue = regexp.MustCompile(`(?i)(` + secretWord + `[a-z0-9_.\-\]]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s;|&)"']+)`)
)

// redactLine returns a command line without the values that look like
// secrets. It would rather hide too much.
func redactLine(s string) string {
	if s = redactURL(s); !maySecret(s) {
		return s
	}
	s = authorization.ReplaceAllString(s, "${1}"+hidden)
	s = optionValue.ReplaceAllString(s, "${1}"+hidden)
	return lineValue.ReplaceAllString(s, "${1}"+hidden)
}
