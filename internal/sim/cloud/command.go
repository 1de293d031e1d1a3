package cloud

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"time"
)

// errNoMachine is what a command meets on an instance without content.
var errNoMachine = errors.New("no Cloud Assistant agent runs on the instance")

const (
	maxCommand = 24 << 10 // the longest script, before base64
	maxOutput  = 24 << 10 // how much of an output is kept: its end
)

// An invocation is one RunCommand on one or more instances.
type invocation struct {
	seq         int64
	id, command string
	name, user  string
	mode        string
	script      []byte
	timeout     int // seconds
	createdAt   time.Time
	tags        map[string]string
	results     []*commandResult
}

// A commandResult is what became of an invocation on one instance.
type commandResult struct {
	seq                 int64
	of                  *invocation
	instance            string
	status, record      string
	exit                int
	output              []byte
	dropped             int
	code, info          string
	startedAt, finished time.Time
}

func (r *commandResult) number() int64 { return r.seq }

func (c *Cloud) runCommand(q *call) (obj, *apiError) {
	if t := q.str("Type"); t != "RunShellScript" {
		return nil, refuse(400, "InvalidCmdType.NotFound", "The command type %q is not simulated: RunShellScript.", t)
	}
	if m := q.str("RepeatMode"); m != "" && m != "Once" {
		return nil, refuse(400, "InvalidRepeatMode.NotFound", "The RepeatMode %q is not simulated: Once.", m)
	}
	if q.is("EnableParameter") {
		return nil, refuse(400, "UnsupportedParameter", "EnableParameter=true is not simulated.")
	}
	script := []byte(q.str("CommandContent"))
	switch e := q.str("ContentEncoding"); e {
	case "", "PlainText":
	case "Base64":
		decoded, err := base64.StdEncoding.DecodeString(string(script))
		if err != nil {
			return nil, refuse(400, "InvalidParameter.CommandContent", "The CommandContent is not base64.")
		}
		script = decoded
	default:
		return nil, refuse(400, "InvalidParameter.ContentEncoding", "The ContentEncoding %q is not PlainText or Base64.", e)
	}
	if len(script) > maxCommand {
		return nil, fail(400, "CmdContent.ExceedLimit", "The command is longer than %d bytes.", maxCommand)
	}
	limit := time.Duration(q.num("Timeout", 60)) * time.Second
	if limit < time.Second {
		return nil, refuse(400, "InvalidParameter.Timeout", "The Timeout is not positive.")
	}
	tags, err := q.tags()
	if err != nil {
		return nil, err
	}
	ids := q.list("InstanceId")
	if len(ids) == 0 {
		return nil, refuse(400, "MissingParameter", "The input parameter \"InstanceId.1\" that is mandatory for processing this request is not supplied.")
	}
	if len(ids) > 100 {
		return nil, refuse(400, "NumberExceed.InstanceIds", "The instances are more than 100.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if _, err := c.instance(id); err != nil {
			return nil, err
		}
	}
	v := &invocation{seq: c.next(), id: c.newID("t"), command: c.newID("c"), name: q.str("Name"), user: q.str("Username"), mode: q.str("TerminationMode"),
		script: script, timeout: int(limit / time.Second), createdAt: time.Now(), tags: tags}
	c.invocations[v.id] = v
	for _, id := range ids {
		i := c.instances[id]
		r := &commandResult{seq: c.next(), of: v, instance: id, status: "Pending", record: "Running"}
		v.results = append(v.results, r)
		fate := q.takeFate()
		c.after(0, func() { c.deliver(i, r, string(script), limit, fate) })
	}
	return obj{"CommandId": v.command, "InvokeId": v.id}, nil
}

