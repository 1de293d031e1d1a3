# Reads the inventory of this host and writes it in frames. It changes nothing,
# uses no temporary file, and needs nothing but sh and the commands below.
# Everything is a function and the last line calls main, so that a script cut
# off on its way runs nothing. The mark is random and stands only here, never
# in an argument or the environment, so that nobody on the host can forge it.
mark='@MARK@'
LC_ALL=C
LANG=C
export LC_ALL LANG
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umask 077

item() { printf '\n%s I %s\n' "$mark" "$1"; }

have() { command -v "$1" >/dev/null 2>&1; }

# run limits a command where the host can.
run() {
	if have timeout; then timeout 30 "$@"; else "$@"; fi
}

# section NAME runs sec_NAME, capped. The line with its status comes from
# inside the cap: where it is missing, the output was cut.
section() {
	printf '\n%s B %s\n' "$mark" "$1"
	{
		"sec_$1" 2>/dev/null
		printf '\n%s R %s\n' "$mark" "$?"
	} </dev/null | head -c 8388608
	printf '\n%s E %s\n' "$mark" "$1"
}

# Statuses of the sections: 0 ok, 10 absent, 12 partial, 124 timeout, others
# as the item "message" tells.

sec_os() {
	item os-release
	cat /etc/os-release
	item redhat-release
	cat /etc/redhat-release
	return 0
}

sec_kernel() { cat /proc/sys/kernel/osrelease; }

sec_boot() { cat /proc/sys/kernel/random/boot_id; }

sec_uptime() {
	item uptime
	cat /proc/uptime || return 1
	item clock
	date +%s
}

sec_host() {
	item hostname
	hostname || cat /proc/sys/kernel/hostname
	item uid
	id -u
}

# The kernel lists listening sockets before the others, so a cap of its own
# keeps a busy host's table of connections from being sent.
sec_listeners() {
	for f in tcp tcp6 udp udp6; do
		if [ -r "/proc/net/$f" ]; then
			item "$f"
			cat "/proc/net/$f" | head -c 262144
		fi
	done
	return 0
}

sec_owners() {
	r=0
	for p in /proc/[0-9]*; do
		line=
		IFS= read -r line <"$p/cmdline"
		[ -n "$line" ] || continue
		item "${p#/proc/}"
		cat "$p/comm"
		if ls -l "$p/fd"; then :; elif [ -d "$p" ]; then r=12; fi
	done
	return "$r"
}

sec_java() {
	r=0
	for p in /proc/[0-9]*; do
		comm=
		line=
		read -r comm <"$p/comm"
		IFS= read -r line <"$p/cmdline"
		case "$comm:$line" in
		*java*) ;;
		*) continue ;;
		esac
		n=${p#/proc/}
		item "$n cmdline"
		tr '\000\n' '\n\001' <"$p/cmdline"
		item "$n status"
		cat "$p/status"
		item "$n owner"
		ls -ld "$p"
		item "$n cgroup"
		cat "$p/cgroup"
		item "$n exe"
		readlink "$p/exe"
		item "$n cwd"
		if readlink "$p/cwd"; then :; elif [ -d "$p" ]; then r=12; fi
		item "$n end"
	done
	return "$r"
}

sec_docker() {
	have docker || return 10
	run docker version --format '{{.Server.Version}}' && return 0
	r=$?
	item message
	run docker version --format '{{.Server.Version}}' 2>&1 >/dev/null
	return "$r"
}

sec_containers() {
	have docker || return 10
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
	item inspect
	# The values are IDs: unquoted on purpose, one argument each.
	run docker inspect --format '@FORMAT@' $ids || return 12
}

sec_units() {
	have systemctl || return 10
	item active
	if run systemctl list-units --all --plain --no-legend --full --type=service; then :; else
		r=$?
		item message
		run systemctl list-units --all --plain --no-legend --full --type=service 2>&1 >/dev/null
		return "$r"
	fi
	item files
	run systemctl list-unit-files --no-legend --full --type=service || return 12
}

main() {
	for s in @SECTIONS@; do
		section "$s"
	done
	printf '\n%s Z\n' "$mark"
}

main
