"""Modbus servers by pymodbus on every kind of line, for the tests of the Modbus driver.

Each holds the same registers: texts, BCD, dates, scale factors, and the chain of a SunSpec device. One JSON line says where they
are and what their registers mean; then one line for each write that arrives. Ends when stdin does.

The registers are computed here with struct and datetime, so that both sides do not share a mistake.
"""

import asyncio
import json
import logging
import os
import struct
import sys
import threading
import tty
from datetime import datetime, timezone

from pymodbus import FramerType, pymodbus_apply_logging_config
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

UNITS = (1, 2, 3)
DEAD = 99  # what it would answer is swallowed


def text(value, length, encoding="utf-8", pad=b"\0", little=False):
    raw = value.encode(encoding).ljust(length, pad)
    raw += b"\0" * (len(raw) % 2)
    return [int.from_bytes(raw[at : at + 2], "little" if little else "big") for at in range(0, len(raw), 2)]


def words(form, value):
    raw = struct.pack(">" + form, value)
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


def forms():
    """Registers one after the other, and the points that read them."""
    when = datetime(2026, 3, 9, 17, 4, 59, tzinfo=timezone.utc)
    micros = str(int(when.timestamp()) * 1_000_000)
    cells, points = [], []

    def add(options, kind, value, registers):
        address = f"hr:{len(cells)} {options}".replace("@", str(len(cells) + 1)).strip()
        points.append({"address": address, "type": kind, "value": value})
        cells.extend(registers)

    add("len=12", "string", "Pumpe α", text("Pumpe α", 12))
    add("len=9 charset=latin1 pad=space", "string", "Öl °C", text("Öl °C", 9, "latin-1", b" "))
    add("len=8 byte=little", "string", "swapped", text("swapped", 8, little=True))
    add("len=5", "bytes", "0001fe8041", [0x0001, 0xFE80, 0x4100])
    add("bcd", "uint16", "1234", [0x1234])
    add("bcd", "uint32", "98765432", [0x9876, 0x5432])
    add("bcd CDAB", "uint32", "98765432", [0x5432, 0x9876])
    add("bcd", "uint64", "9007199254740993", [0x9007, 0x1992, 0x5474, 0x0993])
    add("time=epoch32", "datetime", micros, words("I", int(when.timestamp())))
    add("time=epoch64", "datetime", micros, words("Q", int(when.timestamp())))
    add("time=epoch-ms", "datetime", micros, words("Q", int(when.timestamp()) * 1000))
    add("time=ymdhms-6", "datetime", micros, list(when.timetuple()[:6]))
    add("time=ymdhms-3", "datetime", micros, [26 << 8 | 3, 9 << 8 | 17, 4 << 8 | 59])
    add("time=ymdhms-3-bcd", "datetime", micros, [0x2603, 0x0917, 0x0459])
    add("time=iec", "datetime", micros, [26, 3 << 8 | 1 << 5 | 9, 17 << 8 | 4, 59000])
    add("as=int16 sf=@", "double", "-23.5", [-235 & 0xFFFF, -1 & 0xFFFF])
    add("as=uint16 sf=@", "double", "65000000", [65000, 3])
    return cells, points


