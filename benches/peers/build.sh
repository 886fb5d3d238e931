#!/usr/bin/env bash
# Builds every server of this folder: the Rust ones in release, and Bun and ws from npm.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --release --locked --quiet
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
# Puts the binary of this platform, which npm has installed beside it, in the place of a stub.
node node_modules/bun/install.js

release=${CARGO_TARGET_DIR:-$PWD/target}/release
printf '%s\n' \
    "$release/ringwire-tokio-echo" \
    "$release/tokio-tungstenite-echo" \
    "$release/fastwebsockets-echo" \
    "$release/sockudo-ws-echo" \
    "$release/yawc-echo" \
    "node $PWD/ws-echo.mjs" \
    "$PWD/node_modules/.bin/bun $PWD/bun-server.ts echo" \
    "$release/tokio-tungstenite-broadcast" \
    "$release/sockudo-ws-broadcast" \
    "$PWD/node_modules/.bin/bun $PWD/bun-server.ts broadcast"
