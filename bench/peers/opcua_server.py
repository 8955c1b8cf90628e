"""An OPC UA server by asyncua for load: variables Item.0 to Item.N-1, each of them a counter.

Argument: number of items. Prints one JSON line with port and namespace index. A line "R MS" on stdin sets every item to the
next number, R times, MS milliseconds apart, and is answered by {"from", "to", "late_ms", "busy_ms"}: the numbers set, how much
later than planned the last round ended, and how long an average round took. Ends when stdin does.
"""

import asyncio
import json
import logging
import socket
import sys
from datetime import datetime, timezone

from asyncua import Server, ua


async def main():
    logging.basicConfig(level=logging.CRITICAL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/bench")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:forebay:bench")
    ids = []
    for nth in range(int(sys.argv[1])):
        if nth % 100 == 0:  # adding to a folder takes it the longer the more there is
            folder = await server.nodes.objects.add_folder(ua.NodeId(f"Bench.{nth}", index), f"Bench.{nth}")
        name = f"Item.{nth}"
        ids.append((await folder.add_variable(ua.NodeId(name, index), name, 0, ua.VariantType.Int32)).nodeid)
    await server.start()
    print(json.dumps({"port": port, "index": index}), flush=True)
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    last = 0
    while line := await reader.readline():
        rounds, ms = map(int, line.split())
        start, busy, first = loop.time(), 0.0, last + 1
        for nth in range(1, rounds + 1):
            last += 1
            began = loop.time()
            for place, node in enumerate(ids):
                now = datetime.now(timezone.utc)
                await server.write_attribute_value(node, ua.DataValue(ua.Variant(last, ua.VariantType.Int32), SourceTimestamp=now))
                if place % 100 == 99:
                    await asyncio.sleep(0)  # requests and publishing go on
            busy += loop.time() - began
            await asyncio.sleep(max(0, start + nth * ms / 1000 - loop.time()))
        late = (loop.time() - start) * 1000 - rounds * ms
        print(json.dumps({"from": first, "to": last, "late_ms": late, "busy_ms": busy * 1000 / max(rounds, 1)}), flush=True)
    await server.stop()


asyncio.run(main())
