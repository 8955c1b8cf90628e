"""A Logix controller by cpppo, for the tests of the EtherNet/IP driver.

Prints one JSON line: the port, and the tags that it holds (address as engineers write it, type, value as text). A line "stop" or
"run" on stdin puts the controller into program mode or back, "tags" asks pycomm3 (another client) what it finds; each is answered
by a line. Ends when stdin does.

cpppo has sessions, connections (small and large), Unconnected Send, Read and Write Tag (Fragmented) and Multiple Service Packet.
What it lacks is made here, in front of it: symbols (class 0x6B) and templates (class 0x6C), Read Modify Write, members behind an
index, several dimensions, structures. pycomm3 sees to it that this is not our own idea of a controller.
"""

import json
import os
import struct
import sys
import threading

from cpppo.dotdict import dotdict
from cpppo.server.enip import device, logix, main as enip_main, parser
from cpppo.server.enip.device import Attribute, Connection_Manager, Identity

TYPES = {
    "BOOL": parser.BOOL, "SINT": parser.SINT, "INT": parser.INT, "DINT": parser.DINT, "LINT": parser.LINT,
    "USINT": parser.USINT, "UINT": parser.UINT, "UDINT": parser.UDINT, "ULINT": parser.ULINT, "REAL": parser.REAL,
    "LREAL": parser.LREAL, "STRING": parser.STRING, "SSTRING": parser.SSTRING,
}
POINT_TYPES = {
    "BOOL": "boolean", "SINT": "int8", "INT": "int16", "DINT": "int32", "LINT": "int64", "USINT": "uint8", "UINT": "uint16",
    "UDINT": "uint32", "ULINT": "uint64", "REAL": "float", "LREAL": "double", "STRING": "string", "SSTRING": "string",
}


class DWORD(parser.UDINT):
    """32 bits: what an array of BOOL is made of."""

    tag_type = 0x00D3


parser.typed_data.TYPES_SUPPORTED[DWORD.tag_type] = DWORD
LOGIX_STRING, STRING_20 = 0x0FCE, 0x5A11


class Text(parser.STRUCT):
    """A structure with a length and room for characters."""

    def __init__(self, name=None, **kwds):
        super().__init__(name=name, **kwds)
        self.structure_tag, self.struct_calcsize = 0, 0


class TextAttribute(Attribute):
    """What is written is the bytes of the one structure that it holds."""

    def __setitem__(self, key, value):
        assert len(value["input"]) == self.parser.struct_calcsize
        self.default[0].data.input = bytearray(value["input"])


def text(value, room, size):
    raw = value.encode("latin-1")
    return struct.pack("<I", len(raw)) + raw + bytes(size - 4 - len(raw))


TAGS = {}  # name as engineers write it: (type, dimensions, value or values)
TAGS["Flag"] = ("BOOL", [], 1)
for name, form, value in [
    ("SINT", "Small", -100), ("INT", "Word", -32768), ("DINT", "Count", -2), ("LINT", "Long", -(2**63)), ("USINT", "Byte", 200),
    ("UINT", "Port", 65535), ("UDINT", "Serial", 0xDEADBEEF), ("ULINT", "Total", 2**64 - 1), ("REAL", "Rate", 1.5),
    ("LREAL", "Exact", 2.718281828459045), ("STRING", "Recipe", "Öl 7"), ("SSTRING", "Batch", "B-12"),
]:
    TAGS[form] = (name, [], value)
TAGS["Bits"] = ("DINT", [], (0b10100101 << 24 | 0b1001) - 2**32)
TAGS["Temps"] = ("REAL", [400], [number / 4 for number in range(400)])
TAGS["Counts"] = ("INT", [2000], [number - 1000 for number in range(2000)])
TAGS["Grid"] = ("DINT", [3, 4], [100 * row + column for row in range(3) for column in range(4)])
TAGS["Raw"] = ("SINT", [32], [(7 * number) % 256 - 128 for number in range(32)])
TAGS["Flags"] = ("DWORD", [2], [0x80000001, 0b110])
TAGS["Program:Main.Step"] = ("DINT", [], 17)
TAGS["Program:Main.Speeds"] = ("REAL", [4], [1.0, 2.0, 3.0, 4.0])
TAGS["Program:Main.Cell.Speed"] = ("REAL", [], 33.25)
TAGS["Program:Main.Cell.Running"] = ("BOOL", [], 1)
TAGS["Program:Main.Cell.Zones"] = ("REAL", [3], [10.0, 20.0, 30.0])
for number in range(3):
    TAGS[f"Cells[{number}].Speed"] = ("REAL", [], float(number))
    TAGS[f"Cells[{number}].Running"] = ("BOOL", [], number % 2)
    TAGS[f"Cells[{number}].Zones"] = ("REAL", [3], [number + zone / 4 for zone in range(3)])
