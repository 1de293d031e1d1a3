package alicloud

import "context"

// nlbJob asks for one job, where ALB lists them; why one failed is in the
// answer's own Code.
func (c *Client) nlbJob(ctx context.Context, jobID string) (Job, error) {
	var out struct {
		envelope
		Status string
	}
	if err := c.sg(ctx, NLB, read("GetJobStatus"), map[string]string{"JobId": jobID}, &out); err != nil {
		return Job{}, err
	}
	j := Job{Status: out.Status}
	if j.Status == "Failed" && out.Code != "200" { // 200 is the code of the answer
		j.Code, j.Message = out.Code, c.masked(out.Message)
	}
	return j, nil
}
