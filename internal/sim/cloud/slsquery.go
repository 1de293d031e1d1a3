package cloud

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The query language of the log service, as far as access logs are asked: a
// search (key: value, key > number, key in [a b], and, or, not, parentheses),
// and a SELECT of columns and counts with WHERE, GROUP BY, ORDER BY and LIMIT.
// Everything else is an error, never a guess.

// A token of either part. Kind is 'w' for a word, 's' for a quoted text, 'n'
// for a number, else the punctuation itself.
type logToken struct {
	kind byte
	text string
}

// A logScanner walks over tokens.
type logScanner struct {
	tokens []logToken
	at     int
}

// scan cuts a query. Quote is " for the search and ' for SQL.
func scan(s string, quote byte, wordBytes string) (*logScanner, error) {
	sc := &logScanner{}
	for i := 0; i < len(s); {
		ch := s[i]
		switch {
		case ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r':
			i++
		case ch == quote:
			var b strings.Builder
			for i++; ; i++ {
				if i >= len(s) {
					return nil, errors.New("a quoted text does not end")
				}
				if s[i] == quote {
					if quote == '\'' && i+1 < len(s) && s[i+1] == quote {
						i++
					} else {
						break
					}
				} else if quote == '"' && s[i] == '\\' && i+1 < len(s) {
					i++
				}
				b.WriteByte(s[i])
			}
			i++
			sc.tokens = append(sc.tokens, logToken{'s', b.String()})
		case wordByte(ch, wordBytes):
			j := i
			for j < len(s) && wordByte(s[j], wordBytes) {
				j++
			}
			kind := byte('w')
			if _, err := strconv.ParseFloat(s[i:j], 64); err == nil {
				kind = 'n'
			}
			sc.tokens = append(sc.tokens, logToken{kind, s[i:j]})
			i = j
		default:
			op := s[i : i+1]
			if i+1 < len(s) && slices.Contains([]string{">=", "<=", "<>", "!="}, s[i:i+2]) {
				op = s[i : i+2]
			}
			if !strings.Contains("()[],:=<>!*", op[:1]) {
				return nil, fmt.Errorf("the character %q at %d", ch, i)
			}
			sc.tokens = append(sc.tokens, logToken{op[0], op})
			i += len(op)
		}
	}
	return sc, nil
}

func wordByte(b byte, more string) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || b == '_' || b >= 0x80 || strings.IndexByte(more, b) >= 0
}

func (s *logScanner) peek() logToken {
	if s.at < len(s.tokens) {
		return s.tokens[s.at]
	}
	return logToken{}
}

func (s *logScanner) next() logToken {
	t := s.peek()
	s.at++
	return t
}

// word reports whether the next tokens are these words, and takes them if so.
func (s *logScanner) word(words ...string) bool {
	for i, w := range words {
		if s.at+i >= len(s.tokens) || s.tokens[s.at+i].kind != 'w' || !strings.EqualFold(s.tokens[s.at+i].text, w) {
			return false
		}
	}
	s.at += len(words)
	return true
}

// op takes the next token if it is this punctuation.
func (s *logScanner) op(text string) bool {
	if t := s.peek(); t.kind != 's' && t.text == text {
		s.at++
		return true
	}
	return false
}

func (s *logScanner) unexpected() error {
	if t := s.peek(); t.kind != 0 {
		return fmt.Errorf("%q is not simulated or not allowed here", t.text)
	}
	return errors.New("the query ends too early")
}

type logMatch func(*logRow) bool

// parseSearch reads the part before the |.
func parseSearch(text string) (logMatch, error) {
	if text == "" || text == "*" {
		return func(*logRow) bool { return true }, nil
	}
	s, err := scan(text, '"', "-./?*%&~")
	if err != nil {
		return nil, err
	}
	m, err := s.or()
	if err == nil && s.peek().kind != 0 {
		err = s.unexpected()
	}
	return m, err
}

func (s *logScanner) or() (logMatch, error) {
	left, err := s.and()
	for err == nil && s.word("or") {
		l := left
		var r logMatch
		if r, err = s.and(); err == nil {
			left = func(x *logRow) bool { return l(x) || r(x) }
		}
	}
	return left, err
}

func (s *logScanner) and() (logMatch, error) {
	left, err := s.not()
	for err == nil && s.word("and") {
		l := left
		var r logMatch
		if r, err = s.not(); err == nil {
			left = func(x *logRow) bool { return l(x) && r(x) }
		}
	}
	return left, err
}

