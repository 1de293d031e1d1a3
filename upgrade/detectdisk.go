package upgrade

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/upgradectl/upgradectl/ecs"
	"github.com/upgradectl/upgradectl/hostinv"
)

// networkTypes are file systems that other hosts mount as well, fuse ones by
// their prefix.
func networkType(typ string) bool {
	return slices.Contains([]string{"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "lustre", "gfs2", "ocfs2", "9p", "afs", "beegfs"}, typ) ||
		slices.ContainsFunc([]string{"fuse.ossfs", "fuse.s3fs", "fuse.cosfs", "fuse.obsfs", "fuse.goofys", "fuse.juicefs", "fuse.jfs", "fuse.glusterfs", "fuse.ceph", "fuse.sshfs", "fuse.rclone", "fuse.alinas", "fuse.cpfs"},
			func(p string) bool { return strings.HasPrefix(typ, p) })
}

// plainDevice is a name that the kernel gives in the order in which it finds
// disks: nothing holds it together with one disk.
var plainDevice = regexp.MustCompile(`^/dev/(vd|sd|xvd|hd)[a-z]+[0-9]*$|^/dev/nvme[0-9]+n[0-9]+(p[0-9]+)?$`)

// spread tells whether a mount is on a volume that may lie on several disks.
func spread(source string) bool {
	return strings.HasPrefix(source, "/dev/mapper/") || strings.HasPrefix(source, "/dev/dm-") || strings.HasPrefix(source, "/dev/md") || strings.HasPrefix(source, "/dev/bcache")
}

// detectDisks looks whether snapshots of the disks are of one moment.
func detectDisks(cfg *Config, f *Facts, _ time.Time) []Finding {
	if cfg.Transition.Instance != "" {
		return nil // nothing is copied
	}
	var l found
	why := ecs.NoSnapshotGroup(f.Disks)
	var volumes []string
	for _, m := range f.Inventory.Mounts {
		if spread(m.Source) && !slices.Contains(volumes, m.Target) {
			volumes = append(volumes, m.Target)
		}
	}
	switch {
	case len(f.Disks) < 2:
	case why != "" && len(volumes) > 0:
		l.add(FindingBlocking, "disk-spread", list(volumes), "stop what writes there for the snapshot, or unmount it; else the copy's file system may be torn",
			"%s may lie on several disks (LVM, RAID), and their snapshots cannot be of one moment: %s", list(volumes), why)
	case why != "":
		l.add(FindingWarning, "disk-moments", f.Instance.ID, "see that nothing relies on two disks having the same moment", "the %d disks are snapshotted one after another: %s", len(f.Disks), why)
	}
	l.add(FindingInfo, "disk-crash-consistent", f.Instance.ID, "", "the copy begins as after a power cut: what is in memory and not yet written is not in the snapshots")
	return l
}

// detectMounts looks at what the copy would mount, and whether it would boot.
func detectMounts(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	inv := f.Inventory
	for _, m := range inv.Mounts {
		if !networkType(m.Type) {
			continue
		}
		if slices.Contains(m.Options, "ro") {
			l.add(FindingInfo, "mount-network", m.Target, "", "%s is %s (%s), read-only: the copy mounts it as well, if its address is let in", m.Target, m.Source, m.Type)
			continue
		}
		l.add(FindingBlocking, "mount-network", m.Target, "see that two hosts may write there at the same time under the same names, and that the transition host's address is let in",
			"%s is %s (%s): the copy mounts it as well and writes to the very same files", m.Target, m.Source, m.Type)
	}
	data := 0
	for _, d := range f.Disks {
		if d.Type == "data" {
			data++
		}
	}
	for _, m := range inv.Fstab {
		nofail := slices.Contains(m.Options, "nofail")
		switch {
		case m.Type == "swap" && plainDevice.MatchString(m.Source):
			l.add(FindingWarning, "swap-device", m.Source, "name it by its UUID (swaplabel, blkid)", "fstab names the swap %s by its device: the order of disks is not the same on every host", m.Source)
		case m.Type == "swap":
		case plainDevice.MatchString(m.Source) && m.Target != "/" && m.Target != "/boot" && data > 1:
			l.add(FindingWarning, "mount-device", m.Target, "name it by its UUID (blkid): with several data disks the copy may find them in another order", "fstab mounts %s by the device %s", m.Target, m.Source)
		case plainDevice.MatchString(m.Source):
			l.add(FindingInfo, "mount-device", m.Target, "name it by its UUID (blkid)", "fstab mounts %s by the device %s", m.Target, m.Source)
		}
		if (plainDevice.MatchString(m.Source) || strings.HasPrefix(m.Source, "UUID=") || networkType(m.Type)) && !nofail && !slices.Contains(m.Options, "noauto") &&
			m.Type != "swap" && !slices.Contains([]string{"/", "/boot", "/boot/efi", "/usr", "/var"}, m.Target) {
			l.add(FindingWarning, "mount-no-fail", m.Target, "add nofail (and _netdev to a network file system) to its line in /etc/fstab", "fstab mounts %s without nofail: a host that does not find it stops in its boot", m.Target)
		}
	}
	for _, fs := range inv.Filesystems {
		if fs.Bytes > 0 && fs.Available*100/fs.Bytes < 5 && !strings.HasPrefix(fs.Target, "/snap/") {
			l.add(FindingWarning, "disk-full", fs.Target, "make room: updates and logs need it", "%s has %d%% left (%d MiB)", fs.Target, fs.Available*100/fs.Bytes, fs.Available>>20)
		}
	}
	return l
}

// detectCrypt looks for block devices that the host encrypts by itself. One that
// asks for a passphrase keeps the host, and its copy, from coming up until
// somebody is at the console; one that was opened by hand is not there at all.
func detectCrypt(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	if f.Extra == nil {
		return nil
	}
	for _, d := range f.Extra.Crypt {
		has := func(options ...string) bool {
			return slices.ContainsFunc(d.Options, func(o string) bool { return slices.Contains(options, strings.SplitN(o, "=", 2)[0]) })
		}
		switch {
		case d.Source == "":
			l.add(FindingBlocking, "disk-crypt", d.Name, "write it into /etc/crypttab with a key file, or be there at every boot of both hosts", "the encrypted device %s was opened by hand: after a reboot nobody opens it", d.Name)
		case has("swap", "tmp") || strings.HasPrefix(d.Key, "/dev/"):
			l.add(FindingInfo, "disk-crypt", d.Name, "", "%s (%s) is encrypted with a new key at each boot", d.Name, d.Source)
		case has("tpm2-device", "fido2-device", "pkcs11-uri"):
			l.add(FindingBlocking, "disk-crypt", d.Name, "add a key that the copy has too: a file, or a passphrase with somebody at the console", "%s (%s) opens by a device of production's machine, which the copy does not have", d.Name, d.Source)
		case d.Key != "":
			l.add(FindingInfo, "disk-crypt", d.Name, "see that the key file comes along: it does when it is on a disk of the instance", "%s (%s) is encrypted, and opened with %s at boot", d.Name, d.Source, d.Key)
		case has("noauto"):
			l.add(FindingWarning, "disk-crypt", d.Name, "be there to open it after each boot of both hosts, or give it a key file", "%s (%s) is encrypted, and nobody opens it at boot", d.Name, d.Source)
		default:
			l.add(FindingBlocking, "disk-crypt", d.Name, "give it a key file in /etc/crypttab, a Tang server that both hosts reach (clevis), or somebody at both consoles (VNC)",
				"%s (%s) is encrypted, and the boot asks for its passphrase", d.Name, d.Source)
		}
	}
	return l
}

// stateful are programs whose truth is on the disk of the host they run on, by
// the name of the process or a word of a Java command line. Never written to.
var stateful = []struct {
	name, what string
	processes  []string // names of processes
	java       string   // in the class or jar of a Java process, or ""
}{
	{"mysql", "MySQL", []string{"mysqld", "mariadbd"}, ""},
	{"postgresql", "PostgreSQL", []string{"postgres", "postmaster"}, ""},
	{"mongodb", "MongoDB", []string{"mongod"}, ""},
	{"redis", "Redis", []string{"redis-server", "valkey-server", "keydb-server"}, ""},
	{"elasticsearch", "Elasticsearch", nil, "org.elasticsearch.bootstrap"},
	{"opensearch", "OpenSearch", nil, "org.opensearch.bootstrap"},
	{"minio", "MinIO", []string{"minio"}, ""},
	{"jenkins", "Jenkins", nil, "jenkins.war"},
	{"gitlab", "GitLab", []string{"gitaly"}, ""},
	{"nexus", "Nexus", nil, "org.sonatype.nexus"},
	{"rabbitmq", "RabbitMQ", []string{"beam.smp"}, ""},
	{"kafka", "Kafka", nil, "kafka.Kafka"},
	{"zookeeper", "ZooKeeper", nil, "org.apache.zookeeper.server"},
	{"rocketmq", "RocketMQ", nil, "org.apache.rocketmq.broker"},
	{"activemq", "ActiveMQ", nil, "activemq.jar"},
	{"nacos", "Nacos", nil, "nacos-server.jar"},
	{"etcd", "etcd", []string{"etcd"}, ""},
	{"consul", "Consul", []string{"consul"}, ""},
	{"clickhouse", "ClickHouse", []string{"clickhouse-serv", "clickhouse-server"}, ""},
	{"influxdb", "InfluxDB", []string{"influxd"}, ""},
	{"prometheus", "Prometheus", []string{"prometheus"}, ""},
	{"nfs", "an NFS server", []string{"nfsd", "rpc.mountd", "ganesha.nfsd"}, ""},
	{"ldap", "OpenLDAP", []string{"slapd"}, ""},
	{"svn", "Subversion", []string{"svnserve"}, ""},
}

// detectState looks for what keeps its truth on the host's own disks: as soon as
// the transition host serves, the two part from each other, and what was written
// there is lost when traffic goes back.
func detectState(_ *Config, f *Facts, _ time.Time) []Finding {
	var l found
	inv := f.Inventory
	const remedy = "move it off the host (RDS, a server of its own), or say what is so: state: external (its truth is elsewhere), state: accepted (what is written meanwhile may be lost)"
	for _, s := range stateful {
		var seen []string
		for _, p := range inv.Processes {
			if slices.Contains(s.processes, p.Name) || slices.Contains(s.processes, p.Program) {
				seen = append(seen, fmt.Sprintf("%s (process %d%s)", p.Name, p.PID, inContainer(inv, p.Container)))
			}
		}
		for _, j := range inv.Java {
			if s.java != "" && (strings.HasPrefix(j.MainClass, s.java) || path.Base(j.Jar) == s.java) {
				seen = append(seen, fmt.Sprintf("java (process %d%s)", j.PID, inContainer(inv, j.Container)))
			}
		}
		if len(seen) > 0 {
			l.add(FindingBlocking, "state-process", s.name, remedy, "%s keeps its data on the host: %s", s.what, list(seen))
		}
	}
	for _, c := range inv.Containers {
		if c.State != "running" {
			continue
		}
		for _, v := range c.Volumes {
			if v.Type == "volume" && v.Source != "" && !v.ReadOnly && !anonymous(v.Source) {
				l.add(FindingBlocking, "state-volume", v.Source, remedy, "container %s keeps data in the volume %s (%s)", c.Name, v.Source, v.Target)
			}
		}
	}
	if f.Extra != nil {
		for _, d := range f.Extra.Databases {
			if ofEngine(inv, d) {
				continue
			}
			l.add(FindingBlocking, "state-file", d.Path, remedy, "%s has the database file %s open", d.By, d.Path)
		}
	}
	return l
}

// ofEngine tells whether a file is the container engine's own record of what it
// runs: it is copied with the disk and says nothing of the services.
func ofEngine(inv *hostinv.Inventory, d OpenFile) bool {
	pid, err := strconv.Atoi(strings.TrimPrefix(d.By, "process "))
	i := slices.IndexFunc(inv.Processes, func(p hostinv.Process) bool { return p.PID == pid })
	if err != nil || i < 0 || !strings.HasPrefix(inv.Processes[i].Name, "dockerd") && !strings.HasPrefix(inv.Processes[i].Name, "containerd") {
		return false
	}
	return slices.ContainsFunc([]string{inv.Docker.RootDir, "/var/lib/docker", "/var/lib/containerd", "/run"}, func(dir string) bool {
		return dir != "" && strings.HasPrefix(d.Path, strings.TrimSuffix(dir, "/")+"/")
	})
}

func inContainer(inv *hostinv.Inventory, id string) string {
	if id == "" {
		return ""
	}
	for _, c := range inv.Containers {
		if c.ID == id {
			return " in container " + c.Name
		}
	}
	return " in a container"
}

var hexName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// anonymous tells whether Docker itself named a volume: an image declares it,
// and whoever needed its content would have named it.
func anonymous(volume string) bool { return hexName.MatchString(volume) }
