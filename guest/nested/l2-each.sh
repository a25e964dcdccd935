#!/bin/sh
# l2-each: boots L2 with each -cpu that L1's command line lists as l2.each=MODEL/MODEL: "l2-each: MODEL" comes before.
for word in $(cat /proc/cmdline); do
	case $word in l2.each=*) models=$(echo "${word#*=}" | tr / ' ') ;; esac
done
for model in $models; do
	echo "l2-each: $model"
	l2 -cpu "$model" || exit 1
done
