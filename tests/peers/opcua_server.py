"""An OPC UA server by asyncua, for the tests of the OPC UA driver.

Argument: one JSON object, all of it optional:
  port        0: a free one
  security    names of asyncua's SecurityPolicyType, default ["NoSecurity"]
  tokens      "anonymous", "user", "certificate"; default ["anonymous"]; the user is operator with password s3cret
  cert_dir    folder for the server's certificate and key (server.der, server.pem), needed for security
  user_cert   DER file of the certificate that may log in
  trust       DER file of the only client that is let in; others are refused
  limits      {"reads": N, "items": N, "browses": N, "history": N}: what one call may hold, told and enforced;
              "monitored": N items in all, not told
  silent_about_limits   true: the nodes with the limits are not there
  history     true: the counter and the sine keep a history
  children    N: a folder Many with so many variables
  items       N: variables Item.0 … for load
  name        prefix of the namespace order: "other" puts another namespace before ours

Prints one JSON line with port, namespace index, and the points (node, type, value as text). Then reads JSON lines from
stdin and answers each with one: {"do": "set", "name": …, "value": …}, "bad" (name, status), "restart" (down seconds, away: values of Counter that only history has),
"mute" (stop publishing), "cut" (drop all connections), "drop" (name), "count" (ms, number of changes of Counter),
"load" (ms, rounds over all items), "sessions", "calls" (of methods, so far), "written" (name), "history" (name). Ends when stdin does.
"""

import asyncio
import json
import logging
import socket
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from asyncua import Server, ua
from asyncua.crypto import uacrypto
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server import internal_subscription, monitored_item_service
from cryptography.x509.oid import ExtendedKeyUsageOID

URI = "urn:forebay:test:press"
V = ua.VariantType
NOW = datetime(2026, 11, 26, 1, 2, 3, 456789, tzinfo=timezone.utc)

# name, variant type, point type, value, value as text
SCALARS = [
    ("Boolean", V.Boolean, "boolean", True, "true"),
    ("SByte", V.SByte, "int8", -128, "-128"),
    ("Byte", V.Byte, "uint8", 255, "255"),
    ("Int16", V.Int16, "int16", -32768, "-32768"),
    ("UInt16", V.UInt16, "uint16", 65535, "65535"),
    ("Int32", V.Int32, "int32", -2147483648, "-2147483648"),
    ("UInt32", V.UInt32, "uint32", 4294967295, "4294967295"),
    ("Int64", V.Int64, "int64", -(2**63), str(-(2**63))),
    ("UInt64", V.UInt64, "uint64", 2**64 - 1, str(2**64 - 1)),
    ("Float", V.Float, "float", 1.5, "1.5"),
    ("Double", V.Double, "double", -1e300, "-1e300"),
    ("String", V.String, "string", "Öl, heiß", "Öl, heiß"),
    ("DateTime", V.DateTime, "datetime", NOW, str(int(NOW.timestamp()) * 1_000_000 + NOW.microsecond)),
    ("ByteString", V.ByteString, "bytes", b"\x00\xff", "00ff"),
    ("LocalizedText", V.LocalizedText, "string", ua.LocalizedText("läuft", "de"), "läuft"),
    ("QualifiedName", V.QualifiedName, "string", ua.QualifiedName("name", 1), "name"),
    ("StatusCode", V.StatusCode, "uint32", ua.StatusCode(0x80340000), str(0x80340000)),
    ("Guid", V.Guid, "string", __import__("uuid").UUID("72962b91-fa75-4ae6-8d28-b404dc7daf63"), "72962b91-fa75-4ae6-8d28-b404dc7daf63"),
    ("Spaces in [brackets]", V.Double, "double", 7.0, "7"),
    ("Literal[3]", V.Double, "double", 3.5, "3.5"),
]


