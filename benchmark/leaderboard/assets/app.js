// Tabs, filters, theme, and drawing the view again when any of them changes.
const VIEWS = {
  overview: ["Overview", overview], board: ["One task", boardView], cost: ["Cost", costView], classes: ["Classes", classesView],
  samples: ["Samples", samplesView], protocols: ["Protocols", protocolsView], papers: ["Papers", publishedView],
  ...(data.effects.length ? { sensitivity: ["Sensitivity", sensitivityView] } : {}),
};
function drawTabs() {
  const names = Object.keys(VIEWS);
  const go = (name) => { state.view = name; strange.length = 0; render(); byId(`tab-${name}`).focus(); };
  const keys = (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (step) { e.preventDefault(); go(names[(names.indexOf(state.view) + step + names.length) % names.length]); }
  };
  byId("tabs").replaceChildren(...names.map((name) => h("button", {
    type: "button", role: "tab", id: `tab-${name}`, "aria-selected": String(name === state.view), "aria-controls": "view",
    tabindex: name === state.view ? "0" : "-1", onclick: () => go(name), onkeydown: keys,
  }, VIEWS[name][0])));
  const tabs = byId("tabs"), chosen = byId(`tab-${state.view}`);
  if (chosen.offsetLeft + chosen.offsetWidth > tabs.offsetLeft + tabs.clientWidth + tabs.scrollLeft) tabs.scrollLeft = chosen.offsetLeft - tabs.offsetLeft - 24;
  byId("view").setAttribute("aria-labelledby", `tab-${state.view}`);
}
function drawFilters() {
  const f = state.filter;
  const papers = state.view === "papers";
  const values = filterValues(f);
  const set = (key) => (v) => { f[key] = v; state.pages = {}; render(); };
  const pick = (label, key, names = (v) => v, list = values[key]) => select(label, [["", "any"], ...list.map((v) => [v, names(v)])], f[key], set(key));
  const reset = () => { Object.keys(f).forEach((k) => { f[k] = ""; }); state.pages = {}; render(); byId("search").focus(); };
  if (!byId("search")) {
    const type = (e) => { state.filter.q = e.target.value; state.pages = {}; render(); };
    byId("filters").append(h("label", { class: "field" }, "Search", h("input", { type: "search", id: "search", placeholder: "model, model", oninput: type })), h("div", { id: "facets" }));
  }
  if (byId("search").value !== f.q) byId("search").value = f.q;
  byId("facets").replaceChildren(
    pick("Task", "task", (t) => data.tasks[t] ?? t, values.task.sort((a, b) => taskPlace(a) - taskPlace(b))), pick("Dataset", "dataset"),
    ...(papers ? [] : [pick("Family", "family"), pick("Size", "size", (k) => SIZES[k][0], Object.keys(SIZES).filter((k) => k && values.size.includes(k))), pick("Licence", "licence")]),
    h("button", { type: "button", class: "quiet", id: "reset", onclick: reset, disabled: !Object.values(f).some(Boolean) }, "Reset"));
}
function render() {
  const focused = document.activeElement?.id;
  charts.forEach((c) => c.destroy());
  charts = [];
  waiting.length = 0;
  Object.keys(drawn).forEach((k) => { delete drawn[k]; });
  drawTabs();
  drawFilters();
  const lost = strange.length ? h("p", { class: "note", role: "status", id: "strange" }, `The address names what is not on this page: ${strange.join(", ")}.`) : null;
  byId("view").replaceChildren(...[lost, VIEWS[state.view][1]()].flat(2).filter(Boolean));
  waiting.splice(0).forEach((draw) => draw());
  writeAddress();
  if (focused && document.activeElement?.id !== focused) byId(focused)?.focus(); // what was drawn anew keeps the keyboard
}
function drawFooter() {
  const left = data.problems.length ? h("details", { id: "problems" }, h("summary", {}, `${numberOf(data.problems.length, "file")} left out`), h("ul", {}, data.problems.map((p) => h("li", {}, p)))) : null;
  byId("footer").replaceChildren(...[left, h("p", {}, `Built by ${made()}, from the result files alone. Values, intervals and tests can be made again from each row's samples.parquet.`)].filter(Boolean));
  const known = data.published.filter((p) => p.value !== null);
  const rows = `${numberOf(data.rows.length, "row")}, ${numberOf(data.models.length, "model")}, ${numberOf(new Set(data.boards.map((b) => b.unitName)).size, "task and dataset pair")}`;
  byId("counts").textContent = rows + (known.length ? `, ${known.length} published numbers` : "");
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
addEventListener("hashchange", () => { readAddress(); render(); });
readAddress();
if (matchMedia("(max-width: 760px)").matches) byId("filter-box").open = false;
drawFooter();
render();