def sunspec():
    """A common model and an inverter of three phases, whose temperature of the transformer is not there."""
    common = text("Forebay", 32) + text("Test 3", 32) + text("", 16) + text("1.2", 16) + text("SN-0815", 32) + [1, 0]
    inverter = [0] * 50

    def put(at, *values):
        inverter[at - 2 : at - 2 + len(values)] = [value & 0xFFFF for value in values]

    put(2, 412, 137, 138, 0xFFFF, -1)
    put(10, 2301, 2302, 2303, -1)
    put(14, -950, 1, 5001, -2)
    put(24, 0x0012, 0xD687, 0)
    put(33, 415, -32768, -32768, -32768, -1)
    put(38, 4)
    chain = text("SunS", 4) + [1, 66] + common + [103, 50] + inverter + [0xFFFF, 0]
    points = [
        ("sunspec:1:2 len=32", "string", "Forebay"),
        ("sunspec:1:50 len=32", "string", "SN-0815"),
        ("sunspec:101|102|103:2 as=uint16 sf=6", "double", "41.2"),
        ("sunspec:101|102|103:10 as=uint16 sf=13", "double", "230.1"),
        ("sunspec:101|102|103:14 as=int16 sf=15", "double", "-9500"),
        ("sunspec:101|102|103:16 as=uint16 sf=17", "double", "50.01"),
        ("sunspec:101|102|103:24 as=uint32 sf=26", "double", "1234567"),
        ("sunspec:101|102|103:33 as=int16 sf=37", "double", "41.5"),
        ("sunspec:101|102|103:38", "uint16", "4"),
        ("sunspec:101|102|103:5 as=uint16 sf=6", "double", None),
        ("sunspec:101|102|103:35 as=int16 sf=37", "double", None),
        ("sunspec:201|203:16 as=int16 sf=17", "double", None),
    ]
    return chain, [{"address": address, "type": kind, "value": value} for address, kind, value in points]


def serial_line():
    """Two ends of a line: a pair of pseudo terminals, and a thread that is the wire."""
    masters, names = [], []
    for _ in range(2):
        master, slave = os.openpty()
        tty.setraw(slave)
        masters.append(master)
        names.append(os.ttyname(slave))

    def wire(source, target):
        while True:
            try:
                os.write(target, os.read(source, 1024))
            except OSError:
                return

    for source, target in (masters, masters[::-1]):
        threading.Thread(target=wire, args=(source, target), daemon=True).start()
    return names


def mute(framer):
    """Nothing is heard of a dead unit."""
    place = {FramerType.SOCKET: (6, bytes([DEAD])), FramerType.RTU: (0, bytes([DEAD])), FramerType.ASCII: (1, b"%02X" % DEAD)}
    at, mark = place[framer]

    def trace(sending, data):
        return b"" if sending and data[at : at + len(mark)] == mark else data

    return trace


def devices(base):
    cells, points = forms()
    chain, models = sunspec()

    async def action(function, start, address, count, current, values):
        if values is not None:
            print(json.dumps({"function": function, "address": address, "values": [int(v) for v in values]}), flush=True)
        return None

    def block(values, at=0):
        return SimData(address=at, values=values, datatype=DataType.REGISTERS)

    def device(unit):
        here = cells + [0] * (200 - len(cells)) + [unit * 100 + at for at in range(20)]
        holding = [block(here), block(chain, base)]
        bits = SimData(address=0, values=[at % 3 == 0 for at in range(32)], datatype=DataType.BITS)
        return SimDevice(id=unit, simdata=([bits], [bits], holding, [block(here)]), action=action)

    return [device(unit) for unit in UNITS], points, models


async def main():
    hello = {}
    bases = {"tcp": 40000, "rtu": 50000, "ascii": 40000}
    servers = []
    for name, framer in (("tcp", FramerType.SOCKET), ("rtu", FramerType.RTU), ("ascii", FramerType.ASCII)):
        units, hello["points"], hello["models"] = devices(bases[name])
        server = ModbusTcpServer(units, framer=framer, address=("127.0.0.1", 0), trace_packet=mute(framer))
        await server.serve_forever(background=True)
        hello[name] = server.transport.sockets[0].getsockname()[1]
        servers.append(server)
    for name, framer in (("serial_rtu", FramerType.RTU), ("serial_ascii", FramerType.ASCII)):
        theirs, hello[name] = serial_line()
        server = ModbusSerialServer(devices(40000)[0], framer=framer, port=theirs, baudrate=115200, trace_packet=mute(framer))
        await server.serve_forever(background=True)
        servers.append(server)
    print(json.dumps(hello), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


pymodbus_apply_logging_config(logging.CRITICAL)
asyncio.run(main())
