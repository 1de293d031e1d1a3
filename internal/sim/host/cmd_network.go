package host

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// settings are the files of /etc that every host begins with.
var settings = map[string]string{
	"/etc/resolv.conf":          "options timeout:2 attempts:3 rotate single-request-reopen\nnameserver 100.100.2.136\nnameserver 100.100.2.138\n",
	"/etc/nsswitch.conf":        "passwd:     files\nhosts:      files dns\n",
	"/etc/crontab":              "SHELL=/bin/bash\nPATH=/sbin:/bin:/usr/sbin:/usr/bin\nMAILTO=root\n",
	"/etc/sudoers":              "root\tALL=(ALL) \tALL\n%wheel\tALL=(ALL)\tALL\n",
	"/etc/security/limits.conf": "root soft nofile 65535\nroot hard nofile 65535\n* soft nofile 65535\n* hard nofile 65535\n",
	"/etc/sysctl.conf":          "vm.swappiness = 30\n",
	"/etc/selinux/config":       "SELINUX=disabled\nSELINUXTYPE=targeted\n",
	"/etc/chrony.conf":          "server ntp.cloud.aliyuncs.com minpoll 4 maxpoll 10 iburst\n",
	"/etc/ssh/sshd_config":      "Port 22\nPermitRootLogin yes\nPasswordAuthentication no\n",
}

// timeoutPatience is what timeout grants a program on a slow machine.
const timeoutPatience = 5 * time.Second

// cmdTimeout is timeout SECONDS COMMAND.
func cmdTimeout(ctx context.Context, p *Proc) int {
	f, ok := p.flags("+")
	if !ok {
		return statusUnknownFlag
	}
	if len(f.rest) < 2 {
		return p.failf(125, "missing operand")
	}
	n, ok := number(f.rest[0])
	if !ok || n == 0 {
		return p.refusef("duration %s", f.rest[0])
	}
	// What a program computes takes the time that this machine needs, and only
	// its waits are scaled.
	limited, cancel := context.WithTimeout(ctx, p.Host.scale(time.Duration(n)*time.Second)+timeoutPatience)
	defer cancel()
	status := p.Host.execute(limited, p, f.rest[1:])
	if limited.Err() != nil && ctx.Err() == nil {
		return 124
	}
	return status
}

// cmdGrubby is grubby --default-kernel and grubby --set-default=KERNEL.
func cmdGrubby(_ context.Context, p *Proc) int {
	f, ok := p.flags("--default-kernel", "--set-default=")
	if !ok {
		return statusUnknownFlag
	}
	kernel, set := f.val["--set-default"]
	if f.is["--default-kernel"] == set || len(f.rest) > 0 {
		return p.refusef("only grubby --default-kernel and grubby --set-default=KERNEL")
	}
	if p.p.cred.uid != 0 {
		return p.failf(1, "error opening /boot/grub2/grub.cfg for read: Permission denied")
	}
	if set {
		release, ok := strings.CutPrefix(kernel, "/boot/vmlinuz-")
		if _, err := p.tree().stat(cred{}, kernel, true); !ok || err != nil {
			return p.failf(1, "The param %s is incorrect", kernel) // as grubby of RHEL 8
		}
		p.Host.pk.setBootKernel(release)
		return 0
	}
	fmt.Fprintln(p.Stdout, "/boot/vmlinuz-"+p.Host.pk.nextKernel())
	return 0
}

// cmdIptablesSave prints the rules that /etc/sysconfig/iptables (or ip6tables)
// holds: what the service loads at boot is all there is here.
func cmdIptablesSave(_ context.Context, p *Proc) int {
	if len(p.Args) > 1 {
		return p.refusef("arguments")
	}
	name := strings.TrimSuffix(path.Base(p.Args[0]), "-save")
	if p.p.cred.uid != 0 {
		fmt.Fprintf(p.Stderr, "Fatal: can't open lock file /run/xtables.lock: Permission denied\n")
		return 4
	}
	data, err := p.tree().readFile(cred{}, "/etc/sysconfig/"+name)
	if err == nil {
		_, _ = p.Stdout.Write(data)
	}
	return 0
}

// cmdIP shows addresses, routes and rules of a host with one interface.
func cmdIP(_ context.Context, p *Proc) int {
	h := p.Host
	gateway := h.spec.Addr
	if i := strings.LastIndexByte(gateway, '.'); i > 0 {
		gateway = gateway[:i] + ".253"
	}
	text, ok := map[string]string{
		"-o addr show": "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n" +
			"2: eth0    inet " + h.spec.Addr + "/24 brd " + strings.TrimSuffix(gateway, "253") + "255 scope global dynamic eth0\\       valid_lft 315359990sec preferred_lft 315359990sec\n",
		"-4 route show table all": "default via " + gateway + " dev eth0 \n" + strings.TrimSuffix(gateway, "253") + "0/24 dev eth0 proto kernel scope link src " + h.spec.Addr + " \n" +
			"local " + h.spec.Addr + " dev eth0 table local proto kernel scope host src " + h.spec.Addr + " \n",
		"-6 route show table all": "",
		"-4 rule show":            "0:\tfrom all lookup local \n32766:\tfrom all lookup main \n32767:\tfrom all lookup default \n",
		"-6 rule show":            "0:\tfrom all lookup local \n32766:\tfrom all lookup main \n",
	}[strings.Join(p.Args[1:], " ")]
	if !ok {
		return p.refusef("ip %s", strings.Join(p.Args[1:], " "))
	}
	_, _ = io.WriteString(p.Stdout, text)
	return 0
}
