package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// password logs in with a password, after all keys were refused: by
// keyboard-interactive if the server asks one hidden question, else by the
// password method. It is given to a server once, by one of the two, and after
// a refusal never again by this Dialer: a second try could lock the account.
type password struct {
	ctx  context.Context
	ask  func(ctx context.Context, who string) (string, error)
	who  string
	bad  *once
	used bool  // it was given to the server
	err  error // why it was not given
}

// passwordFor returns nil where no password is to be had.
func (d *Dialer) passwordFor(ctx context.Context, h *hop) *password {
	if d.opt.Password == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.logins[h.who()] == nil {
		d.logins[h.who()] = &once{}
	}
	return &password{ctx: ctx, ask: d.opt.Password, who: h.who(), bad: d.logins[h.who()]}
}

var errUsed = errors.New("the password was refused; it is not tried again, so that the account is not locked")

func (p *password) get() (string, error) {
	if p.used {
		p.bad.set(errUsed)
		p.err = errUsed
		return "", errUsed
	}
	if p.err = p.bad.get(); p.err != nil {
		return "", p.err
	}
	text, err := p.ask(p.ctx, p.who)
	if err == nil && strings.ContainsAny(text, "\n\r\x00") {
		err = errors.New("it holds a line break or a NUL byte")
	}
	if err != nil {
		p.err = fmt.Errorf("cannot get the password: %w", err)
		return "", p.err
	}
	p.used = true
	return text, nil
}

func (p *password) methods() []ssh.AuthMethod {
	if p == nil {
		return nil
	}
	return []ssh.AuthMethod{
		ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
			switch {
			case len(questions) == 0: // only a text to show
				return nil, nil
			case len(questions) == 1 && !echos[0]:
				text, err := p.get()
				return []string{text}, err
			}
			p.err = fmt.Errorf("it asks %q, which cannot be answered here", strings.Join(questions, " "))
			return nil, p.err
		}),
		ssh.PasswordCallback(p.get),
	}
}

// failed says why the login by password failed, nil if it was not tried.
func (p *password) failed() error {
	switch {
	case p == nil:
		return nil
	case p.err != nil:
		return p.err
	case p.used:
		p.bad.set(errUsed)
		return errUsed
	}
	return nil
}

func (p *password) offered() []string {
	if p == nil || !p.used {
		return nil
	}
	return []string{"the password"}
}

func (p *password) notes() []string {
	if err := p.failed(); err != nil {
		return []string{err.Error()}
	}
	return nil
}
