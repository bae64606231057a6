// Formats numbers. Units of bytes are binary; labels of rates say "a second".

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });

/** A number that may be missing, as 0. */
export function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

/** A count: in full up to a million, then with a unit. */
export function count(value) {
  const exact = number(value);
  return exact < 1e6 ? whole.format(exact) : compact.format(exact);
}

/** A rate, with one decimal below ten. */
export function rate(value) {
  const exact = number(value);
  if (exact === 0) return "0";
  if (exact < 0.05) return "< 0.1";
  return exact < 9.95 ? exact.toFixed(1) : count(Math.round(exact));
}

export function bytes(value) {
  let rest = number(value);
  for (const unit of ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]) {
    if (rest < 1000 || unit === "PiB") {
      return unit === "B" ? `${whole.format(rest)} B` : `${rest.toFixed(rest < 9.995 ? 2 : 1)} ${unit}`;
    }
    rest /= 1024;
  }
  return "";
}

/** Seconds by their two largest units: "3d 4h". */
export function duration(value) {
  const seconds = Math.floor(number(value));
  const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first < 0) return "0s";
  let rest = seconds;
  return parts.slice(first, first + 2).map(([length, unit]) => {
    const units = Math.floor(rest / length);
    rest -= units * length;
    return units > 0 ? `${units}${unit}` : "";
  }).filter(Boolean).join(" ");
}

/** A short time, with a fraction if it has one: "0.4 s". */
export function lag(value) {
  const seconds = number(value);
  return seconds < 60 ? `${Math.round(seconds * 10) / 10} s` : duration(seconds);
}

export function percent(part, total) {
  if (!total) return "0 %";
  const share = (part / total) * 100;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  return `${share.toFixed(share < 9.95 ? 1 : 0)} %`;
}

/** `missing_passkey` as "missing passkey". */
export function words(name) {
  return String(name).replaceAll("_", " ");
}

/** The first and last digits of an info hash. */
export function shortHash(hash) {
  return `${String(hash).slice(0, 10)}…${String(hash).slice(-4)}`;
}

export function clock(date) {
  return date.toLocaleTimeString("en-GB");
}
