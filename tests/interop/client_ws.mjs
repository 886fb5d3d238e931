// Checks the echo server with the npm client `ws`: client_ws.mjs URL. It offers permessage-deflate,
// as it does by default; the server is free to decline.

import assert from "node:assert/strict";
import { once } from "node:events";

import WebSocket from "ws";

import { assertBytes, runChecks } from "./checks.mjs";

const LENGTHS = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];
const UNICODE = "Grüße, 世界, \u{1f44b}\u{1f3fd}, e\u0301, \0 and \u{10ffff}";
const CONNECTIONS = 50;
const MESSAGES = 20;

const url = process.argv[2];

async function connected(check) {
  const socket = new WebSocket(url);
  await once(socket, "open");
  try {
    await check(socket);
  } finally {
    socket.terminate();
  }
}

async function assertEcho(socket, message) {
  const isBinary = typeof message !== "string";
  const reply = once(socket, "message");
  socket.send(message);
  const [data, replyIsBinary] = await reply;
  assert.equal(replyIsBinary, isBinary);
  assertBytes(data, Buffer.from(message));
}

async function echoes(socket) {
  for (const length of LENGTHS) {
    await assertEcho(socket, "x".repeat(length));
    await assertEcho(socket, Buffer.alloc(length, "abcdefg"));
  }
}

async function fragments(socket) {
  const reply = once(socket, "message");
  socket.send("one, ", { fin: false });
  socket.ping("between fragments");
  socket.send("zwei – ", { fin: false });
  socket.send("三", { fin: true });
  const [pong] = await once(socket, "pong");
  assert.equal(pong.toString(), "between fragments");
  const [data, isBinary] = await reply;
  assert.equal(isBinary, false);
  assert.equal(data.toString(), "one, zwei – 三");
}

async function ping(socket) {
  for (const payload of ["", "are you there?", "x".repeat(125)]) {
    socket.ping(payload);
    const [pong] = await once(socket, "pong");
    assert.equal(pong.toString(), payload);
  }
}

async function unsolicitedPong(socket) {
  socket.pong("nobody asked");
  await assertEcho(socket, UNICODE);
}

async function close(socket) {
  socket.close(4001, "that is all – danke");
  const [code, reason] = await once(socket, "close");
  assert.equal(code, 4001);
  assert.equal(reason.toString(), "that is all – danke");
}

async function concurrent() {
  const numbers = Array.from({ length: CONNECTIONS }, (_, number) => number);
  await Promise.all(
    numbers.map((number) =>
      connected(async (socket) => {
        for (let index = 0; index < MESSAGES; index++) {
          await assertEcho(socket, `connection ${number}, message ${index}`);
        }
      }),
    ),
  );
}

await runChecks("ws", {
  "text and binary, empty to 1 MiB": () => connected(echoes),
  unicode: () => connected((socket) => assertEcho(socket, UNICODE)),
  "fragmented message with a ping inside": () => connected(fragments),
  "ping answered with its payload": () => connected(ping),
  "unsolicited pong": () => connected(unsolicitedPong),
  "close code and reason echoed": () => connected(close),
  [`${CONNECTIONS} connections at once`]: concurrent,
});
