// The page: its state, the question that it asks, and what is shown of the answer.
import { FIELDS, QUESTION, Store, writeAddress } from "./address.js";
import { get, post, server } from "./api.js";
import { Data } from "./data.js";
import { $, count, kept, later, say, showTime, splitUri } from "./dom.js";
import { FileView } from "./fileview.js";
import { makeWhere, showFilters, watchFilters } from "./filters.js";
import { watchKeys } from "./keys.js";
import { Marks, showMarks } from "./marks.js";
import { Player } from "./player.js";
import { Results, watchExports } from "./results.js";
import { sounds, watchSounds } from "./sound.js";

const [POLL_MS, RETRY_MS] = [15_000, 3_000];
const NO_SOUND = { like: "", like_from: null, like_to: null, upload: "" };
const LOOK = ["t", "gain", "low", "high"];
const HOW = "Type what you want to hear, drop an audio file, or record one. Press ? for all keys.";
const MODES = FIELDS.mode;
const NEXT_SPEED = { 1: "0.5", 0.5: "0.25", 0.25: "x10", x10: "1" };

const [store, player, marks] = [new Store(), new Player(), new Marks()];
const search = (changes) => store.set({ view: "search", hit: 1, ...changes }, true);
const like = ({ uri, start_s, end_s }) => search({ ...NO_SOUND, q: "", like: uri, like_from: start_s, like_to: end_s });
const page = { store, player, marks, data: new Data(), info: null, text: "", ask, like, openFile };
const [results, file] = [new Results(page), new FileView(page)];
const controls = [...document.querySelectorAll("[data-state]")];
let asking = new AbortController();

const shown = () => ({ search: results, file: file.file && file })[store.state.view];
const current = () => (shown() === file ? file : shown()?.current);
const target = () => current()?.target;

function openFile({ uri, start_s, end_s, text }) {
  const margin_s = Math.max(2 * (end_s - start_s), 5);
  const span = { from: Math.max(start_s - margin_s, 0), to: end_s + margin_s };
  store.set({ view: "file", uri, ...span, lane: text ? [text] : store.state.lane }, true);
}

/** Ask what the state says, and show the answer. `isRepeated`: nobody has asked for that, so no sound is sent. */
async function ask(isRepeated = false) {
  const { q, like: uri, upload } = store.state;
  asking.abort();
  const { signal } = (asking = new AbortController());
  player.stop();
  const fill = `Fill it: earshot index FOLDER --into ${page.info.index}`;
  if (!page.info.indexed) return results.tell("Nothing is indexed yet", fill);
  if (!q && !uri && !upload) return results.tell("Ask for a sound", HOW);
  if (upload && isRepeated) return results.tell("No answer yet", "The sound has to be sent once more.", true);
  $("summary").textContent = "Searching …";
  $("view-search").ariaBusy = true; // until the results are shown, or words instead
  const tell = ({ message }) => signal.aborted || results.tell("No answer", message, Boolean(upload));
  await askServer(store.state, signal).then((answer) => signal.aborted || results.show(answer)).catch(tell);
}

async function askServer({ q, mode, k, t, where, like: uri, like_from, like_to, upload }, signal) {
  const asked = { k, where: makeWhere(where) };
  const similar = async (body, text) => ({ ...(await post("similar", body, signal)), ...asked, text });
  if (upload) {
    const form = new FormData();
    if (!sounds.has(upload)) throw new Error(`“${upload}” is kept nowhere: drop or record it again`);
    form.append("file", sounds.get(upload));
    for (const [name, value] of Object.entries(asked)) if (value) form.append(name, value);
    return similar(form, upload);
  }
  if (uri) return similar({ uri, start_s: like_from ?? 0, end_s: like_to, ...asked }, splitUri(uri)[1]);
  if (mode === "clips") return { ...(await get("query", { text: q, ...asked }, signal)), ...asked };
  const answer = await get("locate", { text: q, threshold: t, ...asked }, signal);
  return { kind: "locate", took_ms: answer.took_ms, ...answer.results[0], ...asked, threshold: t };
}

