// What the pages share: elements, and a WebSocket that comes back.

/** The element of this id. */
export const $ = (id) => document.getElementById(id);

/** A new element with text or children in it. Text stays text, whatever is written in it. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** The address of a WebSocket of this server. */
export const socketUrl = (path) => new URL(path, location.href.replace(/^http/, "ws"));

const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;

/** A peer that is closed with one of these comes back in vain: its token is refused, or has expired. */
const isFinal = (code) => (code >= 4000 && code < 4100) || code === 4102;

/**
 * Keeps a WebSocket open until `stop` is called. After a loss it waits, longer each time and never as long as others
 * do, and opens the next one. `handlers`: `open(socket)`, `message(data)`, `state(name)` with "connecting", "open" or
 * "lost", and `refused(code, reason)` where it gives up. A server that never accepted one is given up, too (code 1006).
 */
export function keepOpen(makeUrl, handlers) {
  let socket;
  let timer;
  let wait = FIRST_WAIT;
  let hasBeenOpen = false;
  let isStopped = false;

  const connect = () => {
    handlers.state("connecting");
    socket = new WebSocket(makeUrl());
    socket.onopen = () => {
      hasBeenOpen = true;
      handlers.state("open");
      handlers.open(socket);
    };
    socket.onmessage = ({ data }) => {
      wait = FIRST_WAIT;
      handlers.message(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (isStopped) return;
      if (isFinal(code) || !hasBeenOpen) {
        isStopped = true;
        handlers.refused(code, reason);
        return;
      }
      timer = setTimeout(connect, wait * (0.5 + Math.random() / 2));
      wait = Math.min(wait * 2, LONGEST_WAIT);
      handlers.state("lost");
    };
  };
  connect();
  return {
    send: (value) => {
      if (socket.readyState !== WebSocket.OPEN) return false;
      socket.send(JSON.stringify(value));
      return true;
    },
    stop: () => {
      isStopped = true;
      clearTimeout(timer);
      socket.close();
    },
  };
}
