// Checks the echo server with headless Chromium: client_chromium.mjs URL. The browser loads the page that
// the server itself serves, uses it as a person would, then opens sockets by script.

import assert from "node:assert/strict";

import { runChecks } from "./checks.mjs";
import { withBrowser } from "./chromium.mjs";

const url = process.argv[2];
const pageUrl = url.replace(/^ws/, "http");

/** Runs a check with the page of the server open. */
function onPage(check) {
  return withBrowser(async (browser) => {
    const page = await browser.newPage();
    await page.goto(pageUrl);
    await check(page);
  });
}

/** Types two messages into the page and waits for their echoes in its log. */
async function typeMessages(page) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(error));
  await page.locator("#status", { hasText: /^open$/ }).waitFor();
  for (const message of ["hello from a browser", "Grüße 世界 \u{1f44b}"]) {
    await page.locator("#message").fill(message);
    await page.locator("#send").click();
    await page.locator("#log li", { hasText: message }).waitFor();
  }
  assert.deepEqual(errors, []);
}

/** Opens a socket by script, echoes text and binary of many lengths, and closes with a code. */
async function useSocket(page) {
  const close = await page.evaluate(async (url) => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    const next = (name) =>
      new Promise((resolve, reject) => {
        socket.addEventListener(name, resolve, { once: true });
        socket.addEventListener("error", () => reject(new Error("the socket failed")), {
          once: true,
        });
      });
    await next("open");
    for (const length of [0, 1, 125, 126, 65_535, 65_536, 1 << 20]) {
      const text = "ü".repeat(length >> 1) + "x".repeat(length & 1);
      socket.send(text);
      if ((await next("message")).data !== text) throw new Error(`text of ${length} bytes`);

      const bytes = Uint8Array.from({ length }, (_, index) => (index * 7) % 251);
      socket.send(bytes);
      const reply = new Uint8Array((await next("message")).data);
      const same = reply.length === length && reply.every((byte, index) => byte === bytes[index]);
      if (!same) throw new Error(`binary of ${length} bytes`);
    }
    socket.close(4001, "that is all – danke");
    const { code, reason, wasClean } = await next("close");
    return { code, reason, wasClean };
  }, url);
  assert.deepEqual(close, { code: 4001, reason: "that is all – danke", wasClean: true });
}

/** Many sockets of one page, as Chromium opens them: one after another, all of them alive at once. */
async function useManySockets(page) {
  const echoes = await page.evaluate(async (url) => {
    const echo = (number) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send(`socket ${number}`);
        socket.onmessage = ({ data }) => resolve(data);
        socket.onerror = () => reject(new Error(`socket ${number} failed`));
      });
    return Promise.all(Array.from({ length: 50 }, (_, number) => echo(number)));
  }, url);
  assert.deepEqual(
    echoes,
    Array.from({ length: 50 }, (_, number) => `socket ${number}`),
  );
}

await runChecks("chromium", {
  "the server's own page connects and echoes": () => onPage(typeMessages),
  "text and binary to 1 MiB, clean close": () => onPage(useSocket),
  "50 connections at once": () => onPage(useManySockets),
});
