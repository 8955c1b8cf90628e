// A Sparkplug edge node that is not ours (npm sparkplug-client).
// Usage: node sparkplug_node.mjs URL USER PASSWORD UPDATES
// Prints "done" after its updates; stays connected until its standard input is closed.
import sparkplug from "sparkplug-client";

const [serverUrl, username, password, updates] = process.argv.slice(2);
const client = sparkplug.newClient({
  serverUrl, username, password,
  groupId: "plant", edgeNode: "js", clientId: "js-node", version: "spBv1.0", publishDeath: true,
});
const metrics = (n) => [
  { name: "count", type: "Int32", value: n },
  { name: "level", type: "Double", value: n / 4 },
  { name: "state", type: "String", value: n % 2 ? "läuft" : "steht" },
];
const payload = (n) => ({ timestamp: Date.now(), metrics: metrics(n) });
let started = false;
client.on("birth", () => {
  client.publishNodeBirth({ timestamp: Date.now(), metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: false }] });
  client.publishDeviceBirth("mixer", payload(0));
  if (started) return;
  started = true;
  let n = 0;
  const timer = setInterval(() => {
    n += 1;
    client.publishDeviceData("mixer", payload(n));
    if (n === Number(updates)) {
      clearInterval(timer);
      setTimeout(() => console.log("done"), 300);
    }
  }, 20);
});
client.on("error", (error) => { console.error(String(error)); process.exit(1); });
process.stdin.on("end", () => { client.stop(); process.exit(0); }).resume();
