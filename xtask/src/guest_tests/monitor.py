"""Drives a machine by QEMU's own client for QMP.

Usage: monitor.py SOCKET. A line on standard input says that the guest waits for its power button. What
was seen is printed as JSON, an object a line.
"""

import asyncio
import json
import sys

from qemu.qmp import QMPClient

TIMEOUT = 120


def show(**what):
    print(json.dumps(what), flush=True)


async def guest_waits():
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if not line:
        raise EOFError("the guest is gone")


async def connect(client, socket):
    """The socket is there soon after the machine's program was started."""
    while True:
        try:
            return await client.connect(socket)
        except OSError:
            await asyncio.sleep(0.05)
        except Exception as error:
            if not isinstance(error.__cause__, OSError):
                raise
            await asyncio.sleep(0.05)


async def event(listener):
    seen = await listener.get()
    show(event=seen["event"], data=seen.get("data"))


async def drive(socket):
    client = QMPClient("cloister")
    await connect(client, socket)
    show(greeting=client.greeting._asdict())
    with client.listener() as listener:
        show(status=await client.execute("query-status"))
        await guest_waits()
        show(sgx=await client.execute("query-sgx"))
        show(capabilities=await client.execute("query-sgx-capabilities"))
        show(cpus=await client.execute("query-cpus-fast"))
        await client.execute("stop")
        await event(listener)
        show(status=await client.execute("query-status"))
        await asyncio.sleep(1)
        await client.execute("cont")
        await event(listener)
        show(status=await client.execute("query-status"))
        await client.execute("system_reset")
        await event(listener)
        await guest_waits()
        await client.execute("system_powerdown")
        await event(listener)
        await event(listener)
    try:
        await client.disconnect()
    except EOFError:
        # The machine is gone, and the connection with it.
        pass


asyncio.run(asyncio.wait_for(drive(sys.argv[1]), TIMEOUT))
