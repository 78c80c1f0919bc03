// A whole recording: an overview, and below it any stretch of it with the events of up to five texts as lanes.

import { $, chip, clamp, el, later, pairs, say, showNumber, showTime, splitUri } from "./dom.js";
import { badge } from "./marks.js";
import { PICTURED_S, Track } from "./track.js";

const MOST_LANES = 5;
const SHORTEST_S = 0.2;

export class FileView {
  constructor(page) {
    Object.assign(this, { page, store: page.store, file: null, now: null, track: null }); // now: the current event
    this.fillLanes = later(() => this.#fillLanes(), 80);
    $("lanes-form").onsubmit = (event) => {
      event.preventDefault();
      const lane = new Set([...this.store.state.lane, $("lane").value.trim()]);
      lane.delete("");
      $("lane").value = "";
      this.store.set({ lane: [...lane] }, true);
    };
    this.playhead = { setPlayhead: (t) => [this.overview, this.track].forEach((one) => one?.setPlayhead(t)) };
  }

  /** What marks and searches are about: the drawn region with the text of the current lane, else the current event. */
  get target() {
    const { file, now, track } = this;
    if (!file || !(track.region ?? now)) return null;
    const text = now?.text ?? this.store.state.lane[0] ?? "";
    const [{ uri, audio_id }, { start_s, end_s }] = [file, track.region ?? now];
    return { uri, audio_id, start_s, end_s, text, score: track.region ? null : now?.score, isRegion: !!track.region };
  }

  /** The seconds shown. */
  get view() {
    const { from, to } = this.store.state;
    const all_s = this.file.duration_s || 1;
    const start_s = clamp(from ?? 0, 0, Math.max(all_s - SHORTEST_S, 0));
    return [start_s, clamp(to ?? all_s, Math.min(start_s + SHORTEST_S, all_s), all_s)];
  }

  #setView(from, length_s) {
    const { duration_s } = this.file;
    const shown_s = clamp(length_s, SHORTEST_S, duration_s);
    const start_s = clamp(from, 0, duration_s - shown_s);
    this.store.set({ from: start_s, to: start_s + shown_s });
  }

