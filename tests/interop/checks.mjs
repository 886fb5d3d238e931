// What the JavaScript clients share: one line of output for each check.

import assert from "node:assert/strict";

const SECONDS = 180;

/** Runs named checks one after another, then exits with 1 if any of them failed. */
export async function runChecks(client, checks) {
  let failed = false;
  for (const [name, check] of Object.entries(checks)) {
    try {
      await withDeadline(check());
      console.log(`ok ${client}: ${name}`);
    } catch (error) {
      failed = true;
      console.log(`FAILED ${client}: ${name}`);
      console.log(error);
    }
  }
  process.exit(failed ? 1 : 0);
}

/** Compares bytes without printing a mebibyte of them. */
export function assertBytes(actual, expected) {
  assert.equal(actual.length, expected.length);
  assert.ok(actual.equals(expected), "the bytes differ");
}

function withDeadline(promise) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${SECONDS} s`)), SECONDS * 1000);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}
