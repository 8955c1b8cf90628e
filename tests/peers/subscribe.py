"""An MQTT client that is not ours (paho): prints messages as JSON lines.

Usage: subscribe.py HOST PORT FILTER COUNT SECONDS
Ends with 0 after COUNT messages, with 1 after SECONDS without them.
"""

import json
import sys
import time

import paho.mqtt.client as mqtt

host, port, topic_filter, count, seconds = sys.argv[1:]
left = int(count)


def on_message(_client, _userdata, message):
    global left
    try:
        payload = message.payload.decode()
    except UnicodeDecodeError:
        payload = message.payload.hex()
    print(json.dumps({"topic": message.topic, "payload": payload, "retain": bool(message.retain)}), flush=True)
    left -= 1


client = mqtt.Client()
client.on_message = on_message
client.on_connect = lambda c, *_: c.subscribe(topic_filter, 0)
client.connect(host, int(port))
end = time.time() + float(seconds)
while left > 0 and time.time() < end:
    client.loop(0.1)
client.disconnect()
sys.exit(0 if left <= 0 else 1)
