package alicloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Credentials are the key of an account, with where it came from.
type Credentials struct {
	AccessKeyID, AccessKeySecret, SecurityToken string
	Region                                      string // "" if nothing says
	Source                                      string // for people; never holds a value
}

// envNames are the variables of the cloud's own tools and, after them, of the
// infrastructure tools that people already have set up.
var envNames = [][3]string{
	{"ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_SECURITY_TOKEN"},
	{"ALICLOUD_ACCESS_KEY", "ALICLOUD_SECRET_KEY", "ALICLOUD_SECURITY_TOKEN"},
}

// A credentialError is about missing or half-given credentials.
type credentialError struct{ msg string }

func (e *credentialError) Error() string        { return e.msg }
func (e *credentialError) Is(target error) bool { return target == ErrCredentials }

func credErr(format string, args ...any) error {
	return &credentialError{fmt.Sprintf(format, args...)}
}

// Resolve finds the credentials and the region: the explicit ones, an explicit
// profile, the environment, the current profile, in this order. It is done once
// for a client, so that all its calls are made by one account.
func Resolve(cfg Config) (Credentials, error) {
	cr, err := resolveKeys(cfg)
	if err != nil {
		return Credentials{}, err
	}
	region := cr.Region
	for _, r := range []string{os.Getenv("ALICLOUD_REGION"), os.Getenv("ALIBABA_CLOUD_REGION_ID")} {
		// An explicitly named profile speaks for its own region.
		if r != "" && (cfg.Profile == "" || region == "") {
			region = r
		}
	}
	if cfg.Region != "" {
		region = cfg.Region
	}
	cr.Region = region
	return cr, nil
}

func resolveKeys(cfg Config) (Credentials, error) {
	if cfg.AccessKeyID != "" || cfg.AccessKeySecret != "" {
		if cfg.AccessKeyID == "" || cfg.AccessKeySecret == "" {
			return Credentials{}, credErr("the configuration gives only one of access key ID and access key secret; give both or neither")
		}
		return Credentials{AccessKeyID: cfg.AccessKeyID, AccessKeySecret: cfg.AccessKeySecret, SecurityToken: cfg.SecurityToken, Source: "the configuration"}, nil
	}
	if cfg.Profile != "" {
		cr, err := fromProfile(cfg.Profile)
		if errors.Is(err, fs.ErrNotExist) {
			return Credentials{}, credErr("there is no %s to take profile %q from; run `aliyun configure --profile %s` or give other credentials", profileFile, cfg.Profile, cfg.Profile)
		}
		return cr, err
	}
	for _, names := range envNames {
		id, secret := os.Getenv(names[0]), os.Getenv(names[1])
		switch {
		case id != "" && secret != "":
			return Credentials{AccessKeyID: id, AccessKeySecret: secret, SecurityToken: os.Getenv(names[2]), Source: "the environment (" + names[0] + ")"}, nil
		case id != "":
			return Credentials{}, credErr("%s is set and %s is not; set both or neither", names[0], names[1])
		case secret != "":
			return Credentials{}, credErr("%s is set and %s is not; set both or neither", names[1], names[0])
		}
	}
	cr, err := fromProfile("")
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, credErr("there are none: set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or run `aliyun configure` (looked at the configuration, ALIBABA_CLOUD_*, ALICLOUD_* and %s)", profileFile)
	}
	return cr, err
}

// profileFile is how messages name the file; it need not be a path of this system.
const profileFile = "~/.aliyun/config.json"

// fromProfile reads a profile; name "" is the current one.
func fromProfile(name string) (Credentials, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return Credentials{}, fs.ErrNotExist
	}
	data, err := os.ReadFile(filepath.Join(home, ".aliyun", "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, fs.ErrNotExist
	}
	if err != nil {
		return Credentials{}, credErr("cannot read %s: %v", profileFile, errors.Unwrap(err))
	}
	var file struct {
		Current  string `json:"current"`
		Profiles []struct {
			Name   string `json:"name"`
			Mode   string `json:"mode"`
			ID     string `json:"access_key_id"`
			Secret string `json:"access_key_secret"`
			Token  string `json:"sts_token"`
			Region string `json:"region_id"`
		} `json:"profiles"`
	}
	// The text of a JSON error may quote the file, so it is not shown.
	if json.Unmarshal(data, &file) != nil {
		return Credentials{}, credErr("%s is not valid JSON", profileFile)
	}
	if name == "" {
		if name = os.Getenv("ALIBABA_CLOUD_PROFILE"); name == "" {
			name = file.Current
		}
	}
	for _, p := range file.Profiles {
		if p.Name != name {
			continue
		}
		source := fmt.Sprintf("profile %q of %s", name, profileFile)
		cr := Credentials{AccessKeyID: p.ID, AccessKeySecret: p.Secret, Region: p.Region, Source: source}
		switch p.Mode {
		case "AK", "":
		case "StsToken":
			if cr.SecurityToken = p.Token; p.Token == "" {
				return Credentials{}, credErr("%s has no sts_token; run `aliyun configure --profile %s`", source, name)
			}
		default:
			return Credentials{}, credErr("%s has mode %q; modes AK and StsToken are supported: use another profile, or put temporary keys into ALIBABA_CLOUD_ACCESS_KEY_ID, _ACCESS_KEY_SECRET and _SECURITY_TOKEN", source, p.Mode)
		}
		if p.ID == "" || p.Secret == "" {
			return Credentials{}, credErr("%s has no access key; run `aliyun configure --profile %s`", source, name)
		}
		return cr, nil
	}
	return Credentials{}, credErr("there is no profile %q in %s", name, profileFile)
}
