#!/bin/bash
# Stand-in for gen_mac.py; see README.
echo 00:16:3e:96:1c:10
