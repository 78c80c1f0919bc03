// Filters over metadata columns, each a piece of SQL, and the row that adds one.
import { get } from "./api.js";
import { $, chip, later, say } from "./dom.js";

/** Comparisons as the page has them: each with the kinds of columns it is for, and its SQL of a name and a value. */
const COMPARISONS = [...$("filter-comparison").options];
const SQL = { name: "", kind: "sql" };
const quote = (text) => `'${text.replaceAll("'", "''")}'`;
const quoteName = (name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `\`${name.replaceAll("`", "``")}\``);

/** The SQL of a comparison with a value, for a column {name, type, kind}. Throws an Error that says what is wrong. */
export function toSql({ name, type, kind }, comparison, value) {
  const { sql } = COMPARISONS.find((one) => one.value === comparison).dataset;
  const needsValue = sql.includes("{value}");
  if (needsValue && !value) throw new Error("The filter has no value");
  if (needsValue && kind === "number" && !Number.isFinite(Number(value))) throw new Error(`${value} is no number`);
  const literals = { text: quote(value), time: `${type?.startsWith("date") ? "date" : "timestamp"} ${quote(value)}` };
  const parts = { name: quoteName(name), value: literals[kind] ?? value };
  return sql.replace(/\{(name|value)\}/g, (_, part) => parts[part]);
}

export const makeWhere = (filters) => filters.map((sql) => `(${sql})`).join(" AND ") || null;

/** Show filters as chips. `change(filters)` is called with the new list, also by the row that adds one. */
export function showFilters(filters, columns, change) {
  const toChip = (sql) => chip(sql, () => change(filters.filter((one) => one !== sql)));
  $("filter-chips").replaceChildren(...filters.map(toChip));
  $("filter-form").onsubmit = () => {
    const column = columns.find(({ name }) => name === $("filter-column").value) ?? SQL;
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
  const suggest = later(async () => {
    const asked = { column: column.value, prefix: value.value, limit: 50 };
    const { values } = column.value ? await get("values", asked).catch(() => ({ values: [] })) : { values: [] };
    if (asked.column !== column.value || asked.prefix !== value.value) return; // a later one is asked for
    const toOption = ({ value, n_files }) => new Option(`${value} (${n_files})`, value);
    $("filter-values").replaceChildren(...values.map(toOption));
  }, 150);
  column.replaceChildren(...columns.map(({ name }) => new Option(name, name)), new Option("SQL", ""));
  column.onchange = () => {
    const { type, kind } = columns.find(({ name }) => name === column.value) ?? SQL;
    comparison.replaceChildren(...COMPARISONS.filter(({ dataset }) => dataset.kinds.includes(kind)));
    comparison.selectedIndex = 0;
    value.placeholder = type ?? "duration_s > 5 OR codec = 'flac'";
  };
  value.onfocus = value.oninput = suggest;
  column.onchange();
}
