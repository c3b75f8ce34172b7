// The embedded data, joined; the state of the page; what the filters let through.
const data = JSON.parse(byId("data").textContent);
data.boards.forEach((b, i) => Object.assign(b, { i, rows: [], unitName: `${b.task}/${b.dataset}`, title: data.tasks[b.task] ?? b.task }));
data.models.forEach((m, i) => Object.assign(m, { i, rows: [] }));
data.rows.forEach((r, i) => {
  Object.assign(r, { i, board: data.boards[r.b], model: data.models[r.m] });
  r.board.rows.push(r);
  r.model.rows.push(r);
});
data.models.forEach((m) => { m.shipped = m.rows.length > 0 && m.rows.every((r) => r.shipped); });
const protocolOf = (board) => data.protocols[board.protocol];
const TASK_ORDER = Object.keys(data.tasks);
const taskPlace = (name) => (TASK_ORDER.indexOf(name) + 1 || 99);
const byTask = (a, b) => taskPlace(a.task) - taskPlace(b.task) || a.dataset.localeCompare(b.dataset) || a.i - b.i;
const SIZES = {
  "": ["any", 0, Infinity], s: ["below 50 M", 0, 5e7], m: ["50 to 150 M", 5e7, 1.5e8], l: ["150 to 500 M", 1.5e8, 5e8],
  xl: ["above 500 M", 5e8, Infinity],
};
// Rows that one table may hold: a suite under one preset; each column is one hash. Parts of the data stand apart, else
// one row made with --limit would be a column that no other model has, and no model would have all of them.
const groups = new Map();
for (const board of [...data.boards].sort(byTask)) {
  const name = `${board.suite === "scenes" ? "scenes" : "datasets"} · ${protocolOf(board).name}${board.part ? " · a part of the data" : ""}`;
  if (!groups.has(name)) groups.set(name, []);
  groups.get(name).push(board);
}
const groupNames = [...groups.keys()].sort((a, b) => a.startsWith("scenes") - b.startsWith("scenes") || a.localeCompare(b));

const fresh = () => ({
  view: "overview", group: groupNames[0] ?? "", board: null, a: null, b: null, cost: "speed", pinned: null, metric: null,
  filter: { q: "", task: "", dataset: "", family: "", size: "", licence: "" }, sorts: {}, pages: {},
});
const state = fresh();
// Several names, with commas between them, are several models.
function named(text, f) {
  const wanted = f.q.toLowerCase().split(",").map((w) => w.trim()).filter(Boolean);
  return !wanted.length || wanted.some((w) => text.toLowerCase().includes(w));
}
function modelPasses(m, f = state.filter) {
  const [, low, high] = SIZES[f.size];
  return named(m.name, f) && (!f.family || m.family === f.family) &&
    (!f.licence || m.licence === f.licence) && (f.size === "" || (m.params >= low && m.params < high));
}
function boardPasses(b, f = state.filter) {
  return (!f.task || b.task === f.task) && (!f.dataset || b.dataset === f.dataset);
}
// What a filter would be chosen by, and the values it has where the other filters are as they are: none leads nowhere.
const OF_MODEL = { family: (m) => m.family, licence: (m) => m.licence, size: (m) => Object.keys(SIZES).find((k) => k && m.params >= SIZES[k][1] && m.params < SIZES[k][2]) };
const OF_BOARD = { task: (b) => b.task, dataset: (b) => b.dataset };
const OF_VIEW = { classes: (r) => r.classes, samples: (r) => r.samples, sensitivity: (r) => data.effects.some((e) => e.row === r) };
function filterValues(f = null, view = state.view) {
  const papers = view === "papers";
  const suits = OF_VIEW[view] ?? (() => true);
  const found = {};
  for (const [key, of] of Object.entries({ ...OF_BOARD, ...OF_MODEL })) {
    const others = f && { ...f, [key]: "" };
    const rows = papers ? data.published.filter((p) => !others || publishedPasses(p, others)) : data.rows.filter((r) => suits(r) && (!others || (modelPasses(r.model, others) && boardPasses(r.board, others))));
    const values = rows.map((r) => (papers ? (key in OF_BOARD ? of(r) : "") : of(key in OF_BOARD ? r.board : r.model)));
    found[key] = unique([...values, f?.[key]]);
  }
  return found;
}
const shownBoards = () => [...data.boards].sort(byTask).filter((b) => boardPasses(b));
const shownRows = (board) => board.rows.filter((r) => modelPasses(r.model));
function boardLabel(board) {
  return `${board.title} · ${board.dataset} · ${protocolOf(board).name}-${protocolOf(board).hash.slice(0, 8)}${board.part ? ` · a part, n = ${board.n}` : ""}`;
}
function unique(values) {
  return [...new Set(values.filter((v) => v !== null && v !== undefined && v !== ""))].sort();
}
// The board of the views that show one: the chosen one if the filters keep it, else the first that suits.
function currentBoard(suits = () => true) {
  const boards = shownBoards().filter((b) => suits(b) && shownRows(b).length);
  const board = boards.find((b) => b.i === state.board) ?? boards.find((b) => (groups.get(state.group) ?? []).includes(b)) ?? boards[0] ?? null;
  drawn.board = board?.id;
  return board;
}
function boardSelect(board, suits = () => true) {
  const boards = shownBoards().filter((b) => suits(b) && shownRows(b).length);
  return select("Task, dataset, protocol", boards.map((b) => [b.i, boardLabel(b)]), board.i, (v) => { state.board = +v; render(); });
}
