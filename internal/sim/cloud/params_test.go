package cloud

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParameterValues(t *testing.T) {
	c := New(Config{})
	defer c.Close()
	for _, row := range []struct{ action, name, value, code string }{
		{"DescribeInstances", "MaxResults", "many", "InvalidParameter"},
		{"DescribeInstances", "InstanceIds", "i-1", "InvalidParameter"},
		{"DescribeInstances", "InstanceIds", "[" + strings.TrimSuffix(strings.Repeat(`"i",`, 101), ",") + "]", "InvalidParameter"},
		{"DescribeInstances", "Tag.0.Key", "k", "UnsupportedParameter"},
		{"DescribeInstances", "Tag.01.Key", "k", "UnsupportedParameter"},
		{"DescribeInstances", "Tag.2.Key", "k", "InvalidParameter"},
		{"DescribeInstances", "Tag.Key", "k", "UnsupportedParameter"},
		{"DescribeImages", "IsSupportCloudinit", "yes", "InvalidParameter"},
	} {
		_, err := c.parse(parametersOf(ecsVersion, row.action, row.name, row.value))
		if assert.NotNilf(t, err, "%+v", row) {
			assert.Equalf(t, row.code, err.code, "%+v", row)
		}
	}
}