func (s *logScanner) not() (logMatch, error) {
	switch {
	case s.word("not"):
		m, err := s.not()
		return func(x *logRow) bool { return !m(x) }, err
	case s.op("("):
		m, err := s.or()
		if err == nil && !s.op(")") {
			err = s.unexpected()
		}
		return m, err
	case s.peek().text == "*" && s.peek().kind != 's':
		s.next()
		return func(*logRow) bool { return true }, nil
	}
	key := s.next()
	if key.kind != 'w' || !slices.Contains(logFields, key.text) {
		return nil, fmt.Errorf("there is no index of a field %q", key.text)
	}
	name := key.text
	switch op := s.next(); {
	case op.text == ":" && op.kind != 's':
		v := s.next()
		if v.kind != 'w' && v.kind != 's' && v.kind != 'n' {
			return nil, fmt.Errorf("%s has no value", name)
		}
		if v.kind != 's' && strings.ContainsAny(v.text, "*?") {
			if strings.ContainsAny(v.text[:1], "*?") {
				return nil, fmt.Errorf("the value of %s begins with a wildcard", name)
			}
			re := regexp.MustCompile("^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(v.text)) + "$")
			return func(x *logRow) bool {
				for _, w := range logWords(x, name) {
					if re.MatchString(w) {
						return true
					}
				}
				return false
			}, nil
		}
		return func(x *logRow) bool {
			whole, _ := x.field(name)
			return whole == v.text || slices.Contains(logWords(x, name), v.text)
		}, nil
	case slices.Contains([]string{"=", ">", "<", ">=", "<="}, op.text) && op.kind != 's':
		v := s.next()
		if v.kind != 'n' || !numericLogFields[name] {
			return nil, fmt.Errorf("%s %s %s: only numbers are compared, and the index of %s must be of numbers", name, op.text, v.text, name)
		}
		return compare(name, op.text, v.text), nil
	case op.kind == 'w' && strings.EqualFold(op.text, "in"):
		open := s.next().text
		low, high := s.next(), s.next()
		shut := s.next().text
		if !numericLogFields[name] || low.kind != 'n' || high.kind != 'n' || open != "[" && open != "(" || shut != "]" && shut != ")" {
			return nil, fmt.Errorf("%s in: not a range of numbers", name)
		}
		from, to := ">=", "<="
		if open == "(" {
			from = ">"
		}
		if shut == ")" {
			to = "<"
		}
		a, b := compare(name, from, low.text), compare(name, to, high.text)
		return func(x *logRow) bool { return a(x) && b(x) }, nil
	}
	s.at--
	return nil, s.unexpected()
}

// logWords cuts a field's value as an index of texts does.
func logWords(x *logRow, name string) []string {
	v, _ := x.field(name)
	return strings.FieldsFunc(v, func(r rune) bool { return strings.ContainsRune(", '\";=()[]{}?@&<>/:\n\t\r", r) })
}

func compare(name, op, number string) logMatch {
	want, _ := strconv.ParseFloat(number, 64)
	return func(x *logRow) bool {
		v, _ := x.field(name)
		got, err := strconv.ParseFloat(v, 64)
		return err == nil && ordered(op, cmp.Compare(got, want))
	}
}

func ordered(op string, c int) bool {
	switch op {
	case "=":
		return c == 0
	case "<>", "!=":
		return c != 0
	case ">":
		return c > 0
	case "<":
		return c < 0
	case ">=":
		return c >= 0
	}
	return c <= 0
}

// A selectStatement is the part after the |.
type selectStatement struct {
	items []selectItem
	where []logMatch
	group []string
	order string
	desc  bool
	limit int
}

// A selectItem is a column, or (count) a number of rows.
type selectItem struct {
	column, name string
	count        bool
	countIf      logMatch
}

func parseSelect(text string) (*selectStatement, error) {
	s, err := scan(text, '\'', ".")
	if err != nil {
		return nil, err
	}
	q := &selectStatement{limit: 100}
	if !s.word("select") {
		return nil, errors.New("the part after | is not a SELECT")
	}
	for {
		if s.op("*") {
			for _, f := range logFields {
				q.items = append(q.items, selectItem{column: f, name: f})
			}
		} else {
			item, err := s.item()
			if err != nil {
				return nil, err
			}
			q.items = append(q.items, item)
		}
		if !s.op(",") {
			break
		}
	}
	if s.word("from") && !s.word("log") {
		return nil, errors.New("the table is named log")
	}
	if s.word("where") {
		for {
			m, err := s.condition()
			if err != nil {
				return nil, err
			}
			q.where = append(q.where, m)
			if !s.word("and") {
				break
			}
		}
	}
	if s.word("group", "by") {
		for {
			t := s.next()
			if !slices.Contains(logFields, t.text) {
				return nil, fmt.Errorf("column %q cannot be resolved", t.text)
			}
			q.group = append(q.group, t.text)
			if !s.op(",") {
				break
			}
		}
	}
	if s.word("order", "by") {
		q.order = s.next().text
		if !slices.ContainsFunc(q.items, func(i selectItem) bool { return i.name == q.order }) {
			return nil, fmt.Errorf("column %q cannot be resolved", q.order)
		}
		if q.desc = s.word("desc"); !q.desc {
			s.word("asc")
		}
	}
	if s.word("limit") {
		n, err := strconv.Atoi(s.next().text)
		if err != nil || n < 1 || n > 1_000_000 {
			return nil, errors.New("LIMIT is a number from 1 to 1000000")
		}
		q.limit = n
	}
	if s.peek().kind != 0 {
		return nil, s.unexpected()
	}
	for _, i := range q.items {
		if q.counts() && i.column != "" && !slices.Contains(q.group, i.column) {
			return nil, fmt.Errorf("%q must be an aggregate expression or appear in GROUP BY clause", i.column)
		}
	}
	return q, nil
}

// counts reports whether rows are counted, not listed.
func (q *selectStatement) counts() bool {
	return len(q.group) > 0 || slices.ContainsFunc(q.items, func(i selectItem) bool { return i.count })
}

func (s *logScanner) item() (selectItem, error) {
	t := s.next()
	item := selectItem{column: t.text, name: t.text}
	if t.kind != 'w' {
		s.at--
		return item, s.unexpected()
	}
	switch {
	case s.op("("):
		item = selectItem{count: true, name: "_col"}
		switch strings.ToLower(t.text) {
		case "count":
			if a := s.next(); a.text != "1" && a.text != "*" {
				return item, fmt.Errorf("count(%s) is not simulated", a.text)
			}
		case "count_if":
			m, err := s.condition()
			if err != nil {
				return item, err
			}
			item.countIf = m
		default:
			return item, fmt.Errorf("function %s is not simulated", t.text)
		}
		if !s.op(")") {
			return item, s.unexpected()
		}
	case !slices.Contains(logFields, t.text):
		return item, fmt.Errorf("column %q cannot be resolved", t.text)
	}
	if s.word("as") {
		item.name = s.next().text
	}
	return item, nil
}

// condition is a comparison with a text or a number, or regexp_like.
func (s *logScanner) condition() (logMatch, error) {
	t := s.next()
	name, number := t.text, numericLogFields[t.text]
	if strings.EqualFold(name, "regexp_like") && s.op("(") {
		col := s.next()
		comma := s.op(",")
		pattern := s.next()
		if !slices.Contains(logFields, col.text) || numericLogFields[col.text] || !comma || pattern.kind != 's' || !s.op(")") {
			return nil, errors.New("regexp_like takes a column of texts and a pattern")
		}
		re, err := regexp.Compile(pattern.text)
		if err != nil {
			return nil, fmt.Errorf("the pattern %q: %w", pattern.text, err)
		}
		return func(x *logRow) bool { v, ok := x.field(col.text); return ok && re.MatchString(v) }, nil
	}
	if strings.EqualFold(name, "try_cast") && s.op("(") {
		name, number = s.next().text, true
		if !s.word("as", "bigint") || !s.op(")") {
			return nil, s.unexpected()
		}
	}
	if !slices.Contains(logFields, name) {
		return nil, fmt.Errorf("column %q cannot be resolved", name)
	}
	op := s.next().text
	if !slices.Contains([]string{"=", "<>", "!=", ">", "<", ">=", "<="}, op) {
		s.at--
		return nil, s.unexpected()
	}
	v := s.next()
	switch {
	case number && v.kind == 'n':
		return compare(name, op, v.text), nil
	case !number && v.kind == 's':
		return func(x *logRow) bool { got, ok := x.field(name); return ok && ordered(op, strings.Compare(got, v.text)) }, nil
	}
	return nil, fmt.Errorf("%s %s %s: the types differ", name, op, v.text)
}

// run returns the result and the names of its columns.
func (q *selectStatement) run(rows []*logRow) ([]map[string]string, []string) {
	var keys []string
	for n := range q.items {
		if q.items[n].name == "_col" {
			q.items[n].name += strconv.Itoa(n)
		}
		keys = append(keys, q.items[n].name)
	}
	rows = slices.DeleteFunc(slices.Clone(rows), func(r *logRow) bool {
		return slices.ContainsFunc(q.where, func(m logMatch) bool { return !m(r) })
	})
	out := []map[string]string{}
	if !q.counts() {
		for _, r := range rows {
			m := map[string]string{}
			for _, i := range q.items {
				if v, ok := r.field(i.column); ok {
					m[i.name] = v
				}
			}
			out = append(out, m)
		}
	} else {
		groups := map[string][]*logRow{}
		if len(q.group) == 0 {
			groups[""] = nil // one row, also when nothing was found
		}
		for _, r := range rows {
			var b strings.Builder
			for _, g := range q.group {
				v, _ := r.field(g)
				b.WriteString(v + "\x00")
			}
			groups[b.String()] = append(groups[b.String()], r)
		}
		for _, k := range slices.Sorted(maps.Keys(groups)) {
			m := map[string]string{}
			for _, i := range q.items {
				n := 0
				for _, r := range groups[k] {
					if i.countIf == nil || i.countIf(r) {
						n++
					}
				}
				if m[i.name] = strconv.Itoa(n); !i.count {
					m[i.name], _ = groups[k][0].field(i.column)
				}
			}
			out = append(out, m)
		}
	}
	if q.order != "" {
		slices.SortStableFunc(out, func(a, b map[string]string) int {
			x, err1 := strconv.ParseFloat(a[q.order], 64)
			y, err2 := strconv.ParseFloat(b[q.order], 64)
			c := cmp.Compare(a[q.order], b[q.order])
			if err1 == nil && err2 == nil {
				c = cmp.Compare(x, y)
			}
			if q.desc {
				return -c
			}
			return c
		})
	}
	return out[:min(len(out), q.limit)], keys
}
