// The console in headless Chromium against a running plant (`forebay demo`): signing in, live values, trend, balance,
// agents, writing, themes, the phone, the broker. It fails, and never skips, when something it needs is missing.
//
//   FOREBAY_URL=http://127.0.0.1:8080 FOREBAY_TOKEN=$(cat forebay-demo/hub/token) FOREBAY_MQTT=mqtt://127.0.0.1:1883 \
//     FOREBAY_ACCESS=forebay-demo/hub/access.toml node --test tests/web/page.test.mjs
//
// FOREBAY_ACCESS is the hub's access file: the test enters somebody who may publish under page-test/.
// FOREBAY_SCREENSHOTS names a folder for pictures (default: none are kept). FOREBAY_CHROMIUM names the browser.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { appendFileSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { connect as connectSocket } from "node:net";
import { after, before, test } from "node:test";

const require = createRequire(new URL("../peers/package.json", import.meta.url));
const { chromium } = require("playwright-core"); // scripts/peers installs it

const url = process.env.FOREBAY_URL;
const token = process.env.FOREBAY_TOKEN;
const broker = process.env.FOREBAY_MQTT;
const access = process.env.FOREBAY_ACCESS;
assert.ok(url && token && broker && access, "set FOREBAY_URL, FOREBAY_TOKEN, FOREBAY_MQTT and FOREBAY_ACCESS to a running plant");

const pictures = process.env.FOREBAY_SCREENSHOTS;
const SOON = 20_000;

let browser;

before(async () => {
  if (pictures) mkdirSync(pictures, { recursive: true });
  browser = await chromium.launch({
    executablePath: process.env.FOREBAY_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
});

after(async () => {
  await browser?.close();
});

const DESK = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };

/** A page in a browser profile of its own that fails its test on any error, and on any request to elsewhere. */
async function opened(t, { viewport = DESK, colorScheme = "light", address = "/", signIn = true, refusals = ["401 (Unauthorized)"] } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, hasTouch: viewport === PHONE });
  const page = await context.newPage();
  page.setDefaultTimeout(SOON);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    const refused = refusals.some((refusal) => message.text().includes(refusal));
    if (message.type() === "error" && !refused) wrong.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) wrong.push(`elsewhere: ${request.url()}`);
  });
  await page.goto(new URL(signIn ? `/?token=${encodeURIComponent(token)}` : address, url).href);
  t.after(async () => {
    await context.close();
    assert.deepEqual(wrong, [], "the page ran without errors and without other hosts");
  });
  return page;
}

async function api(path) {
  const answer = await fetch(new URL(path, url), { headers: { authorization: `Bearer ${token}` } });
  assert.equal(answer.status, 200, path);
  return answer.json();
}

async function picture(page, name) {
  if (pictures) await page.screenshot({ path: join(pictures, `${name}.png`) });
}

/** Waits until `look` says something, and gives it back. */
async function eventually(what, look) {
  const end = Date.now() + SOON;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert.ok(Date.now() < end, `within ${SOON / 1000} s: ${what}`);
    await new Promise((go) => setTimeout(go, 200));
  }
}

/** A point whose value moves: found by asking twice. */
async function movingPoint() {
  return eventually("a number that changes", async () => {
    const read = async () => (await api("/api/v1/points?limit=1000")).points.filter((p) => p.type === "float" || p.type === "double");
    const before = new Map((await read()).map((p) => [p.path, p.last?.v]));
    await new Promise((go) => setTimeout(go, 1500));
    return (await read()).find((p) => p.last && p.last.q === "good" && before.get(p.path) !== undefined && before.get(p.path) !== p.last.v);
  });
}

test("a wrong password is refused, the token signs in, and signing out ends it", async (t) => {
  const page = await opened(t, { signIn: false });
  await page.getByLabel("Password").fill("not the token");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").filter({ hasText: "not the password" }).waitFor();
  await picture(page, "login");
  await page.getByLabel("Password").fill(token);
  await page.keyboard.press("Enter");
  await page.getByRole("tree").waitFor();
  const cookie = (await page.context().cookies()).find((c) => c.name === "forebay_session");
  assert.ok(cookie?.httpOnly && cookie.sameSite === "Strict", "the session's cookie is out of reach of scripts and other sites");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Password").waitFor();
  await page.reload();
  await page.getByLabel("Password").waitFor();
});

test("a link with the token signs in and leaves no token in the address", async (t) => {
  const page = await opened(t);
  await page.getByRole("tree").waitFor();
  assert.ok(!page.url().includes(token));
});

