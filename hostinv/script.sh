# upgradectl inventory collector
#
# Reads the inventory of this host and writes it in frames. It changes nothing,
# uses no temporary file, and needs nothing but sh and the commands below.
# Everything is a function and the last line calls main, so that a script cut
# off on its way runs nothing. The mark is random, and a part that the host adds
# is known to this shell alone, so that nobody on the host can forge it, even
# where the script is an argument that everybody may read.
mark='@MARK@'
LC_ALL=C
LANG=C
export LC_ALL LANG
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umask 077

item() { printf '\n%s I %s\n' "$mark" "$1"; }

# lack names what this user may not read, or what did not answer.
lack() { printf '\n%s U %s\n' "$mark" "$1"; }

have() { command -v "$1" >/dev/null 2>&1; }

# run limits a command to 20 s. Where there is no timeout, a watch ends it; its
# own sleep goes with it.
run() {
	if [ -n "$timeout" ]; then
		timeout 20 "$@"
		r=$?
	else
		"$@" &
		child=$!
		{
			trap 'kill "$nap"; exit 0' TERM
			sleep 20 &
			nap=$!
			wait "$nap"
			kill -9 "$child"
		} >/dev/null 2>&1 &
		watch=$!
		wait "$child"
		r=$?
		kill "$watch" 2>/dev/null
		[ "$r" -ne 137 ] || r=124
	fi
	[ "$r" -ne 124 ] || late=1
	return "$r"
}

# section NAME runs sec_NAME, capped NAME... one or more with a limit to their
# output. The line with a section's status comes from inside the cap: where it
# is missing, the output was cut.
section() {
	printf '\n%s B %s\n' "$mark" "$1"
	body "$1" </dev/null
	printf '\n%s E %s\n' "$mark" "$1"
}

capped() {
	if [ "$#" -gt 1 ]; then
		for s do section "$s"; done | head -c 8388608
		return
	fi
	printf '\n%s B %s\n' "$mark" "$1"
	body "$1" </dev/null | head -c 8388608
	printf '\n%s E %s\n' "$mark" "$1"
}

body() {
	late=
	"sec_$1" 2>/dev/null
	r=$?
	[ -z "$late" ] || r=124
	printf '\n%s R %s\n' "$mark" "$r"
}

# Statuses of the sections: 0 ok, 10 absent, 12 partial, 124 timeout, others
# as the item "message" tells. A lack makes an ok section partial.

# lines ITEM FILE... sends text files, each line after the name of its file.
# Files and patterns without a file are left out.
lines() {
	item "$1"
	shift
	n=$#
	for f do
		if [ ! -f "$f" ]; then :; elif [ -r "$f" ]; then set -- "$@" "$f"; else lack "$f"; fi
	done
	shift "$n"
	[ "$#" -eq 0 ] || grep -a -H '' "$@"
}

# sums ITEM FILE... sends the digests of files.
sums() {
	item "$1"
	shift
	n=$#
	for f do
		if [ ! -f "$f" ]; then :; elif [ -r "$f" ]; then set -- "$@" "$f"; else lack "$f"; fi
	done
	shift "$n"
	[ "$#" -eq 0 ] || sha256sum "$@"
}

# entry DIRECTORY... names those that may not be listed.
entry() {
	for f do
		if [ -d "$f" ]; then
			[ -r "$f" ] && [ -x "$f" ] || lack "$f"
		elif [ -d "${f%/*}" ] && [ ! -x "${f%/*}" ]; then
			lack "$f"
		fi
	done
}

# show is cat for one small text file: starting a program costs more.
show() {
	while IFS= read -r line || [ -n "$line" ]; do printf '%s\n' "$line"; done <"$1"
}

sec_os() {
	item os-release
	show /etc/os-release
	item redhat-release
	show /etc/redhat-release
	item debian_version
	show /etc/debian_version
	return 0
}

sec_kernel() {
	item release
	show /proc/sys/kernel/osrelease || return 1
	item cmdline
	show /proc/cmdline || lack /proc/cmdline
	return 0
}

