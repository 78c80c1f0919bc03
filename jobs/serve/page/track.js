// The spectrogram of a stretch of a file and, on the same time axis, the score curve of each text with its threshold.
import { request, url } from "./api.js";
import { WHOLE_S } from "./data.js";
import { clamp, cloneTemplate, el, later, say, showTime } from "./dom.js";
import { findEvents, probability } from "./events.js";
import { VERDICTS } from "./marks.js";

const STEPS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400];
const [TICK_PIXELS, LABEL_PIXELS, DRAG_PIXELS] = [76, 48, 5];
const [STEPS, SHORTEST_S] = [80, 0.002]; // of a region by keys: steps through the view; requests have milliseconds
const FLAWS = { "X-Earshot-Approximate": "times approximate", "X-Earshot-Sampled": "sampled: zoom in for all of it" };
const density = () => Math.min(devicePixelRatio || 1, 2);

export class Track {
  /** `on`: what to do at play(t), region(span or null), threshold(p), wheel(event, t). */
  constructor(uri, duration_s, on) {
    const empty = { lanes: [], marks: [], region: null, span: null, image: null, look: null };
    Object.assign(this, { uri, duration_s, on, from: 0, to: duration_s, threshold: 0.3, ...empty });
    this.element = cloneTemplate("track-template");
    for (const box of this.element.querySelectorAll("[class]")) this[`${box.className}Box`] = box;
    this.element.addEventListener("pointerdown", (event) => this.#press(event));
    if (on.wheel) this.element.onwheel = (event) => on.wheel(event, this.timeAt(event));
    this.loadPicture = later(() => this.#loadPicture(), 60);
    new ResizeObserver(later(() => this.look && this.show(this.look), 100)).observe(this.spectrogramBox);
  }

  /** The texts whose curves are shown: [{text, curve or null, label, colour}]. */
  setLanes(lanes) {
    this.lanes = lanes;
    const nodes = lanes.map((lane) => {
      lane.canvas = el("canvas", { role: "img", "aria-label": `score of ${lane.text}` });
      lane.handle = el("div.threshold", { title: "Threshold: drag up or down", "aria-hidden": "true" }, el("b.number"));
      lane.handle.addEventListener("pointerdown", (event) => this.#dragThreshold(event, lane));
      const label = lane.label && el("span.lane-label", { dir: "auto" }, lane.label);
      return el(`div.lane.colour-${lane.colour ?? 0}`, {}, lane.canvas, lane.handle, label);
    });
    this.lanesBox.replaceChildren(...nodes);
  }

  /** Draw all of it with a look: {gain, low, high, rate_hz}; low and high in kHz. */
  show(look) {
    this.look = look;
    this.draw();
    this.loadPicture();
  }

  /** Draw what needs no request. */
  draw() {
    this.width = this.spectrogramBox.clientWidth;
    if (!this.width || !this.look) return;
    for (const lane of this.lanes) this.#drawLane(lane);
    this.#drawTicks();
    if (this.image) this.#place(this.image, ...this.imageSpan); // it may be that of the former view
    const marks = this.marks.map((mark) => this.#box(`mark.is-${mark.verdict}`, mark, VERDICTS[mark.verdict]?.[0]));
    const boxes = [this.#box("span", this.span), ...marks, this.#box("region", this.region)];
    this.overlayBox.replaceChildren(...boxes.filter(Boolean));
    const top = this.look.high ?? this.look.rate_hz / 2000;
    const band = top && this.image ? `${this.look.low ?? 0}–${Number(top.toFixed(2))} kHz` : "";
    const flaws = this.image?.flaws ?? [];
    this.frequencyBox.textContent = [...flaws, band].filter(Boolean).join(" · ");
    this.frequencyBox.classList.toggle("is-flawed", flaws.length > 0);
    const times = `${showTime(this.from)} to ${showTime(this.to)}`;
    this.spectrogramBox.ariaLabel = [`Spectrogram of ${this.uri}`, times, ...flaws].join(", ");
  }

  /** Show where playback is, in seconds of the file; null: nowhere. */
  setPlayhead(t) {
    const isShown = t !== null && t >= this.from && t <= this.to;
    this.playheadBox.hidden = !isShown;
    if (isShown) this.playheadBox.style.transform = `translateX(${this.#share(t) * this.width}px)`;
  }

  /** Give back the memory of what is out of sight. */
  release() {
    for (const lane of this.lanes) [lane.curve, lane.canvas.width] = [null, 0];
    this.loading?.abort();
    this.image?.remove();
    this.image = this.picture = this.look = null;
  }

  timeAt({ clientX }) {
    const box = this.spectrogramBox.getBoundingClientRect();
    return this.from + clamp((clientX - box.left) / box.width, 0, 1) * (this.to - this.from);
  }

  #share = (t) => (t - this.from) / (this.to - this.from);
  #box(kind, span, text) {
    if (!span || span.end_s < this.from || span.start_s > this.to) return null;
    const node = el(`div.${kind}`, {}, text && el("b", {}, text));
    return this.#place(node, Math.max(span.start_s, this.from), Math.min(span.end_s, this.to));
  }

  #place(node, from, to) {
    node.style.left = `${this.#share(from) * 100}%`;
    node.style.width = `${(this.#share(to) - this.#share(from)) * 100}%`;
    return node;
  }

  async #loadPicture() {
    const { from, to, look } = this;
    const { clientWidth: width, clientHeight } = this.spectrogramBox; // 0 once it is out of the page
    if (!width || !look || to <= from) return;
    const hertz = (kilo) => (kilo === null ? null : Math.round(kilo * 1000));
    const address = url("spectrogram", {
      ...{ uri: this.uri, start_s: from.toFixed(3), end_s: to.toFixed(3), sampled: to - from > WHOLE_S || null },
      width: clamp(Math.ceil((width * density()) / 32) * 32, 32, 4096),
      height: Math.round(clientHeight * density()),
      ...{ gain_db: look.gain || null, low_hz: hertz(look.low), high_hz: hertz(look.high) },
    });
    if (address === this.picture) return;
    this.picture = address;
    this.loading?.abort();
    this.loading = new AbortController();
    const asked = loadImage(address, this.loading.signal);
    const failed = ({ message, status }) => [null, message, !(status > 0 && status < 500)];
    const [image, note, isPassing] = await asked.then((found) => [found, ""], failed);
    if (this.picture !== address) return; // a later one was asked for
    if (isPassing) this.picture = null; // it is asked for when the track is shown again
    this.image?.remove();
    Object.assign(this, { image, imageSpan: [from, to] });
    this.noteBox.textContent = note;
    if (image) this.spectrogramBox.prepend(image);
    this.draw();
  }

  #drawTicks() {
    const step = STEPS_S.find((s) => (s / (this.to - this.from)) * this.width >= TICK_PIXELS) ?? STEPS_S.at(-1);
    const ticks = [];
    const last = this.to - (LABEL_PIXELS / this.width) * (this.to - this.from);
    for (let n = Math.ceil(this.from / step - 1e-9); n * step <= last; n += 1) {
      const tick = el("span", {}, showTime(n * step, step < 0.1 ? 2 : step < 1 ? 1 : 0));
      ticks.push(this.#place(tick, n * step, n * step));
    }
    this.ticksBox.replaceChildren(...ticks);
  }

  #drawLane(lane) {
    const { canvas, curve, handle } = lane;
    const [width, height] = [this.width, canvas.clientHeight];
    Object.assign(canvas, { width: width * density(), height: height * density() });
    handle.hidden = !curve;
    lane.events = curve ? findEvents(curve, this.threshold, this.duration_s) : [];
    if (!curve) return;
    handle.style.top = `${(1 - this.threshold) * 100}%`;
    handle.firstChild.textContent = this.threshold.toFixed(2);
    const pen = canvas.getContext("2d");
    const colour = (name) => getComputedStyle(canvas).getPropertyValue(name);
    const drawSpans = (top, name) => {
      pen.fillStyle = colour(name);
      for (const { start_s, end_s } of lane.events) {
        const [left, right] = [this.#share(start_s) * width, this.#share(end_s) * width];
        pen.fillRect(left, top, Math.max(right - left, 2), height - top);
      }
    };
    pen.scale(density(), density());
    drawSpans(0, "--span");
    pen.beginPath();
    const points = tracePath(curve, this.from, this.to, width);
    for (const [share, p] of points) pen.lineTo(share * width, height - 1 - p * (height - 3));
    Object.assign(pen, { lineWidth: 1.5, lineJoin: "round", strokeStyle: colour("--curve") });
    pen.stroke();
    for (const end of [points.at(-1), points[0]]) pen.lineTo((end?.[0] ?? 0) * width, height);
    pen.fillStyle = colour("--under");
    pen.fill();
    drawSpans(height - 3, "--curve");
  }

  #press(event) {
    if (event.button !== 0) return;
    const start = this.timeAt(event);
    let isDrag = false;
    const move = (moved) => {
      isDrag ||= Math.abs(moved.clientX - event.clientX) > DRAG_PIXELS;
      const end = this.timeAt(moved);
      if (isDrag) this.setRegion({ start_s: Math.min(start, end), end_s: Math.max(start, end) });
    };
    follow(event, move, () => {
      this.setRegion(isDrag ? this.region : null, true);
      if (!isDrag) this.on.play?.(start);
    });
  }

  setRegion(span, isFinal = false) {
    this.region = span;
    this.draw();
    if (isFinal) this.on.region?.(span);
  }

  /** Move `start_s` or `end_s` of the region by a step; where there is none, the span becomes it, or the middle. */
  moveEdge(edge, direction) {
    const view_s = this.to - this.from;
    const middle = { start_s: this.from + 0.45 * view_s, end_s: this.from + 0.55 * view_s };
    const span = [this.region, this.span, middle].find((one) => one?.end_s > this.from && one.start_s < this.to);
    const length_s = span.end_s - span.start_s;
    const step_s = Math.min(view_s / STEPS, length_s / 2);
    const shortest_s = Math.min(SHORTEST_S, length_s);
    const low = { start_s: Math.min(this.from, span.start_s), end_s: span.start_s + shortest_s };
    const high = { start_s: span.end_s - shortest_s, end_s: Math.max(this.to, span.end_s) };
    const { start_s, end_s } = { ...span, [edge]: clamp(span[edge] + direction * step_s, low[edge], high[edge]) };
    this.setRegion({ start_s, end_s }, true);
    say(`Region ${showTime(start_s)} – ${showTime(end_s)}`);
  }

  #dragThreshold(event, { canvas }) {
    event.stopPropagation();
    const box = canvas.getBoundingClientRect();
    const read = ({ clientY }) => Number(clamp(1 - (clientY - box.top) / box.height, 0.01, 0.99).toFixed(2));
    follow(event, (moved) => this.on.threshold?.(read(moved)));
  }
}

