package nginx

import "errors"

type servers struct{}
type marker struct{}

func (s *servers) served() error                             { return nil }
func fileServers(d Directive) *servers                       { return nil }
func (t *Tree) Refs(q Query) []Ref                           { return nil }
func (t *Tree) Disable(q Query, tag string) (*Change, error) { return nil, errors.ErrUnsupported }
func (t *Tree) Restore(tag string) (*Change, error)          { return nil, errors.ErrUnsupported }
func (t *Tree) AddServer(like Query, addr string, tag string) (*Change, error) {
	return nil, errors.ErrUnsupported
}
func (t *Tree) RemoveAdded(tag string) (*Change, error) { return nil, errors.ErrUnsupported }
func (t *Tree) Replace(from Query, toHost string, tag string) (*Change, error) {
	return nil, errors.ErrUnsupported
}
