#!/bin/sh
# Boots L2 under KVM. L1's command line says how: l2.run=TASKS for L2's init, l2.end=reboot, l2.cpus=NUMBER,
# l2.cpu=MODEL, l2.epc=SIZE, l2.memory=SIZE, l2.vmm=cloister in place of QEMU, and l3.NAME=VALUE is l2.NAME=VALUE for
# an L2 with a guest of its own. Arguments are further options of QEMU or of cloister. What L2 prints comes out behind
# "L2: ", what the VMM says as it is. The variable EPC goes before l2.epc.
value() {
	for word in $(cat /proc/cmdline); do
		case $word in l2.$1=*) echo "${word#*=}" && return ;; esac
	done
	echo "$2"
}
deeper=$(sed 's/ /\n/g' /proc/cmdline | sed -n 's/^l3\./ l2./p' | tr -d '\n')
end=$(value end poweroff)
append="console=ttyS0 quiet cloister.run=$(value run) cloister.end=$end$deeper"
cpu=$(value cpu host,+sgx-provisionkey)
cpus=$(value cpus 1)
memory=$(value memory 512M)
epc=${EPC:-$(value epc 64M)}
{
	case $(value vmm) in
	cloister)
		test "$end" = reboot || set -- --no-reboot "$@"
		/usr/bin/cloister run --accel kvm --sgx-epc id=epc1,size="$epc",prealloc=on --cpu "$cpu" --cpus "$cpus" \
			--memory "$memory" --kernel /l2/vmlinuz --initrd /l2/initrd --append "$append" "$@" </dev/null
		;;
	*)
		test "$end" = reboot || set -- -no-reboot "$@"
		/usr/bin/qemu-system-x86_64 -M pc,accel=kvm,sgx-epc.0.memdev=mem1,sgx-epc.0.node=0 \
			-object memory-backend-epc,id=mem1,size="$epc",prealloc=on \
			-cpu "$cpu" -smp "$cpus" -m "$memory" -nodefaults -display none -serial stdio \
			-kernel /l2/vmlinuz -initrd /l2/initrd -append "$append" "$@" </dev/null
		;;
	esac
	echo $? >/tmp/l2.code
} | while IFS= read -r line; do echo "L2: $line"; done
exit "$(cat /tmp/l2.code)"
