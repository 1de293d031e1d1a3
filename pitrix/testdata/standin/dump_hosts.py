#!/bin/bash
# Stand-in for dump_hosts.py; see README.
echo "192.0.2.60 console.lab.example supervisor.lab.example appcenter.lab.example api.lab.example"
echo "192.0.2.60 boss.lab.example"
