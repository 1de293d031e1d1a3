package upgrade

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/upgradectl/upgradectl/upgrade/hostos"
)

const servicesHead = "version: 1\nprocedure: transition\nhost: web-90\nservices:\n"

func TestServiceConfig(t *testing.T) {
	c, err := ParseConfig("f", []byte(servicesHead+`  - name: order
    kind: java
    dir: /srv/order
    match: order.jar
    ports: [8080]
    health: /health?deep=1
    expect_status: [200-299, 401]
    health_command: ./ready.sh
    healthy: 5
    warmup: {paths: [/, /api/list], count: 20, duration: 30s}
    start_grace: 10s
    start_timeout: 5m
    stop_timeout: 2m
    stop: ./stop.sh
    after: [workers, db]
  - {name: gate, kind: process, dir: /srv/gate, program: gate, ports: [9000]}
  - {name: workers, kind: supervisor, program: "workers:*", warmup: {duration: 5s}}
  - {name: db, kind: unit, unit: mysqld, ports: [3306]}
`))
	require.NoError(t, err)
	require.Len(t, c.Services, 4)
	assert.Equal(t, Service{
		Name: "order", Kind: KindJava, Dir: "/srv/order", Match: "order.jar", Ports: []int{8080}, Health: "/health?deep=1",
		ExpectStatus: []hostos.StatusRange{{From: 200, To: 299}, {From: 401, To: 401}}, HealthCommand: "./ready.sh", Healthy: 5,
		Warmup:     hostos.Warmup{Paths: []string{"/", "/api/list"}, Count: 20, Duration: 30 * time.Second},
		StartGrace: 10 * time.Second, StartTimeout: 5 * time.Minute, StopTimeout: 2 * time.Minute, Stop: "./stop.sh", After: []string{"workers", "db"},
	}, c.Services[0])
	for _, s := range c.Services {
		require.NoError(t, service(s).Check())
	}
	waves, err := hostos.OrderServices(hostServices(c))
	require.NoError(t, err)
	var names []string
	for _, w := range waves {
		for _, s := range w {
			names = append(names, s.Name)
		}
		names = append(names, "|")
	}
	assert.Equal(t, "gate workers db | order |", strings.Join(names, " "))
}

// Every mistake is refused, at its place.
func TestServiceConfigProblems(t *testing.T) {
	const java = "  - {name: a, kind: java, dir: /a, ports: [1], "
	for in, want := range map[string]string{
		java + "expect_status: 200}":                                             "f:5:63: services[0].expect_status: needs health: the path whose answer it is",
		java + "health: /, expect_status: 20}":                                   "f:5:74: services[0].expect_status: must be a status such as 200 or a range such as 200-399, not the number 20",
		java + "health: /, expect_status: [299-200]}":                            `f:5:75: services[0].expect_status[0]: "299-200" is no range: it ends before it begins`,
		java + "health: /, expect_status: 200-503}":                              `f:5:74: services[0].expect_status: "200-503" takes an error of the service for health: a 5xx is never healthy`,
		java + "warmup: {}}":                                                     "f:5:56: services[0].warmup: needs paths to ask for, or a duration to wait",
		java + "warmup: 5}":                                                      "f:5:56: services[0].warmup: must be a mapping of keys to values, not the number 5",
		java + "warmup: {count: 3, duration: 1s}}":                               "f:5:64: services[0].warmup.count: needs paths: it is how often each is asked for",
		java + "warmup: {paths: [x]}}":                                           `f:5:65: services[0].warmup.paths[0]: "x" is not a path: it starts with / and has no blanks`,
		java + "warmup: {duration: 5m}, start_timeout: 1m}":                      "f:5:67: services[0].warmup.duration: 5m leave no time of the start_timeout of 1m",
		java + "start_grace: 1m, start_timeout: 1m}":                             "f:5:61: services[0].start_grace: 1m leave no time of the start_timeout of 1m",
		java + "start_timeout: 10}":                                              `f:5:63: services[0].start_timeout: "10" has no unit; write 10s, 10m or 10h`,
		java + "stop_timeout: soon}":                                             `f:5:62: services[0].stop_timeout: "soon" is not a duration; write one such as 30s (units: ms, s, m, h)`,
		java + "healthy: 0}":                                                     `f:5:57: services[0].healthy: "0" is out of range: it must be 1 to 1000`,
		java + "after: [b]}":                                                     `f:5:56: services[0].after[0]: "b" is no service of this file`,
		java + "after: [a]}":                                                     `f:5:56: services[0].after[0]: "a" is the service itself`,
		java + "program: java}":                                                  "f:5:57: services[0].program: has no meaning for kind java, only for process and supervisor",
		"  - {name: a, kind: process, dir: /a, program: /usr/bin/node}":          `f:5:48: services[0].program: "/usr/bin/node" is a path: the base name of the program is enough`,
		"  - {name: a, kind: process, dir: /a}":                                  "f:5:5: services[0].program: is missing: kind process needs it",
		"  - {name: a, kind: supervisor, program: 'a b'}":                        `f:5:42: services[0].program: "a b" is not a program of supervisord: NAME, GROUP:NAME or GROUP:*`,
		"  - {name: a, kind: supervisor, program: -v}":                           `f:5:42: services[0].program: "-v" is not a program of supervisord: NAME, GROUP:NAME or GROUP:*`,
		"  - {name: a, kind: unit, unit: x, stop: y}":                            "f:5:42: services[0].stop: has no meaning for kind unit, only for java and process",
		"  - {name: a, kind: java, dir: /a}\n  - {name: b, kind: java, dir: /a}": `f:6:32: services[1].dir: service "a" has the same processes; tell them apart with match, an argument that only one has`,
		"  - {name: a, kind: unit, unit: x, after: [b]}\n  - {name: b, kind: unit, unit: y, after: [a]}": "f:5:3: services: services a, b wait for each other",
		"  - {name: a, kind: unit, unit: x, warmup: {paths: [/]}}":                                       "f:5:52: services[0].warmup.paths: needs ports to ask on",
	} {
		_, err := ParseConfig("f", []byte(servicesHead+in+"\n"))
		if assert.Error(t, err, in) {
			assert.Equal(t, want, err.Error(), in)
		}
	}
}
