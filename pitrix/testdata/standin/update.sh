#!/bin/bash
# Stand-in for update.sh and what is behind it; see README.
. "$(dirname "$0")/../../common.sh"
[ $# -ge 1 ] || { echo "Usage: $0 <nodes> <packages>"; exit 1; }
[ $# -eq 1 ] && set -- "$1" "$1"
force=no
case $1 in -f|--force-yes) force=yes; shift;; esac
[ -n "$2" ] || { echo "Error: The argument <packages> is empty, please check it."; exit 1; }
resolve "$1"
packages=()
for item in ${2//,/ }; do
	if [ -f "$root/pitrix/upgrade/packages/$item" ]; then
		. "$root/pitrix/upgrade/packages/$item"
		continue
	fi
	if [ -z "$(find "$root/pitrix/repo" "$root/var/www/repo" -name "$item*" 2>/dev/null)" ]; then
		echo "Error: The package [$item] is invalid, can not find it in /pitrix/repo or /var/www/repo!"
		exit 1
	fi
	packages+=("$item")
done
header PACKAGES "${packages[*]}"
[ $force = yes ] || ask
shown=${packages[0]}
[ ${#packages[@]} -gt 1 ] && shown="$shown ~ "
status=0
for node in $(printf '%s\n' "${all_nodes[@]}" | shuf); do
	if ! reachable "$node"; then
		echo "Error: The node [$node] is unreachable. Please check the network!"
		status=1
	elif ssh "$node" "cat >>installed; [ ! -e broken ]" <<<"${packages[*]}"; then
		echo "  Updating [$node] with [$shown] ... OK."
	else
		echo "  Updating [$node] with [$shown] ... Error!"
		status=1
	fi
done
exit $status
