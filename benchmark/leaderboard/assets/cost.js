// Quality against cost, with the models that nothing beats on both.
const COSTS = {
  speed: ["images per second, median over the model's rows (more is cheaper)", (m) => m.speed, true, speed],
  params: ["parameters", (m) => m.params, false, params],
  memory: ["peak memory in MiB, largest over the model's rows", (m) => m.memory, false, (v) => (v ? v.toFixed(0) : "–")],
};

function costView() {
  const board = currentBoard();
  if (!board) return [empty("No row passes the filters.")];
  const [label, cost, moreIsBetter, format] = COSTS[state.cost];
  drawn.cost = state.cost;
  const rows = shownRows(board).filter((r) => cost(r.model));
  rows.forEach((r) => { r.front = onFront(r, rows, cost, moreIsBetter, board.up); });
  const box = h("div", { class: "card chart" });
  if (rows.length) later(() => costChart(box, board, rows, label, cost));
  return [
    h("div", { class: "controls" }, boardSelect(board),
      select("Cost", Object.entries(COSTS).map(([k, v]) => [k, v[0]]), state.cost, (v) => { state.cost = v; render(); })),
    heading(`${board.title} on ${board.dataset} against cost`, "Vertical lines are 95 % intervals. The line joins the models that no other beats on both. " +
      "Speed and memory were measured where the rows were made: compare them only between rows of one machine."),
    rows.length ? box : empty("No row shown has this cost."),
    dataTable({ id: "cost", rows, caption: `Quality and cost on ${boardLabel(board)}`, sort: { key: "value", down: board.up }, columns: [
      { key: "model", label: "Model", pin: true, value: (r) => r.model.name, cell: (r) => modelName(r.model) },
      { key: "value", label: `${board.metric} ${board.unit}`, num: true, first: board.up ? "desc" : "asc", value: (r) => r.v, cell: valueCell, kind: mark },
      { key: "cost", label: label.split(" (")[0], num: true, value: (r) => cost(r.model), cell: (r) => format(cost(r.model)) },
      { key: "front", label: "unbeaten on both", value: (r) => (r.front ? 0 : 1), cell: (r) => (r.front ? "yes" : "") },
      { key: "where", label: "machine", value: (r) => machine(r), cell: (r) => h("span", { class: "soft small" }, machine(r)) },
    ] }),
  ];
}
function machine(row) {
  const e = data.environments[row.env] ?? {};
  return e.gpu || [e.cpu, e.threads && `${e.threads} thread${e.threads > 1 ? "s" : ""}`].filter(Boolean).join(", ");
}
function onFront(r, rows, cost, moreIsBetter, up) {
  const good = (x) => (up ? x.v : -x.v), cheap = (x) => (moreIsBetter ? cost(x.model) : -cost(x.model));
  return !rows.some((o) => good(o) >= good(r) && cheap(o) >= cheap(r) && (good(o) > good(r) || cheap(o) > cheap(r)));
}
// Costs on a logarithmic axis where they span more than a factor of five; room for every interval.
function costAxes(rows, cost) {
  const costs = rows.map((r) => cost(r.model));
  const low = Math.min(...rows.map((r) => r.lo)), high = Math.max(...rows.map((r) => r.hi)), room = 0.04 * (high - low || 1);
  return { log: Math.max(...costs) > 5 * Math.min(...costs), tall: { min: low - room, max: high + room } };
}
function costChart(box, board, rows, label, cost) {
  const families = unique(rows.map((r) => r.model.family));
  const sets = families.map((family, i) => ({
    label: family, pointStyle: SHAPES[i % SHAPES.length], pointRadius: 5.5, pointHoverRadius: 8, borderWidth: 2,
    borderColor: PALETTE[i % PALETTE.length], backgroundColor: PALETTE[i % PALETTE.length] + "cc",
    data: rows.filter((r) => r.model.family === family).map((r) => ({ x: cost(r.model), y: r.v, row: r })),
  }));
  const front = rows.filter((r) => r.front).sort((a, b) => cost(a.model) - cost(b.model)).map((r) => ({ x: cost(r.model), y: r.v, row: r }));
  sets.push({ label: "unbeaten on both", type: "line", data: front, pointRadius: 0, pointHitRadius: 0, borderWidth: 1, borderDash: [4, 4], borderColor: css("--soft") });
  chart(box, `${board.metric} against ${label}; the table below holds the same numbers`, {
    type: "scatter", data: { datasets: sets }, plugins: [errorBars, pointNames(rows.length <= 40)],
    options: options({ x: label, y: `${board.metric} ${board.unit} ${board.up ? "↑" : "↓"}`, ...costAxes(rows, cost) },
      (p) => `${p.raw.row.model.name}: ${number(p.raw.y, board.unit)} ${board.unit}`, (p) => showRow(p.row)),
  });
}
