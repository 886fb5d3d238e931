// Headless Chromium, for the checks that need a browser.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

const PATIENCE_MS = 90_000;

/** Runs a check on a fresh browser profile. The browser takes any certificate: it has a trust store of its own. */
export async function withBrowser(check) {
  const profile = await mkdtemp(join(tmpdir(), "ringwire-chromium-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium",
    headless: true,
    timeout: PATIENCE_MS,
    ignoreHTTPSErrors: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  browser.setDefaultTimeout(PATIENCE_MS);
  try {
    await check(browser);
  } finally {
    await browser.close();
    await rm(profile, { recursive: true, force: true });
  }
}
