"""An S7 server by python-snap7 (the C library), for the tests of the S7 driver.

Prints one JSON line: the port, and the points that it holds (address as engineers write it, type, value as text). A line "stop" or
"run" on stdin puts the CPU into that state and is answered by a line. Ends when stdin does. Argument: a port, else a free one.

The bytes are made here with struct and datetime, so that both sides do not share a mistake.
"""

import ctypes
import json
import os
import socket
import struct
import sys
from datetime import date, datetime, timezone

from snap7.server import Server
from snap7.type import SrvArea

WHEN = datetime(2026, 3, 9, 17, 4, 59, 123000, tzinfo=timezone.utc)


def bcd(number):
    return number // 10 << 4 | number % 10


def forms():
    """Bytes of DB1 one after the other, and the points that read them."""
    memory, points = bytearray(), []

    def add(name, kind, value, raw, suffix=""):
        if len(memory) % 2:
            memory.append(0)
        points.append({"address": f"DB1.{name}{len(memory)}{suffix}", "type": kind, "value": value})
        memory.extend(raw)

    numbers = [
        ("DBB", "uint8", "B", 200), ("DBB", "int8", "b", -100), ("SINT", "int8", "b", -1), ("USINT", "uint8", "B", 255),
        ("DBW", "uint16", "H", 65535), ("DBW", "int16", "h", -2), ("INT", "int16", "h", -32768), ("WORD", "uint16", "H", 4660),
        ("DBD", "uint32", "I", 0xDEADBEEF), ("DBD", "int32", "i", -2), ("DBD", "float", "f", 1.5), ("DINT", "int32", "i", 7),
        ("REAL", "float", "f", -0.0009765625), ("LREAL", "double", "d", 2.718281828459045), ("DBL", "double", "d", -1e300),
        ("LINT", "int64", "q", -(2**63)), ("ULINT", "uint64", "Q", 2**64 - 1), ("LWORD", "uint64", "Q", 2**63 + 1),
    ]
    for name, kind, form, value in numbers:
        add(name, kind, str(value), struct.pack(">" + form, value))
    for bit in range(8):
        add("DBX", "boolean", str(bool(0b10100101 >> bit & 1)).lower(), b"\xa5", f".{bit}")
    add("STRING", "string", "Öl 7", b"\x14\x04" + "Öl 7".encode("latin-1") + b"\xee" * 16, "[20]")
    add("STRING", "string", "", b"\xfe\x00" + b"\xee" * 254, "[254]")
    wide = "Ωhm".encode("utf-16-be")
    add("WSTRING", "string", "Ωhm", struct.pack(">HH", 10, 3) + wide + b"\xee" * 14, "[10]")
    add("CHAR", "string", "ABC", b"ABC     ", "[8]")
    add("BYTE", "bytes", "00ff10", b"\x00\xff\x10", "[3]")
    micros = int(WHEN.timestamp() * 1000) * 1000
    w = WHEN
    weekday = w.isoweekday() % 7 + 1
    add("DTL", "datetime", str(micros), struct.pack(">HBBBBBBI", w.year, w.month, w.day, weekday, w.hour, w.minute, w.second, 123_000_000))
    parts = (w.year % 100, w.month, w.day, w.hour, w.minute, w.second, 12)
    add("DT", "datetime", str(micros), bytes([*map(bcd, parts), 3 << 4 | weekday]))
    add("LDT", "datetime", str(micros), struct.pack(">q", micros * 1000))
    midnight = int(datetime(2026, 3, 9, tzinfo=timezone.utc).timestamp()) * 1_000_000
    add("DATE", "datetime", str(midnight), struct.pack(">H", (date(2026, 3, 9) - date(1990, 1, 1)).days))
    add("TIME", "int32", "-90061001", struct.pack(">i", -90061001))
    add("TOD", "uint32", "61499123", struct.pack(">I", 61499123))
    add("LTIME", "double", "1.5", struct.pack(">q", 1_500_000))
    add("S5TIME", "uint32", "127000", struct.pack(">H", 2 << 12 | 0x127))
    return memory, points


def main():
    memory, points = forms()
    wide = bytearray(at % 251 for at in range(3000))
    points += [{"address": f"DB2.DBW{at}", "type": "uint16", "value": str(int.from_bytes(wide[at : at + 2], "big"))} for at in range(0, 3000, 60)]
    points.append({"address": "DB2.BYTE100[1500]", "type": "bytes", "value": wide[100:1600].hex()})
    marks, inputs, outputs = bytearray(64), bytearray(16), bytearray(16)
    marks[10:14] = struct.pack(">f", 42.5)
    marks[20] = 0b1000
    inputs[0], inputs[4:6] = 0b100, struct.pack(">h", -12345)
    outputs[1] = 0b1
    for address, kind, value in [
        ("MREAL10", "float", "42.5"), ("M20.3", "boolean", "true"), ("M20.2", "boolean", "false"), ("MB20", "uint8", "8"),
        ("I0.2", "boolean", "true"), ("E0.2", "boolean", "true"), ("EW4", "int16", "-12345"), ("IB0", "uint8", "4"),
        ("Q1.0", "boolean", "true"), ("A1.1", "boolean", "false"),
        ("T3", "uint32", "1230"), ("T4", "uint32", "9990000"), ("C2", "uint16", "345"), ("Z3", "uint16", "999"),
    ]:
        points.append({"address": address, "type": kind, "value": value})
    timers, counters = bytearray(32), bytearray(32)
    # This server begins timer or counter n at byte n // 2 instead of 2 n (its own client sees the same); a PLC does not.
    timers[1:5] = struct.pack(">HH", 0x0123, 3 << 12 | 0x999)
    counters[1:5] = struct.pack(">HH", 0x345, 0x999)
    spare = bytearray(400)
    server = Server(log=False)
    areas = []
    for area, number, data in [
        (SrvArea.DB, 1, memory), (SrvArea.DB, 2, wide), (SrvArea.DB, 7, spare), (SrvArea.MK, 0, marks), (SrvArea.PE, 0, inputs),
        (SrvArea.PA, 0, outputs), (SrvArea.TM, 0, timers), (SrvArea.CT, 0, counters),
    ]:
        held = (ctypes.c_uint8 * len(data)).from_buffer(data)
        areas.append(held)
        server.register_area(area, number, held)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server.start_to("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else port)
    print(json.dumps({"port": port, "points": points}), flush=True)
    for line in sys.stdin:
        server.set_cpu_status({"stop": 4, "run": 8}[line.strip()])
        print(json.dumps({"state": line.strip()}), flush=True)
    os._exit(0)


main()
