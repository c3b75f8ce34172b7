// The whole view as words behind "#": a link shows another reader the same rows, columns, order and models.
const drawn = {}; // what the view that is on the page shows, by the names it has there; each view fills in its own
const strange = []; // what the address names and this page has not
function boardId(b) {
  const same = (o) => o !== b && o.unitName === b.unitName && protocolOf(o).hash === protocolOf(b).hash && o.digest === b.digest;
  const id = `${b.unitName}/${protocolOf(b).name}-${protocolOf(b).hash.slice(0, 8)}/${b.digest.slice(0, 8)}`;
  return data.boards.some(same) ? `${id}/${b.metric}` : id;
}
data.boards.forEach((b) => { b.id = boardId(b); });

function writeAddress() {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state.filter, ...drawn })) if (value !== "" && value !== null && value !== undefined) words.set(name, value);
  const query = words.toString();
  try { history.replaceState(null, "", `#${state.view}${query ? `?${query}` : ""}`); } catch { /* a page in a frame may have no address of its own */ }
}
function readAddress() {
  const [view, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  const words = new URLSearchParams(query);
  const usual = fresh();
  strange.length = 0;
  const take = (name, find) => {
    const asked = words.get(name);
    if (asked === null) return null;
    const found = find(asked);
    if (found === undefined || found === null || found === -1) strange.push(`${name} ${asked}`);
    return found ?? null;
  };
  if (view && !(view in VIEWS)) strange.push(`view ${view}`);
  Object.assign(state, usual, { view: view in VIEWS ? view : usual.view });
  const known = [filterValues(null, "overview"), filterValues(null, "papers")];
  for (const key of Object.keys(state.filter)) state.filter[key] = take(key, (v) => (key === "q" || known.some((k) => k[key].includes(v)) ? v : null)) ?? "";
  state.group = take("suite", (v) => (groups.has(v) ? v : null)) ?? usual.group;
  state.board = take("board", (v) => data.boards.find((b) => b.id === v)?.i);
  for (const side of ["a", "b"]) state[side] = take(side, (v) => data.models.find((m) => m.name === v)?.i);
  state.metric = take("metric", (v) => (data.effects.some((e) => e.metric === v) ? v : null));
  state.cost = take("cost", (v) => (v in COSTS ? v : null)) ?? usual.cost;
  state.pinned = take("protocol", (v) => { const i = data.protocols.findIndex((p) => p.hash === v); return i < 0 ? null : i; });
  const sort = take("sort", (v) => v);
  if (sort) state.sorts[state.view] = { key: sort.replace(/,down$/, ""), down: sort.endsWith(",down") };
  const page = take("page", (v) => (+v >= 1 && Number.isInteger(+v) ? +v : null));
  if (page) state.pages[state.view] = page - 1;
}