test("the tree shows live values, is searched, and is walked with the keyboard", async (t) => {
  const moving = await movingPoint();
  const page = await opened(t);
  await page.getByLabel("Search points").fill(moving.path);
  const row = page.getByRole("treeitem").filter({ has: page.locator(".value") }).first();
  await row.waitFor();
  const before = await row.locator(".value").innerText();
  await eventually(`${moving.path} changes on the page`, async () => (await row.locator(".value").innerText()) !== before);
  await page.getByLabel("Search points").fill("no such point anywhere");
  await page.getByText("No point has all these words.").waitFor();
  await page.getByLabel("Search points").fill("");
  await page.getByRole("tree").focus();
  await page.keyboard.press("Home");
  let steps = 0;
  await eventually("an arrow key reaches a point", async () => {
    await page.keyboard.press("ArrowDown");
    steps += 1;
    const at = await page.getByRole("tree").getAttribute("aria-activedescendant");
    return at && (await page.locator(`#${at}.row:not(.branch)`).count()) === 1;
  });
  assert.ok(steps < 30);
  await page.keyboard.press("Enter");
  assert.equal(await page.locator(".row.selected").count(), 1);
});

test("the trend shows history and goes on live, as a chart and as a table", async (t) => {
  const moving = await movingPoint();
  const page = await opened(t);
  await page.getByLabel("Search points").fill(moving.path);
  await page.getByRole("treeitem").filter({ has: page.locator(".value") }).first().click();
  const chart = page.getByTestId("chart");
  const readings = async () => Number(await chart.getAttribute("data-readings"));
  const first = await eventually("readings in the chart", async () => ((await readings()) > 3 ? readings() : 0));
  await eventually("more readings, live", async () => (await readings()) !== first);
  assert.ok(await chart.locator("canvas").count(), "there is a chart");
  await page.getByLabel("Search points").fill("");
  await picture(page, "desk-light");
  for (const range of ["15 min", "1 h", "All", "1 min"]) {
    await page.getByRole("button", { name: range, exact: true }).click();
    await eventually(`readings over ${range}`, async () => (await readings()) > 3);
  }
  await page.getByRole("button", { name: "Table" }).click();
  await page.getByRole("region", { name: "Newest readings" }).locator("tbody tr").first().waitFor();
  await page.reload();
  await page.getByRole("heading", { name: moving.path.split("/").at(-1), exact: true }).waitFor();
});

test("agents and the balance are shown as the API says", async (t) => {
  const page = await opened(t);
  const { agents } = await api("/api/v1/agents");
  assert.ok(agents.length > 0, "the plant has agents");
  const panel = page.getByRole("region", { name: "Plant" });
  for (const agent of agents) {
    await panel.locator(".agents li").filter({ hasText: agent.agent }).first().waitFor();
    const table = panel.getByRole("table", { name: `Devices of ${agent.agent}` });
    for (const device of agent.devices) await table.getByRole("rowheader").filter({ hasText: device.name }).first().waitFor();
  }
  const verdict = await eventually("a balance", async () => page.getByTestId("balance").innerText());
  assert.match(verdict, /Balanced|In flight/, "nothing is wrong in a healthy plant");
  await page.getByTestId("balance").scrollIntoViewIfNeeded();
  await picture(page, "balance");
});

/** Agents tell of their devices every 10 s; the first time soon after the first receipt. */
async function toldAgents() {
  return eventually("devices that are told of", async () => {
    const { agents } = await api("/api/v1/agents");
    const ours = agents.filter((agent) => agent.online && !agent.foreign);
    return ours.length > 0 && ours.every((agent) => agent.devices.every((device) => device.health?.state === "up")) && ours;
  });
}

test("devices show how they are: state, points by quality, requests and latency", async (t) => {
  const agents = await toldAgents();
  const page = await opened(t);
  for (const agent of agents) {
    const table = page.getByRole("table", { name: `Devices of ${agent.agent}` });
    for (const { name, health } of agent.devices) {
      const row = table.getByRole("row").filter({ has: page.getByRole("rowheader", { name }) });
      await row.filter({ hasText: "up" }).filter({ hasText: `${health.points.good} good` }).filter({ hasText: health.driver }).waitFor();
      if (health.requests > 0) assert.match(await row.innerText(), /\d · .*\d ms/, `${name} has latencies`);
    }
  }
  const asked = agents.flatMap((agent) => agent.devices).filter((device) => device.health.requests > 0);
  assert.ok(asked.length > 0 && asked.every((device) => device.health.requests_per_second > 0), "a device that is polled is asked again and again");
  await page.getByRole("table").first().scrollIntoViewIfNeeded();
  await picture(page, "devices");
});

