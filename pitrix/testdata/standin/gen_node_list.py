#!/bin/bash
# Stand-in for gen_node_list.py; see README.
echo "The node lists have been generated in [/pitrix/conf/nodes] successfully."
