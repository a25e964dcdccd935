#!/bin/sh
# What the kernel could give to programs: "memory: NUMBER KiB". It frees some of what a killed process had later than
# the process ends, so the most of a few readings counts.
most=0
for _ in 1 2 3; do
	sync
	echo 3 >/proc/sys/vm/drop_caches
	now=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)
	[ "$now" -gt "$most" ] && most=$now
	sleep 1
done
echo "memory: $most KiB"