test("devices in trouble stand first, with their error", async (t) => {
  await toldAgents();
  const page = await opened(t, { signIn: true });
  // What a plant in trouble would answer: the page must bring it to the top.
  const points = { good: 2, uncertain: 0, bad: 0, stale: 0, unread: 0 };
  const health = { as_of: new Date().toISOString(), driver: "s7", state: "up", since: new Date().toISOString(), last_read: null, error: null, is_off_clock: false };
  const figures = { requests: 5, failed: 0, requests_per_second: 1, p50_ms: 2, p99_ms: 30 };
  const device = (name, more) => ({ name, online: more.state !== "down", health: { ...health, ...figures, points, ...more } });
  await page.route("**/api/v1/agents", async (route) => {
    const answer = await (await route.fetch()).json();
    answer.agents[0].devices = [
      device("a-fine", {}),
      device("b-some-bad", { points: { ...points, bad: 1 } }),
      device("c-error", { error: "malformed answer: 7 bytes" }),
      device("d-down", { state: "down", error: "not connected: refused", points: { ...points, good: 0, stale: 2 } }),
      { name: "e-foreign", online: true, health: null },
    ];
    await route.fulfill({ json: answer });
  });
  const { agents } = await api("/api/v1/agents");
  const table = page.getByRole("table", { name: `Devices of ${agents[0].agent}` });
  await table.getByText("not connected: refused").waitFor();
  const names = await table.getByRole("rowheader").evaluateAll((cells) => cells.map((cell) => cell.childNodes[1].textContent));
  assert.deepEqual(names, ["d-down", "c-error", "b-some-bad", "a-fine", "e-foreign"]);
  await table.getByText("2 stale").waitFor();
  await page.unrouteAll({ behavior: "wait" });
});

test("a point shows what its device said, what was done to it, and the result", async (t) => {
  await toldAgents();
  const moving = await movingPoint();
  const page = await opened(t);
  await page.getByRole("tree").waitFor();
  await page.evaluate((path) => (location.hash = `#point=${encodeURIComponent(path)}`), moving.path);
  await page.getByText("Raw value and transforms").click();
  const raw = await page.getByTestId("raw-value").innerText();
  const look = await api(`/api/v1/look?path=${encodeURIComponent(moving.path)}`);
  assert.ok(look.address && look.raw_type && look.raw !== null, JSON.stringify(look));
  const made = Number(look.raw) * (look.scale ?? 1) + (look.offset ?? 0);
  assert.ok(Math.abs(made - Number(look.value)) <= 1e-6 * Math.max(1, Math.abs(made)), `${look.raw} becomes ${look.value}: ${JSON.stringify(look)}`);
  assert.notEqual(raw, "none");
  await page.getByTestId("raw-result").waitFor();
  await eventually("the raw value goes on", async () => (await page.getByTestId("raw-value").innerText()) !== raw);
  await picture(page, "raw");
});

test("a set-point is written and its outcome shown, or the page says that commands are off", async (t) => {
  const plant = await api("/api/v1/plant");
  const { points } = await api("/api/v1/points?limit=1000");
  const point = points.find((p) => p.writable && /float|double|int/.test(p.type) && p.last);
  assert.ok(point, "the plant has a writable number");
  const page = await opened(t);
  await page.getByRole("tree").waitFor();
  await page.evaluate((path) => (location.hash = `#point=${encodeURIComponent(path)}`), point.path);
  if (!plant.commands_enabled) {
    await page.getByText("Commands are switched off in this hub.").waitFor();
    return;
  }
  const form = page.getByRole("form", { name: `Write ${point.path}` });
  const low = point.min ?? 0;
  const value = String(Math.round(low + ((point.max ?? low + 10) - low) / 3));
  await form.getByLabel(/^Value/).fill(value);
  await form.getByLabel("Reason").fill("page test");
  await form.getByRole("button", { name: "Write …" }).click();
  await form.getByRole("button", { name: "Write now" }).click();
  const outcome = await eventually("an outcome", async () => {
    const shown = page.getByTestId("outcome");
    return (await shown.count()) ? shown.innerText() : "";
  });
  assert.match(outcome, /^done/, `writing ${value} to ${point.path}`);
  await picture(page, "write");
});

test("light and dark follow the system and the button, which is remembered", async (t) => {
  const page = await opened(t, { colorScheme: "dark" });
  await page.getByRole("tree").waitFor();
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  assert.equal(await theme(), "dark");
  await page.waitForTimeout(pictures ? 3000 : 0);
  await picture(page, "desk-dark");
  await page.getByRole("button", { name: "Use the light theme" }).click();
  assert.equal(await theme(), "light");
  await page.reload();
  await page.getByRole("tree").waitFor();
  assert.equal(await theme(), "light");
});

