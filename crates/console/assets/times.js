// Formats the times of a page: relative to now in lists, such as "3 hours ago", and exact in sentences. The tooltip
// shows the exact time.

const MINUTE_MS = 60_000;
/** Units with their length in minutes, largest first. Older times are shown as a date. */
const UNITS = [["day", 1_440], ["hour", 60], ["minute", 1]];
const MAX_RELATIVE_DAYS = 30;

const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const short = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

/** Returns a time relative to `now`, such as "3 hours ago", or the date if it is at least 30 days away. */
export function relativeTime(at, now) {
  const minutes = Math.trunc((at.getTime() - now) / MINUTE_MS);
  if (minutes === 0) return "just now";
  if (Math.abs(minutes) >= MAX_RELATIVE_DAYS * 1_440) return date.format(at);
  const [unit, length] = UNITS.find(([, length]) => Math.abs(minutes) >= length);
  return relative.format(Math.trunc(minutes / length), unit);
}

/** Formats all times below `root`. */
export function localTimes(root, now = Date.now()) {
  for (const time of root.querySelectorAll("time[data-time]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = full.format(at);
    time.textContent = time.dataset.time === "exact" ? short.format(at) : relativeTime(at, now);
  }
}