TAGS["Secret"] = ("DINT", [], 1)
TAGS["Fixed"] = ("DINT", [], 5)
# Texts are structures; their members have names of their own.
TEXTS = {"Name": (LOGIX_STRING, 82, 88, "Presse 7"), "Short": (STRING_20, 20, 24, "äöü"), "Program:Main.Note": (LOGIX_STRING, 82, 88, "")}
for name, (handle, room, size, value) in TEXTS.items():
    TAGS[f"{name}.LEN"] = ("DINT", [], len(value))
    TAGS[f"{name}.DATA"] = ("SINT", [room], list(struct.unpack(f"{room}b", text(value, room, size)[4 : 4 + room])))

TEMPLATES = {  # instance: (name, handle, bytes, members: name, type code, array size or bit, offset)
    0x101: ("Zone_Cell", 0x7777, 20, [
        ("ZZZZZZZZZZZone_Cell0", 0xC2, 0, 0), ("Running", 0xC1, 0, 0), ("Speed", 0xCA, 0, 4), ("Zones", 0x20CA, 3, 8)]),
    0x102: ("STRING", LOGIX_STRING, 88, [("LEN", 0xC4, 0, 0), ("DATA", 0x20C2, 82, 4)]),
    0x103: ("STRING_20", STRING_20, 24, [("LEN", 0xC4, 0, 0), ("DATA", 0x20C2, 20, 4)]),
}
CODES = {name: kind.tag_type for name, kind in TYPES.items()} | {"DWORD": 0xD3}
SYMBOLS = {None: [], "Program:Main": []}  # per scope: name, type, dimensions, access


def symbols():
    def add(name, code, sizes, access=0):
        scope, _, own = name.rpartition("Program:Main.")
        SYMBOLS["Program:Main" if scope or name.startswith("Program:Main.") else None].append((own, code | len(sizes) << 13, sizes, access))

    for name, (kind, sizes, _) in TAGS.items():
        if "." not in name.removeprefix("Program:Main."):
            add(name, CODES[kind], sizes, {"Secret": 3, "Fixed": 2}.get(name, 0))
    for name, (handle, *_) in TEXTS.items():
        add(name, 0x8000 | (0x102 if handle == LOGIX_STRING else 0x103), [])
    add("Program:Main.Cell", 0x8101, [])
    add("Cells", 0x8101, [3])
    add("Program:Main", 0x1068, [])
    SYMBOLS[None][-1] = ("Program:Main", 0x1068, [], 0)
    SYMBOLS[None] += [("__hidden", 0xC4, [], 0), ("Routine:Main", 0x106D, [], 0), ("Map:Local", 0x1069, [], 0)]


def segments(path):
    """(kind, value) of each segment."""
    at, found = 0, []
    while at < len(path):
        kind = path[at]
        if kind == 0x91:
            length = path[at + 1]
            found.append(("name", path[at + 2 : at + 2 + length].decode("latin-1")))
            at += 2 + length + length % 2
        elif kind in (0x20, 0x24, 0x28, 0x30):
            found.append(({0x20: "class", 0x24: "instance", 0x28: "element", 0x30: "attribute"}[kind], path[at + 1]))
            at += 2
        elif kind in (0x21, 0x25, 0x29):
            found.append(({0x21: "class", 0x25: "instance", 0x29: "element"}[kind], struct.unpack_from("<H", path, at + 2)[0]))
            at += 4
        else:
            found.append(("element", struct.unpack_from("<I", path, at + 2)[0]))
            at += 6
    return found


def list_symbols(scope, start, wanted, room):
    reply, status = b"", 0
    for instance, (name, code, sizes, access) in enumerate(SYMBOLS[scope], 1):
        if instance < start:
            continue
        raw = name.encode()
        entry = struct.pack("<I", instance)
        for attribute in wanted:
            entry += {
                1: struct.pack("<H", len(raw)) + raw, 2: struct.pack("<H", code), 3: bytes(4), 5: bytes(4), 6: bytes(4),
                8: struct.pack("<3I", *(sizes + [0, 0, 0])[:3]), 10: bytes([access]),
            }[attribute]
        if len(reply) + len(entry) > room:
            status = 6
            break
        reply += entry
    return status, reply