test("a phone shows one pane at a time and nothing beyond its edge", async (t) => {
  const moving = await movingPoint();
  const page = await opened(t, { viewport: PHONE });
  const fits = async () => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "no sideways scrolling");
  await page.getByRole("tree").waitFor();
  await page.locator(".row .value").first().waitFor();
  await fits();
  await picture(page, "phone-points");
  await page.getByLabel("Search points").fill(moving.path);
  await page.getByRole("treeitem").filter({ has: page.locator(".value") }).first().click();
  await page.getByTestId("chart").waitFor();
  await page.waitForTimeout(pictures ? 2000 : 0);
  await fits();
  await picture(page, "phone-trend");
  await page.getByRole("navigation", { name: "Panes" }).getByRole("button", { name: "Plant" }).click();
  await page.getByTestId("balance").waitFor();
  await fits();
  await picture(page, "phone-plant");
});

/** Somebody who may publish under page-test/, in the access file; the hub takes it within a second. */
const tester = { name: "page-tester", secret: randomBytes(32).toString("hex") };

async function letTesterIn() {
  if (readFileSync(access, "utf8").includes(`sha256:${createHash("sha256").update(tester.secret).digest("hex")}`)) return;
  const name = `${tester.name}-${randomBytes(4).toString("hex")}`;
  const hash = createHash("sha256").update(tester.secret).digest("hex");
  appendFileSync(access, `\n[roles.${name}]\npublish = ["page-test/#"]\nsubscribe = ["#"]\n\n[[identities]]\nname = "${name}"\nroles = ["${name}"]\ntoken = "sha256:${hash}"\n`);
  tester.name = name;
  await new Promise((go) => setTimeout(go, 1500)); // wrong log-ins are counted
}

const text = (string) => Buffer.concat([Buffer.from([string.length >> 8, string.length & 255]), Buffer.from(string)]);
const packet = (first, ...parts) => {
  const body = Buffer.concat(parts);
  const length = [];
  let rest = body.length;
  do {
    length.push((rest & 127) | (rest > 127 ? 128 : 0));
    rest >>= 7;
  } while (rest > 0);
  return Buffer.concat([Buffer.from([first, ...length]), body]);
};

/** A client of MQTT 5.0 by hand: nothing is answered that the test does not answer. `receiveMaximum` bounds its window. */
async function mqtt(t, clientId, receiveMaximum) {
  await letTesterIn();
  const { hostname, port } = new URL(broker);
  const properties = Buffer.from([3, 0x21, 0, receiveMaximum]);
  const hello = packet(0x10, text("MQTT"), Buffer.from([5, 0xc2, 0, 0]), properties, text(clientId), text(tester.name), text(tester.secret));
  const socket = await eventually(`the broker lets ${clientId} in`, async () => {
    const attempt = connectSocket({ host: hostname, port: Number(port) });
    const code = await new Promise((decided) => {
      attempt.once("data", (answer) => decided(answer[3]));
      attempt.once("error", () => decided(255));
      attempt.once("close", () => decided(255));
      attempt.write(hello);
    });
    if (code === 0) return attempt;
    attempt.destroy();
    return null;
  });
  socket.on("data", () => {}).on("error", () => {});
  let closed = false;
  socket.on("close", () => (closed = true));
  t.after(() => socket.destroy());
  return {
    subscribe: (filter, qos) => socket.write(packet(0x82, Buffer.from([0, 1, 0]), text(filter), Buffer.from([qos]))),
    publish: (topic, payload, { qos = 0, retain = false } = {}) => {
      const identifier = qos > 0 ? Buffer.from([0, 1]) : Buffer.alloc(0);
      socket.write(packet(0x30 | (qos << 1) | Number(retain), text(topic), identifier, Buffer.from([0]), Buffer.from(payload)));
    },
    isClosed: () => closed,
  };
}

