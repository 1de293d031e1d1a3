#!/bin/bash
# Stand-in for build_global_conf.sh; see README.
. "$(dirname "$0")/../../common.sh"
[ $# -eq 0 ] || { echo "Usage: $0 [-z zones]"; exit 1; }
today=$(date +%Y%m%d)
cd "$root/pitrix/conf/variables" || exit 1
rm -rf "global_$today"
cp -rf global "global_$today"
for package in pitrix-global-conf pitrix-hosts pitrix-hyper; do
	if [ -e "$root/broken-$package" ]; then
		echo "Building [$package] ... Error!"
		last=1
	else
		echo "Building [$package] ... OK."
		last=0
	fi
done
exit $last
