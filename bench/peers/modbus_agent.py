"""A Python agent as one is written in an afternoon: pymodbus reads each device in time, paho publishes what changed.

Arguments: MQTT port, seconds between two scans, registers per device, then a port per device. It publishes one JSON object
per device and scan to bench/DEVICE: {"REGISTER": value}, registers numbered through all devices.
"""

import asyncio
import json
import sys

import paho.mqtt.client as mqtt
from pymodbus.client import AsyncModbusTcpClient


async def watch(device, port, scan, count, publish):
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=1)
    await client.connect()
    loop, first, last = asyncio.get_running_loop(), device * count, [None] * count
    due = loop.time()
    while True:
        answer = await client.read_holding_registers(0, count=count)
        if not answer.isError():
            now = answer.registers
            changed = {first + at: now[at] for at in range(count) if now[at] != last[at]}
            if changed:
                publish(f"bench/{device}", json.dumps(changed))
            last = now
        due = max(due + scan, loop.time())
        await asyncio.sleep(due - loop.time())


async def main():
    broker, scan, count = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    client = mqtt.Client()
    client.connect("127.0.0.1", broker)
    client.loop_start()
    await asyncio.gather(*(watch(nth, int(port), scan, count, client.publish) for nth, port in enumerate(sys.argv[4:])))


asyncio.run(main())