// deliver runs a script on an instance and writes down what became of it.
func (c *Cloud) deliver(i *instance, r *commandResult, script string, limit time.Duration, fate FaultKind) {
	c.mu.Lock()
	up := i.Status == running
	r.startedAt = time.Now()
	if up {
		r.status = "Running"
	}
	switch fate {
	case FaultStuck:
		r.status = "Running"
		c.mu.Unlock()
		return
	case FaultFails:
		r.status, r.record, r.finished = "Failed", "Failed", r.startedAt
		r.code, r.info = "ClientNotResponse", "the agent did not answer"
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	var exit int
	var output []byte
	err := errors.New("the instance is not running")
	ctx, cancel := context.WithTimeout(i.ctx, limit)
	defer cancel()
	if up {
		exit, output, err = c.cfg.Machines.RunCommand(ctx, i.ID, script)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r.finished = time.Now()
	if len(output) > maxOutput {
		r.dropped = len(output) - maxOutput
		output = output[r.dropped:]
	}
	r.output = slices.Clone(output)
	r.record = "Failed"
	switch {
	case !up:
		r.status, r.code, r.info = "Failed", "InstanceNotRunning", err.Error()
	case i.ctx.Err() != nil:
		r.status, r.code, r.info = "Failed", "InstanceReleased", "the instance has been released"
	case ctx.Err() != nil:
		r.status, r.code, r.info = "Timeout", "ExecutionTimeout", "the command did not end in time"
	case err != nil:
		r.status, r.code, r.info = "Failed", "ClientNotRunning", err.Error()
	case exit != 0:
		r.status, r.exit, r.code, r.info = "Failed", exit, "ExitCodeNonzero", "the command ended with an exit code that is not 0"
	default:
		r.status, r.record = "Success", "Finished"
	}
}

func (c *Cloud) describeInvocationResults(q *call) (obj, *apiError) {
	encoding := q.str("ContentEncoding")
	if encoding != "" && encoding != "Base64" && encoding != "PlainText" {
		return nil, refuse(400, "InvalidParameter.ContentEncoding", "The ContentEncoding %q is not PlainText or Base64.", encoding)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if id := q.str("InvokeId"); id != "" && c.invocations[id] == nil {
		return nil, fail(404, "InvalidInvokeId.NotFound", "The specified InvokeId %q does not exist.", id)
	}
	var found []*commandResult
	for _, v := range c.invocations {
		for _, r := range v.results {
			if oneOf(v.id, q.str("InvokeId")) && oneOf(v.command, q.str("CommandId")) &&
				oneOf(r.instance, q.str("InstanceId")) && oneOf(r.record, q.str("InvokeRecordStatus")) {
				found = append(found, r)
			}
		}
	}
	slices.SortFunc(found, func(a, b *commandResult) int { return int(a.seq - b.seq) })
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, r := range part {
		output := base64.StdEncoding.EncodeToString(r.output)
		if encoding == "PlainText" {
			output = string(r.output)
		}
		view := obj{
			"InvokeId": r.of.id, "CommandId": r.of.command, "InstanceId": r.instance,
			"InvocationStatus": r.status, "InvokeRecordStatus": r.record, "Output": output, "Dropped": r.dropped,
			"ErrorCode": r.code, "ErrorInfo": r.info, "Repeats": 1, "Username": r.of.user, "TerminationMode": r.of.mode,
			"StartTime": stamp(r.startedAt, stampSeconds), "FinishedTime": stamp(r.finished, stampSeconds), "StopTime": "",
			"Tags": tagList(r.of.tags),
		}
		if !r.finished.IsZero() {
			view["ExitCode"] = r.exit
		}
		list = append(list, view)
	}
	reply["InvocationResults"] = obj{"InvocationResult": list}
	return obj{"Invocation": reply}, nil
}

func (v *invocation) number() int64 { return v.seq }

// status is what an invocation is as a whole.
func (v *invocation) status() string {
	failed := 0
	for _, r := range v.results {
		switch r.record {
		case "Running":
			return "Running"
		case "Failed":
			failed++
		}
	}
	switch failed {
	case 0:
		return "Finished"
	case len(v.results):
		return "Failed"
	}
	return "PartialFailed"
}

func (c *Cloud) describeInvocations(q *call) (obj, *apiError) {
	filter, err := q.tagFilter()
	if err != nil {
		return nil, err
	}
	encoding := q.str("ContentEncoding")
	if encoding != "" && encoding != "Base64" && encoding != "PlainText" {
		return nil, refuse(400, "InvalidParameter.ContentEncoding", "The ContentEncoding %q is not PlainText or Base64.", encoding)
	}
	encoded := func(b []byte) string {
		if encoding == "PlainText" {
			return string(b)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*invocation
	for _, v := range sorted(c.invocations) {
		on := func(r *commandResult) bool { return oneOf(r.instance, q.str("InstanceId")) }
		if oneOf(v.id, q.str("InvokeId")) && oneOf(v.command, q.str("CommandId")) && like(v.name, q.str("CommandName")) &&
			oneOf("RunShellScript", q.str("CommandType")) && oneOf(v.status(), q.str("InvokeStatus")) &&
			slices.ContainsFunc(v.results, on) && tagged(v.tags, filter) {
			found = append(found, v)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, v := range part {
		instances := []obj{}
		for _, r := range v.results {
			one := obj{
				"InstanceId": r.instance, "InvocationStatus": r.status, "InstanceInvokeStatus": r.record, "Repeats": 1, "Dropped": r.dropped,
				"ErrorCode": r.code, "ErrorInfo": r.info, "Output": "", "Timed": false,
				"CreationTime": stamp(v.createdAt, stampSeconds), "StartTime": stamp(r.startedAt, stampSeconds), "FinishTime": stamp(r.finished, stampSeconds),
			}
			if !r.finished.IsZero() {
				one["ExitCode"] = r.exit
			}
			if q.is("IncludeOutput") {
				one["Output"] = encoded(r.output)
			}
			instances = append(instances, one)
		}
		list = append(list, obj{
			"InvokeId": v.id, "CommandId": v.command, "CommandName": v.name, "CommandType": "RunShellScript", "CommandContent": encoded(v.script),
			"InvokeStatus": v.status(), "InvocationStatus": v.status(), "RepeatMode": "Once", "Timeout": v.timeout, "Timed": false, "Username": v.user,
			"TerminationMode": v.mode, "CreationTime": stamp(v.createdAt, stampSeconds), "Tags": tagList(v.tags),
			"InvokeInstances": obj{"InvokeInstance": instances},
		})
	}
	delete(reply, "MaxResults")
	reply["Invocations"] = obj{"Invocation": list}
	return reply, nil
}

func (c *Cloud) describeCloudAssistantStatus(q *call) (obj, *apiError) {
	ids := q.list("InstanceId")
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*instance
	for _, i := range sorted(c.instances) {
		if (len(ids) == 0 || slices.Contains(ids, i.ID)) && oneOf("Linux", q.str("OSType")) {
			found = append(found, i)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		up, beat := "false", ""
		if i.Status == running {
			up, beat = "true", stamp(time.Now(), stampSeconds)
		}
		list = append(list, obj{
			"InstanceId": i.ID, "CloudAssistantStatus": up, "CloudAssistantVersion": "2.2.3.857", "OSType": "Linux",
			"LastHeartbeatTime": beat, "LastInvokedTime": "", "InvocationCount": 0, "ActiveTaskCount": 0, "SupportSessionManager": true,
		})
	}
	reply["InstanceCloudAssistantStatusSet"] = obj{"InstanceCloudAssistantStatus": list}
	return reply, nil
}