/** The picture at an address, with what it lacks. Throws an Error that says why there is none. */
async function loadImage(address, signal) {
  const answer = await request(address, { signal });
  const image = el("img", { alt: "", draggable: "false" });
  image.flaws = Object.keys(FLAWS).filter((name) => answer.headers.has(name)).map((name) => FLAWS[name]);
  image.src = URL.createObjectURL(await answer.blob());
  await image.decode().finally(() => URL.revokeObjectURL(image.src));
  return image;
}

/** Follow the pointer until it is released, wherever it goes; what the browser takes over for scrolling is no click. */
function follow(event, move, end = () => {}) {
  const target = event.currentTarget;
  target.setPointerCapture(event.pointerId);
  target.onpointermove = move;
  target.onpointerup = target.onpointercancel = ({ type }) => {
    target.onpointermove = target.onpointerup = target.onpointercancel = null;
    if (type === "pointerup") end();
  };
}

/** A curve as points [share of the width, probability]: one a score, or the best of each pixel if scores are denser. */
function tracePath(curve, from, to, width) {
  const [start_s, step_s] = [curve.first_frame * curve.frame_s, curve.step_frames * curve.frame_s];
  const index = (t) => clamp(Math.round((t - start_s) / step_s), 0, curve.scores.length);
  const group = Math.max(1, Math.floor((to - from) / step_s / width));
  const points = [];
  for (let first = index(from - step_s); first < index(to + step_s); first += group) {
    const best = curve.scores.slice(first, first + group).reduce((a, b) => Math.max(a, b));
    const t = start_s + (first + group / 2) * step_s;
    points.push([(t - from) / (to - from), probability(curve, best)]);
  }
  return points;
}