sec_boot() { show /proc/sys/kernel/random/boot_id; }

sec_uptime() {
	item uptime
	show /proc/uptime || return 1
	item clock
	date +%s
}

sec_host() {
	item hostname
	show /proc/sys/kernel/hostname || hostname
	item uid
	id -u
	item machine-id
	show /etc/machine-id
	return 0
}

sec_kernels() {
	item images
	ls -1 /boot
	item default
	if have grubby; then
		run grubby --default-kernel || lack "grubby --default-kernel"
	fi
	lines settings /boot/grub2/grubenv /boot/grub/grubenv /etc/default/grub
	item reboot
	[ ! -e /run/reboot-required ] || echo required
	return 0
}

sec_packages() {
	if have dpkg-query && [ -e /var/lib/dpkg/status ]; then
		item dpkg
		run dpkg-query -W -f '${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n'
	elif have rpm; then
		item rpm
		run rpm -qa --qf '%{NAME}\t%{EPOCH}\t%{VERSION}-%{RELEASE}\t%{ARCH}\n'
	elif have apk; then
		item apk
		run apk info -v
	else
		return 10
	fi
}

sec_hardware() {
	item cpus
	cat /sys/devices/system/cpu/online
	item cpuinfo
	head -n 30 /proc/cpuinfo
	item meminfo
	head -n 60 /proc/meminfo
	item product
	cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name
	return 0
}

sec_disks() {
	item partitions
	cat /proc/partitions || return 1
	lines serial /sys/block/*/serial
	item uuid
	ls -l /dev/disk/by-uuid
	return 0
}

# Only file systems on disks are asked: a network file system may never answer.
sec_filesystems() {
	set --
	while read -r source target type rest; do
		case "$type" in
		ext2 | ext3 | ext4 | xfs | btrfs | f2fs | jfs | vfat)
			case "$target" in
			*\\*) target=$(printf '%b' "$target") ;;
			esac
			set -- "$@" "$target"
			;;
		esac
	done </proc/mounts
	[ "$#" -gt 0 ] || return 0
	run stat -f -c '%S %b %a %c %n' "$@"
}

sec_mounts() { cat /proc/self/mountinfo; }

sec_fstab() {
	lines fstab /etc/fstab
	return 0
}

sec_interfaces() {
	lines sys /sys/class/net/*/address /sys/class/net/*/mtu /sys/class/net/*/operstate
	item master
	ls -ld /sys/class/net/*/master
	item addr
	have ip || {
		lack "ip addr: there is no ip program"
		return 0
	}
	run ip -o addr show
}

sec_routes() {
	have ip || return 10
	item 4
	run ip -4 route show table all || return 1
	item 6
	run ip -6 route show table all
	return 0
}

sec_rules() {
	have ip || return 10
	item 4
	run ip -4 rule show || return 1
	item 6
	run ip -6 rule show
	return 0
}

sec_dns() {
	lines files /etc/resolv.conf /etc/hosts /etc/nsswitch.conf
	return 0
}

sec_firewall() {
	some=10
	for tool in iptables-save ip6tables-save; do
		have "$tool" || continue
		some=0
		item "$tool"
		run "$tool" || lack "$tool"
	done
	if have nft; then
		some=0
		item nft
		run nft list ruleset || lack "nft list ruleset"
	fi
	return "$some"
}

# The tables of TCP are read once, for the kernel goes through all of its buckets
# each time, also where they are empty. Most of a busy host's table is
# connections that have ended.
sec_listeners() {
	tables=$({
		cat /proc/net/tcp
		[ ! -r /proc/net/tcp6 ] || cat /proc/net/tcp6
		echo end
	} | sed -n -e '/ 06 /d' -e '/^ *[0-9]*: [0-9A-F]*:[0-9A-F]* [0-9A-F]*:[0-9A-F]* 0A /p' \
		-e 's/^ *[0-9]*: \([0-9A-F:]*\) \([0-9A-F:]*\) 01 [^ ]* [^ ]* [^ ]* *[0-9]* *[0-9]* \([0-9]*\) .*/\1 \2 \3/p' \
		-e '/local_address/p' -e '/^end$/p' | head -c 4194304)
	case "$tables" in
	*end)
		item listening
		printf '%s\n' "$tables" | sed -n -e '/local_address/p' -e '/ 0A /p'
		;;
	*)
		# The kernel lists listening sockets before the others, so a cap of its own
		# keeps a very busy host's table of connections from being read.
		for f in tcp tcp6; do
			if [ -r "/proc/net/$f" ]; then
				item "$f"
				head -c 262144 "/proc/net/$f" | sed -n -e '/local_address/p' -e '/^ *[0-9]*: [0-9A-F]*:[0-9A-F]* [0-9A-F]*:[0-9A-F]* 0A /p'
			fi
		done
		;;
	esac
	for f in udp udp6; do
		if [ -r "/proc/net/$f" ]; then
			item "$f"
			head -c 262144 "/proc/net/$f"
		fi
	done
	item range
	show /proc/sys/net/ipv4/ip_local_port_range
	return 0
}

