// Broadcast on Bun's WebSocket server, which is uWebSockets inside: its own publish and subscribe.

import { parseArgs } from "node:util";

const MAX_MESSAGE_LEN = 64 << 20;
// What all connections subscribe to.
const TOPIC = "all";

const { values: flags } = parseArgs({
  options: {
    listen: { type: "string" },
    cert: { type: "string" },
    key: { type: "string" },
    compression: { type: "string" },
  },
});
const { cert, key, compression } = flags;
const [, hostname, port] = /^([\d.]+):(\d+)$/.exec(flags.listen ?? "") ?? [];
const known = compression === undefined || ["shared", "dedicated"].includes(compression);
if (hostname === undefined || !cert !== !key || !known) {
  console.error(
    "usage: --listen IPV4:PORT [--cert FILE --key FILE] [--compression shared|dedicated]",
  );
  process.exit(2);
}
const compresses = compression !== undefined;

const server = Bun.serve({
  hostname,
  port: Number(port),
  ...(cert && key && { tls: { cert: Bun.file(cert), key: Bun.file(key) } }),
  fetch(request, server) {
    if (server.upgrade(request)) return;
    return new Response("a WebSocket handshake is expected here\n", { status: 426 });
  },
  websocket: {
    // The level is uWebSockets' own, and cannot be set.
    perMessageDeflate: compresses && { compress: compression, decompress: compression },
    idleTimeout: 0,
    sendPings: false,
    maxPayloadLength: MAX_MESSAGE_LEN,
    // A whole message may be waiting while the next one arrives.
    backpressureLimit: 2 * MAX_MESSAGE_LEN,
    closeOnBackpressureLimit: false,
    open(socket) {
      socket.subscribe(TOPIC);
    },
    message(socket, message) {
      // To all but this one.
      socket.publish(TOPIC, message, compresses);
    },
  },
});

console.log(`listening on ${server.hostname}:${server.port}`);
