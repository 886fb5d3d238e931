// Line charts of the last minutes, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const SPAN = 300_000;
/** Samples come once a second. What lies further apart is not joined by a line. */
const GAP = 3_500;
const LEFT = 58;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** The least of 1, 2, 4, 5 and 10 times a power of `base` that is no less than `value`. */
function roundUp(value, base) {
  const power = base ** Math.floor(Math.log(value) / Math.log(base));
  const steps = base === 10 ? [1, 2, 4, 5, 10] : [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  return power * steps.find((step) => step * power >= value);
}

export class Chart {
  #svg = shape("svg", { role: "img" });
  #legend = document.createElement("div");
  #samples = [];
  #at;

  /** `series`: `{name, value(sample)}`, the first and the second one; `format` writes a value with its unit. */
  constructor(figure, series, format, { base = 10, least = 1 } = {}) {
    Object.assign(this, { figure, series, format, base, least });
    this.title = figure.querySelector("h2").textContent;
    this.#legend.className = "legend";
    figure.querySelector("figcaption").append(this.#legend);
    figure.append(this.#svg);
    new ResizeObserver(() => this.#render()).observe(this.#svg);
    this.#svg.addEventListener("pointermove", (event) => {
      this.#at = event.clientX - this.#svg.getBoundingClientRect().left;
      this.#render();
    });
    this.#svg.addEventListener("pointerleave", () => {
      this.#at = undefined;
      this.#render();
    });
  }

  draw(samples) {
    this.#samples = samples;
    this.#render();
  }

  #render() {
    const { width, height } = this.#svg.getBoundingClientRect();
    const newest = this.#samples.at(-1);
    if (!newest || !width) return;
    const values = this.#samples.flatMap((sample) => this.series.map(({ value }) => value(sample)));
    const top = roundUp(Math.max(this.least, ...values), this.base);
    const x = (at) => width - RIGHT - ((newest.at - at) / SPAN) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - (value / top) * (height - TOP - BOTTOM);
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#svg.replaceChildren(...this.#axes(width, height, top, y));
    this.series.forEach(({ value }, index) => {
      const line = this.#line((sample) => x(sample.at), (sample) => y(value(sample)));
      this.#svg.append(shape("path", { d: line, class: index ? "second" : "first" }));
    });
    this.#label(newest, x, height);
  }

  #axes(width, height, top, y) {
    const parts = [0, top / 2, top].flatMap((value) => [
      shape("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, this.format(value)),
    ]);
    const ago = (minutes, anchor) => {
      const at = width - RIGHT - (minutes / 5) * (width - LEFT - RIGHT);
      const text = minutes ? `−${minutes} min` : "now";
      return shape("text", { x: at, y: height - 4, "text-anchor": anchor }, text);
    };
    return [...parts, ago(5, "start"), ago(2.5, "middle"), ago(0, "end")];
  }

  #line(x, y) {
    let last = -Infinity;
    const points = this.#samples.map((sample) => {
      const command = sample.at - last > GAP ? "M" : "L";
      last = sample.at;
      return `${command}${x(sample).toFixed(1)} ${y(sample).toFixed(1)}`;
    });
    // One point is a dot.
    return points.length === 1 ? `${points[0]}h1` : points.join("");
  }

  /** The legend tells the newest values, or those under the pointer. */
  #label(newest, x, height) {
    const distance = (sample) => Math.abs(x(sample.at) - this.#at);
    const shown =
      this.#at === undefined
        ? newest
        : this.#samples.reduce((best, each) => (distance(each) < distance(best) ? each : best));
    if (shown !== newest) {
      const at = x(shown.at);
      this.#svg.append(shape("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
    }
    const labels = this.series.map(({ name, value }, index) => {
      const label = document.createElement("span");
      label.className = index ? "second" : "first";
      label.textContent = `${name} ${this.format(value(shown))}`;
      return label;
    });
    this.#legend.replaceChildren(...labels);
    this.#svg.setAttribute("aria-label", `${this.title}: ${labels.map((it) => it.textContent).join(", ")}`);
  }
}
