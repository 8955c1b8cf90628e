"""A Modbus TCP server by pymodbus, for the tests of the Modbus driver.

Prints one JSON line: the port, the points that it holds (address in Forebay's syntax, type, value as text) and the
registers that a write of certain values must make. Then one line for each write that arrives. Ends when stdin does.

The registers are computed here with struct, so that both sides do not share a mistake.
"""

import asyncio
import json
import logging
import struct
import sys

from pymodbus import pymodbus_apply_logging_config
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

FORMATS = {
    "uint16": ("H", [0, 65535, 4660]),
    "int16": ("h", [-32768, 32767, -2]),
    "uint32": ("I", [0xDEADBEEF, 1]),
    "int32": ("i", [-2147483648, 305419896]),
    "uint64": ("Q", [2**64 - 1, 0x0102030405060708]),
    "int64": ("q", [-(2**63), 0x0102030405060708]),
    "float": ("f", [1.5, -0.0009765625, float("inf")]),
    "double": ("d", [2.718281828459045, -1e300, float("nan")]),
}
ORDERS = {"": (False, False), "CDAB": (True, False), "BADC": (False, True), "word=little byte=little": (True, True)}
HOLE = range(1000, 1004)  # not there: exception 2
BUSY = 2000  # exception 6
BROKEN = 2020  # exception 4


def registers(kind, value, order):
    word_little, byte_little = ORDERS[order]
    raw = struct.pack(">" + FORMATS[kind][0], value)
    words = [int.from_bytes(raw[at : at + 2], "little" if byte_little else "big") for at in range(0, len(raw), 2)]
    return words[::-1] if word_little else words


def layout():
    """All types in all orders, one after the other, with the points that read them."""
    cells, points, writes = [], [], []
    for table in ("hr", "ir"):
        at = 0
        for kind, (_, values) in FORMATS.items():
            for order in ORDERS:
                for value in values:
                    words = registers(kind, value, order)
                    points.append({"address": f"{table}:{at} {order}".strip(), "type": kind, "value": str(value)})
                    if table == "hr":
                        cells += words
                        fits = 3000 + at
                        writes.append({"address": f"hr:{fits} {order}".strip(), "type": kind, "value": str(value),
                                       "start": fits, "cells": words})
                    at += len(words)
    return cells, points, writes


async def main():
    cells, points, writes = layout()
    coils = [at % 3 == 0 for at in range(64)]
    inputs = [at % 5 == 0 for at in range(64)]
    for table, bits in (("co", coils), ("di", inputs)):
        points += [{"address": f"{table}:{at}", "type": "boolean", "value": str(on).lower()} for at, on in enumerate(bits)]
    flags = 0b1010_0000_0000_0101
    cells.append(flags)
    for bit in range(16):
        on = str(bool(flags >> bit & 1)).lower()
        points.append({"address": f"hr:{len(cells) - 1}.{bit}", "type": "boolean", "value": on})
    points.append({"address": f"hr:{len(cells) - 1}", "type": "uint8", "value": "5"})
    points.append({"address": f"hr:{len(cells) - 1}", "type": "boolean", "value": "true"})

    async def action(function, start, address, count, current, values):
        if values is not None:
            print(json.dumps({"function": function, "address": address, "values": [int(v) for v in values]}), flush=True)
        for place, code in ((BUSY, ExcCodes.DEVICE_BUSY), (BROKEN, ExcCodes.DEVICE_FAILURE)):
            if function in (3, 6, 16) and address <= place < address + count:
                return code
        return None

    def block(values, at=0):
        return SimData(address=at, values=values, datatype=DataType.REGISTERS)

    def bits(values):
        return SimData(address=0, values=values, datatype=DataType.BITS)

    assert len(cells) <= HOLE[0]
    holding = [block(cells + [0] * (HOLE[0] - len(cells))), block([7] * 3000, HOLE[-1] + 1)]
    data = ([bits(coils)], [bits(inputs)], holding, [block(cells)])
    device = SimDevice(id=1, simdata=data, action=action)
    server = ModbusTcpServer([device], address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    port = server.transport.sockets[0].getsockname()[1]
    print(json.dumps({"port": port, "points": points, "writes": writes}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.shutdown()


pymodbus_apply_logging_config(logging.CRITICAL)
asyncio.run(main())
