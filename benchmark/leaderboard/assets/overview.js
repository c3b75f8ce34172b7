// All models against all boards of one suite and preset.
const SHIPPED = "came with densebench: measured before, on another machine";
const FEWEST_SAMPLES = 10; // as standing.py
const STALE = "stale: not what this densebench would measure; the origin says why";
// What the signs beside values mean, for the tables that show them.
function legend(boards, more = "") {
  return "● best, ≈ not significantly worse than the best (paired on the same samples, 5 % over all pairs of a column). ± is half the 95 % interval. " +
    more + "Any number opens its origin." + (boards.some((b) => b.n < FEWEST_SAMPLES) ? ` Of fewer than ${FEWEST_SAMPLES} samples nothing is told apart: all are ≈.` : "") +
    (boards.some((b) => b.rows.some((r) => r.shipped)) ? ` † ${SHIPPED}.` : "") +
    (boards.some((b) => b.rows.some((r) => r.stale)) ? ` ‡ ${STALE}.` : "");
}
function overview() {
  if (!data.boards.length) return [empty("No measured row yet. Published numbers are under Papers.")];
  const passes = (b) => boardPasses(b) && shownRows(b).length;
  const there = groupNames.filter((n) => groups.get(n).some(passes));
  const group = there.includes(state.group) ? state.group : there[0] ?? state.group;
  const boards = (groups.get(group) ?? []).filter(passes);
  drawn.suite = group;
  const found = new Map();
  for (const board of boards) for (const row of shownRows(board)) {
    if (!found.has(row.m)) found.set(row.m, { model: row.model, at: new Map() });
    found.get(row.m).at.set(board.i, row);
  }
  const rows = [...found.values()];
  rows.forEach((r) => Object.assign(r, meanRank(r, boards)));
  const pick = select("Suite and protocol", (there.length ? there : [group]).map((n) => [n, n]), group, (v) => { state.group = v; state.sorts.overview = null; render(); });
  const title = group.startsWith("scenes") ? "Embedded scenes: a check of the machinery, never a measure of a real encoder" : "Datasets";
  return [
    h("div", { class: "controls" }, pick),
    heading(title, legend(boards, "Mean rank: over the columns shown, for models that have all of them. ")),
    rows.length ? dataTable({ id: "overview", columns: overviewColumns(boards), rows, caption: `Models on ${group}`,
      sort: { key: "mean", down: false }, header: taskHeader(boards), extra: [publishedBody(boards), floorRows(overviewColumns(boards), (c) => boards.find((b) => b.id === c.key))] })
      : empty("No row passes the filters."),
  ];
}
function meanRank(r, boards) {
  if (!boards.length || r.at.size < boards.length) return { mean: null, spread: null };
  const rows = boards.map((b) => r.at.get(b.i));
  const mean = rows.reduce((s, x) => s + x.rank, 0) / rows.length;
  return { mean, spread: (1.96 * Math.sqrt(rows.reduce((s, x) => s + x.sd * x.sd, 0))) / rows.length };
}
function overviewColumns(boards) {
  const model = {
    key: "model", label: "Model", pin: true, value: (r) => r.model.name, cell: (r) => modelName(r.model),
  };
  const mean = {
    key: "mean", label: "Mean rank", num: true, value: (r) => r.mean, title: "1 is best; ± is 1.96 standard deviations over joint draws of all models' values",
    cell: (r) => r.mean === null ? h("span", { class: "soft small", title: "has not all the columns shown" }, `${r.at.size} of ${boards.length}`)
      : [r.mean.toFixed(2), h("span", { class: "pm" }, "±" + r.spread.toFixed(2))],
  };
  return [model, mean, ...boards.map((b) => boardColumn(b, boards))];
}
function boardColumn(board, boards) {
  const values = board.rows.map((r) => r.v);
  const low = Math.min(...values), high = Math.max(...values);
  const share = (v) => (high > low ? (board.up ? v - low : high - v) / (high - low) : 0.5);
  const twin = boards.some((b) => b !== board && b.unitName === board.unitName);
  const hash = twin ? ` ${protocolOf(board).hash.slice(0, 6)}` : "";
  const at = (r) => r.at.get(board.i);
  return {
    key: board.id, num: true, first: board.up ? "desc" : "asc", label: h("span", {}, board.dataset + hash, h("span", { class: "line" }, `${board.metric} ${board.unit} ${board.up ? "↑" : "↓"}`)),
    title: boardLabel(board), value: (r) => at(r)?.v ?? null, style: (r) => (at(r) && values.length > 1 ? tint(share(at(r).v)) : null),
    kind: (r) => at(r) && mark(at(r)), cell: (r) => (at(r) ? valueCell(at(r)) : h("span", { class: "soft" }, "–")),
  };
}
// One row alone is the best of nothing.
const mark = (row) => (row.board.rows.length < 2 ? "" : row.rank === 1 ? "best" : row.tie ? "tie" : "");
function valueCell(row) {
  const state = { best: ", the best", tie: ", ties with the best" }[mark(row)] ?? "";
  const shipped = row.shipped && !row.model.shipped; // a model of which only some rows came with densebench
  const says = `${row.model.name}, ${row.board.unitName}: ${number(row.v, row.board.unit)} ${row.board.unit}${state}${row.shipped ? ", shipped" : ""}${row.stale ? ", stale" : ""}. Show its origin`;
  const title = [shipped && "shipped with densebench", row.stale && `stale: ${row.stale}`].filter(Boolean).join("; ");
  return h("button", { type: "button", class: shipped ? "cell shipped" : "cell", title: title || null, "aria-label": says, onclick: () => showRow(row) },
    h("span", { class: "value" }, number(row.v, row.board.unit)), h("span", { class: "pm" }, halfWidth(row, row.board)), row.stale ? h("span", { class: "stale" }, " ‡") : null);
}
function modelName(m) {
  const words = [m.family, params(m.params)].filter((x) => x && x !== "–").join(" · ");
  return [m.name, m.shipped ? h("span", { class: "soft", title: SHIPPED }, " †") : null, h("span", { class: "sub" }, words, m.licence ? h("span", { class: "extra" }, ` · ${m.licence}`) : null)];
}
function taskHeader(boards) {
  const cells = [h("td", { class: "pin" }), h("td")];
  for (let i = 0; i < boards.length;) {
    let j = i;
    while (j < boards.length && boards[j].task === boards[i].task) j += 1;
    cells.push(h("th", { class: "task", colspan: j - i, scope: "colgroup" }, boards[i].title));
    i = j;
  }
  return h("tr", {}, cells);
}
// The papers' numbers under the same columns, apart: other protocols, no samples, no rank.
function publishedBody(boards) {
  const units = new Set(boards.map((b) => b.unitName));
  const models = new Map();
  for (const p of data.published) {
    if (p.value === null || !units.has(`${p.task}/${p.dataset}`) || !publishedPasses(p)) continue;
    if (!models.has(p.model)) models.set(p.model, []);
    models.get(p.model).push(p);
  }
  if (!models.size) return null;
  const rows = [...models.entries()].sort(([a], [b]) => a.localeCompare(b)).map(([name, numbers]) => h("tr", {},
    h("th", { class: "pin", scope: "row" }, name), h("td", { class: "num" }, ""),
    boards.map((b) => h("td", { class: "num" }, publishedCell(numbers, b)))));
  const words = "Published numbers, as the papers give them: their own protocols, no intervals, not ranked, never tested against the rows above.";
  return h("tbody", { class: "published" }, h("tr", {}, h("td", { class: "divider", colspan: boards.length + 2 }, h("div", {}, words))), rows);
}
function publishedCell(numbers, board) {
  const found = numbers.filter((p) => p.task === board.task && p.dataset === board.dataset && p.metric === board.metric);
  return found.map((p, i) => h("span", { title: [p.source, p.note].filter(Boolean).join(": ") }, (i ? " / " : "") + String(p.value)));
}
