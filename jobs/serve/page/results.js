// The answer to a question: its summary, its exports, and its hits, of which one is the current.

import { url } from "./api.js";
import { Card } from "./card.js";
import { $, clamp, count, el } from "./dom.js";

const CONTEXTS_S = [0.25, 0.5, 1, 2, 4, 8, 16, 32];

export class Results {
  constructor(page) {
    Object.assign(this, { page, cards: [], current: null, answer: null });
    const nearby = (entries) => {
      for (const { target, isIntersecting } of entries) {
        const card = this.cards[target.dataset.rank - 1];
        if (card?.element !== target || card.isFilled === isIntersecting) continue;
        if (isIntersecting) card.fill();
        else card.release();
      }
    };
    $("again").onclick = () => page.ask();
    this.observer = new IntersectionObserver(nearby, { rootMargin: "400px 0px" });
  }

  /** Show an answer: {kind, text, hits, is_cut, took_ms, and what was asked: k, where, threshold}. */
  show(answer) {
    this.observer.disconnect();
    Object.assign(this, { answer, current: null });
    this.page.text = answer.kind === "similar" ? "" : answer.text;
    this.cards = answer.hits.map((hit) => new Card(hit, this.page, (card) => this.select(card)));
    $("hits").replaceChildren(...this.cards.map((card) => card.element));
    $("hits").classList.toggle("is-similar", answer.kind === "similar");
    for (const card of this.cards) this.observer.observe(card.element);
    this.summarise();
    const first = this.cards[clamp(this.page.store.state.hit, 1, this.cards.length) - 1];
    if (first) this.select(first);
    if (first?.hit.rank > 1) first.element.scrollIntoView({ block: "nearest" });
    const why = answer.threshold ? `Nothing reaches the threshold of ${answer.threshold}.` : "Nothing is found.";
    if (!first) $("hits").append(el("p.empty", {}, `${why} Try other words or fewer filters.`));
  }

  /** Show words instead of hits. */
  tell(title, explanation) {
    this.observer.disconnect();
    Object.assign(this, { cards: [], current: null, answer: null });
    $("summary").textContent = title;
    $("again").hidden = $("exports").hidden = true;
    $("hits").replaceChildren(el("p.empty", {}, explanation));
  }

  summarise() {
    const { kind, hits, text, is_cut, took_ms, threshold, k, where } = this.answer;
    const { t } = this.page.store.state;
    const isMoments = kind === "locate";
    const facts = ` ${Math.round(took_ms)} ms${is_cut ? " · there may be more" : ""}`;
    const counted = `${count(hits.length, isMoments ? "moment" : "clip")} ${kind === "similar" ? "like" : "of"} `;
    $("summary").replaceChildren(counted, el("q", { dir: "auto" }, text), el("small.number", {}, facts));
    $("again").hidden = !isMoments || Math.abs(threshold - t) < 0.004;
    $("again").textContent = `Search again at ${t.toFixed(2)}`;
    $("exports").hidden = !hits.length || kind === "similar";
    const values = { [isMoments ? "locate" : "query"]: text, k, where, threshold };
    const setLink = (link) => (link.href = url("export", { format: link.dataset.format, ...values }));
    $("exports").querySelectorAll("a").forEach(setLink);
  }

  select(card) {
    if (card === this.current) return;
    this.current?.element.removeAttribute("aria-current");
    this.current = card;
    card.element.setAttribute("aria-current", "true");
    this.page.store.set({ hit: card.hit.rank });
  }

  move(step) {
    const card = this.cards[clamp((this.current?.hit.rank ?? 0) + step, 1, this.cards.length) - 1];
    card?.element.focus({ preventScroll: true });
    card?.element.scrollIntoView({ block: "nearest" });
  }

  zoom(step) {
    const now = CONTEXTS_S.filter((one) => one < this.page.store.state.context).length;
    this.page.store.set({ context: CONTEXTS_S[clamp(now - step, 0, CONTEXTS_S.length - 1)] });
  }

  /** Follow the state of the page. */
  follow(changed) {
    if (["gain", "low", "high", "context"].some((name) => changed.has(name))) this.cards.forEach((card) => card.look());
    if (!changed.has("t") || !this.answer) return;
    this.cards.forEach((card) => card.update());
    this.summarise();
  }

  showMarks(uri) {
    for (const card of this.cards) if (card.isFilled && card.hit.uri === uri) card.showMark();
  }
}
