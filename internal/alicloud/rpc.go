package alicloud

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/responses"
)

// rpc calls an action of a product whose typed SDK package is not used: it
// would cost minutes of compiling and bring nothing. Product is the name that
// endpoints begin with ("alb", "r-kvstore"). Params are the action's parameters
// under their names on the wire (lists as Name.1, structures as Name.1.Field);
// the region goes along unless it is among them. They travel in the request's
// body, so that a long list does not meet a limit for addresses.
//
// Retries, masking, time limits and endpoint are those of the typed calls. The
// answer is decoded into out, a pointer to a struct or a map, by [decode]; an
// out of nil drops it.
func (c *Client) rpc(ctx context.Context, product, version string, o op, params map[string]string, out any) error {
	o.product = policyName(product)
	create := func() *requests.CommonRequest {
		r := requests.NewCommonRequest()
		r.Product, r.Version, r.ApiName = product, version, o.action
		r.Domain = c.rpcDomain(product)
		r.Method = requests.POST
		return r
	}
	fill := func(r *requests.CommonRequest) {
		for k, v := range params {
			if k == "RegionId" {
				r.QueryParams[k] = v
				continue
			}
			r.FormParams[k] = v
		}
	}
	send := func(cfg *sdk.Config, r *requests.CommonRequest) (*responses.CommonResponse, error) {
		cl, err := sdk.NewClientWithOptions(c.region, cfg, c.credential())
		if err != nil {
			return nil, err
		}
		return cl.ProcessCommonRequest(r)
	}
	return c.retry(ctx, o, func() *Error {
		r, e := attempt(ctx, c, o, create, fill, send)
		if e != nil || out == nil {
			return e
		}
		// Each attempt starts from an empty answer: what an earlier one left
		// half-decoded must not show through.
		v := reflect.ValueOf(out).Elem()
		v.SetZero()
		body := r.GetHttpContentBytes()
		if err := decode(body, v); err != nil {
			var envelope struct{ RequestID string }
			_ = decode(body, reflect.ValueOf(&envelope).Elem())
			return &Error{
				Action: o.action, Code: CodeBadAnswer, Class: Ambiguous, HTTPStatus: r.GetHttpStatus(), RequestID: envelope.RequestID,
				Message: "the answer cannot be decoded: " + c.masked(err.Error(), o.secrets...),
			}
		}
		return nil
	})
}

// masked hides the keys in use, and more, in a text of the cloud's.
func (c *Client) masked(s string, more ...string) string {
	now := c.current()
	return mask(s, append(slices.Clone(more), now.AccessKeyID, now.AccessKeySecret, now.SecurityToken)...)
}

// policyName is a product's name in RAM policies.
func policyName(product string) string {
	if product == "r-kvstore" {
		return "kvstore"
	}
	return product
}

// central lists the regions in which a product is reached at PRODUCT.aliyuncs.com
// instead of PRODUCT.REGION.aliyuncs.com; "*" means all. It is what the SDK
// v1.63.107 has in services/*/endpoint.go, without regions nobody can rent.
var central = map[string]string{
	"alidns":    "*",
	"vpc":       "cn-hangzhou cn-hangzhou-finance cn-shanghai-finance-1 cn-shenzhen-finance-1 cn-beijing-finance-pop cn-north-2-gov-1",
	"ess":       "cn-hangzhou cn-shanghai cn-beijing cn-shenzhen cn-qingdao cn-hongkong us-west-1 us-east-1 ap-southeast-1 cn-hangzhou-finance cn-shanghai-finance-1 cn-shenzhen-finance-1 cn-north-2-gov-1",
	"rds":       "cn-hangzhou cn-shanghai cn-beijing cn-shenzhen cn-qingdao cn-heyuan cn-hongkong us-west-1 us-east-1 ap-southeast-1 cn-shanghai-finance-1 cn-shenzhen-finance-1 cn-beijing-finance-1 cn-north-2-gov-1",
	"r-kvstore": "cn-hangzhou cn-shanghai cn-beijing cn-shenzhen cn-qingdao cn-heyuan cn-hongkong cn-guangzhou cn-wulanchabu cn-hangzhou-finance cn-shanghai-finance-1 cn-shenzhen-finance-1 cn-beijing-finance-1 cn-north-2-gov-1",
	"dds":       "cn-hangzhou cn-shanghai cn-beijing cn-shenzhen cn-qingdao cn-heyuan cn-guangzhou cn-wulanchabu cn-hangzhou-finance cn-shanghai-finance-1 cn-shenzhen-finance-1 cn-beijing-finance-1 cn-north-2-gov-1",
	"polardb":   "cn-hangzhou cn-shanghai cn-beijing cn-shenzhen cn-qingdao cn-heyuan cn-hongkong cn-guangzhou cn-wulanchabu cn-huhehaote us-west-1 cn-hangzhou-finance cn-shanghai-finance-1 cn-shenzhen-finance-1 cn-north-2-gov-1",
}

