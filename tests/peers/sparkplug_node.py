"""A Sparkplug edge node that is not ours (pysparkplug), with every scalar type and names that are hard on topics.

Usage: sparkplug_node.py HOST PORT USER PASSWORD UPDATES
Prints "born", then "done" after its updates; stays connected until its standard input is closed.
"""

import math
import sys
import time

from pysparkplug import Client, DataType, Device, EdgeNode, Metric, get_current_timestamp

host, port, user, password, updates = sys.argv[1:]


def metric(name, datatype, value):
    return Metric(timestamp=get_current_timestamp(), name=name, datatype=datatype, value=value)


def values(n):
    return (
        metric("counter", DataType.INT32, n),
        metric("Ölpumpe/Druck", DataType.DOUBLE, n / 8),
        metric("odd+name#1", DataType.FLOAT, 0.5),
        metric("long", DataType.STRING, "x" * 65536),
        metric("nan", DataType.DOUBLE, math.nan),
        metric("inf", DataType.DOUBLE, -math.inf),
        metric("int8", DataType.INT8, -8),
        metric("int16", DataType.INT16, -16),
        metric("int64", DataType.INT64, -(2**40)),
        metric("uint8", DataType.UINT8, 8),
        metric("uint16", DataType.UINT16, 16),
        metric("uint32", DataType.UINT32, 2**32 - 1),
        metric("uint64", DataType.UINT64, 2**63 + 1),
        metric("bool", DataType.BOOLEAN, n % 2 == 1),
        metric("bytes", DataType.BYTES, b"\x00\xff"),
    )


node = EdgeNode("plant", "py", [metric("version", DataType.STRING, "1")], Client(username=user, password=password))
node.register(Device("press", values(0)))
node.connect(host, port=int(port))
time.sleep(1)
print("born", flush=True)
for n in range(1, int(updates) + 1):
    node.update_device("press", values(n))
    time.sleep(0.02)
time.sleep(0.5)
print("done", flush=True)
sys.stdin.read()
node.disconnect()
