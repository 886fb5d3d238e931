// Checks the gateway's pages with headless Chromium, and leaves pictures of them: pages.mjs URL DIRECTORY.

import assert from "node:assert/strict";
import { createHmac, randomUUID } from "node:crypto";
import { join } from "node:path";

import { runChecks } from "../interop/checks.mjs";
import { withBrowser } from "../interop/chromium.mjs";

const [url, directory] = process.argv.slice(2);
const key = process.env.GATEWAY_API_KEY;

const DESK = { width: 1280, height: 900 };
const PHONE = { width: 400, height: 800 };

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** A token as another service makes it (RFC 7519, HS256). */
function token(username, claims = {}) {
  const now = Math.floor(Date.now() / 1000);
  const said = {
    sub: randomUUID(),
    username,
    email: "somebody@example.org",
    exp: now + 300,
    iat: now,
    jti: randomUUID(),
    ...claims,
  };
  const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(said)}`;
  return `${signed}.${createHmac("sha256", process.env.JWT_SECRET).update(signed).digest("base64url")}`;
}

/** Opens a page. What it complains of is an error at the end, and so is what it asks of others. */
async function open(browser, path, { viewport = DESK, colorScheme = "light" } = {}) {
  const page = await browser.newPage();
  page.complaints = [];
  page.on("console", (message) => page.complaints.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== url && protocol !== "data:") page.complaints.push(request.url());
  });
  await page.setViewportSize(viewport);
  await page.emulateMedia({ colorScheme });
  await page.goto(url + path);
  return page;
}

async function signIn(page, field, secret) {
  await page.locator(field).fill(secret);
  await page.locator("#sign-in button").click();
}

const dashboard = async (browser, options, secret = key) => {
  const page = await open(browser, "/", options);
  await signIn(page, "#secret", secret);
  await page.locator("#board").waitFor();
  return page;
};

const chat = async (browser, username, options, claims) => {
  const page = await open(browser, "/chat", options);
  await signIn(page, "#token", token(username, claims));
  await page.locator("#chat").waitFor();
  return page;
};

const line = (page, text) => page.locator("#log li", { hasText: text });
const picture = (page, name) => page.screenshot({ path: join(directory, `${name}.png`), fullPage: true });

/** Users who are online as long as the page is: their WebSockets. What they hear is in `heard`. */
async function users(page, tokens) {
  await page.evaluate(async (tokens) => {
    const open = (token, index) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws`, ["bearer", token]);
        socket.onopen = () => resolve(socket);
        socket.onmessage = ({ data }) => window.heard.push([index, JSON.parse(data)]);
        socket.onclose = ({ code }) => window.ended.push([index, code]);
        socket.onerror = () => reject(new Error("refused"));
      });
    Object.assign(window, { heard: [], ended: [] });
    window.sockets = await Promise.all(tokens.map(open));
  }, tokens);
}

/** Nothing stands out at the side, and all that can be pressed is large enough for a finger (WCAG 2.2 §2.5.8). */
async function fits(page) {
  const { wide, cut, small } = await page.evaluate(() => ({
    wide: document.scrollingElement.scrollWidth - window.innerWidth,
    cut: [...document.querySelectorAll("dd, th, td, li, button")]
      .filter((each) => each.scrollWidth > each.clientWidth + 1)
      .map((each) => each.textContent),
    small: [...document.querySelectorAll("button, input, select, textarea")]
      .map((each) => each.getBoundingClientRect())
      .filter(({ width, height }) => width > 0 && (width < 24 || height < 24)).length,
  }));
  assert.ok(wide <= 0, `${wide} px too wide`);
  assert.deepEqual(cut, []);
  assert.equal(small, 0);
}

