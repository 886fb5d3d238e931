// A chat over `/ws`: messages are envelopes `{id, message_type, data, timestamp, from_user_id?, to_user_id?}`.

import { $, element, keepOpen, socketUrl } from "/gateway.js";

const MOST_LINES = 500;

/** Names of users, as far as they came or said something since this page was opened. */
const names = new Map();
const pings = new Map();
let me;
let link;

const nameOf = (id) => names.get(id) ?? (id ? id.slice(0, 8) : "the service");

function line(className, timestamp, ...parts) {
  const log = $("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const at = new Date(timestamp ?? Date.now());
  const time = element("time", { dateTime: at.toISOString() }, at.toLocaleTimeString());
  log.append(element("li", { className }, time, ...parts));
  while (log.children.length > MOST_LINES) log.firstChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function said(who, data, timestamp, isPrivate) {
  const text = typeof data?.content === "string" ? data.content : JSON.stringify(data);
  const name = element("span", { className: "who" }, isPrivate ? `${who} (to you alone)` : who);
  line("said", timestamp, name, text);
}

function receive({ id, message_type: type, data, timestamp, from_user_id: from, to_user_id: to }) {
  switch (type) {
    case "text":
      if (from === me.sub) {
        // Another connection of the same user has said it.
        said(to ? `You, to ${nameOf(to)}` : "You", data, timestamp);
      } else {
        said(nameOf(from), data, timestamp, Boolean(to));
      }
      break;
    case "notification":
    case "system_message":
      said(type === "notification" ? "Notification" : "System", data, timestamp);
      break;
    case "pong":
      if (pings.has(id)) line("event", timestamp, `The server answers in ${(performance.now() - pings.get(id)).toFixed(1)} ms.`);
      pings.delete(id);
      break;
    case "user_joined":
      meet(data.user_id ?? from, data.username);
      line("event", timestamp, `${data.username} is here.`);
      break;
    case "user_left":
      line("event", timestamp, `${data.username} has left.`);
      part(data.user_id ?? from);
      break;
    case "error":
      line("problem", timestamp, `Not done: ${data.message ?? data.detail ?? data.error ?? JSON.stringify(data)}`);
      break;
  }
}

function meet(id, username) {
  names.set(id, username);
  const known = [...$("to").options].find((option) => option.value === id);
  if (known) known.textContent = username;
  else $("to").append(element("option", { value: id }, username));
}

function part(id) {
  [...$("to").options].find((option) => option.value === id)?.remove();
}

/** Sends an envelope; whether the connection was open. */
function send(message_type, data, to_user_id) {
  const id = crypto.randomUUID?.() ?? uuid();
  if (message_type === "ping") pings.set(id, performance.now());
  return link.send({ id, message_type, data, timestamp: new Date().toISOString(), ...(to_user_id && { to_user_id }) });
}

/** `crypto.randomUUID` is there on https and localhost only. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** What a token says. It is the server that checks it. */
function claimsOf(token) {
  try {
    const base64 = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

function state(name) {
  if (name === "lost" && me.exp * 1000 <= Date.now()) return signOut("The token has expired.");
  $("state").className = `state ${name}`;
  const texts = { open: `signed in as ${me.username}`, lost: "connection lost, trying again", connecting: "connecting" };
  $("state").textContent = texts[name];
}

function signIn(token) {
  me = claimsOf(token);
  if (!me) return signOut("This is no JSON Web Token.");
  link?.stop();
  const url = socketUrl("/ws");
  url.searchParams.set("token", token);
  link = keepOpen(() => url, {
    open: () => {
      sessionStorage.setItem("gateway-token", token);
      $("sign-in").hidden = true;
      $("chat").hidden = $("ping").hidden = $("sign-out").hidden = false;
      $("content").focus();
    },
    message: receive,
    state,
    // A browser does not tell with which status a handshake was refused.
    refused: (_code, reason) => signOut(reason || "The server refuses the token, or does not answer."),
  });
}

function signOut(why) {
  link?.stop();
  link = undefined;
  sessionStorage.removeItem("gateway-token");
  $("log").replaceChildren();
  $("chat").hidden = $("ping").hidden = $("sign-out").hidden = true;
  $("sign-in").hidden = false;
  $("refusal").textContent = why;
  $("state").className = "state";
  $("state").textContent = "signed out";
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  $("refusal").textContent = "";
  signIn($("token").value.trim());
  $("token").value = "";
});
$("sign-out").addEventListener("click", () => signOut(""));
$("ping").addEventListener("click", () => send("ping", {}));
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = $("content").value;
  const to = $("to").value;
  if (!send("text", { content }, to)) {
    line("problem", undefined, "Not sent: the connection is lost.");
    return;
  }
  said(to ? `You, to ${nameOf(to)}` : "You", { content }, undefined);
  $("content").value = "";
});
const remembered = sessionStorage.getItem("gateway-token");
if (remembered) signIn(remembered);
