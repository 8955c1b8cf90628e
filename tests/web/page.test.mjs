// The console in headless Chromium against a running plant (`forebay demo`): signing in, live values, trend, balance,
// agents, writing, themes, the phone. It fails, and never skips, when something it needs is missing.
//
//   FOREBAY_URL=http://127.0.0.1:8080 FOREBAY_TOKEN=$(cat forebay-demo/hub/token) node --test tests/web/page.test.mjs
//
// FOREBAY_SCREENSHOTS names a folder for pictures (default: none are kept). FOREBAY_CHROMIUM names the browser.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";

const require = createRequire(new URL("../peers/package.json", import.meta.url));
const { chromium } = require("playwright-core"); // scripts/peers installs it

const url = process.env.FOREBAY_URL;
const token = process.env.FOREBAY_TOKEN;
assert.ok(url && token, "set FOREBAY_URL and FOREBAY_TOKEN to a running plant");

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
async function opened(t, { viewport = DESK, colorScheme = "light", address = "/", signIn = true } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, hasTouch: viewport === PHONE });
  const page = await context.newPage();
  page.setDefaultTimeout(SOON);
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("console", (message) => {
    const refused = message.text().includes("401 (Unauthorized)");
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
    for (const device of agent.devices) await panel.locator(".chip").filter({ hasText: device.name }).first().waitFor();
  }
  const verdict = await eventually("a balance", async () => page.getByTestId("balance").innerText());
  assert.match(verdict, /Balanced|In flight/, "nothing is wrong in a healthy plant");
  await page.getByTestId("balance").scrollIntoViewIfNeeded();
  await picture(page, "balance");
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