/** Text differs from its ground by as much as WCAG 2.1 §1.4.3 asks for. */
async function isReadable(page, colorScheme) {
  const faint = await page.evaluate(() => {
    const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = (colour) => {
      const linear = parts(colour)
        .slice(0, 3)
        .map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
      return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const ground = (each) => {
      const colour = getComputedStyle(each).backgroundColor;
      return (parts(colour)[3] ?? 1) > 0 || !each.parentElement ? colour : ground(each.parentElement);
    };
    const hasText = (each) => [...each.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    return [...document.querySelectorAll("body *")]
      .filter((each) => hasText(each) && each.getClientRects().length && !each.disabled)
      .map((each) => {
        const style = getComputedStyle(each);
        const own = luminance(each.closest("svg") ? style.fill : style.color);
        const behind = luminance(ground(each.closest("svg")?.parentElement ?? each));
        const ratio = (Math.max(own, behind) + 0.05) / (Math.min(own, behind) + 0.05);
        return `${ratio.toFixed(2)} of ${each.tagName} ${each.textContent.trim().slice(0, 30)}`;
      })
      .filter((text) => parseFloat(text) < 4.5);
  });
  assert.deepEqual(faint, []);
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(parseInt(ground.match(/\d+/)[0]) < 128, colorScheme === "dark", ground);
}

async function refuses(browser) {
  const page = await open(browser, "/");
  for (const [secret, why] of [
    ["nonsense", "malformed"],
    [token("eve"), "not_admin"],
    [token("eve", { role: "admin", exp: 1 }), "expired"],
  ]) {
    await signIn(page, "#secret", secret);
    await page.locator("#refusal", { hasText: why }).waitFor();
    assert.ok(await page.locator("#board").isHidden());
  }
  await picture(page, "dashboard-refused");
  assert.deepEqual(page.complaints, []);
}

async function shows(browser, secret) {
  const page = await dashboard(browser, {}, secret);
  await users(page, [token("Ada"), token("Grace"), token("<img src=x onerror=alert(1)>")]);
  await page.locator("#users", { hasText: /^3$/ }).waitFor();
  await page.locator("#connections", { hasText: /^3$/ }).waitFor();
  for (const name of ["Ada", "Grace", "<img src=x onerror=alert(1)>"]) {
    await page.locator("#online").getByText(name, { exact: true }).waitFor();
  }
  // Messages that come and go show as rates and by type.
  await page.evaluate(() => {
    const ping = JSON.stringify({ id: "1", message_type: "ping", data: {} });
    window.pinging = setInterval(() => window.sockets.forEach((socket) => socket.send(ping)), 20);
  });
  const pings = page.locator("#types tr", { hasText: "ping" }).locator("td");
  await page.waitForFunction(() => parseFloat(document.querySelector("#received").textContent) > 50);
  assert.ok(Number((await pings.textContent()).replaceAll(",", "")) > 50);
  await page.waitForFunction(() => [...document.querySelectorAll("svg path")].every((path) => path.getTotalLength() > 5));
  const drawn = await page.locator("figure").evaluateAll((figures) =>
    figures.map((figure) => {
      const frame = figure.querySelector("svg").getBoundingClientRect();
      const boxes = [...figure.querySelectorAll("path, text")].map((each) => each.getBoundingClientRect());
      const isInside = (box) =>
        box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
      return { paths: figure.querySelectorAll("path").length, outside: boxes.filter((box) => !isInside(box)).length };
    }),
  );
  assert.deepEqual(drawn, Array(4).fill({ paths: 2, outside: 0 }));
  for (const id of ["memory", "latency", "cpu", "uptime"]) {
    assert.match(await page.locator(`#${id}`).textContent(), /^[\d.]+ (MiB|µs|ms|%|s|min|h)/, id);
  }
  await picture(page, "dashboard-light");
  assert.deepEqual(page.complaints, []);
}

async function acts(browser) {
  const page = await dashboard(browser);
  await users(page, [token("Ada"), token("Ada Lovelace")]);
  const row = page.locator("#online tr", { has: page.getByText("Ada", { exact: true }) });
  await row.getByText("Message").click();
  await page.locator("#send textarea").fill("for you");
  await page.locator("#send button").click();
  await page.locator("#send .done", { hasText: "Sent to 1 connection." }).waitFor();
  await page.locator("#broadcast textarea").fill("for all");
  await page.locator("#broadcast button").click();
  await page.locator("#broadcast .done", { hasText: "Sent to 2 connections." }).waitFor();
  await page.waitForFunction(() => window.heard.filter(([, { data }]) => data.content === "for all").length === 2);
  const heard = await page.evaluate(() => window.heard.filter(([, message]) => message.data.content));
  assert.deepEqual(
    heard.map(([index, { message_type: type, data }]) => [index, type, data.content]).sort(),
    [
      [0, "notification", "for you"],
      [0, "system_message", "for all"],
      [1, "system_message", "for all"],
    ],
  );
  await page.locator("#send input").fill(randomUUID());
  await page.locator("#send textarea").fill("is anybody there?");
  await page.locator("#send button").click();
  await page.locator("#send .problem", { hasText: "not online" }).waitFor();
  await picture(page, "dashboard-problem");
  await row.getByText("Disconnect").click();
  await row.getByText("Sure?").click();
  await page.waitForFunction(() => window.ended.length > 0);
  assert.deepEqual(await page.evaluate(() => window.ended), [[0, 4003]]);
  await page.locator("#users", { hasText: /^1$/ }).waitFor();
  // The browser itself reports the 404.
  assert.deepEqual(page.complaints.filter((text) => !text.includes("404")), []);
}

async function turnsPages(browser) {
  const other = await open(browser, "/");
  await users(other, Array.from({ length: 60 }, (_, index) => token(`user-${index}`)));
  const page = await dashboard(browser);
  await page.waitForFunction(() => document.querySelectorAll("#online tr").length === 50);
  await page.locator("#next-page").click();
  await page.waitForFunction(() => document.querySelectorAll("#online tr").length === 10);
  assert.ok(await page.locator("#next-page").isDisabled());
  await page.locator("#first-page").click();
  await page.waitForFunction(() => document.querySelectorAll("#online tr").length === 50);
}

async function staysSignedIn(browser) {
  const page = await dashboard(browser);
  await page.reload();
  await page.locator("#board").waitFor();
  await page.locator("#sign-out").click();
  await page.reload();
  await page.locator("#sign-in").waitFor();
  assert.ok(await page.locator("#board").isHidden());
  // A token that ends asks for the next one.
  await signIn(page, "#secret", token("boss", { role: "admin", exp: Math.floor(Date.now() / 1000) + 8 }));
  await page.locator("#board").waitFor();
  await page.locator("#refusal", { hasText: /./ }).waitFor();
  assert.ok(await page.locator("#board").isHidden());
}

async function suits(browser, colorScheme) {
  for (const [name, viewport] of [["desk", DESK], ["phone", PHONE]]) {
    const options = { viewport, colorScheme };
    const page = await open(browser, "/", options);
    await fits(page);
    await isReadable(page, colorScheme);
    await picture(page, `sign-in-${name}-${colorScheme}`);
    await signIn(page, "#secret", key);
    await page.locator("#board").waitFor();
    await users(page, [token("Ada"), token("Wolfeschlegelsteinhausenbergerdorff".repeat(3))]);
    await page.locator("#users", { hasText: /^2$/ }).waitFor();
    await page.waitForFunction(() => document.querySelectorAll("#online tr").length === 2);
    await page.waitForFunction(() => document.querySelectorAll("svg path").length === 8);
    await fits(page);
    await isReadable(page, colorScheme);
    await picture(page, `dashboard-${name}-${colorScheme}`);
    assert.deepEqual(page.complaints, []);
    await page.close();
    const talk = await chat(browser, "Ada", options);
    const other = await chat(browser, "Grace", options);
    await other.locator("#content").fill("Good morning! ".repeat(12) + "x".repeat(100));
    await other.locator("#say button").click();
    await line(talk, "Good morning").waitFor();
    await talk.locator("#ping").click();
    await line(talk, "The server answers in").waitFor();
    await fits(talk);
    await isReadable(talk, colorScheme);
    await picture(talk, `chat-${name}-${colorScheme}`);
    await Promise.all([talk.close(), other.close()]);
  }
}

async function talks(browser) {
  const ada = await chat(browser, "Ada", {}, { sub: randomUUID() });
  const grace = await chat(browser, "Grace");
  await line(ada, "Grace is here.").waitFor();
  await ada.locator("#content").fill("hello, <b>everybody</b>");
  await ada.locator("#say button").click();
  await line(grace, "hello, <b>everybody</b>").waitFor();
  await line(ada, "You").getByText("hello, <b>everybody</b>").waitFor();
  await ada.locator("#to").selectOption({ label: "Grace" });
  await ada.locator("#content").fill("for you");
  await ada.locator("#content").press("Enter");
  await line(grace, "(to you alone)").getByText("for you").waitFor();
  await grace.locator("#ping").click();
  await line(grace, "The server answers in").waitFor();
  const third = await chat(browser, "Hedy");
  await line(grace, "Hedy is here.").waitFor();
  await third.close();
  await line(ada, "Hedy has left.").waitFor();
  assert.equal(await line(ada, "Ada is here.").count(), 0);
  await ada.reload();
  await line(grace, "Ada has left.").waitFor();
  await ada.locator("#chat").waitFor();
  await grace.locator("#content").fill("there you are");
  await grace.locator("#say button").click();
  await line(ada, "there you are").waitFor();
  for (const page of [ada, grace]) assert.deepEqual(page.complaints, []);
}

/** What a server that drains says (4112) sends nobody away for good. */
async function comesBack(browser) {
  for (const [path, field, secret, state] of [
    ["/", "#secret", key, "live"],
    ["/chat", "#token", token("Ada"), "signed in as Ada"],
  ]) {
    const page = await browser.newPage();
    const sockets = [];
    await page.routeWebSocket(/\/ws/, (socket) => {
      socket.connectToServer();
      sockets.push(socket);
    });
    await page.goto(url + path);
    await signIn(page, field, secret);
    await page.locator("#state", { hasText: state }).waitFor();
    // It may be lost for a quarter of a second only.
    await page.evaluate(() => {
      const shown = document.querySelector("#state");
      window.losses = 0;
      const look = () => (window.losses += shown.textContent.startsWith("connection lost"));
      new MutationObserver(look).observe(shown, { childList: true, characterData: true, subtree: true });
    });
    for (let count = 1; count <= 2; count++) {
      assert.equal(sockets.length, count);
      await sockets[count - 1].close({ code: 4112, reason: "draining" });
      await page.waitForFunction((count) => window.losses === count, count);
      await page.locator("#state", { hasText: state }).waitFor();
    }
    await page.close();
  }
}

async function endsWithItsToken(browser) {
  const page = await open(browser, "/chat");
  await signIn(page, "#token", token("Eve", { exp: 1 }));
  await page.locator("#refusal", { hasText: "refuses the token" }).waitFor();
  await signIn(page, "#token", "nonsense");
  await page.locator("#refusal", { hasText: "no JSON Web Token" }).waitFor();
  await signIn(page, "#token", token("Eve", { exp: Math.floor(Date.now() / 1000) + 8 }));
  await page.locator("#chat").waitFor();
  await page.locator("#refusal", { hasText: "expired" }).waitFor();
  assert.ok(await page.locator("#chat").isHidden());
}

await runChecks("chromium", {
  "the dashboard refuses who is no administrator": () => withBrowser(refuses),
  "with the key it shows connections, rates, memory, latency and users": () => withBrowser((browser) => shows(browser, key)),
  "and with an administrator's token": () => withBrowser((browser) => shows(browser, token("boss", { role: "admin" }))),
  "it sends, broadcasts and disconnects": () => withBrowser(acts),
  "it turns pages of users": () => withBrowser(turnsPages),
  "it stays signed in until the token ends": () => withBrowser(staysSignedIn),
  "the chat talks": () => withBrowser(talks),
  "both come back when the connection is lost": () => withBrowser(comesBack),
  "the chat ends with its token": () => withBrowser(endsWithItsToken),
  "on a desk and a phone, by day": () => withBrowser((browser) => suits(browser, "light")),
  "on a desk and a phone, by night": () => withBrowser((browser) => suits(browser, "dark")),
});
