// Numbers and times for people.
export const $ = id => document.getElementById(id);

export function el(tag, text, cls) {
  const e = document.createElement(tag);
  if (text != null) e.textContent = text;
  if (cls) e.className = cls;
  return e;
}

const money = new Intl.NumberFormat("en-GB", {minimumFractionDigits: 2, maximumFractionDigits: 2, signDisplay: "exceptZero"});
export const rub = nano => money.format(nano / 1e9);
export const bps = milli => (milli / 1000).toFixed(1);
export const side = s => s > 0 ? "buy" : s < 0 ? "sell" : "";
export const tone = nano => nano < 0 ? "bad" : nano > 0 ? "good" : "";

let zone = "Europe/Moscow";
let formats = {};
export function setZone(name) { if (name && name !== zone) { zone = name; formats = {}; } }
export function clock(ns, seconds = true) {
  if (ns == null) return "";
  const key = seconds ? "s" : "m";
  formats[key] ??= new Intl.DateTimeFormat("en-GB", {timeZone: zone, hour: "2-digit", minute: "2-digit", ...(seconds ? {second: "2-digit"} : {})});
  return formats[key].format(new Date(ns / 1e6));
}
export const zoneName = () => zone === "Europe/Moscow" ? "Moscow time" : zone;

export function span(s) {
  if (s == null) return "never";
  if (s < 10) return s.toFixed(1) + " s";
  if (s < 120) return Math.round(s) + " s";
  return s < 7200 ? Math.round(s / 60) + " min" : Math.round(s / 3600) + " h";
}
export const micros = us => us < 1000 ? us + " µs" : (us / 1000).toFixed(us < 10000 ? 1 : 0) + " ms";

export function price(ticks, instrument) {
  if (ticks == null) return "market";
  if (!instrument) return ticks + " ticks";
  const step = instrument.tick_nano / 1e9;
  const digits = Math.max(0, Math.ceil(-Math.log10(step) - 1e-9));
  return (ticks * step).toFixed(Math.min(9, digits));
}
