// A table as it is shown, as text: Markdown, LaTeX or CSV, from the very cells on the page.
const UNSEEN = ".sub, .pm, .arrow, .interval, .visually-hidden, details:not([open]) > :not(summary)";
function words(cell) {
  if (cell.dataset.copy !== undefined) return cell.dataset.copy;
  const found = [];
  const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) if (!walk.currentNode.parentElement.closest(UNSEEN)) found.push(walk.currentNode.data);
  return found.join(" ").replace(/\s+/g, " ").trim();
}
const wide = (row) => [...row.cells].flatMap((cell) => Array(cell.colSpan).fill(cell));
function grid(table) {
  const heads = [...table.tHead.rows].map(wide);
  const rows = [...table.rows].filter((r) => r.parentElement !== table.tHead && !r.querySelector(".divider")).map((row) => wide(row).map((cell) => ({
    text: words(cell) + (cell.scope === "row" && row.closest(".published") ? " (published)" : ""), pm: cell.querySelector(".pm")?.textContent.replace("±", "").trim() ?? "",
    apart: cell.scope === "row" && row.closest("tfoot, .published") !== null,
    mark: cell.querySelector(".value") ? ["best", "tie"].find((m) => cell.classList.contains(m) || row.classList.contains(m)) ?? "" : "",
  })));
  const columns = heads.at(-1).map((cell, i) => ({ i, num: cell.classList.contains("num"), name: [...new Set(heads.map((h) => h[i]).filter(Boolean))].map(words).filter(Boolean).join(", ") }));
  return { columns: columns.filter((c) => rows.some((r) => r[c.i]?.text)), rows };
}
const csvCell = (text) => {
  const cell = text === "–" ? "" : /^[+−]?\d[\d.]*$/.test(text) ? text.replace("−", "-").replace("+", "") : /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
};
const INTERVAL = /^([+−]?\d[\d.]*) \[([+−]?\d[\d.]*), ([+−]?\d[\d.]*)\]$/;
// A column of its own for what stands behind a number: half an interval, or its two ends.
function asCsv({ columns, rows }) {
  for (const cell of rows.flat()) { const [, value, low, high] = INTERVAL.exec(cell.text) ?? []; if (value) Object.assign(cell, { text: value, low, high }); }
  const behind = { pm: "±", low: "low", high: "high" };
  const spread = columns.flatMap((c) => [[c, "text", c.name], ...Object.keys(behind).filter((part) => rows.some((r) => r[c.i]?.[part])).map((part) => [c, part, `${c.name} ${behind[part]}`])]);
  return [spread.map(([, , name]) => csvCell(name)), ...rows.map((r) => spread.map(([c, part]) => csvCell(r[c.i]?.[part] ?? "")))].map((line) => line.join(",")).join("\n") + "\n";
}
const made = () => `densebench ${data.version}${data.newest ? `, newest row of ${data.newest}` : ""}`;
function asMarkdown({ columns, rows }, caption) {
  const safe = (text) => text.replace(/[&<>]/g, (s) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[s]).replace(/[\\|`*_[\]]/g, "\\$&");
  const cell = (c) => { const text = safe(c.text); return (c.mark === "best" ? `**${text}**` : c.mark === "tie" ? `${text} ≈` : c.apart ? `*${text}*` : text) + (c.pm ? ` ± ${c.pm}` : ""); };
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(columns.map((c) => safe(c.name))), line(columns.map((c) => (c.num ? "---:" : "---"))), ...rows.map((r) => line(columns.map((c) => (r[c.i] ? cell(r[c.i]) : "")))),
    "", `${safe(caption)}; ${made()}`, ""].join("\n");
}
const TEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "°": "$^\\circ$", "δ": "$\\delta$",
  "Δ": "$\\Delta$", "→": "$\\rightarrow$", "≈": "$\\approx$", "†": "$\\dagger$", "‡": "$\\ddagger$", "−": "$-$", "±": "$\\pm$", "·": "$\\cdot$", "–": "--", "<": "\\textless{}", ">": "\\textgreater{}" };
function asLatex({ columns, rows }, caption) {
  const safe = (text) => text.replace(/[\\~^→↑↓°δΔ≈†‡−±·–<>]|[&%$#_{}]/g, (s) => TEX[s] ?? `\\${s}`);
  const cell = (c) => { const text = safe(c.text); return (c.mark === "best" ? `\\textbf{${text}}` : c.mark === "tie" ? `${text}$^\\approx$` : c.apart ? `\\emph{${text}}` : text) + (c.pm ? ` {\\scriptsize $\\pm$ ${safe(c.pm)}}` : ""); };
  const line = (cells) => `${cells.join(" & ")} \\\\`;
  return [`% ${caption.replace(/\s+/g, " ")}; ${made()}; \\usepackage{booktabs}`, `\\begin{tabular}{${columns.map((c) => (c.num ? "r" : "l")).join("")}}`, "\\toprule",
    line(columns.map((c) => safe(c.name))), "\\midrule", ...rows.map((r) => line(columns.map((c) => (r[c.i] ? cell(r[c.i]) : "")))), "\\bottomrule", "\\end{tabular}", ""].join("\n");
}
function copyBar(table, caption, id = "copy") {
  const said = h("span", { role: "status" });
  const copy = async (name, write) => {
    const text = write(grid(table), caption);
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = `${name} copied`;
    } catch { // a browser that gives no clipboard: the text itself, selected
      const area = h("textarea", { rows: "8", readonly: true, "aria-label": `${name} to copy` });
      area.value = text;
      said.replaceChildren(area);
      area.select();
    }
  };
  const button = ([name, write]) => h("button", { type: "button", class: "quiet", id: `${id}-${name}`, onclick: () => copy(name, write) }, name);
  return h("div", { class: "copy" }, "Copy as ", [["Markdown", asMarkdown], ["LaTeX", asLatex], ["CSV", asCsv]].map(button), said);
}
