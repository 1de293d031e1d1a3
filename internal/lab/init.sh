# Powers a host of the lab on. It runs as process 1 of new pid, mount, uts and
# ipc namespaces, in the host's network namespace, and ends with status 7 for
# "start again" and 0 for "off".
#
# usage: init.sh DIR NAME ID ADDR
#   DIR/disk is what the host has written over this machine's own file system;
#   DIR/osrelease and DIR/boot_id say which boot this is; DIR/java is the
#   program that the host's services run on.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
dir=$1 name=$2 id=$3 addr=$4
root=$dir/root

mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/disk,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# What was installed by hand on this machine is not on the host.
mount -t tmpfs -o mode=755 tmpfs "$root/usr/local"
# These two are all that tells one boot from another where the kernel is this
# machine's own.
mount --bind "$dir/osrelease" "$root/proc/sys/kernel/osrelease"
mount --bind "$dir/boot_id" "$root/proc/sys/kernel/random/boot_id"
mkdir -p "$root/opt/java/bin"
: >>"$root/opt/java/bin/java"
mount --bind "$dir/java" "$root/opt/java/bin/java"
hostname "$name"

cat >"$root/run/init" <<'END'
name=$1 id=$2 addr=$3
# What cloud-init does on the first boot of an instance: a clone gets an
# identity of its own.
if [ "$(cat /var/lib/lab/instance 2>/dev/null)" != "$id" ]; then
	rm -f /etc/ssh/ssh_host_*
	ssh-keygen -q -t ed25519 -N '' -C "root@$name" -f /etc/ssh/ssh_host_ed25519_key
	echo "$name" >/etc/hostname
	printf '127.0.0.1 localhost\n%s %s\n' "$addr" "$name" >/etc/hosts
	mkdir -p /var/lib/lab
	[ ! -e /var/lib/lab/setup ] || { sh -eu /var/lib/lab/setup; rm -f /var/lib/lab/setup; }
	echo "$id" >/var/lib/lab/instance
fi
mkfifo -m 600 /run/power
mkdir -p /run/sshd
/usr/sbin/sshd
[ ! -e /var/lib/lab/nginx ] || nginx
: >/run/ready
# A shell that waits reaps what is left to it; one that reads does not.
(read -r what </run/power && [ "$what" = reboot ] && exit 7; exit 0) &
status=0
wait $! || status=$?
# An orderly end: everybody is asked, and has two seconds.
kill -TERM -1 2>/dev/null || :
n=0
while [ "$n" -lt 40 ]; do
	set -- /proc/[0-9]*
	[ "$#" -gt 1 ] || break
	sleep 0.05 &
	wait $! || :
	n=$((n + 1))
done
exit "$status"
END
exec chroot "$root" /bin/sh /run/init "$name" "$id" "$addr"