/** Show what has changed of the state: all of it at first. */
function follow(state, changed) {
  const has = (...names) => names.some((name) => changed.has(name));
  if (has("view")) {
    player.stop();
    document.body.dataset.view = state.view;
    for (const view of ["search", "marks"]) $(`to-${view}`).setAttribute("aria-current", view === state.view);
  }
  if (has("q")) $("q").value = state.q;
  for (const control of controls) {
    const value = state[control.dataset.state];
    if (["radio", "checkbox"].includes(control.type)) control.checked = value === true || value === control.value;
    else if (has(control.dataset.state)) control.value = value;
    if (control.selectedIndex < 0) control.add(new Option(value, value, false, true)); // of an address by hand
  }
  $("t-shown").textContent = state.t.toFixed(2);
  if (has("where", "columns")) showFilters(state.where, page.info.columns, (where) => search({ where }));
  if (has("like", "like_from", "like_to", "upload")) showLike(state);
  if (has("speed", "loop", "gain")) player.set(state);
  const isAsked = has(...QUESTION);
  if (state.view === "search" && (isAsked || (!results.answer && !$("view-search").ariaBusy))) ask(!isAsked);
  else if (state.view === "search" && has("view", ...LOOK, "context")) results.look();
  if (state.view === "file" && has("view", "uri")) file.open();
  else if (state.view === "file" && has(...LOOK, "from", "to", "lane")) file.look();
  if (state.view === "marks" && has("view")) showMarks(marks, openFile);
}

function showLike({ like: uri, like_from, like_to, upload }) {
  const times = uri && like_to ? ` ${showTime(like_from)} – ${showTime(like_to)}` : "";
  [$("like").hidden, $("like-play").hidden] = [!uri && !upload, !uri && !sounds.has(upload)];
  $("like-name").textContent = `${upload || splitUri(uri)[1]}${times}`;
  const playFile = () => player.play(uri, like_from ?? 0, like_to ?? 1e9);
  $("like-play").onclick = uri ? playFile : () => player.playBlob(sounds.get(upload));
}

function showInfo(info) {
  [page.info, server.at] = [info, info.seq];
  const name = info.index.split("/").slice(-2).join("/");
  const length = info.hours < 1 ? `${(60 * info.hours).toFixed(1)} min` : `${info.hours.toFixed(1)} h`;
  const failed = info.failed ? ` · ${count(info.failed, "failure")}` : "";
  Object.assign($("index-name"), { textContent: name, title: info.index });
  $("index-counts").textContent = `${count(info.indexed, "file")} · ${length}${failed}`;
  document.title = `${name} – Earshot`;
  $("moments").disabled = !info.has_frames;
  FIELDS.mode = info.has_frames ? MODES : ["clips", () => "clips"]; // whatever an address says
  if (!info.has_frames) store.state.mode = "clips";
  watchFilters(info.columns);
  showNews(info);
}

function showNews(info) {
  $("n-marks").textContent = info.n_marks || "";
  $("who").placeholder = info.who;
  [$("writing").hidden, $("newer").hidden] = [!info.is_writing, !(info.newest_seq > page.info?.seq)];
}

/** At a click, or because the state that was shown is gone: all that is shown is asked for anew. */
async function takeNewest() {
  showInfo(await post("refresh", {}));
  [page.data, results.answer, $("view-search").ariaBusy] = [new Data(), null, null];
  follow(store.state, new Set(["view", "columns"]));
}

const askNews = () => get("info").then(showNews, () => {});
const retry = later(askNews, RETRY_MS);
server.offline = () => (($("offline").hidden = false), retry());
server.online = () => {
  if ($("offline").hidden) return;
  $("offline").hidden = true;
  if (store.state.view === "search" && results.answer) results.refill();
  else if (store.state.view === "file" && file.file) (file.look(), file.showMarks());
  else if (page.info) follow(store.state, new Set(["view"]));
};
server.renew = () => takeNewest().then(() => say("The state that was shown is gone: this is the newest"));
marks.changed = () => {
  results.showMarks();
  file.showMarks();
  if (store.state.view === "marks") showMarks(marks, openFile);
  askNews();
};

