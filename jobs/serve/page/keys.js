// Keys of the page, off while someone types.
import { $, el } from "./dom.js";

const FIELDS = "input:not([type=range], [type=checkbox], [type=radio]), textarea, select";
const isTyping = ({ target }) => target.closest(FIELDS) !== null;
const isControl = ({ target }) => target.closest("button, a, summary, input") !== null;
const toPairs = (keys) => (Array.isArray(keys) ? keys.map((key) => [key]) : Object.entries(keys));

/** `actions`: [keys, which may give values, what they do, action(value)]. Buttons do that of their `data-key`. */
export function watchKeys(actions) {
  const act = ([keys, , action]) => toPairs(keys).map(([key, value]) => [key, () => action(value)]);
  const byKey = new Map(actions.flatMap(act));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isTyping(event)) return event.target.blur();
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event) || $("help").open) return;
    if ((event.key === " " || event.key === "Enter") && isControl(event)) return;
    if (event.key.startsWith("Arrow") && event.target.matches("input")) return; // of a slider or a choice
    const action = byKey.get(event.key);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || event.key.startsWith("Arrow") || "+-=,.<>;:".includes(event.key)) action();
  });
  addEventListener("click", (event) => {
    const isByMouse = event.detail > 0 && isControl(event) && !isTyping(event);
    if (isByMouse) document.activeElement.blur(); // so that keys go to the current hit again
    const pressed = event.target.closest("[data-key]");
    pressed?.closest(".card")?.card.choose(); // a click of a program or a screen reader may come without a pointer
    byKey.get(pressed?.dataset.key)?.();
    if (document.activeElement === document.body && !event.detail) $("main").focus(); // the button is gone
  });
  const names = { " ": "space", ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Escape: "esc" };
  for (const [keys, label] of actions) {
    const shown = toPairs(keys).flatMap(([key]) => [el("kbd", {}, names[key] ?? key), " "]);
    $("keys").append(el("tr", {}, el("th", { scope: "row" }, shown), el("td", {}, label)));
  }
}
