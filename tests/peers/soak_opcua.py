"""An OPC UA server by asyncua whose counter goes on while the server is away, and which has its history.

Usage: soak_opcua.py PORT BASE. Item.Counter is n from BASE + n * 0.2 s on (BASE in seconds since 1970), with that source time: so a
server that was killed comes back with the history of what it missed. Prints "listening".
"""

import asyncio
import logging
import sys
from datetime import datetime, timedelta, timezone

from asyncua import Server, ua

STEP = timedelta(milliseconds=200)


async def main():
    logging.basicConfig(level=logging.CRITICAL)
    port, base = int(sys.argv[1]), datetime.fromtimestamp(int(sys.argv[2]), timezone.utc)
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/soak")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace("urn:forebay:soak")
    folder = await server.nodes.objects.add_folder(ua.NodeId("Soak", index), "Soak")
    node = await folder.add_variable(ua.NodeId("Item.Counter", index), "Item.Counter", 0, ua.VariantType.Int32)

    def value(n):
        at = base + n * STEP
        return ua.DataValue(ua.Variant(n, ua.VariantType.Int32), SourceTimestamp=at, ServerTimestamp=at)

    storage = server.iserver.history_manager.storage
    await storage.new_historized_node(node.nodeid, timedelta(days=1), 0)
    for attribute in (ua.AttributeIds.AccessLevel, ua.AttributeIds.UserAccessLevel):
        await node.set_attr_bit(attribute, ua.AccessLevel.HistoryRead)
    last = (datetime.now(timezone.utc) - base) // STEP
    past = storage._datachanges[node.nodeid] = [value(n) for n in range(last + 1)]
    await server.write_attribute_value(node.nodeid, past[-1])
    await server.start()
    print("listening", flush=True)
    while True:
        due = base + (last + 1) * STEP
        await asyncio.sleep(max(0.0, (due - datetime.now(timezone.utc)).total_seconds()))
        last += 1
        past.append(value(last))
        await server.write_attribute_value(node.nodeid, past[-1])


asyncio.run(main())