const mark = (verdict) => target() && marks.put(target(), verdict);
const play = () => (player.now?.track === current()?.playhead ? player.stop() : current()?.play());
const switchTheme = () => {
  const [{ dataset }, { matches }] = [document.documentElement, matchMedia("(prefers-color-scheme: dark)")];
  kept.theme = dataset.theme = (dataset.theme || (matches ? "dark" : "light")) === "dark" ? "light" : "dark";
};
watchKeys([
  [[" "], "play the current hit or region once, or stop", play],
  [{ ArrowUp: -1, k: -1, ArrowDown: 1, j: 1 }, "the hit or event before, or the next", (step) => shown()?.move(step)],
  [{ r: "right", w: "wrong", u: "unsure" }, "mark it right, wrong or unsure", mark],
  [["z"], "undo the last mark", () => marks.undo()],
  [["m"], "more like this hit or region", () => target() && like(target())],
  [["o"], "open its file", () => shown() === results && target() && openFile(target())],
  [["b"], "back to the results", () => store.set({ view: "search" }, true)],
  [["n"], "the list of marks", () => store.set({ view: "marks" }, true)],
  [{ "+": 1, "=": 1, "-": -1 }, "zoom in, or out", (step) => shown()?.zoom(step)],
  [{ ArrowLeft: -0.25, ArrowRight: 0.25 }, "earlier or later in the file", (share) => shown()?.pan?.(share)],
  [{ ",": -1, ".": 1 }, "let a region begin earlier, or later", (by) => current()?.track.moveEdge("start_s", by)],
  [{ "<": -1, ";": -1, ">": 1, ":": 1 }, "let it end earlier, or later", (by) => current()?.track.moveEdge("end_s", by)],
  [["l"], "loop", () => store.set({ loop: !store.state.loop })],
  [["s"], "speed: 1, ½, ¼, time-expanded", () => store.set({ speed: NEXT_SPEED[store.state.speed] })],
  [["/"], "to the search field", () => ($("q").focus(), $("q").select())],
  [["Escape"], "leave a field, drop the region, stop", () => (current()?.track.setRegion(null, true), player.stop())],
  [["d"], "dark or light", switchTheme],
  [["?"], "these keys", () => $("help").showModal()],
]);

function watchControls() {
  for (const control of controls) {
    const name = control.dataset.state;
    const set = QUESTION.includes(name) ? search : (changes) => store.set(changes);
    const read = () => (control.type === "checkbox" && !control.checked ? "" : control.value);
    control.oninput = () => set({ [name]: FIELDS[name][1](read()) });
  }
  $("search").onsubmit = () => {
    const before = writeAddress({ ...store.state, view: "search", hit: 1 });
    $("q").blur();
    search({ q: $("q").value.trim().replace(/\s+/g, " "), ...NO_SOUND });
    if (before === writeAddress(store.state)) ask(); // the same question once more
  };
  $("take-newest").onclick = () => takeNewest().catch(({ message }) => say(message, true));
  $("like-drop").addEventListener("click", () => search(NO_SOUND));
  $("who").value = kept.who ?? "";
  $("who").oninput = () => (kept.who = $("who").value.trim());
  watchExports();
  watchSounds((upload) => search({ ...NO_SOUND, upload, q: "" }), () => page.info.max_upload_bytes);
}

async function begin() {
  const info = await get("info").catch(({ message }) => results.tell("No answer", message));
  if (!info) return setTimeout(begin, RETRY_MS);
  showInfo(info);
  watchControls();
  store.listener = follow;
  follow(store.state, new Set(Object.keys(store.state)));
  setInterval(() => document.hidden || askNews(), POLL_MS);
  document.addEventListener("visibilitychange", () => document.hidden || marks.refresh());
}

begin();
