#!/bin/sh
# l2-kill PATTERN TIMES SECONDS: boots L2 and kills its VMM SECONDS after the line that is the TIMESth to match.
count=0
l2 | while IFS= read -r line; do
	echo "$line"
	case $line in *$1*) count=$((count + 1)) ;; *) continue ;; esac
	test $count = "$2" && sleep "$3" && kill -9 $(pidof qemu-system-x86_64 cloister)
done
echo "l2-kill: the VMM ended with exit code $(cat /tmp/l2.code)"
