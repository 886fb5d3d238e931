// An echo server on the npm library `ws`: server_ws.mjs PORT [CERTIFICATE KEY]. It agrees to compression.

import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

import { WebSocketServer } from "ws";

const [port, certificate, key] = process.argv.slice(2);
const server = certificate
  ? https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) })
  : http.createServer();
const echo = new WebSocketServer({ server, perMessageDeflate: { threshold: 0 } });
echo.on("connection", (socket) => {
  socket.on("message", (message, isBinary) => socket.send(message, { binary: isBinary }));
  socket.on("error", (error) => console.error(error));
});
server.listen(Number(port), "127.0.0.1");
