"""Reads our agent's births and data with a Sparkplug library that is not ours (pysparkplug), from the broker.

Usage: sparkplug_reader.py HOST PORT GROUP NODE DEVICE COUNT
Checks: NBIRTH has seq 0, bdSeq and Node Control/Rebirth; seq counts up without a gap; DDATA decodes by alias.
"""

import sys
import time

import paho.mqtt.client as mqtt
from pysparkplug._protobuf import Payload

host, port, group, node, device, count = sys.argv[1:]
problems, seen, aliases = [], {"data": 0, "nbirth": 0, "dbirth": 0}, {}
last_seq = None


def on_message(_client, _userdata, message):
    global last_seq
    parts = message.topic.split("/")
    if parts[1] == "STATE" or parts[1] != group or parts[3] != node or parts[2] not in ("NBIRTH", "DBIRTH", "NDATA", "DDATA"):
        return
    payload = Payload.FromString(message.payload)
    if parts[2] == "NBIRTH":
        seen["nbirth"] += 1
        names = [m.name for m in payload.metrics]
        if payload.seq != 0 or "bdSeq" not in names or "Node Control/Rebirth" not in names:
            problems.append(("NBIRTH", payload.seq, names))
        last_seq = 0
        return
    if last_seq is None:
        return
    if payload.seq != (last_seq + 1) % 256:
        problems.append(("seq", last_seq, payload.seq))
    last_seq = payload.seq
    if parts[2] == "DBIRTH":
        seen["dbirth"] += 1
        aliases.update({m.alias: m.name for m in payload.metrics})
        if any(not m.datatype or not m.name for m in payload.metrics):
            problems.append(("DBIRTH", payload))
    if parts[2] == "DDATA":
        for metric in payload.metrics:
            if metric.alias not in aliases or not -1.01 <= metric.float_value <= 1.01 or not metric.timestamp:
                problems.append(("DDATA", str(metric)))
            seen["data"] += 1


client = mqtt.Client()
client.on_message = on_message
client.on_connect = lambda c, *_: c.subscribe("spBv1.0/#", 0)
client.connect(host, int(port))
end = time.time() + 30
while time.time() < end and seen["data"] < int(count) and not problems:
    client.loop(0.1)
print(seen, problems[:3])
sys.exit(1 if problems or seen["data"] < int(count) or not seen["nbirth"] or not seen["dbirth"] else 0)