// hostNames are the products whose host name begins with another word.
var hostNames = map[string]string{"dds": "mongodb", "cms": "metrics"}

// rpcDomain returns the host of a product that goes through rpc.
func (c *Client) rpcDomain(product string) string {
	if c.host != "" {
		return c.host
	}
	name := product
	if n := hostNames[product]; n != "" {
		name = n
	}
	if regions := central[product]; regions == "*" || slices.Contains(strings.Fields(regions), c.region) {
		return name + ".aliyuncs.com"
	}
	return name + "." + c.region + ".aliyuncs.com"
}

// decode decodes an answer as the cloud's own clients do: names are matched
// exactly ("json" tag, else the field's name, where ID stands for Id), numbers
// and booleans may come as strings and the other way round, "" and null are the
// zero value, and fields that nobody asked for are skipped. What is neither is
// an error that names the field.
func decode(body []byte, v reflect.Value) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return fmt.Errorf("not JSON")
	}
	return assign("answer", tree, v)
}

func assign(path string, from any, to reflect.Value) error {
	mismatch := func() error { return fmt.Errorf("%s has an unexpected type", path) }
	if from == nil {
		to.SetZero()
		return nil
	}
	scalar, isScalar := "", true
	switch x := from.(type) {
	case string:
		scalar = x
	case json.Number:
		scalar = x.String()
	case bool:
		scalar = strconv.FormatBool(x)
	default:
		isScalar = false
	}
	switch to.Kind() {
	case reflect.Pointer:
		p := reflect.New(to.Type().Elem())
		if err := assign(path, from, p.Elem()); err != nil {
			return err
		}
		to.Set(p)
	case reflect.Interface:
		to.Set(reflect.ValueOf(from))
	case reflect.Struct:
		m, ok := from.(map[string]any)
		if !ok {
			if isScalar && scalar == "" {
				to.SetZero()
				return nil
			}
			return mismatch()
		}
		for i := range to.NumField() {
			f := to.Type().Field(i)
			if f.Anonymous && f.Type.Kind() == reflect.Struct {
				if err := assign(path, from, to.Field(i)); err != nil {
					return err
				}
				continue
			}
			if !f.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-":
				continue
			case name == "" && strings.HasSuffix(f.Name, "ID"):
				name = strings.TrimSuffix(f.Name, "ID") + "Id"
			case name == "":
				name = f.Name
			}
			if x, ok := m[name]; ok {
				if err := assign(path+"."+name, x, to.Field(i)); err != nil {
					return err
				}
			}
		}
	case reflect.Map:
		m, ok := from.(map[string]any)
		if !ok || to.Type().Key().Kind() != reflect.String {
			return mismatch()
		}
		out := reflect.MakeMapWithSize(to.Type(), len(m))
		for k, x := range m {
			e := reflect.New(to.Type().Elem()).Elem()
			if err := assign(path+"."+k, x, e); err != nil {
				return err
			}
			out.SetMapIndex(reflect.ValueOf(k).Convert(to.Type().Key()), e)
		}
		to.Set(out)
	case reflect.Slice:
		l, ok := from.([]any)
		if !ok {
			if isScalar && scalar == "" {
				to.SetZero()
				return nil
			}
			return mismatch()
		}
		out := reflect.MakeSlice(to.Type(), len(l), len(l))
		for i, x := range l {
			if err := assign(fmt.Sprintf("%s[%d]", path, i), x, out.Index(i)); err != nil {
				return err
			}
		}
		to.Set(out)
	case reflect.String:
		if !isScalar {
			return mismatch()
		}
		to.SetString(scalar)
	case reflect.Bool:
		b, err := strconv.ParseBool(scalar)
		if !isScalar || err != nil && scalar != "" {
			return mismatch()
		}
		to.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64:
		if isScalar && scalar == "" {
			to.SetZero()
			return nil
		}
		n, err := strconv.ParseInt(scalar, 10, to.Type().Bits())
		if f, ferr := strconv.ParseFloat(scalar, 64); err != nil && ferr == nil && f == float64(int64(f)) && !to.OverflowInt(int64(f)) {
			n, err = int64(f), nil
		}
		if !isScalar || err != nil {
			return mismatch()
		}
		to.SetInt(n)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(scalar, 64)
		if !isScalar || err != nil && scalar != "" {
			return mismatch()
		}
		to.SetFloat(f)
	default:
		return fmt.Errorf("internal error: %s: cannot decode into %s", path, to.Type())
	}
	return nil
}
