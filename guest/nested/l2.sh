#!/bin/sh
# Boots L2 by QEMU under KVM. L1's command line says how: l2.run=TASKS for L2's init, l2.end=reboot, l2.cpus=NUMBER,
# l2.cpu=MODEL, l2.epc=SIZE, l2.memory=SIZE, and l3.NAME=VALUE is l2.NAME=VALUE for an L2 with a guest of its own.
# Arguments are further options of QEMU. What L2 prints comes out behind "L2: ", what QEMU says as it is.
value() {
	for word in $(cat /proc/cmdline); do
		case $word in l2.$1=*) echo "${word#*=}" && return ;; esac
	done
	echo "$2"
}
deeper=$(sed 's/ /\n/g' /proc/cmdline | sed -n 's/^l3\./ l2./p' | tr -d '\n')
end=$(value end poweroff)
reboot=-no-reboot
test "$end" = reboot && reboot=
{
	/usr/bin/qemu-system-x86_64 -M pc,accel=kvm,sgx-epc.0.memdev=mem1,sgx-epc.0.node=0 \
		-object memory-backend-epc,id=mem1,size="$(value epc 64M)",prealloc=on \
		-cpu "$(value cpu host,+sgx-provisionkey)" -smp "$(value cpus 1)" -m "$(value memory 512M)" \
		-nodefaults -display none -serial stdio $reboot -kernel /l2/vmlinuz -initrd /l2/initrd \
		-append "console=ttyS0 quiet cloister.run=$(value run) cloister.end=$end$deeper" "$@" </dev/null
	echo $? >/tmp/l2.code
} | while IFS= read -r line; do echo "L2: $line"; done
exit "$(cat /tmp/l2.code)"