class Users:
    """One user by password, one by certificate, the rest anonymous."""

    def __init__(self, options, certificate):
        self.options, self.certificate = options, certificate

    def get_user(self, iserver, username=None, password=None, certificate=None):
        tokens = self.options.get("tokens", ["anonymous"])
        if username is not None:
            return User(role=UserRole.User) if (username, password) == ("operator", "s3cret") else None
        if self.certificate is not None and certificate is not None and "certificate" in tokens:
            if certificate == self.certificate:
                return User(role=UserRole.User)
        return User(role=UserRole.User) if "anonymous" in tokens else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peer:
    def __init__(self, options):
        self.options = options
        self.port = options.get("port") or free_port()
        self.server = None
        self.nodes = {}
        self.muted = False
        self.past = {}
        self.types = {}
        self.calls = []

    async def start(self):
        options = self.options
        user = None
        if options.get("user_cert"):
            user = Path(options["user_cert"]).read_bytes()
        self.server = server = Server(user_manager=Users(options, user))
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}/press")
        await server.set_application_uri("urn:forebay:test:server")
        policies = options.get("security", ["NoSecurity"])
        server.set_security_policy([ua.SecurityPolicyType[name] for name in policies])
        kinds = {"anonymous": ua.AnonymousIdentityToken, "user": ua.UserNameIdentityToken, "certificate": ua.X509IdentityToken}
        server.set_identity_tokens([kinds[token] for token in options.get("tokens", ["anonymous"])])
        if options.get("cert_dir"):
            folder = Path(options["cert_dir"])
            key, cert = folder / "server.pem", folder / "server.der"
            await setup_self_signed_certificate(
                key, cert, "urn:forebay:test:server", "another-name.plant", [ExtendedKeyUsageOID.SERVER_AUTH], {"commonName": "Press 1/A"}
            )
            await server.load_certificate(str(cert))
            await server.load_private_key(str(key))
        if options.get("trust"):
            trusted = Path(options["trust"])

            async def validate(certificate, _application):
                if not trusted.exists() or uacrypto.der_from_x509(certificate) != trusted.read_bytes():
                    raise ua.uaerrors.BadSecurityChecksFailed

            server.set_certificate_validator(validate)
        if options.get("name") == "other":
            await server.register_namespace("urn:forebay:test:other")
        self.index = await server.register_namespace(URI)
        await self.populate()
        await self.limit()
        await server.start()

    async def add(self, parent, name, value, kind, writable=False):
        node = await parent.add_variable(ua.NodeId(name, self.index), name, value, kind)
        if writable:
            await node.set_writable()
        self.nodes[name] = node
        return node

    async def populate(self):
        server, options = self.server, self.options
        press = await server.nodes.objects.add_object(ua.NodeId("Press", self.index), "Press")
        for name, kind, _, value, _ in SCALARS:
            await self.add(press, name, value, kind, writable=True)
        counter = await self.add(press, "Counter", 0, V.Int32)
        sine = await self.add(press, "Sine", 0.5, V.Double, writable=True)
        await sine.add_property(
            ua.NodeId("Sine.EURange", self.index), ua.QualifiedName("EURange", 0), ua.Range(Low=-1.0, High=1.0)
        )
        unit = ua.EUInformation(
            NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
            UnitId=4408652,
            DisplayName=ua.LocalizedText("°C"),
            Description=ua.LocalizedText("degree Celsius"),
        )
        await sine.add_property(
            ua.NodeId("Sine.EngineeringUnits", self.index), ua.QualifiedName("EngineeringUnits", 0), unit
        )
        await sine.write_attribute(
            ua.AttributeIds.Description, ua.DataValue(ua.Variant(ua.LocalizedText("A sine, by \"hand\""), V.LocalizedText))
        )
        await self.add(press, "Temps", [10.0, 11.0, 12.0, 13.0], V.Double, writable=True)
        matrix = ua.Variant([[1, 2, 3], [4, 5, 6]], V.Int32)
        await self.add(press, "Matrix", matrix, None)
        secret = await self.add(press, "Secret", 1, V.Int32)
        level = ua.DataValue(ua.Variant(0, V.Byte))
        await secret.write_attribute(ua.AttributeIds.AccessLevel, level)
        await secret.write_attribute(ua.AttributeIds.UserAccessLevel, level)
        await self.structure(press)
        await self.methods(press)
        if options.get("children"):
            many = await server.nodes.objects.add_folder(ua.NodeId("Many", self.index), "Many")
            for nth in range(options["children"]):
                await many.add_variable(ua.NodeId(f"Many.{nth}", self.index), f"Child {nth}", nth, V.Int32)
        for nth in range(options.get("items", 0)):
            await self.add(press, f"Item.{nth}", 0, V.Int32)
        if options.get("history"):
            storage = server.iserver.history_manager.storage
            for name in ("Counter", "Sine"):
                node = self.nodes[name]
                await storage.new_historized_node(node.nodeid, timedelta(days=1), 0)
                for attribute in (ua.AttributeIds.AccessLevel, ua.AttributeIds.UserAccessLevel):
                    await node.set_attr_bit(attribute, ua.AccessLevel.HistoryRead)
                storage._datachanges[node.nodeid] = self.past.get(name, [])
                if not self.past.get(name):
                    await self.change(name, ua.Variant(0, V.Int32) if name == "Counter" else ua.Variant(0.5, V.Double))
                else:
                    await server.write_attribute_value(node.nodeid, self.past[name][-1])

    async def methods(self, press):
        """Each call is noted, and answered `calls` asks for the notes."""

        def noted(name, status=None, delay=0.0):
            async def method(_parent, *arguments):
                self.calls.append([name, [str(argument.Value) for argument in arguments]])
                await asyncio.sleep(delay)
                return ua.StatusCode(status) if status else []

            return method

        async def add(name, inputs, **how):
            await press.add_method(ua.NodeId(name, self.index), name, noted(name, **how), inputs, [])

        await add("Reset", [])
        await add("SetSpeed", [V.Double])
        await add("Move", [V.Double, V.Int32, V.String])
        await add("Broken", [], status=ua.StatusCodes.BadUnexpectedError)
        await add("NotNow", [], status=ua.StatusCodes.BadInvalidState)
        await add("Slow", [], delay=3.0)

    async def change(self, name, variant):
        """Writes a value with the time of now, and keeps it in the history if there is one."""
        node, now = self.nodes[name], datetime.now(timezone.utc)
        value = ua.DataValue(variant, SourceTimestamp=now, ServerTimestamp=now)
        storage = self.server.iserver.history_manager.storage
        if node.nodeid in getattr(storage, "_datachanges", {}):
            storage._datachanges[node.nodeid].append(value)
        await self.server.write_attribute_value(node.nodeid, value)

    async def structure(self, press):
        from asyncua.common.structures104 import new_struct, new_struct_field

        server = self.server
        motor, _ = await new_struct(
            server, self.index, "Motor", [new_struct_field("Speed", V.Double), new_struct_field("Name", V.String)]
        )
        state, _ = await new_struct(
            server,
            self.index,
            "State",
            [new_struct_field("Mode", V.Int32), new_struct_field("Motor", motor), new_struct_field("Temps", V.Float, array=True)],
        )
        self.types.update(await server.load_data_type_definitions())
        types = self.types  # the library registers them once in a process
        value = types["State"](Mode=4, Motor=types["Motor"](Speed=99.5, Name="M1"), Temps=[1.5, 2.5])
        node = await press.add_variable(
            ua.NodeId("State", self.index), "State", ua.Variant(value, V.ExtensionObject), datatype=state.nodeid
        )
        self.nodes["State"] = node

    async def limit(self):
        limits = self.options.get("limits", {})
        server = self.server
        ids = {
            "reads": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            "items": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
            "browses": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
            "history": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
        }
        if self.options.get("silent_about_limits"):
            for node in ids.values():
                await server.get_node(ua.NodeId(node)).delete()
        for name, value in limits.items():
            if name in ids and not self.options.get("silent_about_limits"):
                await server.get_node(ua.NodeId(ids[name])).write_value(ua.Variant(value, V.UInt32))

    async def restart(self, down, away):
        kept = getattr(self.server.iserver.history_manager.storage, "_datachanges", {})
        self.past = {name: list(kept[node.nodeid]) for name, node in self.nodes.items() if node.nodeid in kept}
        await self.server.stop()
        now = datetime.now(timezone.utc)
        for nth in range(away):  # the machine went on while its server was gone
            at = now + timedelta(seconds=down * (nth + 1) / (away + 1))
            self.past["Counter"].append(ua.DataValue(ua.Variant(-1 - nth, V.Int32), SourceTimestamp=at, ServerTimestamp=at))
        await asyncio.sleep(down)
        self.nodes = {}
        await self.start()

    async def command(self, said):
        do = said["do"]
        if do == "set":
            node = self.nodes[said["name"]]
            old = await node.read_data_value(raise_on_bad_status=False)
            await self.change(said["name"], ua.Variant(said["value"], old.Value.VariantType))
        elif do == "bad":
            now = datetime.now(timezone.utc)
            value = ua.DataValue(ua.Variant(1, V.Int32), ua.StatusCode(said["status"]), now, now)
            await self.nodes[said["name"]].write_attribute(ua.AttributeIds.Value, value)
        elif do == "restart":
            await self.restart(said.get("down", 0.0), said.get("away", 0))
        elif do == "mute":
            self.muted = said.get("on", True)
        elif do == "cut":
            for processor in list(self.server.bserver.clients):
                processor.transport.abort()
        elif do == "drop":
            await self.server.delete_nodes([self.nodes.pop(said["name"])])
        elif do == "count":
            for nth in range(said.get("from", 1), said.get("from", 1) + said["number"]):
                await self.change("Counter", ua.Variant(nth, V.Int32))
                await asyncio.sleep(said.get("ms", 1) / 1000)
        elif do == "load":
            start = asyncio.get_running_loop().time()
            nodes = [node for name, node in self.nodes.items() if name.startswith("Item.")]
            for nth in range(1, said["rounds"] + 1):
                for place, node in enumerate(nodes):
                    await self.server.write_attribute_value(node.nodeid, ua.DataValue(ua.Variant(nth, V.Int32), SourceTimestamp=datetime.now(timezone.utc)))
                    if place % 500 == 499:
                        await asyncio.sleep(0)
                due = start + nth * said.get("ms", 1000) / 1000
                await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
            return {"late_ms": int((asyncio.get_running_loop().time() - start) * 1000) - said["rounds"] * said.get("ms", 1000)}
        elif do == "calls":
            return {"calls": self.calls}
        elif do == "written":
            value = await self.nodes[said["name"]].read_value()
            return {"value": str(value)}
        elif do == "sessions":
            subscriptions = self.server.iserver.subscription_service.subscriptions
            items = sum(len(s.monitored_item_srv._monitored_items) for s in subscriptions.values())
            return {"subscriptions": len(subscriptions), "items": items}
        elif do == "history":
            values = self.server.iserver.history_manager.storage._datachanges[self.nodes[said["name"]].nodeid]
            return {"values": [value.Value.Value for value in values]}
        return {}


