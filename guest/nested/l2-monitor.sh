#!/bin/sh
# l2-monitor COMMAND: boots L2, and gives QEMU's monitor a command: "monitor: ANSWER".
mkfifo /tmp/monitor.in /tmp/monitor.out
l2 -chardev pipe,id=monitor,path=/tmp/monitor -mon chardev=monitor,mode=control &
echo "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"$1\"}" >/tmp/monitor.in
# The greeting, the answer to qmp_capabilities, the answer.
head -n 3 /tmp/monitor.out | tail -n 1 | sed 's/^/monitor: /'
wait $!
