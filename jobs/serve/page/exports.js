// Exports: files that are saved by way of the page, which can say why there is none, and what one lacks.

import { request } from "./api.js";
import { count, el, say } from "./dom.js";

/** Have links with `download` save what they lead to. */
export function watchExports() {
  addEventListener("click", (event) => {
    const link = event.target.closest("a[download]");
    if (!link) return;
    event.preventDefault();
    save(link).catch(({ message }) => say(`Not exported: ${message}`, true));
  });
}

async function save({ href, textContent }) {
  say(`Exporting ${textContent} …`, false, Infinity);
  const answer = await request(href);
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
