package shellq

// StatusFenced is the exit status of a command on a host that was kept from
// running because another process holds the host by now. It decides whether a
// run goes on, so nothing else may end with it: it lies outside of what shells
// (126 and above), sysexits.h (64 to 78), timeout (124, 125), package managers
// (100) and this module's other scripts use. internal/archtest has the table.
const StatusFenced = 113
