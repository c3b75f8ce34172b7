// Tabs, filters, theme, and drawing the view again when any of them changes.
const VIEWS = {
  overview: ["Overview", overview], board: ["One task", boardView], cost: ["Cost", costView], classes: ["Classes", classesView],
  samples: ["Samples", samplesView], protocols: ["Protocols", protocolsView], papers: ["Papers", publishedView],
};
function drawTabs() {
  const names = Object.keys(VIEWS);
  const go = (name) => { state.view = name; history.replaceState(null, "", `#${name}`); render(); byId(`tab-${name}`).focus(); };
  const keys = (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (step) { e.preventDefault(); go(names[(names.indexOf(state.view) + step + names.length) % names.length]); }
  };
  byId("tabs").replaceChildren(...names.map((name) => h("button", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(name === state.view), "aria-controls": "view",
    tabindex: name === state.view ? "0" : "-1", onclick: () => go(name), onkeydown: keys,
  }, VIEWS[name][0])));
  byId("view").setAttribute("aria-labelledby", `tab-${state.view}`);
}
function drawFilters() {
  const f = state.filter;
  const set = (key) => (v) => { f[key] = v; state.pages = {}; render(); };
  const any = (values, names = (v) => v) => [["", "any"], ...values.map((v) => [v, names(v)])];
  const search = h("input", { type: "search", id: "search", value: f.q, placeholder: "model name", oninput: (e) => { f.q = e.target.value; state.pages = {}; render(false); } });
  const reset = () => { Object.keys(f).forEach((k) => { f[k] = ""; }); state.pages = {}; render(); };
  const tasks = unique([...data.boards, ...data.published].map((b) => b.task)).sort((a, b) => taskPlace(a) - taskPlace(b));
  byId("filters").replaceChildren(
    h("label", { class: "field" }, "Search", search),
    select("Task", any(tasks, (t) => data.tasks[t] ?? t), f.task, set("task")),
    select("Dataset", any(unique([...data.boards, ...data.published].map((b) => b.dataset))), f.dataset, set("dataset")),
    select("Family", any(unique(data.models.map((m) => m.family))), f.family, set("family")),
    select("Size", Object.entries(SIZES).map(([k, v]) => [k, v[0]]), f.size, set("size")),
    select("Licence", any(unique(data.models.map((m) => m.licence))), f.licence, set("licence")),
    h("button", { type: "button", class: "quiet", id: "reset", onclick: reset, disabled: !Object.values(f).some(Boolean) }, "Reset"));
}
function render(filters = true) {
  charts.forEach((c) => c.destroy());
  charts = [];
  waiting.length = 0;
  drawTabs();
  if (filters) drawFilters();
  else byId("reset").disabled = !Object.values(state.filter).some(Boolean);
  byId("view").replaceChildren(...VIEWS[state.view][1]().flat().filter(Boolean));
  waiting.splice(0).forEach((draw) => draw());
}
function drawFooter() {
  const left = data.problems.length ? h("details", { id: "problems" }, h("summary", {}, `${data.problems.length} files left out`), h("ul", {}, data.problems.map((p) => h("li", {}, p)))) : null;
  byId("footer").replaceChildren(...[left, h("p", {}, "Built from the result files alone. Values, intervals and tests can be made again from each row's samples.parquet.")].filter(Boolean));
  const rows = `${data.rows.length} rows, ${data.models.length} models, ${new Set(data.boards.map((b) => b.unitName)).size} task and dataset pairs`;
  byId("counts").textContent = rows + (data.published.length ? `, ${data.published.length} published numbers` : "");
}
function changeTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("densebench-theme", root.dataset.theme); } catch { /* a page opened from disk may have no storage */ }
  render();
}
try { const kept = localStorage.getItem("densebench-theme"); if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept; } catch { /* no storage */ }
byId("theme").addEventListener("click", changeTheme);
// Paper is white: a dark page is printed light, its charts too.
let themeOnScreen;
addEventListener("beforeprint", () => { themeOnScreen = document.documentElement.dataset.theme; document.documentElement.dataset.theme = "light"; render(); });
addEventListener("afterprint", () => {
  if (themeOnScreen) document.documentElement.dataset.theme = themeOnScreen;
  else delete document.documentElement.dataset.theme;
  render();
});
byId("filters").addEventListener("submit", (e) => e.preventDefault());
byId("details").addEventListener("click", (e) => { if (e.target === byId("details")) byId("details").close(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => render());
addEventListener("hashchange", () => { if (location.hash.slice(1) in VIEWS) { state.view = location.hash.slice(1); render(); } });
if (location.hash.slice(1) in VIEWS) state.view = location.hash.slice(1);
if (matchMedia("(max-width: 760px)").matches) byId("filter-box").open = false;
drawFooter();
render();
