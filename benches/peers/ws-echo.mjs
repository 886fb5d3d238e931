// Echo on ws, from npm.

import { WebSocketServer } from "ws";

const MAX_MESSAGE_LEN = 64 << 20;
const COMPRESSION_LEVEL = 1;

const [flag, address, modeFlag, mode, ...rest] = process.argv.slice(2);
const [, host, port] = /^([\d.]+):(\d+)$/.exec(address ?? "") ?? [];
const compresses = modeFlag === "--compression" && ["shared", "dedicated"].includes(mode);
if (flag !== "--listen" || host === undefined || rest.length > 0 || (modeFlag && !compresses)) {
  console.error("usage: --listen IPV4:PORT [--compression shared|dedicated]");
  process.exit(2);
}

const server = new WebSocketServer({
  host,
  port: Number(port),
  backlog: 65535,
  maxPayload: MAX_MESSAGE_LEN,
  perMessageDeflate: compresses && {
    threshold: 0,
    zlibDeflateOptions: { level: COMPRESSION_LEVEL },
    serverNoContextTakeover: mode === "shared",
    clientNoContextTakeover: mode === "shared",
  },
});
server.on("connection", (socket) => {
  socket.on("message", (message, binary) => socket.send(message, { binary }));
  // How a connection ends says nothing about the server.
  socket.on("error", () => {});
});
server.on("listening", () => console.log(`listening on ${host}:${server.address().port}`));
