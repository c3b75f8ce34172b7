// What the fields of a preset that nobody has confirmed are worth: one change at a time, largest first.
const CHANGES_DRAWN = 20;
const MODELS_DRAWN = 4;
data.effects.forEach((e) => { e.row = data.rows[e.r]; e.delta = e.value - e.base; });
const effectsOf = (board) => data.effects.filter((e) => e.row.board === board && modelPasses(e.row.model));

function sensitivityView() {
  const suits = (b) => effectsOf(b).length > 0;
  const board = currentBoard(suits);
  if (!board) return [empty("No row that bench sensitivity varied passes the filters.")];
  const metrics = unique(effectsOf(board).map((e) => e.metric)).sort((a, b) => (b === board.metric) - (a === board.metric));
  const metric = metrics.includes(state.metric) ? state.metric : metrics[0];
  drawn.metric = metric;
  const found = effectsOf(board).filter((e) => e.metric === metric);
  const facts = found[0].row.metrics[metric];
  const models = [...new Set(found.map((e) => e.row))].sort((a, b) => a.rank - b.rank);
  const changes = [...new Set(found.map((e) => e.change))].map((change) => changeOf(change, found, models));
  changes.sort((a, b) => b.most - a.most);
  const box = h("div", { class: "card chart" });
  later(() => tornado(box, changes.slice(0, CHANGES_DRAWN), models.slice(0, MODELS_DRAWN), metric, facts.unit));
  const asked = changes.filter((c) => c.holds !== null);
  const held = asked.length ? ` The order of the models holds in ${asked.filter((c) => c.holds).length} of ${asked.length} changes.` : "";
  const drawnOf = changes.length > CHANGES_DRAWN || models.length > MODELS_DRAWN ? ` Drawn: the ${Math.min(CHANGES_DRAWN, changes.length)} largest changes of the ${Math.min(MODELS_DRAWN, models.length)} best models.` : "";
  return [
    h("div", { class: "controls" }, boardSelect(board, suits), metrics.length > 1 ? select("Metric", metrics.map((m) => [m, m]), metric, (v) => { state.metric = v; render(); }) : null),
    heading(`What the fields of ${protocolOf(board).name} are worth: ${board.title} on ${board.dataset}`, `${metric} ${facts.unit}, paired change from the preset's row with its 95 % interval, one change at a time. ` +
      `Rows of variants stand on no other table.${held}${drawnOf}`),
    box,
    dataTable({ id: "sensitivity", rows: changes, columns: changeColumns(models, facts.unit, asked.length > 0, changes.some((c) => c.published.length)), caption: `Changes of ${boardLabel(board)}, ${metric}`, sort: { key: "most", down: true } }),
  ];
}
function changeOf(change, found, models) {
  const at = new Map(found.filter((e) => e.change === change).map((e) => [e.row, e]));
  const first = [...at.values()][0];
  const both = models.filter((m) => at.has(m)).map((m) => at.get(m));
  const turned = both.some((a, i) => both.slice(i + 1).some((b) => (a.base - b.base) * (a.value - b.value) < 0));
  const words = (name, verb) => both.flatMap((e) => (e[name] ?? []).map((p) => `${e.row.model.name}: ${verb} the published ${p}`));
  return { change, at, status: first.status, reason: first.reason, most: Math.max(...both.map((e) => Math.abs(e.delta))), holds: both.length > 1 ? !turned : null,
    published: [...words("brings", "brings inside"), ...words("takes", "takes out")] };
}
function changeColumns(models, unit, several, reached) {
  const cell = (e) => (e ? [h("span", { class: "nowrap" }, signed(e.delta, unit, 1)), h("span", { class: "soft small nowrap" }, e.delta_ci95 ? ` [${signed(e.delta_ci95[0], unit, 1)}, ${signed(e.delta_ci95[1], unit, 1)}]` : " not paired")] : "–");
  const published = { key: "published", label: "Published numbers", cell: (c) => c.published.map((t) => h("span", { class: "line small" }, t)) };
  return [
    { key: "change", label: "Change of the preset", pin: true, value: (c) => c.change, cell: (c) => [c.change, h("span", { class: "sub reason" }, c.reason)] },
    { key: "status", label: "Status", value: (c) => STATUSES.indexOf(c.status), cell: (c) => chip(c.status) },
    { key: "most", label: "largest |Δ|", num: true, first: "desc", value: (c) => c.most, cell: (c) => number(c.most, unit, 1) },
    ...models.map((m) => ({ key: `m_${m.model.name}`, label: m.model.name, name: true, num: true, first: "desc", value: (c) => c.at.get(m)?.delta ?? null, cell: (c) => cell(c.at.get(m)) })),
    ...(several ? [{ key: "holds", label: "Order", value: (c) => (c.holds === null ? null : +c.holds), cell: (c) => (c.holds === null ? "–" : c.holds ? "holds" : "turns") }] : []),
    ...(reached ? [published] : []),
  ];
}
const spans = {
  id: "spans", // the interval of each bar, along it
  afterDatasetsDraw(c) {
    const { ctx } = c;
    ctx.save();
    ctx.strokeStyle = css("--ink");
    ctx.lineWidth = 1.2;
    c.data.datasets.forEach((set, i) => set.spans.forEach((span, j) => {
      if (!span || !c.isDatasetVisible(i)) return;
      const { y } = c.getDatasetMeta(i).data[j];
      ctx.beginPath();
      ctx.moveTo(c.scales.x.getPixelForValue(span[0]), y);
      ctx.lineTo(c.scales.x.getPixelForValue(span[1]), y);
      ctx.stroke();
    }));
    ctx.restore();
  },
};
function tornado(box, changes, models, metric, unit) {
  const edges = changes.flatMap((c) => models.flatMap((m) => { const e = c.at.get(m); return e ? [e.delta, ...(e.delta_ci95 ?? [])] : []; }));
  const room = 0.05 * (Math.max(0, ...edges) - Math.min(0, ...edges) || 1);
  const config = options({ x: `change of ${metric} ${unit} from the preset`, y: "" }, (p) => `${p.dataset.label}: ${signed(p.raw, unit, 1)}`, null);
  config.indexAxis = "y";
  config.scales.x.min = Math.min(0, ...edges) - room;
  config.scales.x.max = Math.max(0, ...edges) + room;
  const most = box.clientWidth < 500 ? 16 : 44;
  const short = (text) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  config.scales.y = { ticks: { color: css("--ink"), autoSkip: false, font: { size: 11 }, callback: (_, i) => short(changes[i].change) }, grid: { display: false } };
  box.style.height = `${90 + changes.length * (16 + 13 * models.length)}px`;
  chart(box, `Change of ${metric} by each change of the preset, largest first; the table below holds the same numbers`, {
    type: "bar", options: config, plugins: [spans],
    data: { labels: changes.map((c) => c.change), datasets: models.map((m, i) => ({
      label: m.model.name, backgroundColor: PALETTE[i % PALETTE.length], barThickness: 10, data: changes.map((c) => c.at.get(m)?.delta ?? null), spans: changes.map((c) => c.at.get(m)?.delta_ci95 ?? null),
    })) },
  });
}
