"use strict";
const by = id => document.getElementById(id);
const data = JSON.parse(by("data").textContent), films = data.films;
by("data").remove();
const answers = [
  ...data.classes.map(name => ({ label: name, text: name })),
  { label: "NOT_A_CHEST_FILM", text: "not a chest film" },
  { label: "CANNOT_TELL", text: "cannot tell" },
];
const textOf = Object.fromEntries(answers.map(answer => [answer.label, answer.text]));
const copies = new Map(); // a label is of the content: files of the same bytes have it together
films.forEach((film, order) => {
  film.order = order;
  film.id = film.sha256 || film.path;
  copies.set(film.id, [...(copies.get(film.id) || []), film]);
});

// The work of a reader: every answer in the order in which it was given. The last one of a film counts.
const KEY = "cxr-labels:" + data.batch, READER = "cxr-reader";
const PIECE = 100; // answers that are stored together: storing all of them would take longer with each
let log = [], changed = 0, labels = new Map(); // what follows entry `changed` is not stored yet
const pieceOf = number => KEY + ":" + number;
function loadLog() { // another window may have written; what this one has not stored yet follows
  const pending = log.slice(changed);
  log = [];
  try {
    for (let piece; (piece = localStorage.getItem(pieceOf(log.length / PIECE))); ) {
      const entries = JSON.parse(piece);
      log.push(...entries);
      if (entries.length < PIECE) break;
    }
  } catch (error) { warnAboutStorage(); }
  changed = log.length;
  log.push(...pending);
  labels = new Map(log.map(entry => [entry.id, entry]));
}
function storeLog() {
  try {
    let start = changed - changed % PIECE;
    for (; start < log.length; start += PIECE)
      localStorage.setItem(pieceOf(start / PIECE), JSON.stringify(log.slice(start, start + PIECE)));
    for (; localStorage.getItem(pieceOf(start / PIECE)); start += PIECE) localStorage.removeItem(pieceOf(start / PIECE));
  } catch (error) { warnAboutStorage(); }
  changed = log.length;
}
// Storing and counting take time that grows with the films: they follow when the film of a key is on the screen.
let isLate = false;
function later() {
  if (isLate) return;
  isLate = true;
  (window.requestIdleCallback || setTimeout)(catchUp, { timeout: 300 });
}
function catchUp() {
  if (!isLate) return;
  isLate = false;
  storeLog();
  progress();
}
let isStored = true;
function warnAboutStorage() {
  isStored = false;
  by("warning").textContent = "This browser does not keep your work: save before you close the page.";
}
function answer(film, label) {
  const entry = { id: film.id, label, reader: by("reader").value.trim(), time: new Date().toISOString().slice(0, 19) + "Z" };
  log.push(entry);
  labels.set(film.id, entry);
  refresh(film);
}
function undo() {
  const entry = log.pop();
  if (!entry) return null;
  changed = Math.min(changed, log.length);
  const earlier = log.findLast(other => other.id === entry.id);
  earlier ? labels.set(entry.id, earlier) : labels.delete(entry.id);
  const film = copies.get(entry.id)?.[0];
  film ? refresh(film) : later();
  return film;
}
function cell(text) {
  return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}
