"""An MQTT client that is not ours (paho), as publisher, subscriber and one whose network fails.

Usage: interop.py CASES, JSON: [{"transport": "tcp" | "tls" | "ws" | "wss", "version": 4 | 5, "host", "port", "ca",
"topic", "user", "password", "wrong", "cert"}]; with "cert" (key and certificate in one file) in place of a login.
Prints "ok TRANSPORT VERSION" for each, and ends with 1 at the first thing that is not as it should be.
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 20
USER_PROPERTIES = [("k", "v"), ("a", "b"), ("k", "w")]


def check(fact, *words):
    if not fact:
        raise SystemExit(f"{case['transport']} {case['version']}: {words}")


class Peer:
    def __init__(self, name, will=None, password=None):
        self.v5 = case["version"] == 5
        fresh = {} if self.v5 else {"clean_session": True}
        self.client = mqtt.Client(
            client_id=f"{case['topic'].replace('/', '-')}-{name}",
            protocol=mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311,
            transport="websockets" if case["transport"].startswith("ws") else "tcp",
            **fresh,
        )
        if case["transport"] in ("tls", "wss"):
            self.client.tls_set(case["ca"], certfile=case.get("cert"), keyfile=case.get("cert"))
        if not case.get("cert"):
            self.client.username_pw_set(case["user"], password or case["password"])
        if will:
            self.client.will_set(*will)
        self.connected, self.subscribed, self.messages = queue.Queue(), queue.Queue(), queue.Queue()
        self.client.on_connect = lambda _c, _u, _flags, code, *_: self.connected.put(code)
        self.client.on_subscribe = lambda _c, _u, _mid, codes, *_: self.subscribed.put(codes)
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        self.client.connect(case["host"], case["port"], keepalive=30)
        self.client.loop_start()
        self.code = self.connected.get(timeout=PATIENCE)

    def subscribe(self, topic_filter, qos):
        self.client.subscribe(topic_filter, qos)
        codes = self.subscribed.get(timeout=PATIENCE)
        granted = [getattr(code, "value", code) for code in codes]
        check(granted == [qos], "granted", granted)

    def publish(self, name, payload, qos, retain=False, properties=None):
        sent = self.client.publish(f"{case['topic']}/{name}", payload, qos, retain, properties)
        sent.wait_for_publish(PATIENCE)
        check(sent.is_published(), "not acknowledged", name)

    def hear(self, name, payload, qos, retain):
        message = self.messages.get(timeout=PATIENCE)
        got = (message.topic, message.payload, message.qos, bool(message.retain))
        wanted = (f"{case['topic']}/{name}", payload, qos, retain)
        check(got == wanted, str(got)[:200], "in place of", str(wanted)[:200])
        return message

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        self.client.loop_stop()
        self.client._sock_close()


def run():
    topic = case["topic"]
    willing = Peer("willing", will=(f"{topic}/will", b"gone", 1, True))
    check(willing.code == 0, "refused", willing.code)
    reader = Peer("reader")
    reader.subscribe(f"{topic}/#", 2)
    properties = None
    if willing.v5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = USER_PROPERTIES
        properties.ContentType = "text/plain"
    odd, large = bytes(range(256)), b"0123456789" * 30_000
    willing.publish("Ölpumpe/q0", odd, 0)
    reader.hear("Ölpumpe/q0", odd, 0, False)
    willing.publish("q1", b"one", 1, properties=properties)
    message = reader.hear("q1", b"one", 1, False)
    if willing.v5:
        got = (message.properties.UserProperty, message.properties.ContentType)
        check(got == (USER_PROPERTIES, "text/plain"), "properties", got)
    willing.publish("q2", b"two", 2)
    reader.hear("q2", b"two", 2, False)
    willing.publish("large", large, 1)
    reader.hear("large", large, 1, False)
    willing.publish("kept", b"kept", 1, retain=True)
    reader.hear("kept", b"kept", 1, False)
    late = Peer("late")
    late.subscribe(f"{topic}/kept", 1)
    late.hear("kept", b"kept", 1, True)
    willing.vanish()
    reader.hear("will", b"gone", 1, False)
    late.subscribe(f"{topic}/will", 1)
    late.hear("will", b"gone", 1, True)
    for name in ("kept", "will"):
        late.publish(name, b"", 1, retain=True)
    late.leave()
    reader.leave()
    if case.get("wrong"):
        refused = Peer("refused", password=case["wrong"])
        check(refused.code != 0, "a wrong password was let in")
        refused.vanish()


for case in json.loads(sys.argv[1]):
    run()
    print("ok", case["transport"], case["version"], flush=True)
