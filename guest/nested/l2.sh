#!/bin/sh
# Boots L2 under KVM. L1's command line says how: l2.run=TASKS for L2's init, l2.end=reboot, l2.cpus=NUMBER,
# l2.cpu=MODEL, l2.epc=SIZE, l2.prealloc=off, l2.memory=SIZE, l2.vmm=cloister in place of QEMU, or cloister-qemu, -2021
# and -nodes for QEMU's options given to it, and l3.NAME=VALUE is l2.NAME=VALUE for an L2 with a guest of its own. With
# l2.vmm=cloister there are l2.epc=none and l2.accel=auto.
# Arguments are further options of QEMU or of cloister. What L2 prints comes out behind "L2: ", what the VMM says as it
# is. The variable EPC goes before l2.epc.
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
prealloc=$(value prealloc on)
accel=$(value accel kvm)
epc=${EPC:-$(value epc 64M)}
vmm=$(value vmm)
{
	case $vmm in
	cloister)
		test "$end" = reboot || set -- --no-reboot "$@"
		test "$epc" = none || set -- --sgx-epc id=epc1,size="$epc",prealloc="$prealloc" --cpu "$cpu" "$@"
		/usr/bin/cloister run --accel "$accel" --cpus "$cpus" --memory "$memory" \
			--kernel /l2/vmlinuz --initrd /l2/initrd --append "$append" "$@" </dev/null
		;;
	cloister-*)
		case $vmm in
		*-2021) set -- -sgx-epc id=epc1,memdev=mem1 -object memory-backend-epc,id=mem1,size="$epc",prealloc "$@" ;;
		*-nodes)
			set -- -object memory-backend-ram,id=ram0,size=256M -object memory-backend-ram,id=ram1,size=256M \
				-numa node,nodeid=0,cpus=0,memdev=ram0 -numa node,nodeid=1,cpus=1,memdev=ram1 \
				-object memory-backend-epc,id=mem1,size=32M,prealloc=on -object memory-backend-epc,id=mem2,size=16M \
				-M sgx-epc.0.memdev=mem1,sgx-epc.0.node=0,sgx-epc.1.memdev=mem2,sgx-epc.1.node=1 "$@"
			;;
		*)
			set -- -M sgx-epc.0.memdev=mem1,sgx-epc.0.node=0 \
				-object memory-backend-epc,id=mem1,size="$epc",prealloc="$prealloc" "$@"
			;;
		esac
		test "$end" = reboot || set -- -no-reboot "$@"
		/usr/bin/cloister qemu -enable-kvm -nographic -cpu "$cpu" -smp "$cpus" -m "$memory" \
			-kernel /l2/vmlinuz -initrd /l2/initrd -append "$append" "$@" </dev/null
		;;
	*)
		test "$end" = reboot || set -- -no-reboot "$@"
		/usr/bin/qemu-system-x86_64 -M pc,accel=kvm,sgx-epc.0.memdev=mem1,sgx-epc.0.node=0 \
			-object memory-backend-epc,id=mem1,size="$epc",prealloc="$prealloc" \
			-cpu "$cpu" -smp "$cpus" -m "$memory" -nodefaults -display none -serial stdio \
			-kernel /l2/vmlinuz -initrd /l2/initrd -append "$append" "$@" </dev/null
		;;
	esac
	echo $? >/tmp/l2.code
} | while IFS= read -r line; do echo "L2: $line"; done
exit "$(cat /tmp/l2.code)"
