// An MQTT client that is not ours (MQTT.js), as publisher, subscriber and one whose network fails.
// Usage: node interop.mjs CASES, as for interop.py. Prints "ok TRANSPORT VERSION" for each case, and ends with 1 at the
// first thing that is not as it should be.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const PATIENCE = 20_000;
const SCHEMES = { tcp: "mqtt", tls: "mqtts", ws: "ws", wss: "wss" };

class Peer {
  constructor(client, topic) {
    Object.assign(this, { client, topic, messages: [], waiting: null });
    client.on("message", (name, payload, packet) => {
      this.messages.push({ name, payload, packet });
      this.waiting?.();
    });
    client.on("error", () => {});
  }

  static async open(c, name, extra = {}) {
    const login = c.cert
      ? { cert: readFileSync(c.cert), key: readFileSync(c.cert) }
      : { username: c.user, password: c.password };
    const secure = ["tls", "wss"].includes(c.transport) ? { ca: readFileSync(c.ca) } : {};
    const path = c.transport.startsWith("ws") ? "/mqtt" : "";
    const client = await mqtt.connectAsync(
      `${SCHEMES[c.transport]}://${c.host}:${c.port}${path}`,
      {
        protocolVersion: c.version, clientId: `${c.topic.replaceAll("/", "-")}-${name}`, clean: true,
        reconnectPeriod: 0, connectTimeout: PATIENCE, ...secure, ...login, ...extra,
      },
      false,
    );
    return new Peer(client, c.topic);
  }

  async subscribe(filter, qos) {
    const granted = await this.client.subscribeAsync(filter, { qos });
    assert.deepEqual(granted.map((g) => g.qos), [qos]);
  }

  publish(name, payload, qos, more = {}) {
    return this.client.publishAsync(`${this.topic}/${name}`, payload, { qos, ...more });
  }

  async hear(name, payload, qos, retain) {
    const until = Date.now() + PATIENCE;
    while (this.messages.length === 0) {
      assert(Date.now() < until, `waited in vain for ${name}`);
      await new Promise((resolve) => { this.waiting = resolve; setTimeout(resolve, 100); });
    }
    const got = this.messages.shift();
    assert.deepEqual(
      [got.name, got.packet.qos, got.packet.retain, got.payload.length],
      [`${this.topic}/${name}`, qos, retain, payload.length],
    );
    assert(got.payload.equals(Buffer.from(payload)), name);
    return got.packet;
  }
}

async function run(c) {
  const properties = { userProperties: { k: ["v", "w"], a: "b" }, contentType: "text/plain" };
  const will = { topic: `${c.topic}/will`, payload: Buffer.from("gone"), qos: 1, retain: true };
  const willing = await Peer.open(c, "willing", { will });
  const reader = await Peer.open(c, "reader");
  await reader.subscribe(`${c.topic}/#`, 2);
  const odd = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
  const large = Buffer.from("0123456789".repeat(30_000));
  await willing.publish("Ölpumpe/q0", odd, 0);
  await reader.hear("Ölpumpe/q0", odd, 0, false);
  await willing.publish("q1", "one", 1, c.version === 5 ? { properties } : {});
  const heard = await reader.hear("q1", "one", 1, false);
  if (c.version === 5) {
    assert.deepEqual({ ...heard.properties.userProperties }, properties.userProperties);
    assert.equal(heard.properties.contentType, "text/plain");
  }
  await willing.publish("q2", "two", 2);
  await reader.hear("q2", "two", 2, false);
  await willing.publish("large", large, 1);
  await reader.hear("large", large, 1, false);
  await willing.publish("kept", "kept", 1, { retain: true });
  await reader.hear("kept", "kept", 1, false);
  const late = await Peer.open(c, "late");
  await late.subscribe(`${c.topic}/kept`, 1);
  await late.hear("kept", "kept", 1, true);
  willing.client.stream.destroy(); // no DISCONNECT, and no closing frame of WebSocket
  await reader.hear("will", "gone", 1, false);
  await late.subscribe(`${c.topic}/will`, 1);
  await late.hear("will", "gone", 1, true);
  for (const name of ["kept", "will"]) await late.publish(name, "", 1, { retain: true });
  for (const peer of [late, reader]) await peer.client.endAsync();
  if (c.wrong) {
    await assert.rejects(Peer.open({ ...c, password: c.wrong }, "refused"), /refused|authorized|username|password/i);
  }
}

for (const c of JSON.parse(process.argv[2])) {
  await run(c).catch((error) => { console.error(c.transport, c.version, error); process.exit(1); });
  console.log("ok", c.transport, c.version);
}
process.exit(0);
