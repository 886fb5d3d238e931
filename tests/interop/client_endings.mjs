// Checks how connections end, with the npm client `ws`: client_endings.mjs URL.

import assert from "node:assert/strict";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

import WebSocket from "ws";

import { assertBytes, runChecks } from "./checks.mjs";

const COUNT = 20_000;
// A ping of a client: masked, with a mask of zeros.
const PING = Buffer.from([0x89, 0x80, 0, 0, 0, 0]);

const url = process.argv[2];

async function connected() {
  const socket = new WebSocket(url);
  await once(socket, "open");
  return socket;
}

/** The socket's messages so far. */
function heardBy(socket) {
  const heard = [];
  socket.on("message", (data) => heard.push(data));
  return heard;
}

function numbered(number) {
  const message = Buffer.alloc(100, "x");
  message.writeUInt32BE(number);
  return message;
}

async function halfClose() {
  const socket = await connected();
  const heard = heardBy(socket);
  const end = once(socket, "close");
  for (let number = 0; number < COUNT; number++) {
    socket.send(numbered(number));
  }
  // FIN, and over TLS close_notify before it, behind what is queued. What still comes is read.
  socket._socket.end();
  const [code] = await end;
  assert.equal(code, 1006);
  assert.equal(heard.length, COUNT);
  heard.forEach((data, number) => assertBytes(data, numbered(number)));
}

async function linger() {
  const socket = await connected();
  const heard = heardBy(socket);
  const end = once(socket, "close");
  const payload = Buffer.alloc(300_000, "abcdefg");
  socket.send(payload);
  socket.close(1000, "bye");
  await sleep(20);
  // What ws itself would not send any more.
  if (socket._socket.writable) {
    socket._socket.write(PING);
  }
  const [code, reason] = await end;
  assert.equal(code, 1000);
  assert.equal(reason.toString(), "bye");
  assert.equal(heard.length, 1);
  assertBytes(heard[0], payload);
}

await runChecks("ws-endings", {
  [`${COUNT} messages and a half-close: all replies`]: halfClose,
  "300 KB, Close and a late ping": linger,
});