# It follows sec_listeners.
sec_connections() {
	item tcp
	printf '%s\n' "$tables" | sed -n -e '/^[0-9A-F:]* [0-9A-F:]* [0-9]*$/p' -e '/^end$/p'
	return 0
}

# Whole tables in a few commands where grep and ls can write names and contents
# so that no process can forge a line about another: grep puts the name of the
# file, which has the pid, before every line of it, ls -b writes a line feed as
# \n. The last line of each, its status, proves that nothing is missing. What ls
# says of links tells one that may not be read from one of a process that ends.
# Values of the environment go no further than sed. Shells of collectors, this
# one and others, are left out, and so are the lists of files that their commands
# are given: where many sessions share a host, they would be most of what is sent.
of() {
	files=
	for what do
		for f in $listed; do files="$files ${f%cmdline}$what"; done
	done
}

sec_processes() {
	listed=$(run grep -L -z -a -E '^(# upgradectl |(/bin/sh -c .)?printf "%s\\n" "\$1"; printf "%s\\n" "\$1" >&2; exec 3<&0 )' /proc/[0-9]*/cmdline)
	[ "$?" -le 2 ] && [ -n "$listed" ] || listed=$(echo /proc/[0-9]*/cmdline)
	# The names are numbers: unquoted on purpose, one argument each.
	item tables
	of status stat cgroup
	run grep -a -o -H -E '^(Name|State|PPid|Uid):.*|\) [A-Za-z]( -?[0-9]+){19}|^(0:|[0-9]*:name=systemd:).*' $files
	echo "rc $?"
	if echo | grep -z -a -q '' && ls -d -b / >/dev/null; then
		item cmdline
		of cmdline
		{
			run grep -z -a -H -v -E '^/proc/[0-9]+/(status|stat|cgroup|cmdline|environ|exe|cwd|fd)$' $files
			echo "rc $?"
		} | tr '\000\n' '\n\001'
		echo
		item environ
		of environ
		{
			run grep -z -a -H '' $files
			echo "rc $?"
		} | tr '\000\n' '\n\001' | sed -n -e 's/^\/proc\/\([0-9]*\)\/environ:\([A-Za-z_][A-Za-z0-9_.]*\)=.*/\1 \2/p' -e 's/^\(rc [0-9]*\).*/\1/p'
		item links
		of exe cwd
		run ls -l -d -b $files 2>&1
		echo "rc $?"
		item sockets
		of fd
		{
			run ls -l -b $files
			echo "rc $?"
		} | sed -n -e 's/^\/proc\/\([0-9]*\)\/fd:$/P \1/p' -e 's/^l.* -> socket:\[\([0-9]*\)\]$/\1/p' -e '/^rc /p'
		return 0
	fi
	for p in /proc/[0-9]*; do
		line=
		IFS= read -r line <"$p/cmdline"
		[ -n "$line" ] || continue
		item "cmdline ${p#/proc/}"
		tr '\000\n' '\n\001' <"$p/cmdline"
		item "environ ${p#/proc/}"
		tr '\000\n' '\n\001' <"$p/environ" | sed -n -e 's/^\([A-Za-z_][A-Za-z0-9_.]*\)=.*/\1/p'
		item "exe ${p#/proc/}"
		readlink "$p/exe"
		item "cwd ${p#/proc/}"
		readlink "$p/cwd"
		item "fd ${p#/proc/}"
		ls -l "$p/fd" | sed -n -e 's/^l.* [0-9]* -> socket:\[\([0-9]*\)\]$/\1/p'
		item "end ${p#/proc/}"
	done
	return 0
}