def template_text(instance):
    name, handle, size, members = TEMPLATES[instance]
    heads = b"".join(struct.pack("<HHI", info, code, offset) for _, code, info, offset in members)
    texts = f"{name};n".encode() + b"\0" + b"".join(member.encode() + b"\0" for member, *_ in members)
    whole = heads + texts
    return whole + bytes(-(len(whole) + 23) % 4)


def set_bits(tag, element, data):
    size = struct.unpack_from("<H", data)[0]
    attribute = device.lookup(*device.resolve_tag(tag))
    if size != attribute.parser.struct_calcsize:
        return 0xFF, b""
    on, keep = (int.from_bytes(data[2 + nth * size : 2 + (nth + 1) * size], "little") for nth in (0, 1))
    held = attribute[element]
    raw = int.from_bytes(attribute.parser.produce(held), "little")
    raw = ((raw | on) & keep).to_bytes(size, "little")
    attribute[element] = struct.unpack(attribute.parser.struct_format, raw)[0]
    return 0, b""


def extension(request):
    """The reply's status and data to what cpppo does not know; None for what it knows."""
    service, words = request[0], request[1]
    path, data = segments(request[2 : 2 + 2 * words]), request[2 + 2 * words :]
    ids = {kind: value for kind, value in path if kind != "name"}
    names = [value for kind, value in path if kind == "name"]
    if service == 0x55 and ids.get("class") == 0x6B:
        wanted = struct.unpack_from(f"<{struct.unpack_from('<H', data)[0]}H", data, 2)
        return list_symbols(names[0] if names else None, ids["instance"], wanted, 400)
    if ids.get("class") == 0x64:  # the program's name, which pycomm3 asks for
        return 0, struct.pack("<H", 4) + b"Test"
    if ids.get("class") == 0x6C:
        if ids["instance"] not in TEMPLATES:
            return 5, b""
        name, handle, size, members = TEMPLATES[ids["instance"]]
        if service == 0x03:
            count = struct.unpack_from("<H", data)[0]
            values = {1: struct.pack("<H", handle), 2: struct.pack("<H", len(members)),
                      4: struct.pack("<I", (len(template_text(ids["instance"])) + 23) // 4), 5: struct.pack("<I", size)}
            wanted = struct.unpack_from(f"<{count}H", data, 2)
            return 0, struct.pack("<H", count) + b"".join(struct.pack("<HH", number, 0) + values[number] for number in wanted)
        offset, count = struct.unpack_from("<IH", data)
        whole = template_text(ids["instance"])
        part = whole[offset : offset + min(count, 60)]  # less than was asked for: the rest in other answers
        return (6 if offset + len(part) < min(len(whole), offset + count) else 0), part
    if service == 0x4E and names:
        elements = [value for kind, value in path if kind == "element"]
        return set_bits(".".join(names), elements[-1] if elements else 0, data)
    return None


def install():
    cm_request = Connection_Manager.request

    def request(self, data, addr=None):
        raw = bytes(bytearray(data.request.input)) if data and "request" in data and "input" in data.request else b""
        found = extension(raw) if raw else None
        if found is None:
            return cm_request(self, data, addr=addr)
        status, reply = found
        data.request.input = bytearray(bytes([raw[0] | 0x80, 0, status, 0]) + reply)
        return True

    Connection_Manager.request = request
    resolve = device.resolve

    def with_members(path, attribute=False):
        """Members are tags of their own here, also those behind an index and those of a text."""
        terms = path["segment"]
        last = max((nth for nth, term in enumerate(terms) if "symbolic" in term), default=-1)
        name = ""
        for term in terms[: last + 1]:
            name += f"[{term['element']}]" if "element" in term else ("." if name else "") + term.get("symbolic", "")
        if name and device.resolve_tag(name):
            path = {"segment": [{"symbolic": name}] + terms[last + 1 :]}
        return resolve(path, attribute)

    def element(path):
        """The number of an element of one to three dimensions."""
        terms = path["segment"]
        last = max((nth for nth, term in enumerate(terms) if "symbolic" in term), default=-1)
        found = [term["element"] for term in terms[last + 1 :] if "element" in term]
        names = [term["symbolic"] for term in terms if "symbolic" in term]
        sizes = TAGS.get(".".join(names), (None, [], None))[1]
        if len(found) < 2 or len(found) != len(sizes):
            return (found[-1] if found else 0,)
        number = 0
        for nth, size in zip(found, sizes):
            number = number * size + nth
        return (number,)

    device.resolve, logix.resolve = with_members, with_members
    device.resolve_element, logix.resolve_element = element, element


def tags(found):
    """Puts them into cpppo's own dictionary."""
    for name, (kind, sizes, value) in TAGS.items():
        entry = dotdict()
        entry.attribute = Attribute(name, DWORD if kind == "DWORD" else TYPES[kind], default=value, error=0x0F if name == "Secret" else 0)
        entry.path, entry.error = None, 0
        dict.__setitem__(found, name, entry)
    for name, (handle, room, size, value) in TEXTS.items():
        entry, record = dotdict(), dotdict()
        record.structure_tag, record.data = handle, dotdict()
        record.data.input = bytearray(text(value, room, size))
        entry.attribute = TextAttribute(name, Text, default=[record])
        entry.attribute.parser.structure_tag, entry.attribute.parser.struct_calcsize = handle, size
        entry.path, entry.error = None, 0
        dict.__setitem__(found, name, entry)


def points():
    listed = []

    def add(address, kind, value):
        shown = str(bool(value)).lower() if kind == "boolean" else str(value)
        listed.append({"address": address, "type": kind, "value": shown})

    for name, (kind, sizes, value) in TAGS.items():
        if name == "Secret" or any(name.startswith(f"{text}.") for text in TEXTS):
            continue
        if kind == "DWORD":
            for bit in range(64):
                add(f"{name}[{bit}]", "boolean", value[bit // 32] >> bit % 32 & 1)
        elif not sizes:
            add(name, POINT_TYPES[kind], value)
        elif len(sizes) == 2:
            for nth, number in enumerate(value):
                add(f"{name}[{nth // sizes[1]},{nth % sizes[1]}]", POINT_TYPES[kind], number)
        else:
            for nth in list(range(len(value)))[:: max(1, len(value) // 300)]:
                add(f"{name}[{nth}]", POINT_TYPES[kind], value[nth])
    for bit in range(32):
        add(f"Bits.{bit}", "boolean", TAGS["Bits"][2] >> bit & 1)
    add("Counts[1500].4", "boolean", TAGS["Counts"][2][1500] >> 4 & 1)
    for name, (_, _, _, value) in TEXTS.items():
        add(name, "string", value)
    add("Raw[4] len=16", "bytes", bytes(number % 256 for number in TAGS["Raw"][2][4:20]).hex())
    add("long", "int64", TAGS["Long"][2])  # names do not tell upper from lower case
    return listed


def pycomm3(port):
    from pycomm3 import LogixDriver

    found = {}
    with LogixDriver(f"127.0.0.1:{port}/0", init_tags=False, init_program_tags=False) as plc:
        for tag in plc.get_tag_list("*"):
            kind = tag["data_type"] if isinstance(tag["data_type"], str) else tag["data_type"]["name"]
            members = [] if isinstance(tag["data_type"], str) else tag["data_type"]["attributes"]
            found[tag["tag_name"]] = {"type": kind, "sizes": tag["dimensions"][: tag["dim"]], "members": members}
    return found


def main():
    symbols()
    install()
    # As a 1756-L83E says of itself that it runs, its key in REM.
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--no-config", "--no-udp", "-a", f"127.0.0.1:{port}"]
    tags(enip_main.tags)
    threading.Thread(target=lambda: enip_main.main(argv=arguments + sys.argv[1:]), daemon=True).start()
    wait_for(port)
    print(json.dumps({"port": port, "points": points()}), flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "tags":
            print(json.dumps(pycomm3(port)), flush=True)
            continue
        identity = device.lookup(Identity.class_id, 1)
        identity.attribute["5"].default = {"stop": 0x3070, "run": 0x3060}[word]
        print(json.dumps({"state": word}), flush=True)
    os._exit(0)


def wait_for(port):
    import socket
    import time

    for _ in range(100):
        try:
            # The first session makes cpppo set its objects up.
            with socket.create_connection(("127.0.0.1", port), 1) as stream:
                stream.sendall(struct.pack("<HHIIQI", 0x65, 4, 0, 0, 0, 0) + b"\1\0\0\0")
                if stream.recv(28):
                    return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("cpppo does not listen")


main()
