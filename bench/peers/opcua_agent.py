"""A Python agent as one is written in an afternoon: asyncua subscribes to every item, paho publishes what changed.

Arguments: MQTT port, OPC UA port, namespace index, number of items. It publishes one JSON list per tenth of a second to
bench/opcua: [[item, value], ...].
"""

import asyncio
import json
import sys

import paho.mqtt.client as mqtt
from asyncua import Client, ua


class Changes:
    def __init__(self):
        self.list = []
        self.numbers = {}

    def datachange_notification(self, node, value, _data):
        self.list.append((self.numbers[node.nodeid], value))


async def main():
    broker, port, index, items = map(int, sys.argv[1:])
    publisher = mqtt.Client()
    publisher.connect("127.0.0.1", broker)
    publisher.loop_start()
    client = Client(f"opc.tcp://127.0.0.1:{port}/bench", timeout=60)
    await client.connect()
    changes = Changes()
    nodes = [client.get_node(ua.NodeId(f"Item.{nth}", index)) for nth in range(items)]
    changes.numbers = {node.nodeid: nth for nth, node in enumerate(nodes)}
    subscription = await client.create_subscription(500, changes)
    for at in range(0, items, 1000):
        await subscription.subscribe_data_change(nodes[at : at + 1000], queuesize=10, sampling_interval=500)
    while True:
        await asyncio.sleep(0.1)
        if changes.list:
            ready, changes.list = changes.list, []
            publisher.publish("bench/opcua", json.dumps(ready))


asyncio.run(main())
