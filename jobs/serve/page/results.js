// The answer to a question: its summary, its hits, of which one is the current, and exports.
import { FIELDS } from "./address.js";
import { request, url } from "./api.js";
import { Card } from "./card.js";
import { $, clamp, count, el, say } from "./dom.js";

export class Results {
  constructor(page) {
    Object.assign(this, { page, cards: [], current: null, answer: null });
    const nearby = (entries) => entries.forEach(({ target, isIntersecting }) => target.card.come(isIntersecting));
    $("again").onclick = () => page.ask();
    this.observer = new IntersectionObserver(nearby, { rootMargin: "400px 0px" });
  }

  /** Show an answer: {kind, text, hits, is_cut, took_ms, and what was asked: k, where, threshold}. */
  show(answer) {
    this.page.text = answer.kind === "similar" ? "" : answer.text;
    this.#take(answer, answer.hits.map((hit) => new Card(hit, this.page, (card) => this.select(card))));
    $("hits").classList.toggle("is-similar", answer.kind === "similar");
    for (const card of this.cards) this.observer.observe(card.element);
    const { kind, hits, text, is_cut, took_ms, threshold } = answer;
    const facts = ` ${Math.round(took_ms)} ms${is_cut ? " · there may be more" : ""}`;
    const counted = count(hits.length, kind === "locate" ? "moment" : "clip");
    const words = [`${counted} ${kind === "similar" ? "like" : "of"} `, el("q", { dir: "auto" }, text)];
    $("summary").replaceChildren(...words, el("small.number", {}, facts));
    this.#offer();
    const first = this.cards[clamp(this.page.store.state.hit, 1, this.cards.length) - 1];
    if (first) this.select(first);
    if (first?.hit.rank > 1) first.element.scrollIntoView({ block: "nearest" });
    const why = threshold ? `Nothing reaches the threshold of ${threshold}.` : "Nothing is found.";
    if (!first) $("hits").append(el("p.empty", {}, `${why} Try other words or fewer filters.`));
  }

  tell(title, explanation, isAskable = false) {
    this.#take(null, []);
    $("summary").textContent = title;
    Object.assign($("again"), { textContent: "Search again", hidden: !isAskable });
    $("exports").hidden = true;
    $("hits").append(el("p.empty", {}, explanation));
  }

  #take(answer, cards) {
    $("view-search").ariaBusy = null;
    this.observer.disconnect();
    for (const card of this.cards) card.come(false); // what it still waits for is wanted no more
    Object.assign(this, { answer, cards, current: null });
    $("hits").replaceChildren(...cards.map((card) => card.element));
  }

  /** Offer what can be done with the answer at the threshold that is shown now, wherever it was asked for. */
  #offer() {
    const { kind, hits, text, threshold, k, where } = this.answer;
    const { t } = this.page.store.state;
    $("again").hidden = kind !== "locate" || Math.abs(threshold - t) < 0.004;
    $("again").textContent = `Search again at ${t.toFixed(2)}`;
    $("exports").hidden = !hits.length;
    const asked = { query: { k, where, query: text }, locate: { k, where, locate: text, threshold: t } }[kind];
    const sent = asked ? null : { hits, label: `like ${text}` }; // an address cannot ask for a sound again
    const address = ({ dataset }) => url("export", { format: dataset.format, ...asked });
    $("exports").querySelectorAll("a").forEach((link) => Object.assign(link, { href: address(link), sent }));
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
    this.page.store.set({ context: FIELDS.context[1](this.page.store.state.context * 2 ** -step) });
  }

  /** Follow the state: threshold, gain, frequencies and zoom. */
  look() {
    for (const card of this.cards) card.look();
    if (this.answer) this.#offer();
  }

  /** Ask anew for what cards in sight could not be given. */
  refill = () => this.cards.forEach((card) => card.isFilled && card.come(true, true));
  showMarks = () => this.cards.forEach((card) => card.isFilled && card.showMark());
}

/** Save what links with `download` lead to by way of the page, which can say why there is none, and what one lacks. */
export function watchExports() {
  const failed = ({ message }) => say(`Not exported: ${message}`, true);
  const take = (event) => (event.preventDefault(), save(event.currentTarget).catch(failed));
  document.querySelectorAll("a[download]").forEach((link) => (link.onclick = take));
}

async function save(link) {
  const padding_s = "cut" in link.dataset ? link.closest("ul").querySelector("input").value : "";
  say(`Exporting ${link.textContent} …`, false, Infinity);
  const address = padding_s ? `${link.href}&padding_s=${padding_s}` : link.href;
  const answer = await request(address, { sent: link.sent });
  const told = (name) => answer.headers.get(name);
  const n_left_out = Number(told("X-Earshot-Left-Out"));
  const lacks = [];
  if (n_left_out) lacks.push(`${count(n_left_out, "label")} left out: their sound is gone`);
  if (told("X-Earshot-Is-Cut") === "1") lacks.push("there may be better ones, which earshot export --exact finds");
  const file = el("a", { download: decodeURIComponent(told("Content-Disposition").split("''")[1]) });
  file.href = URL.createObjectURL(await answer.blob());
  file.click();
  setTimeout(() => URL.revokeObjectURL(file.href), 60_000); // until then, the browser may still be saving
  say([`Saved ${file.download}`, ...lacks].join(" · "), lacks.length > 0);
}
