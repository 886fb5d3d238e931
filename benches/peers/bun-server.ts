// Bun's WebSocket server, which is uWebSockets inside: bun-server.ts echo|broadcast. The broadcast is its own publish and
// subscribe.

import { parseArgs } from "node:util";

const MAX_MESSAGE_LEN = 64 << 20;
// What all connections of a broadcast subscribe to.
const TOPIC = "all";

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
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
const compresses = compression !== undefined;

const services = {
  echo: {
    message: (socket, message) => socket.send(message, compresses),
  },
  broadcast: {
    open: (socket) => socket.subscribe(TOPIC),
    // To all but this one.
    message: (socket, message) => socket.publish(TOPIC, message, compresses),
  },
};
const service = services[positionals[0]];
if (service === undefined || hostname === undefined || !cert !== !key || !known) {
  console.error(
    "usage: echo|broadcast --listen IPV4:PORT [--cert FILE --key FILE] [--compression shared|dedicated]",
  );
  process.exit(2);
}

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
    ...service,
  },
});

console.log(`listening on ${server.hostname}:${server.port}`);