  #centre(t, [from, to] = this.view) {
    this.#setView(t - (to - from) / 2, to - from);
  }

  zoom(step, around = null) {
    const [from, to] = this.view;
    const centre = around ?? clamp(this.now?.peak_s ?? (from + to) / 2, from, to);
    const factor = 1.5 ** -step;
    this.#setView(centre - (centre - from) * factor, (to - from) * factor);
  }

  pan(share) {
    const [from, to] = this.view;
    this.#setView(from + share * (to - from), to - from);
  }

  #wheel(event, t) {
    event.preventDefault();
    const { deltaX, deltaY, shiftKey } = event;
    if (shiftKey || Math.abs(deltaX) > Math.abs(deltaY)) this.pan((deltaX || deltaY) / 1000);
    else this.zoom(-deltaY / 240, t);
  }

  async open() {
    const { uri } = this.store.state;
    this.file = this.now = this.track = null;
    [$("file-folder").textContent, $("file-name").textContent] = splitUri(uri);
    for (const id of ["file-facts", "file-pairs", "overview", "track", "chosen", "lane-chips"]) $(id).replaceChildren();
    const file = await this.page.data.file(uri).catch(({ message }) => $("file-facts").replaceChildren(message));
    if (!file || uri !== this.store.state.uri) return;
    const { duration_s, sample_rate_hz: rate_hz, codec, channels, metadata } = file;
    const facts = { length: showTime(duration_s ?? 0), rate: rate_hz && `${rate_hz / 1000} kHz`, codec, channels };
    $("file-pairs").replaceChildren(...pairs({ ...facts, ...metadata }));
    const unusual = file.status === "indexed" ? "" : `${file.status}: ${file.message || file.reason}`;
    const moved = file.is_changed ? "The file has changed since it was indexed" : unusual;
    $("file-facts").textContent = file.is_gone ? "The file is gone: its stored curves remain" : moved;
    $("file-work").hidden = !duration_s; // of a file that failed there is nothing to see
    if (!duration_s) return;
    this.file = file;
    const region = (span) => span && this.#setView(span.start_s, span.end_s - span.start_s);
    this.overview = new Track(uri, { play: (t) => this.#centre(t), region });
    this.overview.element.classList.add("is-overview");
    const play = (t) => this.page.player.play(uri, t, duration_s, this.playhead);
    const [threshold, wheel] = [(t) => this.store.set({ t }), (event, t) => this.#wheel(event, t)];
    this.track = new Track(uri, { play, threshold, wheel, region: () => this.#tell() });
    this.overview.to = file.duration_s || 1;
    this.overview.duration_s = this.track.duration_s = file.duration_s;
    $("overview").append(this.overview.element);
    $("track").append(this.track.element);
    this.look(true);
    this.showMarks(uri);
  }

  /** Follow the state: the stretch shown, the lanes, gain, frequencies and threshold. */
  look(isNew = false) {
    const { file, track, overview } = this;
    if (!file) return;
    const { gain, low, high, t, lane } = this.store.state;
    const texts = file.n_frames ? lane.slice(0, MOST_LANES) : [];
    [track.from, track.to] = this.view;
    track.threshold = overview.threshold = t;
    overview.region = { start_s: track.from, end_s: track.to };
    if (isNew || texts.join("\n") !== track.lanes.map(({ text }) => text).join("\n")) this.#setLanes(texts);
    for (const one of [track, overview]) one.show({ gain, low, high, rate_hz: file.sample_rate_hz });
    this.fillLanes();
  }

  #setLanes(texts) {
    const { track, overview } = this;
    track.setLanes(texts.map((text, colour) => ({ text, label: text, colour, curve: null })));
    const isLong = overview.to > PICTURED_S; // its overview is the curve of the first text
    overview.setLanes(isLong ? texts.slice(0, 1).map((text) => ({ text, curve: null })) : []);
    if (!texts.includes(this.now?.text)) this.now = track.span = null;
    const drop = (text) => this.store.set({ lane: texts.filter((one) => one !== text) }, true);
    $("lane-chips").replaceChildren(...texts.map((text, k) => chip(text, () => drop(text), `.colour-${k}`)));
    $("lane-adder").hidden = !this.file.n_frames || texts.length >= MOST_LANES;
  }

  async #fillLanes() {
    const { file, track, overview } = this;
    if (!file) return;
    const [from, to] = this.view;
    const fill = async (lane, start_s, end_s) => {
      const asked = this.page.data.curve(file, lane.text, start_s, end_s);
      lane.curve = (await asked.catch(({ message }) => say(message, true))) ?? null;
    };
    const overall = overview.lanes.map((lane) => fill(lane, 0, file.duration_s));
    await Promise.all([...track.lanes.map((lane) => fill(lane, from, to)), ...overall]);
    [track, overview].forEach((one) => one.draw());
    if (track !== this.track) return;
    const { text, peak_s } = this.now ?? { peak_s: (from + to) / 2 }; // at first, the nearest
    const off = (one) => (text && one.text !== text ? Infinity : Math.abs(one.peak_s - peak_s));
    const nearest = this.#events.reduce((a, b) => (off(b) < off(a) ? b : a), { peak_s: Infinity });
    if (off(nearest) < to - from) this.now = track.span = nearest;
    track.draw();
    this.#tell();
  }

  /** The events of all lanes, in order of time. */
  get #events() {
    const events = this.track.lanes.flatMap((lane) => (lane.events ?? []).map((one) => ({ ...one, text: lane.text })));
    return events.sort((a, b) => a.peak_s - b.peak_s || (a.text < b.text ? -1 : 1));
  }

  /** Go to the next event in time, or to the one before. */
  move(step) {
    const events = this.#events;
    const at_s = this.now?.peak_s ?? (this.view[0] + this.view[1]) / 2;
    const index = events.findIndex((one) => one.text === this.now?.text && one.peak_s === at_s);
    const beyond = events.filter((one) => (one.peak_s - at_s) * step > 0);
    const next = index < 0 ? beyond.at(step > 0 ? 0 : -1) : events[index + step];
    if (!next) return say(step > 0 ? "No later event" : "No earlier event");
    this.now = this.track.span = next;
    this.track.setRegion(null, true);
    const [from, to] = this.view;
    if (next.start_s < from || next.end_s > to) this.#centre(next.peak_s);
  }

  /** Say what marks and "more like this" are about. */
  async #tell() {
    const { target, now } = this;
    const help = "↑ and ↓ go from event to event. Draw a region to search for it or to mark it.";
    if (!target) return $("chosen").replaceChildren(help);
    const mark = await this.page.marks.find(target);
    const facts = now && !target.isRegion ? ` · ${showNumber(now.probability)} · ${showNumber(now.score)}` : "";
    const times = `${showTime(target.start_s)} – ${showTime(target.end_s)}${facts}`;
    const parts = [el("b", { dir: "auto" }, target.text || "region"), el("span.number", {}, times)];
    $("chosen").replaceChildren(...parts, ...(mark ? [badge(mark.verdict)] : []));
  }

  async showMarks(uri) {
    if (uri !== this.file?.uri) return;
    this.track.marks = await this.page.marks.of(this.file);
    this.track.draw();
    this.#tell();
  }

  play() {
    const { start_s, end_s } = this.target ?? { start_s: this.view[0], end_s: this.file.duration_s };
    this.page.player.play(this.file.uri, start_s, end_s, this.playhead);
  }
}
