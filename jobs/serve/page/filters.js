// Filters over metadata columns, each a piece of SQL, and the row that adds one.

import { get } from "./api.js";
import { $, chip, el, later, say } from "./dom.js";

const ANY = ["text", "number", "time", "flag"];

/** Comparison, the kinds of columns it is for, and its SQL of a name and a value. */
const COMPARISONS = [
  ["is", ["text"], (name, value) => `${name} = ${value}`],
  ["is not", ["text"], (name, value) => `${name} != ${value}`],
  ["contains", ["text"], (name, value) => `contains(lower(${name}), lower(${value}))`],
  ["begins with", ["text"], (name, value) => `starts_with(lower(${name}), lower(${value}))`],
  ["≥", ["number", "time"], (name, value) => `${name} >= ${value}`],
  ["≤", ["number", "time"], (name, value) => `${name} <= ${value}`],
  ["=", ["number", "time"], (name, value) => `${name} = ${value}`],
  ["is true", ["flag"], (name) => name],
  ["is false", ["flag"], (name) => `NOT ${name}`],
  ["is empty", ANY, (name) => `${name} IS NULL`],
  ["is not empty", ANY, (name) => `${name} IS NOT NULL`],
  ["SQL", ["sql"], (_, value) => value],
];

const quote = (text) => `'${text.replaceAll("'", "''")}'`;
const quoteName = (name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `\`${name.replaceAll("`", "``")}\``);
const findSql = (comparison) => COMPARISONS.find(([name]) => name === comparison)[2];

function kindOf(type) {
  if (!type) return "sql";
  if (/^(u?int|float|double|half|decimal)/.test(type)) return "number";
  if (/^(timestamp|date)/.test(type)) return "time";
  return type.startsWith("bool") ? "flag" : "text";
}

/** The SQL of a comparison with a value, for a column {name, type}. Throws an Error that says what is wrong. */
export function toSql({ name, type }, comparison, value) {
  const [kind, sql] = [kindOf(type), findSql(comparison)];
  if (sql.length < 2) return sql(quoteName(name));
  if (!value) throw new Error("The filter has no value");
  if (kind === "number" && !Number.isFinite(Number(value))) throw new Error(`${value} is no number`);
  const literals = { text: quote(value), time: `${type?.startsWith("date") ? "date" : "timestamp"} ${quote(value)}` };
  return sql(quoteName(name), literals[kind] ?? value);
}

/** The `where` of all filters; null without any. */
export const makeWhere = (filters) => filters.map((sql) => `(${sql})`).join(" AND ") || null;

/** Show filters as chips. `change(filters)` is called with the new list, also by the row that adds one. */
export function showFilters(filters, columns, change) {
  const drop = (sql) => change(filters.filter((one) => one !== sql));
  $("filter-chips").replaceChildren(...filters.map((sql) => chip(sql, () => drop(sql))));
  $("filter-add").onclick = () => {
    const column = columns.find(({ name }) => name === $("filter-column").value) ?? { name: "" };
    try {
      change([...filters, toSql(column, $("filter-comparison").value, $("filter-value").value.trim())]);
      $("filter-value").value = "";
    } catch (error) {
      say(error.message, true);
    }
  };
}

/** Fill the row that adds a filter, and keep its choices to what fits the column. */
export function watchFilters(columns) {
  const [column, comparison, value] = ["filter-column", "filter-comparison", "filter-value"].map($);
  const options = columns.map(({ name }) => el("option", { value: name }, name));
  const suggest = later(async () => {
    const asked = { column: column.value, prefix: value.value, limit: 50 };
    const { values } = column.value ? await get("values", asked).catch(() => ({ values: [] })) : { values: [] };
    const shown = values.map((one) => el("option", { value: one.value }, `${one.value} (${one.n_files})`));
    $("filter-values").replaceChildren(...shown);
  }, 150);
  const showValue = () => (value.hidden = findSql(comparison.value).length < 2);
  column.replaceChildren(...options, el("option", { value: "" }, "SQL"));
  column.onchange = () => {
    const type = columns.find(({ name }) => name === column.value)?.type;
    const fitting = COMPARISONS.filter(([, kinds]) => kinds.includes(kindOf(type)));
    comparison.replaceChildren(...fitting.map(([name]) => el("option", {}, name)));
    value.placeholder = type ?? "duration_s > 5 OR codec = 'flac'";
    showValue();
  };
  comparison.onchange = showValue;
  value.onfocus = value.oninput = suggest;
  value.onkeydown = (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // the form around it would ask by itself
    $("filter-add").click();
  };
  column.onchange();
}