# neverran tells that no daemon has ever made a container here: a client alone,
# or an engine that nobody uses.
neverran() {
	if [ -e /etc/docker/daemon.json ]; then
		cat /etc/docker/daemon.json >/dev/null || return 1
		if grep -q -E 'data-root|graph' /etc/docker/daemon.json; then return 1; fi
	fi
	[ -e /var/lib/docker ] || return 0
	[ -r /var/lib/docker ] && [ -x /var/lib/docker ] || return 1
	for c in /var/lib/docker/containers/*; do
		[ ! -e "$c" ] || return 1
	done
	return 0
}

# dockerd says why the daemon cannot be asked; the client takes its time to
# find out.
dockerd() {
	[ -z "$DOCKER_HOST" ] || return 0
	[ ! -S /run/docker.sock ] && [ ! -S /var/run/docker.sock ] || return 0
	neverran && return 10
	item message
	echo 'Cannot connect to the Docker daemon: there is no /run/docker.sock. Is the docker daemon running?'
	return 1
}

sec_docker() {
	have docker || return 10
	sums daemon /etc/docker/daemon.json
	dockerd || return
	item info
	if run docker info --format '@INFO@'; then return 0; fi
	r=$?
	item message
	run docker info --format '@INFO@' 2>&1 >/dev/null
	return "$r"
}

sec_containers() {
	have docker || return 10
	dockerd || return
	ids=$(run docker ps -aq --no-trunc)
	r=$?
	if [ "$r" -ne 0 ]; then
		item message
		run docker ps -aq --no-trunc 2>&1 >/dev/null
		return "$r"
	fi
	item ids
	printf '%s\n' "$ids"
	[ -n "$ids" ] || return 0
	item images
	run docker images --digests --no-trunc --format '@IMAGE@'
	item inspect
	# The values are IDs: unquoted on purpose, one argument each.
	run docker inspect --format '@FORMAT@' $ids || {
		[ "$?" -eq 124 ] || return 12
	}
}

sec_units() {
	have systemctl && [ -d /run/systemd/system ] || return 10
	item active
	if run systemctl list-units --all --plain --no-legend --full --type=service,timer; then :; else
		r=$?
		item message
		run systemctl list-units --all --plain --no-legend --full --type=service,timer 2>&1 >/dev/null
		return "$r"
	fi
	item files
	run systemctl list-unit-files --no-legend --full --type=service,timer || return 12
	sums own /etc/systemd/system/*.service /etc/systemd/system/*.timer /etc/systemd/system/*.d/*.conf
	return 0
}

sec_supervisor() {
	entry /etc/supervisor /etc/supervisor/conf.d /etc/supervisord.d
	some=10
	for f in /etc/supervisord.conf /etc/supervisor/supervisord.conf; do
		[ ! -e "$f" ] || some=0
	done
	! have supervisorctl || some=0
	[ "$some" -eq 0 ] || return 10
	lines config /etc/supervisord.conf /etc/supervisor/supervisord.conf /etc/supervisord.d/*.ini /etc/supervisord.d/*.conf /etc/supervisor/conf.d/*.conf
	item status
	if have supervisorctl && grep -q -a '[s]upervisord' /proc/[0-9]*/cmdline; then
		run supervisorctl status
	fi
	return 0
}

