// What every chart of the page shares: colours, axes, error bars, names beside points.
let charts = [];
const SHAPES = ["circle", "rectRot", "triangle", "rect", "cross", "star", "crossRot", "dash"];
const PALETTE = ["#2f7fb5", "#d9822b", "#3f9b6c", "#b8517f", "#7a68b8", "#a08a1f", "#3d9fa8", "#c2574b"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const waiting = [];
const later = (draw) => waiting.push(draw); // charts need their box to be in the page
// A narrow chart takes a long title in several lines.
const titleLines = (text) => (innerWidth > 760 ? text : text.split(/, | (?=\()/));
// An axis as long as `words` would be squeezed or cut; the selects above the chart say who A and B are.
const axisWords = (words, short) => (words.length > 48 ? short : words);
function chart(box, says, config) {
  const canvas = h("canvas", { role: "img", "aria-label": says });
  box.replaceChildren(canvas);
  charts.push(new Chart(canvas, config));
}
function options(axes, tip, click) {
  const axis = (text, log) => ({
    type: log ? "logarithmic" : "linear", title: { display: true, text: titleLines(text), color: css("--soft") }, grid: { color: css("--line") },
    border: { color: css("--line-strong") }, ticks: { color: css("--soft"), maxTicksLimit: 9, includeBounds: !(axes.range ?? axes.tall) }, grace: log ? 0 : "6%",
  });
  return {
    animation: false, maintainAspectRatio: false, responsive: true, layout: { padding: { right: 26, top: 8 } },
    scales: { x: { ...axis(axes.x, axes.log), ...(axes.range ?? {}) }, y: { ...axis(axes.y, false), ...(axes.range ?? axes.tall ?? {}) } },
    plugins: { legend: { position: "bottom", labels: { color: css("--ink"), usePointStyle: true, boxHeight: 7 } }, tooltip: { callbacks: { label: tip } } },
    onClick: (event, hits, c) => { const point = hits[0] && c.data.datasets[hits[0].datasetIndex].data[hits[0].index]; if (point?.row && click) click(point); },
  };
}
const errorBars = {
  id: "errorBars",
  beforeDatasetsDraw(c) {
    const { ctx } = c;
    ctx.save();
    ctx.lineWidth = 1.2;
    c.data.datasets.forEach((set, i) => {
      if (set.type === "line" || !c.isDatasetVisible(i)) return;
      ctx.strokeStyle = set.borderColor + "88";
      for (const p of set.data) {
        const x = c.scales.x.getPixelForValue(p.x);
        ctx.beginPath();
        ctx.moveTo(x, c.scales.y.getPixelForValue(p.row.lo));
        ctx.lineTo(x, c.scales.y.getPixelForValue(p.row.hi));
        ctx.stroke();
      }
    });
    ctx.restore();
  },
};
function pointNames(wanted) {
  return {
    id: "pointNames",
    afterDatasetsDraw(c) {
      if (!wanted || c.width < 480) return;
      const { ctx } = c;
      const taken = [];
      ctx.save();
      ctx.font = "11px system-ui, sans-serif";
      ctx.fillStyle = css("--ink");
      const points = c.data.datasets.flatMap((set, i) => (set.type === "line" || !c.isDatasetVisible(i) ? [] : set.data));
      for (const p of points.sort((a, b) => b.row.front - a.row.front || a.row.rank - b.row.rank)) {
        const width = ctx.measureText(p.row.model.name).width;
        const y = c.scales.y.getPixelForValue(p.y) - 7;
        let x = c.scales.x.getPixelForValue(p.x) + 8;
        if (x + width > c.chartArea.right + 22) x -= width + 16;
        if (taken.some((t) => x < t.x + t.width && t.x < x + width && Math.abs(t.y - y) < 12)) continue; // no label over another
        taken.push({ x, y, width });
        ctx.fillText(p.row.model.name, x, y);
      }
      ctx.restore();
    },
  };
}
