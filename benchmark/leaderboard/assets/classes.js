// Per-class IoU: a heat table of models, and what one model gains over another.
const MODELS_ACROSS = 14;
const BARS = 40;

function classesView() {
  const suits = (b) => b.classes.length > 0 && b.rows.some((r) => r.classes);
  const board = currentBoard(suits);
  if (!board) return [empty("No segmentation row passes the filters.")];
  const rows = shownRows(board).filter((r) => r.classes).sort((a, b) => a.rank - b.rank);
  const across = rows.slice(0, MODELS_ACROSS);
  const [a, b] = pair(rows);
  const box = h("div", { class: "card chart" });
  if (a && b && a !== b) later(() => classChart(box, board, a, b));
  const classes = board.classes.map((name, c) => ({ name, c }));
  const columns = [
    { key: "class", label: "Class", pin: true, value: (r) => r.name, cell: (r) => r.name },
    ...across.map((row) => ({ key: `m_${row.model.name}`, label: row.model.name, name: true, num: true, first: "desc", value: (r) => row.classes[r.c],
      style: (r) => (row.classes[r.c] === null ? null : tint(row.classes[r.c] / 100)), cell: (r) => number(row.classes[r.c], "%") })),
  ];
  return [
    h("div", { class: "controls" }, boardSelect(board, suits), ...pairSelects(rows, a, b)),
    heading(`IoU of each class: ${board.title} on ${board.dataset}`, `In percent, over all ${board.n} images.` +
      (rows.length > across.length ? ` The ${across.length} best of ${rows.length} models shown; the filters bring in others.` : "")),
    h("div", { class: a !== b ? "two" : "" }, dataTable({ id: "classes", rows: classes, columns, caption: `IoU per class on ${boardLabel(board)}` }),
      a !== b ? box : null),
  ];
}
// The two models of the views that compare: the chosen ones where shown, else the two best.
function pair(rows) {
  const a = rows.find((r) => r.m === state.a) ?? rows[0];
  const b = rows.find((r) => r.m === state.b && r !== a) ?? rows.find((r) => r !== a) ?? a;
  Object.assign(drawn, { a: a?.model.name, b: b?.model.name });
  return [a, b];
}
function pairSelects(rows, a, b) {
  const names = [...rows].sort((x, y) => x.model.name.localeCompare(y.model.name)).map((r) => [r.m, r.model.name]);
  return [select("Model A", names, a.m, (v) => { state.a = +v; state.b ??= b.m; render(); }), select("Model B", names, b.m, (v) => { state.b = +v; state.a ??= a.m; render(); })];
}
function classChart(box, board, a, b) {
  const changes = board.classes.map((name, c) => ({ name, d: a.classes[c] === null || b.classes[c] === null ? null : b.classes[c] - a.classes[c] }))
    .filter((x) => x.d !== null).sort((x, y) => Math.abs(y.d) - Math.abs(x.d)).slice(0, BARS).sort((x, y) => y.d - x.d);
  const config = options({ x: axisWords(`IoU of ${b.model.name} − ${a.model.name}, points`, "IoU of model B − model A, points"), y: "" }, (p) => `${p.label}: ${signed(p.raw, "%")}`, null);
  config.indexAxis = "y";
  config.scales.y = { ticks: { color: css("--ink"), autoSkip: false, font: { size: 11 } }, grid: { display: false } };
  config.plugins.legend.display = false;
  box.style.height = `${Math.max(220, 46 + 19 * changes.length)}px`;
  chart(box, `Change of IoU by class from ${a.model.name} to ${b.model.name}`, {
    type: "bar", options: config,
    data: { labels: changes.map((x) => x.name), datasets: [{ data: changes.map((x) => x.d), backgroundColor: changes.map((x) => (x.d < 0 ? css("--bad") : css("--good"))), barThickness: 10 }] },
  });
}
