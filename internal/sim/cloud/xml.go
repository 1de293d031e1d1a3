package cloud

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// xmlAnswer reports whether a request is answered in XML: the RPC APIs' own
// default where Format is absent, but not for clients that sign by version 3.
func xmlAnswer(params map[string]string, v3 bool) bool {
	if f := params["Format"]; f != "" {
		return strings.EqualFold(f, "XML")
	}
	return !v3
}

// An envelope knows in which form one request is answered.
type envelope struct {
	requestID, host string
	xml             bool
	action          string // names the root of an XML answer
}

// write answers with status and v: JSON, or the same as XML.
func (e envelope) write(w http.ResponseWriter, status int, v obj) {
	if !e.xml {
		writeJSON(w, e.requestID, status, v)
		return
	}
	root := e.action + "Response"
	if status != http.StatusOK {
		root = "Error"
	}
	w.Header().Set("Content-Type", "text/xml;charset=utf-8")
	w.Header().Set("X-Acs-Request-Id", e.requestID)
	w.WriteHeader(status)
	_, _ = w.Write(asXML(root, v))
}

// fail answers with an error.
func (e envelope) fail(w http.ResponseWriter, err *apiError) {
	v := obj{
		"RequestId": e.requestID, "HostId": e.host, "Code": err.code, "Message": err.message,
		"Recommend": "https://api.aliyun.com/troubleshoot?q=" + percent(err.code),
	}
	if err.denied != nil {
		v["AccessDeniedDetail"] = err.denied
	}
	e.write(w, err.status, v)
}

// asXML renders what would be JSON in the form of the RPC APIs: a member is an
// element, a list is its element repeated, null is nothing.
func asXML(root string, v obj) []byte {
	plain, err := json.Marshal(v)
	if err != nil {
		panic("internal error: an answer that is not JSON: " + err.Error())
	}
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.UseNumber()
	var tree any
	if err := dec.Decode(&tree); err != nil {
		panic("internal error: " + err.Error())
	}
	var b bytes.Buffer
	b.WriteString("<?xml version='1.0' encoding='UTF-8'?>\n")
	element(&b, root, tree)
	return b.Bytes()
}

func element(b *bytes.Buffer, name string, v any) {
	if l, ok := v.([]any); ok {
		for _, item := range l {
			element(b, name, item)
		}
		return
	}
	if v == nil {
		return
	}
	b.WriteString("<" + name + ">")
	switch x := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			element(b, k, x[k])
		}
	case string:
		_ = xml.EscapeText(b, []byte(x)) // a bytes.Buffer takes everything
	case json.Number:
		b.WriteString(x.String())
	case bool:
		_, _ = io.WriteString(b, map[bool]string{true: "true", false: "false"}[x])
	}
	b.WriteString("</" + name + ">")
}
