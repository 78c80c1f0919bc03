// One hit. Its picture and curve are asked for when its card comes into sight, so a thousand cards cost little.
import { cloneTemplate, later, pairs, say, showNumber, showTime, splitUri } from "./dom.js";
import { findEvents, findOverlap } from "./events.js";
import { badge } from "./marks.js";
import { Track } from "./track.js";

const LEAD_S = 0.1; // heard before and after a hit: some last only 40 ms

export class Card {
  /** `page` is what all cards share; `select(card)` makes a card the current one. */
  constructor(hit, page, select) {
    const element = cloneTemplate("card");
    const play = (t) => page.player.play(hit.uri, t, track.to, track);
    this.choose = () => select(this);
    const track = new Track(hit.uri, hit.duration_s ?? hit.end_s, { play, threshold: (t) => page.store.set({ t }) });
    Object.assign(this, { hit, page, element, track, playhead: track, span: hit, isFilled: false, rate_hz: null });
    this.fillLane = later(() => this.#fillLane(), 50);
    element.card = this;
    element.dataset.rank = hit.rank;
    element.append(track.element);
    for (const name of ["focusin", "pointerdown"]) element.addEventListener(name, this.choose);
    const part = (name) => element.querySelector(`.${name}`);
    const [folder, name] = splitUri(hit.uri);
    const probability = hit.probability == null ? "" : showNumber(hit.probability);
    const texts = { rank: hit.rank, name, folder, score: showNumber(hit.score), probability };
    for (const [place, text] of Object.entries(texts)) part(place).textContent = text;
    part("name").title = hit.uri;
    [this.times, this.state, this.badge] = ["times", "state", "verdict-now"].map(part);
    part("pairs").append(...pairs(hit.metadata));
    this.look();
  }

  /** What marks and searches are about: the drawn region, else the hit as the threshold has it. */
  get target() {
    const { uri, audio_id } = this.hit;
    const [{ start_s, end_s }, isRegion] = [this.track.region ?? this.span, this.track.region !== null];
    return { uri, audio_id, start_s, end_s, score: isRegion ? null : this.hit.score, text: this.page.text, isRegion };
  }

  /** Ask for what the card shows once it comes into sight, and give it back when it goes. */
  async come(isNear, isAgain = false) {
    if (isNear === this.isFilled && !isAgain) return;
    this.isFilled = isNear;
    const { hit, track, page: { data, info, text } } = this;
    if (!isNear) return track.release();
    track.setLanes(text && info.has_frames ? [{ text, curve: null }] : []);
    this.look();
    this.showMark();
    const file = await data.file(hit.uri).catch(({ message }) => ({ message }));
    const changed = file.is_changed ? "changed since" : "";
    this.state.textContent = file.is_gone ? "file gone" : file.uri ? changed : file.message;
    this.rate_hz = file.sample_rate_hz;
    this.look();
  }

  /** Ask for the curve, and for more of it where it cuts an event. */
  async #fillLane() {
    const { hit, page, track } = this;
    const [lane] = track.lanes;
    if (!lane || !this.isFilled) return;
    const asked = page.data.curve(hit, lane.text, track.from, track.to, page.store.state.t);
    const curve = await asked.catch(({ message }) => (say(`No curve: ${message}`, true), lane.curve));
    if (curve === lane.curve || !this.isFilled) return;
    lane.curve = curve;
    this.look();
  }

  /** Follow gain, frequencies, zoom and the threshold: spans, times, and whether the hit reaches it. */
  look() {
    const { hit, track, isFilled, rate_hz } = this;
    const { context, gain, low, high, t } = this.page.store.state;
    const isMoment = hit.peak_s != null;
    const curve = isMoment ? track.lanes[0]?.curve : null;
    const found = curve && findOverlap(findEvents(curve, t, track.duration_s), hit);
    const isBelow = isMoment && (curve ? !found : hit.probability < t);
    const { start_s, end_s } = (this.span = found ?? hit);
    if (isFilled) {
      const [from, to] = [Math.max(hit.start_s - context, 0), Math.min(hit.end_s + context, track.duration_s)];
      Object.assign(track, { from, to, threshold: t, span: this.span });
      track.show({ gain, low, high, rate_hz });
      this.fillLane();
    }
    this.element.classList.toggle("is-below", isBelow);
    this.times.textContent = isBelow ? "below the threshold" : `${showTime(start_s)} – ${showTime(end_s)}`;
    this.times.title = `${(end_s - start_s).toFixed(2)} s`;
    this.element.setAttribute("aria-label", `${hit.rank}: ${splitUri(hit.uri)[1]}, ${this.times.textContent}`);
  }

  async showMark() {
    const { all, mark } = await this.page.marks.see(this.target);
    this.badge.replaceChildren(...(mark ? [badge(mark.verdict)] : []));
    this.track.marks = all.filter(({ text }) => text === this.page.text);
    if (this.isFilled) this.track.draw();
  }

  play() {
    const { start_s, end_s, isRegion } = this.target;
    const lead_s = isRegion ? 0 : LEAD_S;
    const stop_s = Math.min(end_s + lead_s, this.track.duration_s);
    this.page.player.play(this.hit.uri, Math.max(start_s - lead_s, 0), stop_s, this.track);
  }
}
