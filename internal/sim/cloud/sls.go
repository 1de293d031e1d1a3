package cloud

import "net/http"

// serveSLS answers the requests of the Simple Log Service.
func (c *Cloud) serveSLS(w http.ResponseWriter, r *http.Request, requestID string) {
	c.record("sls: " + r.Method + " " + r.URL.Path + " is not simulated")
	writeJSON(w, requestID, 501, obj{"errorCode": "NotSupported", "errorMessage": "The log service is not simulated."})
}
