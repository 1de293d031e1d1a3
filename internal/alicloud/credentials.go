package alicloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Credentials are the key of an account, with where it came from.
type Credentials struct {
	AccessKeyID, AccessKeySecret, SecurityToken string
	Region                                      string // "" if nothing says
	Source                                      string // for people; never holds a value

	role *role // set: the keys are temporary ones, to be fetched
}

// A role is how temporary keys are got.
type role struct {
	ecs      bool         // the instance's own role, from its metadata service
	name     string       // of the ECS role; "" asks which one there is
	arn      string       // of the role that base assumes
	session  string       // its name in the cloud's audit log
	external string       // ID that the role's owner may have asked for
	seconds  int          // how long the keys are to live
	base     *Credentials // who assumes it
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
// profile, the environment, the current profile, the role of the ECS instance
// this runs on, in this order. It is done once for a client, so that all its
// calls are made by one account. It sends nothing: the keys of a role are
// fetched with the first call.
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
	if !errors.Is(err, fs.ErrNotExist) {
		return cr, err
	}
	if os.Getenv("ALIBABA_CLOUD_ECS_METADATA_DISABLED") != "true" {
		if name := os.Getenv("ALIBABA_CLOUD_ECS_METADATA"); name != "" {
			return Credentials{Source: "the ECS role " + name + " (ALIBABA_CLOUD_ECS_METADATA)", role: &role{ecs: true, name: name}}, nil
		}
		if onECS(cfg.dmi) {
			return Credentials{Source: "the role of this ECS instance", role: &role{ecs: true}}, nil
		}
	}
	return Credentials{}, credErr("there are none: set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or run `aliyun configure` (looked at the configuration, ALIBABA_CLOUD_*, ALICLOUD_*, %s and whether this is an ECS instance with a role)", profileFile)
}

// onECS tells by the machine's own description whether it is an ECS instance,
// as cloud-init does; asking the metadata service of a network that has none
// would take seconds.
func onECS(dmi string) bool {
	if dmi == "" {
		dmi = "/sys/class/dmi/id/product_name"
	}
	name, err := os.ReadFile(dmi)
	return err == nil && strings.TrimSpace(string(name)) == "Alibaba Cloud ECS"
}

// profileFile is how messages name the file; it need not be a path of this system.
const profileFile = "~/.aliyun/config.json"

// A profile is one of the file's, with the names of the cloud's own tool.
type profile struct {
	Name     string `json:"name"`
	Mode     string `json:"mode"`
	ID       string `json:"access_key_id"`
	Secret   string `json:"access_key_secret"`
	Token    string `json:"sts_token"`
	Region   string `json:"region_id"`
	ARN      string `json:"ram_role_arn"`
	Session  string `json:"ram_session_name"`
	External string `json:"external_id"`
	Seconds  int    `json:"expired_seconds"`
	ECSRole  string `json:"ram_role_name"`
	Source   string `json:"source_profile"`
}

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
		Current  string    `json:"current"`
		Profiles []profile `json:"profiles"`
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
	return pickProfile(file.Profiles, name, nil)
}

// pickProfile turns a profile into credentials. via are the profiles that led
// to it.
func pickProfile(all []profile, name string, via []string) (Credentials, error) {
	for _, v := range via {
		if v == name {
			return Credentials{}, credErr("profile %q of %s leads back to itself through source_profile", name, profileFile)
		}
	}
	for _, p := range all {
		if p.Name == name {
			return p.credentials(all, append(via, name))
		}
	}
	if len(via) > 0 {
		return Credentials{}, credErr("profile %q of %s has the source_profile %q, which is not there", via[len(via)-1], profileFile, name)
	}
	return Credentials{}, credErr("there is no profile %q in %s", name, profileFile)
}

func (p profile) credentials(all []profile, via []string) (Credentials, error) {
	source := fmt.Sprintf("profile %q of %s", p.Name, profileFile)
	cr := Credentials{AccessKeyID: p.ID, AccessKeySecret: p.Secret, Region: p.Region, Source: source}
	keys := func() error {
		if p.ID == "" || p.Secret == "" {
			return credErr("%s has no access key; run `aliyun configure --profile %s`", source, p.Name)
		}
		return nil
	}
	assume := func(base Credentials) (Credentials, error) {
		if p.ARN == "" {
			return Credentials{}, credErr("%s has no ram_role_arn; run `aliyun configure --mode %s --profile %s`", source, p.Mode, p.Name)
		}
		r := &role{arn: p.ARN, session: p.Session, external: p.External, seconds: p.Seconds, base: &base}
		if r.session == "" {
			r.session = "upgradectl"
		}
		if r.seconds <= 0 {
			r.seconds = 3600
		}
		region := p.Region
		if region == "" {
			region = base.Region
		}
		return Credentials{Region: region, Source: source + " (role " + p.ARN + ")", role: r}, nil
	}
	switch p.Mode {
	case "AK", "":
		return cr, keys()
	case "StsToken":
		if cr.SecurityToken = p.Token; p.Token == "" {
			return Credentials{}, credErr("%s has no sts_token; run `aliyun configure --profile %s`", source, p.Name)
		}
		return cr, keys()
	case "RamRoleArn":
		if err := keys(); err != nil {
			return Credentials{}, err
		}
		cr.SecurityToken = p.Token
		return assume(cr)
	case "ChainableRamRoleArn":
		if p.Source == "" {
			return Credentials{}, credErr("%s has no source_profile; run `aliyun configure --profile %s`", source, p.Name)
		}
		base, err := pickProfile(all, p.Source, via)
		if err != nil {
			return Credentials{}, err
		}
		return assume(base)
	case "EcsRamRole":
		return Credentials{Region: p.Region, Source: source + " (ECS role)", role: &role{ecs: true, name: p.ECSRole}}, nil
	}
	return Credentials{}, credErr("%s has mode %q; supported are AK, StsToken, RamRoleArn, ChainableRamRoleArn and EcsRamRole: use another profile, or put temporary keys into ALIBABA_CLOUD_ACCESS_KEY_ID, _ACCESS_KEY_SECRET and _SECURITY_TOKEN", source, p.Mode)
}
