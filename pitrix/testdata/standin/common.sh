# Shared by the stand-ins: resolve NODES, ask, print the header.
root=$(cd "$(dirname "${BASH_SOURCE[1]}")/../.." && pwd)
PATH=$root/bin:$PATH
dashes=------------------------------------------------

resolve() { # words -> sorted array all_nodes
	local item list=()
	for item in ${1//,/ }; do
		if [ -f "$root/pitrix/conf/nodes/$item" ]; then
			. "$root/pitrix/conf/nodes/$item"
			list+=("${nodes[@]}")
		else
			list+=("$item")
		fi
	done
	for item in "${list[@]}"; do
		if [ ! -f "$root/pitrix/conf/settings/$item" ]; then
			echo "Error: The node [$item] is invalid, can not find it in /pitrix/conf/settings!"
			exit 1
		fi
	done
	mapfile -t all_nodes < <(printf '%s\n' "${list[@]}" | sort -u)
	if [ -z "${all_nodes[*]}" ]; then
		echo "Warning: the nodes $1 is empty, please check it."
		exit 0
	fi
}

ask() { # the real one never ends when its input has; this one gives up
	local tries=0 answer
	while :; do
		tries=$((tries + 1))
		if [ $tries -gt 20 ]; then echo "stand-in: asked 20 times without an answer" >&2; exit 99; fi
		read -r -p "Are you sure to continue? [y/N]? " answer
		case ${answer,,} in y|yes) return;; n|no) exit 0;; esac
	done
}

header() { # TITLE TEXT
	local list="${all_nodes[*]}"
	echo $dashes
	echo "TARGET NODES:"
	echo "    ${list// /,}"
	echo $dashes
	echo "TARGET $1:"
	echo -e "    $2"
	echo $dashes
}

reachable() {
	. "$root/pitrix/conf/settings/$1"
	ping -w 1 -c 1 "$mgmt_network_address" >/dev/null
}