function labelsTable() {
  const rows = films.filter(film => labels.has(film.id)).map(film => {
    const { label, reader, time } = labels.get(film.id);
    return [film.path, film.sha256, label, reader.replace(/^[=+\-@']/, "'$&"), time, film.model];
  });
  return [["path", "sha256", "label", "reader", "time", "model"], ...rows].map(row => row.map(cell).join(",") + "\n").join("");
}
function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([labelsTable()], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// The list: the films that are shown, in order. Cards are made as they come into sight.
const PAGE = 60, cards = new Map();
let list = [], at = 0, rendered = 0;
function update() {
  const show = by("show").value, text = by("text").value.toLowerCase(), key = by("sort").value;
  const isShown = {
    "": () => true, review: film => film.review, sampled: film => film.sampled,
    labelled: film => labels.has(film.id), unlabelled: film => film.prediction && !labels.has(film.id),
  }[show] || (film => film.prediction === show.slice(1));
  const value = key === "order" || key === "path" || key === "confidence"
    ? film => film[key] : film => -(film.probabilities[+key] || 0);
  list = films.filter(film => isShown(film) && film.path.toLowerCase().includes(text));
  list.sort((a, b) => value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : a.order - b.order);
  at = 0; rendered = 0;
  by("films").replaceChildren();
  renderMore();
  progress();
}
function renderMore(end = rendered + PAGE) {
  const next = list.slice(rendered, end).map(film => cards.get(film) || card(film));
  rendered += next.length;
  by("films").append(...next);
}
function card(film) {
  const article = document.createElement("article");
  article.classList.toggle("review", film.review);
  article.tabIndex = 0;
  const add = (tag, text, kind = "") => { if (text) { const part = document.createElement(tag); part.className = kind; part.textContent = text; article.append(part); } };
  for (const [source, what] of [[film.picture, "film"], [film.map, "evidence for the prediction"]])
    if (source) article.append(Object.assign(new Image(), { src: source, alt: what, loading: "lazy" }));
  add("b", film.prediction ? film.prediction + " " + percent(film.confidence) : "unreadable");
  add("em", film.reasons);
  add("span", (film.sampled ? "random sample · " : "") + film.path + (film.outside === null ? "" : " · " + percent(film.outside) + " of the evidence outside the lung field"), "soft");
  article.append(Object.assign(document.createElement("span"), { className: "answer" }));
  article.addEventListener("click", () => { at = list.indexOf(film); openViewer(); });
  article.addEventListener("focus", () => { at = list.indexOf(film); });
  cards.set(film, article);
  markAnswer(film);
  return article;
}
const percent = share => (100 * share).toFixed(0) + " %";
function markAnswer(film) {
  const article = cards.get(film), entry = labels.get(film.id);
  if (article) article.lastChild.textContent = entry ? "✓ " + (textOf[entry.label] || entry.label) : "";
}
function refresh(film) {
  copies.get(film.id).forEach(markAnswer);
  by("save").disabled = !labels.size;
  later();
}
const marked = { "random sample": films.filter(film => film.sampled), "to look at": films.filter(film => film.review) };
function progress() {
  const count = some => some.reduce((sum, film) => sum + labels.has(film.id), 0), done = count(list);
  const parts = [done + " of " + list.length + " shown films labelled"];
  for (const [name, some] of Object.entries(marked)) if (some.length) parts.push(name + " " + count(some) + " of " + some.length);
  by("done").textContent = parts.join(" · ");
  by("bar-done").max = list.length || 1;
  by("bar-done").value = done;
  by("count").textContent = list.length + " shown";
  by("save").disabled = !labels.size;
}
function select(index) {
  at = Math.max(0, Math.min(list.length - 1, index));
  if (viewer.open) showFilm();
  else {
    if (at >= rendered) renderMore(at + PAGE);
    cards.get(list[at])?.focus();
  }
}
function nextUnlabelled() {
  for (let step = 1; step < list.length; step++) {
    const index = (at + step) % list.length;
    if (list[index].prediction && !labels.has(list[index].id)) return index;
  }
  return at;
}
function give(label) {
  if (!list[at]) return;
  answer(list[at], label);
  select(nextUnlabelled());
}
function takeBack() {
  const film = undo();
  if (!film) return;
  const index = list.findIndex(other => other.id === film.id);
  index >= 0 ? select(index) : viewer.open && showFilm();
}

// The viewer. Pictures of the neighbours are decoded ahead, so that a key shows the next film at once.
const viewer = by("viewer"), stage = by("stage"), ready = new Map();
const NEUTRAL = { window: 1, level: 0.5, isInverted: false, zoom: 1, x: 0, y: 0 };
let view = { ...NEUTRAL }, isRevealed = false, files = new Map();
function pictureOf(film) {
  if (!ready.has(film)) {
    const source = film.whole || film.picture;
    const picture = source ? Object.assign(new Image(), { src: source, alt: "film" }) : null;
    picture?.decode().catch(() => {});
    ready.set(film, picture);
    if (ready.size > 16) ready.delete(ready.keys().next().value);
  }
  return ready.get(film);
}
function openViewer() {
  if (!list.length) return;
  if (!viewer.open) viewer.showModal();
  stage.focus();
  showFilm();
}
function showFilm() {
  const film = list[at], picture = pictureOf(film);
  stage.replaceChildren(picture || "no picture of this film");
  showFullSize(film);
  view = { ...NEUTRAL, isInverted: view.isInverted };
  applyView();
  by("place").textContent = at + 1 + " / " + list.length;
  by("name").textContent = by("name").title = film.path;
  const given = labels.get(film.id)?.label;
  for (const button of by("answers").children) button.setAttribute("aria-pressed", button.dataset.label === given);
  showModel(film);
  for (const index of [nextUnlabelled(), at + 1, at - 1, at + 2]) if (list[index]) pictureOf(list[index]);
}
function showModel(film) {
  const parts = [film.sampled ? "Random sample. " : ""];
  if (isRevealed) {
    if (film.map) parts.push(Object.assign(new Image(), { src: film.map, alt: "evidence for the prediction" }));
    parts.push((film.prediction ? film.prediction + " " + percent(film.confidence) : "unreadable") + (film.reasons ? " · " + film.reasons : ""));
  } else parts.push("The model's answer is hidden, so that your label is your own.");
  by("model").replaceChildren(...parts);
}
function showFullSize(film) {
  const file = files.get(film.path);
  if (!file) return;
  const picture = Object.assign(new Image(), { src: URL.createObjectURL(file), alt: "film at full size" });
  picture.decode().then(() => { if (list[at] === film) { stage.replaceChildren(picture); applyView(); } }).catch(() => {})
    .finally(() => URL.revokeObjectURL(picture.src));
}
function applyView() {
  const picture = stage.querySelector("img");
  if (!picture) return;
  const isPlain = view.window === 1 && view.level === 0.5 && !view.isInverted;
  const slope = 1 / view.window, intercept = 0.5 - view.level * slope;
  for (const channel of document.querySelectorAll("#tone feComponentTransfer > *")) {
    channel.setAttribute("slope", view.isInverted ? -slope : slope);
    channel.setAttribute("intercept", view.isInverted ? 1 - intercept : intercept);
  }
  picture.style.filter = isPlain ? "" : "url(#tone)";
  picture.style.transform = view.zoom === 1 ? "" : `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  by("invert").setAttribute("aria-pressed", view.isInverted);
}
function zoom(factor, x = 0, y = 0) { // about a point, in pixels from the middle of the stage
  const now = Math.max(1, Math.min(12, view.zoom * factor)), share = now / view.zoom;
  view.x = now === 1 ? 0 : x - (x - view.x) * share;
  view.y = now === 1 ? 0 : y - (y - view.y) * share;
  view.zoom = now;
  applyView();
}
function middle(...points) {
  const box = stage.getBoundingClientRect(), mean = axis => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  return [mean("clientX") - box.x - box.width / 2, mean("clientY") - box.y - box.height / 2];
}
const pointers = new Map();
stage.addEventListener("pointerdown", event => { stage.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event); event.preventDefault(); });
for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, event => pointers.delete(event.pointerId));
stage.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const other = [...pointers.values()].find(pointer => pointer.pointerId !== event.pointerId);
  const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
  pointers.set(event.pointerId, event);
  if (other) {
    const apart = point => Math.hypot(point.clientX - other.clientX, point.clientY - other.clientY) || 1;
    view.x += dx / 2; view.y += dy / 2;
    zoom(apart(event) / apart(before), ...middle(event, other));
  } else if (event.shiftKey || event.buttons & 6) {
    view.x += dx; view.y += dy;
  } else {
    view.window = Math.max(0.02, Math.min(2, view.window * Math.exp(dx / 300)));
    view.level = Math.max(0, Math.min(1, view.level + dy / 600));
  }
  applyView();
});
stage.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), ...middle(event)); }, { passive: false });
stage.addEventListener("contextmenu", event => event.preventDefault());
stage.addEventListener("dblclick", () => tools.r());

const tools = {
  u: takeBack,
  i: () => { view.isInverted = !view.isInverted; applyView(); },
  r: () => { view = { ...NEUTRAL }; applyView(); },
  m: () => { isRevealed = !isRevealed; if (viewer.open) showModel(list[at]); },
  "+": () => zoom(1.25),
  "=": () => zoom(1.25),
  "-": () => zoom(0.8),
};
function columns() {
  return viewer.open ? 1 : getComputedStyle(by("films")).gridTemplateColumns.split(" ").length;
}
const moves = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -columns(), ArrowDown: () => columns() };
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const isChosen = viewer.open || event.target.closest("article");
  if (moves[key]) select(isChosen ? at + moves[key]() : at);
  else if (key === "Enter" && event.target.closest("article")) openViewer();
  else if (/^\d$/.test(key) && isChosen && answers[(+key + 9) % 10]) give(answers[(+key + 9) % 10].label);
  else if (tools[key] && (viewer.open || key === "u")) tools[key]();
  else return;
  event.preventDefault();
});

answers.forEach(({ label, text }, index) => {
  const button = Object.assign(document.createElement("button"), { type: "button" });
  button.dataset.label = label;
  if (index < 10) button.append(Object.assign(document.createElement("kbd"), { textContent: (index + 1) % 10 }), " ");
  button.append(text);
  button.addEventListener("click", () => give(label));
  by("answers").append(button);
});
const clicks = {
  start: () => { if (labels.has(list[at]?.id) || !list[at]?.prediction) at = nextUnlabelled(); openViewer(); },
  save, close: () => viewer.close(), before: () => select(at - 1), after: () => select(at + 1), undo: takeBack,
  invert: tools.i, closer: tools["+"], farther: tools["-"], reset: tools.r, reveal: tools.m,
};
for (const [id, click] of Object.entries(clicks)) by(id).addEventListener("click", click);
by("folder").addEventListener("change", event => { // names below the chosen folder, or below a folder around it
  const chosen = new Map([...event.target.files].map(file => [file.webkitRelativePath.split("/").slice(1).join("/"), file]));
  files = new Map(films.map(film => [film.path, chosen.get(film.path)]).filter(([, file]) => file));
  if (viewer.open) showFilm();
});
viewer.addEventListener("close", () => select(at));
for (const id of ["show", "sort", "text"]) by(id).addEventListener("input", update);
by("bar").addEventListener("submit", event => event.preventDefault());
by("reader").addEventListener("input", () => { try { localStorage.setItem(READER, by("reader").value); } catch (error) { warnAboutStorage(); } });
window.addEventListener("storage", event => { if (event.key?.startsWith(KEY)) { loadLog(); films.forEach(markAnswer); progress(); } });
for (const name of ["pagehide", "visibilitychange"]) window.addEventListener(name, catchUp);
window.addEventListener("beforeunload", event => { if (!isStored && labels.size) event.preventDefault(); });
window.addEventListener("beforeprint", () => renderMore(list.length));
new IntersectionObserver(entries => { if (entries.some(entry => entry.isIntersecting) && rendered < list.length) renderMore(); }, { rootMargin: "1500px" }).observe(by("end"));
try { by("reader").value = localStorage.getItem(READER) || ""; } catch (error) { warnAboutStorage(); }
loadLog();
by("show").querySelector("[value=sampled]").hidden = !marked["random sample"].length;
update();
