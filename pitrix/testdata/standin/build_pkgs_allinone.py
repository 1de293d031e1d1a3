#!/bin/bash
# Stand-in for build_pkgs_allinone.py; see README.
echo "Building the packages allinone ..."
echo "Building [pitrix-hosts] ... OK."
echo "Building [pitrix-ks-proxy] ... OK."
echo "Build the packages allinone Done."
echo "Scanning [/pitrix/repo/indep] ... OK."
