// Numbers as people read them: one place decides the decimals of a unit.
const MINUS = "−";
const DECIMALS = { "%": 1, m: 3, "°": 2 };

function number(value, unit, extra = 0) {
  if (value === null || value === undefined) return "–";
  return value.toFixed((DECIMALS[unit] ?? 3) + extra).replace("-", MINUS);
}
function signed(value, unit, extra = 0) {
  return (value > 0 ? "+" : "") + number(value, unit, extra);
}
function halfWidth(row, board) {
  return "±" + number((row.hi - row.lo) / 2, board.unit);
}
function numberOf(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
function params(count) {
  if (!count) return "–";
  if (count >= 1e9) return (count / 1e9).toFixed(2) + " B";
  return (count / 1e6).toFixed(count < 1e7 ? 1 : 0) + " M";
}
function speed(value) {
  if (!value) return "–";
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(+value.toPrecision(6));
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}
