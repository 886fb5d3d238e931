// Echo on Bun's WebSocket server, which is uWebSockets inside.

const MAX_MESSAGE_LEN = 64 << 20;

const [flag, address, certFlag, cert, keyFlag, key, ...rest] = process.argv.slice(2);
const [, hostname, port] = /^([\d.]+):(\d+)$/.exec(address ?? "") ?? [];
const secure = certFlag === "--cert" && keyFlag === "--key" && key !== undefined;
if (flag !== "--listen" || hostname === undefined || rest.length > 0 || (certFlag && !secure)) {
  console.error("usage: --listen IPV4:PORT [--cert FILE --key FILE]");
  process.exit(2);
}

const server = Bun.serve({
  hostname,
  port: Number(port),
  ...(secure && { tls: { cert: Bun.file(cert), key: Bun.file(key) } }),
  fetch(request, server) {
    if (server.upgrade(request)) return;
    return new Response("a WebSocket handshake is expected here\n", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    idleTimeout: 0,
    sendPings: false,
    maxPayloadLength: MAX_MESSAGE_LEN,
    // A whole message may be waiting while the next one arrives.
    backpressureLimit: 2 * MAX_MESSAGE_LEN,
    closeOnBackpressureLimit: false,
    message(socket, message) {
      socket.send(message, false);
    },
  },
});

console.log(`listening on ${server.hostname}:${server.port}`);