def patch(peer):
    """What asyncua leaves out: a server that falls silent, the overflow bit, limits that are enforced."""
    inner = internal_subscription.InternalSubscription
    publish = inner.publish_results

    async def publish_results(self, requestdata=None):
        if peer.muted:
            return False
        return await publish(self, requestdata)

    inner.publish_results = publish_results

    async def enqueue(self, mid, eventdata, size, queue):
        waiting = queue.setdefault(mid, [])
        waiting.append(eventdata)
        if size and len(waiting) > size:
            waiting.pop(0)
            value = waiting[0].Value
            bits = (value.StatusCode.value if value.StatusCode else 0) | 0x480  # Part 4, 7.39: InfoType, Overflow
            waiting[0] = ua.MonitoredItemNotification(
                waiting[0].ClientHandle,
                ua.DataValue(value.Value, ua.StatusCode(bits), value.SourceTimestamp, value.ServerTimestamp),
            )
        if len(waiting) == 1:
            await self._trigger_publish()

    inner._enqueue_event = enqueue

    limits = peer.options.get("limits", {})
    service = monitored_item_service.MonitoredItemService
    create = service.create_monitored_items

    async def create_monitored_items(self, params):
        if len(params.ItemsToCreate) > limits.get("items", 10**6):
            raise ua.uaerrors.BadTooManyOperations
        room = max(0, limits.get("monitored", 10**6) - len(self._monitored_items))
        wanted, params.ItemsToCreate = params.ItemsToCreate, params.ItemsToCreate[:room]
        full = ua.MonitoredItemCreateResult(StatusCode=ua.StatusCode(ua.StatusCodes.BadTooManyMonitoredItems))
        return await create(self, params) + [full] * (len(wanted) - len(params.ItemsToCreate))

    service.create_monitored_items = create_monitored_items
    from asyncua.server.internal_session import InternalSession

    read, browse = InternalSession.read, InternalSession.browse

    async def limited_read(self, params):
        if self.external and len(params.NodesToRead) > limits.get("reads", 10**6):
            raise ua.uaerrors.BadTooManyOperations
        return await read(self, params)

    async def limited_browse(self, params):
        if self.external and len(params.NodesToBrowse) > limits.get("browses", 10**6):
            raise ua.uaerrors.BadTooManyOperations
        return await browse(self, params)

    InternalSession.read, InternalSession.browse = limited_read, limited_browse


async def main():
    logging.basicConfig(level=logging.CRITICAL)
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    peer = Peer(options)
    patch(peer)
    await peer.start()
    points = [
        {"node": f"ns={peer.index};s={name}", "name": name, "type": kind, "value": text} for name, _, kind, _, text in SCALARS
    ]
    print(json.dumps({"port": peer.port, "index": peer.index, "points": points}), flush=True)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            answer = await peer.command(json.loads(line))
        except Exception as error:  # told to the test
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)
    await peer.server.stop()


asyncio.run(main())