test("a subscriber that is stuck stands out with its reason, and can be disconnected", async (t) => {
  const stuck = await mqtt(t, "page-stuck", 1);
  const sender = await mqtt(t, "page-sender", 100);
  stuck.subscribe("page-test/stuck", 1);
  const page = await opened(t);
  await page.getByRole("navigation", { name: "Views" }).getByRole("button", { name: "Broker" }).click();
  const clients = page.getByRole("region", { name: "Clients", exact: true });
  const row = clients.locator('[data-client="page-stuck"]');
  await row.waitFor();
  assert.ok(!(await row.innerText()).includes("Stuck"), "nothing waits for it yet");
  for (let number = 0; number < 3; number += 1) sender.publish("page-test/stuck", `message ${number}`, { qos: 1 });
  await row.filter({ hasText: /Stuck for .*It does not acknowledge/ }).waitFor();
  const first = clients.locator("tbody tr").first();
  assert.equal(await first.getAttribute("data-client"), "page-stuck", "those that are stuck come first");
  await eventually("its queue is shown", async () => (await row.locator("td").nth(6).innerText()) === "3");
  await picture(page, "broker-clients");

  await clients.getByLabel("Search clients").fill("page-");
  await eventually("two clients are found", async () => (await clients.locator("[data-client]").count()) === 2);
  await row.getByRole("button", { name: "page-stuck" }).click();
  await clients.getByText("page-test/stuck").waitFor();
  await clients.getByRole("button", { name: "Disconnect …" }).click();
  assert.ok(!stuck.isClosed(), "not before it is confirmed");
  await clients.getByRole("button", { name: "Disconnect now" }).click();
  await eventually("its connection ends", async () => stuck.isClosed());
  await eventually("the table shows it", async () => (await row.count()) === 0);
});

test("the topic browser decodes Sparkplug, JSON, text and bytes, and its tail is paused", async (t) => {
  const sender = await mqtt(t, "page-sender", 100);
  sender.publish("page-test/json", '{"pump":{"speed":12345678901234567890,"on":true},"list":[1,2.50]}', { retain: true });
  sender.publish("page-test/bytes", Buffer.from([0, 1, 254, 255]), { retain: true });
  const page = await opened(t, { refusals: ["400 (Bad Request)"] });
  await page.evaluate(() => (location.hash = "#broker"));
  await page.getByRole("button", { name: "Topics", exact: true }).click();
  const topics = page.getByRole("region", { name: "Topics", exact: true });
  const detail = page.getByRole("region", { name: "Selected topic" });
  const payload = detail.getByTestId("payload");
  const filter = async (text) => {
    await topics.getByLabel("Topic filter").fill(text);
    await topics.getByRole("button", { name: "Apply" }).click();
  };
  const choose = async (name) => {
    await topics.getByRole("tree").waitFor();
    await topics.getByRole("treeitem").filter({ has: page.locator(".name", { hasText: name }) }).first().click();
  };

  await filter("page-test/#");
  await choose(/^json$/);
  await detail.getByText("retained", { exact: true }).waitFor();
  assert.equal(await payload.getAttribute("data-kind"), "json");
  const laidOut = await payload.locator("pre").innerText();
  assert.ok(laidOut.includes('  "pump": {\n    "speed": 12345678901234567890,'), `every digit, laid out: ${laidOut}`);
  await choose(/^bytes$/);
  assert.equal(await payload.locator("pre").innerText(), "00 01 fe ff");

  sender.publish("page-test/live", "21.5");
  await choose(/^live$/);
  assert.equal(await payload.locator("pre").innerText(), "21.5");
  await eventually("a live message", async () => {
    sender.publish("page-test/live", "22.5");
    return (await payload.locator("pre").innerText()) === "22.5";
  });
  await detail.getByRole("button", { name: "Pause" }).click();
  sender.publish("page-test/live", "99.5");
  await detail.getByRole("button", { name: /Go on \(\d+ newer\)/ }).waitFor();
  assert.ok(!(await detail.innerText()).includes("99.5"), "paused");
  await detail.getByRole("button", { name: /Go on/ }).click();
  await detail.getByRole("log").getByText("99.5").waitFor();

  await filter("spBv1.0/#");
  const node = topics.getByRole("treeitem").filter({ hasText: /=/ }).first();
  await node.waitFor();
  await node.click();
  await eventually("metrics", async () => (await payload.getAttribute("data-kind")) === "sparkplug" && (await payload.locator("tbody tr").count()) > 0);
  assert.match(await payload.innerText(), /Sparkplug B · seq \d+/);
  await page.waitForTimeout(pictures ? 3000 : 0);
  await picture(page, "broker-topics");
  await filter("a/#/b");
  await topics.getByText(/must be a topic filter/).waitFor();
});

test("the broker fits a phone", async (t) => {
  const page = await opened(t, { viewport: PHONE });
  await page.getByRole("navigation", { name: "Panes" }).getByRole("button", { name: "Broker" }).click();
  await page.getByRole("region", { name: "Clients", exact: true }).locator("[data-client]").first().waitFor();
  const fits = async () => assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "no sideways scrolling");
  await fits();
  await picture(page, "phone-broker");
  await page.getByRole("button", { name: "Topics", exact: true }).click();
  await page.getByRole("region", { name: "Topics", exact: true }).getByRole("treeitem").first().waitFor();
  await fits();
});
