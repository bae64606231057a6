// SVG charts: lines or stacked areas over the last minutes, read by pointer or arrow keys.

import { el, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const MINUTE = 60_000;

/** The longest span of a chart in milliseconds; it grows with the samples. */
export const SPAN = 5 * MINUTE;
const SPANS = [MINUTE, 2 * MINUTE, SPAN];

/** A longer pause between two samples is shown as a gap (a suspended tab, an unreachable tracker). */
const PAUSE = 25_000;

const MARGIN = { top: 10, right: 12, bottom: 22, left: 46 };
const TICKS = 4;

/**
 * `series` are {label, tone, value: (sample) => number}; `format` writes a value, and `unit` stands behind
 * those of the scale; `least` is what the scale reaches at least, so that noise near nothing does not look
 * like much.
 */
export class Chart {
  #figure = svg("svg", { class: "plot", role: "img", tabindex: "0" });
  #tip = el("div", { class: "tip", hidden: true });
  #values = [];
  #samples = [];
  #now = 0;
  #cursor = null;

  constructor(host, { label, series, stacked = false, format, unit = "", least = 1 }) {
    Object.assign(this, { host, label, series, stacked, format, unit, least });
    host.classList.add("chart");
    if (series.length > 1) {
      const items = series.map(({ label: name, tone }) => {
        const value = el("b", {});
        this.#values.push(value);
        return el("li", {}, el("i", { class: `swatch ${tone}` }), name, " ", value);
      });
      host.append(el("ul", { class: "legend" }, ...items));
    }
    const frame = el("div", { class: "frame" }, this.#figure, this.#tip);
    host.append(frame);
    this.#figure.addEventListener("pointermove", (event) => this.#point(event.offsetX));
    this.#figure.addEventListener("pointerleave", () => this.#show(null));
    this.#figure.addEventListener("blur", () => this.#show(null));
    this.#figure.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#paint()).observe(frame);
  }

  /** Shows samples {at, …} in order of time; `now` is the right edge. */
  draw(samples, now) {
    this.#samples = samples.filter(({ at }) => at >= now - SPAN);
    this.span = spanOf(this.#samples, now);
    this.#now = now;
    const last = this.#samples.at(-1);
    this.#values.forEach((node, at) => setText(node, last ? this.format(this.series[at].value(last)) : "–"));
    const words = this.series.map(({ label, value }) => `${label} ${last ? this.format(value(last)) : "unknown"}`);
    this.#figure.setAttribute("aria-label", `${this.label}: ${words.join(", ")}. Arrow keys read earlier values.`);
    this.#paint();
  }

  #paint() {
    const { clientWidth: width, clientHeight: height } = this.#figure;
    if (width === 0 || !this.span) return;
    this.#figure.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const sum = (sample) => this.series.reduce((total, { value }) => total + value(sample), 0);
    const tops = this.#samples.map((sample) =>
      (this.stacked ? sum(sample) : Math.max(...this.series.map(({ value }) => value(sample)))));
    const step = niceStep(Math.max(this.least, ...tops) / TICKS);
    this.scale = { width, height, top: step * Math.ceil(Math.max(this.least, ...tops) / step) };
    const parts = [...this.#grid(step), ...this.#time()];
    for (const run of runs(this.#samples)) parts.push(...this.#lines(run));
    this.#figure.replaceChildren(...parts);
    this.#show(this.#cursor);
  }

  #x(at) {
    const room = this.scale.width - MARGIN.left - MARGIN.right;
    return MARGIN.left + room * (1 - (this.#now - at) / this.span);
  }

  #y(value) {
    const room = this.scale.height - MARGIN.top - MARGIN.bottom;
    return MARGIN.top + room * (1 - value / this.scale.top);
  }

  #grid(step) {
    const parts = [];
    for (let value = 0; value <= this.scale.top + step / 2; value += step) {
      const y = Math.round(this.#y(value)) + 0.5;
      const right = this.scale.width - MARGIN.right;
      parts.push(svg("line", { class: value === 0 ? "base" : "rule", x1: MARGIN.left, x2: right, y1: y, y2: y }));
      parts.push(svg("text", { class: "tick end", x: MARGIN.left - 8, y: y + 4 }, axis(value) + this.unit));
    }
    return parts;
  }

  #time() {
    const y = this.scale.height - 5;
    const steps = { [MINUTE]: MINUTE / 3, [2 * MINUTE]: MINUTE / 2, [SPAN]: MINUTE };
    const step = steps[this.span] * (this.scale.width < 340 ? 2 : 1);
    const ticks = [];
    for (let ago = step; ago < this.span * 0.95; ago += step) {
      ticks.push(svg("text", { class: "tick middle", x: this.#x(this.#now - ago), y }, agoOf(ago)));
    }
    return [...ticks, svg("text", { class: "tick end", x: this.scale.width - MARGIN.right, y }, "now")];
  }

  /** One stretch of samples without a gap. Lower lines are drawn above lines stacked on them with value 0. */
  #lines(run) {
    const base = run.map(() => 0);
    const [areas, lines] = [[], []];
    for (const { tone, value } of this.series) {
      const under = [...base];
      const over = run.map((sample, at) => value(sample) + (this.stacked ? base[at] : 0));
      if (this.stacked) over.forEach((top, at) => { base[at] = top; });
      const point = (top, at) => `${this.#x(run[at].at).toFixed(1)},${this.#y(top).toFixed(1)}`;
      const line = over.map(point).join(" ");
      if (this.stacked || this.series.length === 1) {
        areas.push(svg("polygon", { class: `area ${tone}`, points: `${line} ${under.map(point).reverse().join(" ")}` }));
      }
      lines.unshift(svg("polyline", { class: `line ${tone}`, points: line }));
    }
    return [...areas, ...lines];
  }

  #point(x) {
    if (!this.scale || this.#samples.length === 0) return;
    const distance = ({ at }) => Math.abs(this.#x(at) - x);
    this.#show(this.#samples.reduce((best, sample) => (distance(sample) < distance(best) ? sample : best)));
  }

  #key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    const last = this.#samples.length - 1;
    if (event.key === "Escape") this.#show(null);
    if (!(event.key in steps) || last < 0) return;
    event.preventDefault();
    const from = this.#cursor ? this.#samples.indexOf(this.#cursor) : last + 1;
    this.#show(this.#samples[Math.max(0, Math.min(last, from + steps[event.key]))]);
  }

  /** Shows the values of one sample beside a line through it. */
  #show(sample) {
    this.#cursor = sample && this.#samples.includes(sample) ? sample : null;
    this.#figure.querySelector(".cursor")?.remove();
    this.#tip.hidden = !this.#cursor;
    if (!this.#cursor) return;
    const x = this.#x(sample.at);
    this.#figure.append(svg("line", { class: "cursor", x1: x, x2: x, y1: MARGIN.top, y2: this.scale.height - MARGIN.bottom }));
    const lines = this.series.map(({ label, tone, value }) =>
      el("div", {}, el("i", { class: `swatch ${tone}` }), `${label} `, el("b", {}, this.format(value(sample)))));
    this.#tip.replaceChildren(el("time", {}, clock(new Date(sample.at))), ...lines);
    const right = x > this.scale.width / 2;
    this.#tip.style.left = right ? "" : `${x + 8}px`;
    this.#tip.style.right = right ? `${this.scale.width - x + 8}px` : "";
  }
}

const axis = (value) => compact.format(value);
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const agoOf = (ago) => (ago % MINUTE === 0 ? `−${ago / MINUTE} min` : `−${Math.round(ago / 1000)} s`);

/** The smallest span that contains all samples. */
function spanOf(samples, now) {
  const age = samples.length > 0 ? now - samples[0].at : 0;
  return SPANS.find((span) => age <= span) ?? SPAN;
}

/** A sparkline beside a figure. */
export function spark(samples, value, tone) {
  const [width, height] = [96, 26];
  const top = Math.max(...samples.map(value), 1e-9);
  const end = samples.at(-1)?.at ?? 0;
  const span = spanOf(samples, end);
  const points = samples.map((sample) => {
    const x = width * (1 - (end - sample.at) / span);
    return `${x.toFixed(1)},${(height - 2 - (height - 4) * (value(sample) / top)).toFixed(1)}`;
  });
  return svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polyline", { class: `line ${tone}`, points: points.join(" ") }));
}

/** Samples, split at gaps. */
function runs(samples) {
  const all = [];
  samples.forEach((sample, at) => {
    if (at === 0 || sample.at - samples[at - 1].at > PAUSE) all.push([]);
    all.at(-1).push(sample);
  });
  return all;
}

/** The next of 1, 2, 5, 10, 20, … that is not below `rough`. */
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999) ?? 10 * power;
}
