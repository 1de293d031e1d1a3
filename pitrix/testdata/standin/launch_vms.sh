#!/bin/bash
# Stand-in for launch_vms.sh; see README.
. "$(dirname "$0")/../../common.sh"
force=no
case $1 in -f) force=yes; shift;; esac
resolve "$1"
step() { echo "$(date '+%Y-%m-%d %H:%M:%S') $1 ... $2"; }
for vm in "${all_nodes[@]}"; do
	physical_host=
	. "$root/pitrix/conf/settings/$vm"
	kernels=$root/hosts/$physical_host/kernels
	if [ -e "$kernels/$vm.Done" ]; then
		if [ $force = no ]; then
			echo "The VM [$vm] has been launched."
			exit 1
		fi
		rm -f "$kernels/$vm"*
	fi
	if [ ! -e "$kernels/base.img" ]; then
		step "Copying the base image of [$vm]" "Error!"
		exit 1
	fi
	: >"$kernels/$vm.img"
	: >"$kernels/$vm.xml"
	step "Launching the VM [$vm]" OK.
	: >"$kernels/$vm.Done"
done