sec_cron() {
	entry /etc/cron.d /var/spool/cron /var/spool/cron/crontabs /var/spool/at /var/spool/cron/atjobs
	lines tabs /etc/crontab /etc/anacrontab /etc/cron.d/* /var/spool/cron/* /var/spool/cron/crontabs/*
	item scripts
	for f in /etc/cron.hourly/* /etc/cron.daily/* /etc/cron.weekly/* /etc/cron.monthly/*; do
		[ ! -f "$f" ] || printf '%s\n' "$f"
	done
	item at
	for f in /var/spool/at/a* /var/spool/cron/atjobs/a*; do
		[ ! -f "$f" ] || printf '%s\n' "$f"
	done
	return 0
}

sec_sysctl() {
	item runtime
	k=/proc/sys
	grep -a -s -H '' $k/kernel/* $k/kernel/yama/* $k/vm/* $k/fs/file-max $k/fs/nr_open $k/fs/aio-max-nr $k/fs/suid_dumpable $k/fs/protected_* \
		$k/fs/inotify/* $k/net/core/* $k/net/unix/* $k/net/ipv4/* $k/net/ipv4/conf/all/* $k/net/ipv4/conf/default/* $k/net/ipv4/neigh/default/* \
		$k/net/ipv6/conf/all/* $k/net/ipv6/conf/default/* $k/net/ipv6/neigh/default/* $k/net/netfilter/* $k/net/bridge/*
	lines configured /usr/lib/sysctl.d/*.conf /run/sysctl.d/*.conf /etc/sysctl.d/*.conf /etc/sysctl.conf
	return 0
}

sec_limits() {
	entry /etc/security/limits.d
	lines files /etc/security/limits.conf /etc/security/limits.d/*.conf
	return 0
}

sec_modules() {
	[ -e /proc/modules ] || return 10
	cat /proc/modules
}

sec_security() {
	item enforce
	cat /sys/fs/selinux/enforce
	lines config /etc/selinux/config
	item apparmor
	cat /sys/module/apparmor/parameters/enabled
	if [ -e /sys/kernel/security/apparmor/profiles ]; then
		item profiles
		cat /sys/kernel/security/apparmor/profiles || lack "AppArmor profiles"
	fi
	return 0
}

sec_users() {
	lines passwd /etc/passwd
	lines group /etc/group
	entry /etc/sudoers.d
	sums sudoers /etc/sudoers /etc/sudoers.d/*
	return 0
}

sec_ssh() {
	entry /root/.ssh
	sums files /root/.ssh/* /etc/ssh/sshd_config
	item modes
	ls -l -d /root/.ssh /root/.ssh/* /etc/ssh/sshd_config
	lines keys /root/.ssh/authorized_keys /root/.ssh/authorized_keys2 /root/.ssh/*.pub
	lines host /etc/ssh/ssh_host_*_key.pub
	return 0
}

sec_time() {
	item zone
	readlink /etc/localtime
	lines files /etc/timezone /etc/chrony.conf /etc/chrony/chrony.conf /etc/ntp.conf /etc/systemd/timesyncd.conf
	item synced
	if have chronyc; then
		run chronyc -n tracking
	elif [ -e /run/systemd/timesync/synchronized ]; then
		echo timesyncd
	fi
	return 0
}

sec_nginx() {
	have nginx || return 10
	run nginx -V 2>&1
}

all() {
	own=
	read -r own </proc/sys/kernel/random/uuid
	printf '\n%s K %s\n' "$mark" "$own"
	mark="$mark$own"
	timeout=
	! timeout 9 true >/dev/null 2>&1 || timeout=yes
	@SECTIONS@
	printf '\n%s Z\n' "$mark"
}

# Blocks of 64 KiB, for each small write would be a packet of its own, and
# packets are most of what a collection costs its two ends. Different sizes make
# dd fill its blocks.
main() {
	if have dd; then all | dd ibs=32768 obs=65536 2>/dev/null; else all; fi
}

main
