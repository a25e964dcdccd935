#!/bin/sh
# What kvm_intel says of itself: "kvm: NAME VALUE".
for name in ept unrestricted_guest sgx; do
	echo "kvm: $name $(cat /sys/module/kvm_intel/parameters/$name)"
done
test -c /dev/kvm && echo "kvm: /dev/kvm is there"
