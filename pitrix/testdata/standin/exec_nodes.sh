#!/bin/bash
# Stand-in for exec_nodes.sh; see README.
. "$(dirname "$0")/../../common.sh"
usage() { echo "Usage: $0 [-f|--force-yes] <nodes> <command>"; exit 1; }
force=no
case $1 in -h|--help) usage;; -f|--force-yes) force=yes; shift;; esac
[ $# -ge 2 ] || usage
resolve "$1"
shift
command="$*"
header COMMAND "$command"
[ $force = yes ] || ask
status=0
for node in $(printf '%s\n' "${all_nodes[@]}" | shuf); do
	if ! reachable "$node"; then
		echo "Error: The node [$node] is unreachable. Please check the network!"
		status=1
		continue
	fi
	cut=${command%%#*}
	words=$(echo $cut) # split again, and expanded here
	echo "Execing [$node] with [$words] ..."
	ssh -o ConnectTimeout=3 -o ConnectionAttempts=1 "$node" "$words" 2>&1 | tee -a "$root/exec_$node.log"
	echo
done
echo "Done."
exit $status
