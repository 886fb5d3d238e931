// Checks pages that ringwire-bench wrote with headless Chromium: report_chromium.mjs NAME=FILE... . They are opened as
// files, in a light and in a dark browser.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

import { runChecks } from "./checks.mjs";
import { withBrowser } from "./chromium.mjs";

/** Opens a page; what it complained of and what it asked the network for. */
async function open(browser, file, colorScheme) {
  const page = await browser.newPage();
  const complaints = [];
  const requests = [];
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => requests.push(request.url()));
  await page.emulateMedia({ colorScheme });
  const url = pathToFileURL(resolve(file)).href;
  await page.goto(url, { waitUntil: "load" });
  assert.deepEqual(complaints, []);
  assert.deepEqual(requests.filter((request) => request !== url && !request.startsWith("data:")), []);
  return page;
}

/** Every chart has lines or bars that take up room within it, and names at its axes. */
async function isDrawn(browser, file) {
  const page = await open(browser, file, "light");
  // What is folded has no size.
  for (const summary of await page.locator("summary").all()) await summary.click();
  const charts = await page.locator("figure").evaluateAll((figures) =>
    figures.map((figure) => {
      const svg = figure.querySelector("svg");
      const frame = svg.getBoundingClientRect();
      const isInside = ({ left, right, top, bottom }) =>
        left >= frame.left && right <= frame.right && top >= frame.top && bottom <= frame.bottom;
      const shapes = [...svg.querySelectorAll("polyline, path, rect, circle")].filter(
        // The axes' own lines are thin.
        (shape) => shape.getAttribute("stroke-width") !== "1",
      );
      const boxes = shapes.map((shape) => shape.getBoundingClientRect());
      return {
        title: figure.querySelector("figcaption").textContent,
        drawn: boxes.filter((box) => box.width > 1 && isInside(box)).length,
        outside: boxes.filter((box) => !isInside(box)).length,
        labels: [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim()).length,
      };
    }),
  );
  assert.ok(charts.length >= 4, `only ${charts.length} charts`);
  for (const { title, drawn, outside, labels } of charts) {
    assert.ok(drawn > 0, `nothing is drawn in ${title}`);
    assert.equal(outside, 0, `something is outside of ${title}`);
    assert.ok(labels > 3, `${labels} labels at the axes of ${title}`);
  }
  const tables = page.locator("table");
  assert.ok((await tables.count()) >= 4);
  await page.getByText("net.core.somaxconn").waitFor();
}

/** Nothing is wider than a phone or a screen, and what came of it is seen before any plot. */
async function fits(browser, file, width) {
  const page = await open(browser, file, "light");
  await page.setViewportSize({ width, height: 900 });
  const widths = await page.evaluate(() => ({
    page: document.documentElement.scrollWidth,
    window: window.innerWidth,
    verdict: document.querySelector(".verdict")?.getBoundingClientRect().top,
    tiles: document.querySelector(".tiles")?.getBoundingClientRect().top,
    plot: document.querySelector("svg").getBoundingClientRect().top,
  }));
  assert.ok(widths.page <= widths.window, JSON.stringify(widths));
  if (widths.verdict !== undefined) {
    assert.ok(widths.verdict < widths.tiles && widths.tiles < widths.plot, JSON.stringify(widths));
  }
}

/** Text differs from its ground by as much as WCAG 2.1 §1.4.3 asks for, at the axes too. */
async function isReadable(browser, file, colorScheme) {
  const page = await open(browser, file, colorScheme);
  const ratios = await page.evaluate(() => {
    const luminance = (colour) => {
      const parts = colour.match(/[\d.]+/g).slice(0, 3).map((part) => part / 255);
      const linear = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
      return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const ground = luminance(getComputedStyle(document.body).backgroundColor);
    const contrast = (colour) => {
      const text = luminance(colour);
      return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    };
    return {
      ground,
      body: contrast(getComputedStyle(document.body).color),
      axis: contrast(getComputedStyle(document.querySelector("svg text")).fill),
      names: contrast(getComputedStyle(document.querySelector(".pairs th")).color),
    };
  });
  assert.equal(ratios.ground < 0.5, colorScheme === "dark", JSON.stringify(ratios));
  for (const name of ["body", "axis", "names"]) {
    assert.ok(ratios[name] >= 4.5, `${name}: ${ratios[name]}`);
  }
}

const checks = {};
for (const argument of process.argv.slice(2)) {
  const [name, file] = argument.split("=");
  checks[`${name}: plots are drawn, and nothing is fetched`] = () =>
    withBrowser((browser) => isDrawn(browser, file));
  for (const width of [400, 1200]) {
    checks[`${name}: fits into ${width} pixels`] = () =>
      withBrowser((browser) => fits(browser, file, width));
  }
  for (const scheme of ["light", "dark"]) {
    checks[`${name}: text can be read on ${scheme} ground`] = () =>
      withBrowser((browser) => isReadable(browser, file, scheme));
  }
}
await runChecks("report", checks);
