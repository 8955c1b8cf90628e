// How values, qualities, times and counts read on the page.
import type { Reading, Scalar } from "./api";

export type QualityClass = "good" | "uncertain" | "bad" | "stale" | "none";

export function qualityClass(quality: string | undefined): QualityClass {
  const head = (quality ?? "").split(":", 1)[0];
  return head === "good" || head === "uncertain" || head === "bad" || head === "stale" ? head : "none";
}

const REASONS: Record<string, string> = {
  "device-exception": "the device answered with an exception",
  timeout: "the device did not answer in time",
  "not-connected": "no connection to the device",
  "out-of-range": "outside the point's range",
  undecodable: "the bytes are no value of this type",
  "type-mismatch": "the source has another type",
  "opcua-status": "OPC UA status",
  "source-marked": "marked by the source",
  "no-data": "no data in time",
  "access-denied": "access denied",
  clock: "the source's clock cannot be right",
  foreign: "Sparkplug quality",
  "device-stopped": "the device is in stop",
  "never-read": "not read yet",
  overflow: "values before it were lost by the source",
};

/** `bad:device-exception:2` → `Bad: the device answered with an exception (2)`. */
export function qualityText(quality: string | undefined): string {
  if (!quality) return "No value yet";
  const [head = "", reason = "", detail = ""] = quality.split(":");
  const name = head.charAt(0).toUpperCase() + head.slice(1);
  if (!reason || reason === "none") return name;
  return `${name}: ${REASONS[reason] ?? reason}${detail && detail !== "0" ? ` (${detail})` : ""}`;
}

const UNITS: Record<string, string> = { Cel: "°C", "[degF]": "°F", Ohm: "Ω", deg: "°", um: "µm", us: "µs", "1": "", "{rpm}": "rpm" };

/** UCUM as people write it: `Cel` → `°C`, `m3/h` → `m³/h`. */
export function unitText(ucum: string): string {
  const known = UNITS[ucum];
  if (known !== undefined) return known;
  return ucum
    .replace(/([a-z])2(?![0-9])/g, "$1²")
    .replace(/([a-z])3(?![0-9])/g, "$1³")
    .replace(/10\*(\d)/g, (_whole, power: string) => `10${"⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(power)]}`)
    .replace(/\bCel\b/g, "°C")
    .replace(/\./g, "·")
    .replace(/[{}]/g, "");
}

const SIGNIFICANT = 5;

export function valueText(reading: Reading | undefined, type: string): string {
  if (!reading) return "–";
  if (reading.special) return reading.special === "NaN" ? "NaN" : reading.special === "Infinity" ? "+∞" : "−∞";
  return scalarText(reading.v, type);
}

export function scalarText(value: Scalar, type: string): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "on" : "off";
  if (typeof value === "string") return type === "datetime" ? clockText(value) : value;
  return numberText(value, type === "float" || type === "double");
}

export function numberText(value: number, fractional = true): string {
  if (!fractional) return String(value).replace("-", "−");
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return value.toExponential(3).replace("-", "−");
  const digits = size === 0 ? 1 : Math.max(0, SIGNIFICANT - 1 - Math.floor(Math.log10(size)));
  return value.toFixed(Math.min(digits, 6)).replace("-", "−");
}

/** A bound as it was written: 250, not 250.00. */
export function boundText(value: number): string {
  return numberText(Number(value.toPrecision(6))).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

/** 1234567 → `1 234 567`, with thin spaces. */
export function countText(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, "\u2009");
}

/** 1234567 → `1.2 MB`. */
export function bytesText(bytes: number): string {
  if (bytes < 1000) return `${Math.round(bytes)} B`;
  const power = Math.min(3, Math.floor(Math.log10(bytes) / 3));
  const size = bytes / 1000 ** power;
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} ${["B", "kB", "MB", "GB"][power]}`;
}

/** A rate per second: `0`, `0.3`, `12`, `5 200`. */
export function rateText(rate: number): string {
  return rate === 0 ? "0" : rate < 0.1 ? "<0.1" : rate < 10 ? rate.toFixed(1) : countText(rate);
}

export function ageText(millis: number): string {
  const seconds = Math.max(0, millis / 1000);
  if (seconds < 1.5) return "now";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const DAY = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "2-digit" });

export function clockText(time: string): string {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return time;
  const sameDay = at.toDateString() === new Date().toDateString();
  return sameDay ? CLOCK.format(at) : `${DAY.format(at)} ${CLOCK.format(at)}`;
}

/** A trend value: number or null; booleans are 0 and 1. */
export function plotted(reading: Reading): number | null {
  const bad = qualityClass(reading.q);
  if (bad === "bad" || bad === "stale") return null;
  if (typeof reading.v === "number") return reading.v;
  if (typeof reading.v === "boolean") return reading.v ? 1 : 0;
  if (typeof reading.v === "string" && /^-?\d+$/.test(reading.v)) return Number(reading.v);
  return null;
}
