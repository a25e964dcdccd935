#!/bin/sh
# l2-beside PROGRAM ARGUMENTS: boots L2, and runs the program in L1 again and again until L2 has ended.
l2 &
good=0
while kill -0 $! 2>/dev/null; do
	"$@" || exit 1
	good=$((good + 1))
done
wait $! || exit 1
echo "l2-beside: $1 ended well $good times while L2 ran"
