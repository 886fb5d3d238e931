// The dashboard: samples come once a second by a WebSocket; what an administrator does goes by HTTP.

import { Chart } from "/chart.js";
import { $, element, keepOpen, socketUrl } from "/gateway.js";

const SPAN = 300_000;
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1, notation: "compact" });

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const bytes = (value) => {
  const power = value < 1 ? 0 : Math.min(Math.floor(Math.log2(value) / 10), 4);
  return `${number.format(value / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
};
const micros = (value) => (value < 1000 ? `${number.format(value)} µs` : `${number.format(value / 1000)} ms`);
const rate = (value) => `${short.format(value)}/s`;
const seconds = (value) => {
  const parts = [
    [Math.floor(value / 86_400), "d"],
    [Math.floor(value / 3600) % 24, "h"],
    [Math.floor(value / 60) % 60, "min"],
    [Math.floor(value) % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  return (first < 0 ? [[0, "s"]] : parts.slice(first, first + 2)).map((part) => part.join(" ")).join(" ");
};

const charts = [
  new Chart(
    $("connections-chart"),
    [
      { name: "connections", value: (sample) => sample.connections },
      { name: "users", value: (sample) => sample.users },
    ],
    short.format,
    { least: 4 },
  ),
  new Chart(
    $("rates-chart"),
    [
      { name: "in", value: (sample) => sample.rates.received },
      { name: "out", value: (sample) => sample.rates.sent },
    ],
    short.format,
    { least: 4 },
  ),
  new Chart(
    $("memory-chart"),
    [
      { name: "process", value: (sample) => sample.resident },
      { name: "held for peers", value: (sample) => sample.held },
    ],
    bytes,
    { base: 1024 },
  ),
  new Chart(
    $("latency-chart"),
    [
      { name: "mean", value: (sample) => sample.latency_mean_us },
      { name: "longest", value: (sample) => sample.latency_max_us },
    ],
    micros,
  ),
];

let samples = [];
let link;
/** How HTTP requests are authenticated: what the server took the secret for. */
let credentials = {};
let page = null;

/** Samples have counts; what is drawn is how fast they grew since the sample before. */
function withRates(sample, before) {
  const elapsed = (sample.at - before.at) / 1000;
  const rate = (name) => (elapsed > 0 ? Math.max(0, sample[name] - before[name]) / elapsed : 0);
  return { ...sample, rates: { received: rate("received"), sent: rate("sent"), cpu: rate("cpu") } };
}

function show({ samples: added, messages, refused }) {
  for (const sample of added) samples.push(withRates(sample, samples.at(-1) ?? sample));
  samples = samples.filter(({ at }) => added.at(-1).at - at <= SPAN);
  const now = samples.at(-1);
  $("connections").textContent = number.format(now.connections);
  $("users").textContent = number.format(now.users);
  $("received").textContent = rate(now.rates.received);
  $("sent").textContent = rate(now.rates.sent);
  $("latency").textContent = micros(now.latency_mean_us);
  $("memory").textContent = bytes(now.resident);
  $("cpu").textContent = `${number.format(now.rates.cpu * 100)} %`;
  $("uptime").textContent = seconds(now.uptime);
  for (const chart of charts) chart.draw(samples);
  count("types", messages);
  count("refused", refused);
}

function count(id, counts) {
  const seen = Object.entries(counts).filter(([, value]) => value > 0);
  const rows = seen.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", { className: "number" }, number.format(value))),
  );
  $(id).tBodies[0].replaceChildren(...rows);
}

function list({ users, next }) {
  // A button that somebody is about to press stays where it is.
  if ($("online").matches(":has(.sure)")) return;
  const rows = users.map((user) =>
    element(
      "tr",
      {},
      element(
        "th",
        { scope: "row" },
        element("span", {}, user.username),
        element("span", { className: "id" }, user.user_id),
        element("time", { dateTime: user.connected_at }, `since ${moment.format(new Date(user.connected_at))}`),
      ),
      element("td", {}, actions(user)),
    ),
  );
  $("online").tBodies[0].replaceChildren(...rows);
  $("nobody").hidden = rows.length > 0;
  document.querySelector(".pager").hidden = !next && !page;
  $("first-page").disabled = !page;
  $("next-page").disabled = !next;
  $("next-page").onclick = () => turnTo(next);
}

function turnTo(after) {
  page = after;
  link.send({ after });
}

function actions({ user_id }) {
  const write = element("button", { type: "button" }, "Message");
  write.onclick = () => {
    $("send").elements.to_user_id.value = user_id;
    $("send").elements.content.focus();
  };
  const disconnect = element("button", { type: "button" }, "Disconnect");
  disconnect.onblur = () => {
    disconnect.className = "";
    disconnect.textContent = "Disconnect";
  };
  disconnect.onclick = async () => {
    if (!disconnect.className) {
      disconnect.className = "sure";
      disconnect.textContent = "Sure?";
      return;
    }
    disconnect.blur();
    const answer = await post("/ws/disconnect", { user_id });
    $("user-problem").textContent = answer.problem ?? "";
  };
  return element("div", { className: "actions" }, write, disconnect);
}

/** What the server did, or `{problem}`: why not. */
async function post(path, body) {
  try {
    const response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...credentials },
      body: JSON.stringify(body),
    });
    const answer = await response.json();
    return response.ok ? answer : { problem: answer.detail ?? answer.title };
  } catch (error) {
    return { problem: `The server does not answer: ${error.message}` };
  }
}

function onSubmit(form, path) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const { content, ...fields } = Object.fromEntries(new FormData(form));
    button.disabled = true;
    const answer = await post(path, { ...fields, data: { content } });
    button.disabled = false;
    const { connections, problem = "" } = answer;
    form.querySelector(".problem").textContent = problem;
    form.querySelector(".done").textContent =
      problem ? "" : `Sent to ${number.format(connections)} connection${connections === 1 ? "" : "s"}.`;
    if (!problem) form.elements.content.value = "";
  });
}

function state(name) {
  $("state").className = `state ${name}`;
  $("state").textContent = { open: "live", lost: "connection lost, trying again", connecting: "connecting" }[name];
}

function receive(secret, message) {
  if (message.kind === "signed_in") {
    credentials = message.with === "api_key" ? { "X-Api-Key": secret } : { Authorization: `Bearer ${secret}` };
    sessionStorage.setItem("gateway-secret", secret);
    samples = [];
    page = null;
    $("sign-in").hidden = true;
    $("board").hidden = $("sign-out").hidden = false;
    $("refusal").textContent = "";
  } else if (message.kind === "samples") {
    show(message);
  } else if (message.kind === "users") {
    list(message);
  }
}

function signIn(secret) {
  link?.stop();
  page = null;
  link = keepOpen(() => socketUrl("/ws/live"), {
    open: (socket) => socket.send(JSON.stringify({ secret })),
    message: (message) => receive(secret, message),
    state,
    refused: (code, reason) => signOut(reason || `The server does not answer (${code}).`),
  });
}

function signOut(why) {
  link?.stop();
  link = undefined;
  credentials = {};
  sessionStorage.removeItem("gateway-secret");
  $("board").hidden = $("sign-out").hidden = true;
  $("sign-in").hidden = false;
  $("refusal").textContent = why;
  $("state").className = "state";
  $("state").textContent = "signed out";
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn($("secret").value.trim());
  $("secret").value = "";
});
$("sign-out").addEventListener("click", () => signOut(""));
$("first-page").addEventListener("click", () => turnTo(null));
onSubmit($("send"), "/ws/send");
onSubmit($("broadcast"), "/ws/broadcast");
const remembered = sessionStorage.getItem("gateway-secret");
if (remembered) signIn(remembered);
