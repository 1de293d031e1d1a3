package cloud

import (
	"bytes"
	"encoding/base64"
	pixels "image"
	"image/color"
	"image/jpeg"
	"slices"
	"time"
)

// startInstances, stopInstances and deleteInstances are for many instances at
// once: all of them or none, unless SuccessFirst takes those that can be had.

func (c *Cloud) startInstances(q *call) (obj, *apiError) {
	return c.batch(q, func(id string) (func(), *instance, *apiError) {
		i, err := c.startable(id)
		return func() { c.begin(q, i) }, i, err
	})
}

func (c *Cloud) stopInstances(q *call) (obj, *apiError) {
	return c.batch(q, func(id string) (func(), *instance, *apiError) {
		i, mode, err := c.stoppable(q, id)
		return func() { c.end(q, i, mode) }, i, err
	})
}

func (c *Cloud) deleteInstances(q *call) (obj, *apiError) {
	ids := q.list("InstanceId")
	if len(ids) > 100 {
		return nil, refuse(400, "InvalidParameter", "The InstanceIds are more than 100.")
	}
	return c.deleteAll(q, ids...)
}

// batch prepares something for every instance, and then does it.
func (c *Cloud) batch(q *call, prepare func(id string) (func(), *instance, *apiError)) (obj, *apiError) {
	mode := q.str("BatchOptimization")
	if !oneOf(mode, "AllTogether,SuccessFirst") && mode != "" {
		return nil, refuse(400, "InvalidParameter", "The BatchOptimization %q is not AllTogether or SuccessFirst.", mode)
	}
	ids := q.list("InstanceId")
	if len(ids) > 100 {
		return nil, refuse(400, "InvalidParameter", "The InstanceIds are more than 100.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	list, todo, of := []obj{}, []func(){}, []*instance{}
	for _, id := range ids {
		f, i, err := prepare(id)
		if err != nil && mode != "SuccessFirst" {
			return nil, err
		}
		v := obj{"InstanceId": id, "Code": "200", "Message": "success", "PreviousStatus": "", "CurrentStatus": ""}
		if err != nil {
			v["Code"], v["Message"] = err.code, err.message
			f = func() {}
		} else {
			v["PreviousStatus"] = i.Status
		}
		list, todo, of = append(list, v), append(todo, f), append(of, i)
	}
	if err := dryRun(q); err != nil {
		return nil, err
	}
	for n, f := range todo {
		f()
		if list[n]["Code"] == "200" {
			list[n]["CurrentStatus"] = of[n].Status
		}
	}
	return obj{"InstanceResponses": obj{"InstanceResponse": list}}, nil
}

// SetConsole says what an instance printed on its serial console; without it a
// Running one shows a login prompt.
func (c *Cloud) SetConsole(instanceID, output string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consoles[instanceID] = output
}

func (c *Cloud) getInstanceConsoleOutput(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	output, told := c.consoles[i.ID]
	if !told && i.Status == running {
		output = "\r\nCentOS Linux 7 (Core)\r\nKernel on an x86_64\r\n\r\n" + i.HostName + " login: "
	}
	beijing := time.FixedZone("CST", 8*3600) // this one is not in UTC
	return obj{"InstanceId": i.ID, "ConsoleOutput": base64.StdEncoding.EncodeToString([]byte(output)),
		"LastUpdateTime": time.Now().In(beijing).Format(time.DateTime)}, nil
}

func (c *Cloud) getInstanceScreenshot(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	if i.Status != running && i.Status != starting {
		return nil, incorrectStatus(i)
	}
	// A text console, dark but for one line.
	screen := pixels.NewGray(pixels.Rect(0, 0, 320, 200))
	for x := range 160 {
		screen.SetGray(x, 10, color.Gray{Y: 200})
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, screen, &jpeg.Options{Quality: 50}); err != nil {
		panic("internal error: " + err.Error())
	}
	return obj{"InstanceId": i.ID, "Screenshot": base64.StdEncoding.EncodeToString(b.Bytes())}, nil
}

func (c *Cloud) allocatePublicIPAddress(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.instance(q.str("InstanceId"))
	if err != nil {
		return nil, err
	}
	if !i.idle(running) && !i.idle(stopped) {
		return nil, incorrectStatus(i)
	}
	if i.PublicIP == "" {
		i.PublicIP = c.publicIP()
	}
	return obj{"IpAddress": i.PublicIP}, nil
}

// described returns the page of instances that a list of IDs names, all when
// it is empty. c.mu is held.
func (c *Cloud) described(q *call, ids []string) ([]*instance, obj, *apiError) {
	var found []*instance
	for _, i := range sorted(c.instances) {
		if !c.unseen(i) && (len(ids) == 0 || slices.Contains(ids, i.ID)) {
			found = append(found, i)
		}
	}
	part, reply, err := pageOf(q, found)
	if err != nil {
		return nil, nil, err
	}
	return part, obj{"PageNumber": reply["PageNumber"], "PageSize": reply["PageSize"], "TotalCount": reply["TotalCount"]}, nil
}

func (c *Cloud) describeInstanceMaintenanceAttributes(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	part, reply, err := c.described(q, q.list("InstanceId"))
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		list = append(list, obj{
			"InstanceId": i.ID, "NotifyOnMaintenance": false, "MaintenanceWindows": obj{"MaintenanceWindow": []obj{}},
			"ActionOnMaintenance": obj{"Value": "AutoRecover", "DefaultValue": "AutoRecover",
				"SupportedValues": obj{"SupportedValue": []string{"Stop", "AutoRecover", "AutoRedeploy"}}},
		})
	}
	reply["MaintenanceAttributes"] = obj{"MaintenanceAttribute": list}
	return reply, nil
}

func (c *Cloud) describeInstanceAttachmentAttributes(q *call) (obj, *apiError) {
	ids, _ := q.ids("InstanceIds")
	c.mu.Lock()
	defer c.mu.Unlock()
	part, reply, err := c.described(q, ids)
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		list = append(list, obj{"InstanceId": i.ID, "PrivatePoolOptionsMatchCriteria": "None", "PrivatePoolOptionsId": ""})
	}
	reply["Instances"] = obj{"Instance": list}
	return reply, nil
}

func (c *Cloud) describeInstanceAutoRenewAttribute(q *call) (obj, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	part, reply, err := c.described(q, q.words("InstanceId"))
	if err != nil {
		return nil, err
	}
	list := []obj{}
	for _, i := range part {
		if i.ChargeType == "PrePaid" {
			list = append(list, obj{"InstanceId": i.ID, "AutoRenewEnabled": false, "RenewalStatus": "Normal", "Duration": 0, "PeriodUnit": ""})
		}
	}
	reply["TotalCount"] = len(list)
	reply["InstanceRenewAttributes"] = obj{"InstanceRenewAttribute": list}
	return reply, nil
}

// describeTasks lists nothing: no call that is simulated makes a task (those
// that do import, export or redeploy).
func (c *Cloud) describeTasks(q *call) (obj, *apiError) {
	number, size := q.num("PageNumber", 1), q.num("PageSize", 10)
	if number < 1 || size < 1 || size > 100 {
		return nil, refuse(400, "InvalidParameter", "PageNumber starts at 1, and PageSize is between 1 and 100.")
	}
	return obj{"RegionId": c.cfg.Region, "PageNumber": number, "PageSize": size, "TotalCount": 0, "TaskSet": obj{"Task": []obj{}}}, nil
}
