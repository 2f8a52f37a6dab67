// What the pages do beside being read: times in the reader's zone, and fresh content while something happens.
// Nothing here is needed: without it times are in UTC, and a page is as it was when it was asked for.

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const short = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const STEPS = [["second", 60], ["minute", 60], ["hour", 24], ["day", 14]];

/** "3 min. ago" near now; the date and the time further away. */
export function shownTime(moment, now) {
  let amount = (moment - now) / 1000;
  if (Math.abs(amount) < 1) return "just now";
  for (const [unit, next] of STEPS) {
    if (Math.abs(amount) < next) return relative.format(Math.trunc(amount), unit);
    amount /= next;
  }
  return full.format(moment);
}

function showTimes(root = document) {
  const now = new Date();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const text = element.classList.contains("clock") ? short.format(moment) : shownTime(moment, now);
    if (element.textContent !== text) element.textContent = text;
    if (!element.dataset.local) {
      element.dataset.local = "1";
      element.dataset.exact = `${full.format(moment)} · ${element.dataset.exact}`;
      element.setAttribute("aria-description", element.dataset.exact); // a time may have no label of its own
    }
  }
}

/**
 * Replace the regions of this page, elements with `data-region`, by those of the same page asked for again.
 * Gives whether something may follow: what the history has not taken yet (`data-again`), or what was left as it is.
 */
async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
  if (!answer.ok) throw new Error(`answered ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  let more = false;
  for (const old of document.querySelectorAll("[data-region]")) {
    const next = fresh.getElementById(old.id);
    if (!next) continue;
    old.toggleAttribute("data-again", "again" in next.dataset);
    more ||= "again" in next.dataset;
    if (old.dataset.shown === next.innerHTML) continue;
    // what somebody is in stays: focus, a selection, an opened detail
    if (old.contains(document.activeElement) || old.querySelector("details[open]")) {
      more = true;
      continue;
    }
    next.dataset.shown = next.innerHTML;
    old.replaceWith(next);
  }
  showTimes();
  return more;
}

const SOON = 1500;
const SELDOM = 30_000;

/** Asks for this page again: soon after something happened, and then more and more seldom while something may follow. Tells how it went. */
function asking(said) {
  let timer = null;
  let at = 0;
  let pause = SOON;
  const later = (wait) => {
    if (timer !== null && at <= Date.now() + wait) return;
    clearTimeout(timer);
    at = Date.now() + wait;
    timer = setTimeout(async () => {
      timer = null;
      if (document.hidden) return; // asked again when it is looked at
      let more = true;
      try {
        more = await refresh();
        said(true);
      } catch {
        said(false);
      }
      if (more) later(pause);
      pause = Math.min(2 * pause, SELDOM);
    }, wait);
  };
  return () => {
    pause = SOON;
    later(SOON);
  };
}

/** While the page is looked at: follow `/api/stream` and ask again when something came, at most every second and a half. */
function follow(main, say, soon) {
  let source = null;
  const open = () => {
    source = new EventSource(`/api/stream?${main.dataset.live}`);
    source.onopen = () => {
      say("live", "good");
      soon(); // for what happened since the page was made
    };
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) say("not live: reload to try again", "warn");
      else say("reconnecting", "warn");
    };
    for (const kind of ["events", "decisions", "firings", "actions", "runs", "audit", "gap"]) {
      source.addEventListener(kind, soon);
    }
  };
  // a browser has few connections to one server, and pages that nobody sees would hold them
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else if (!source) {
      open();
      soon();
    }
  });
  addEventListener("pagehide", () => source?.close());
  if (!document.hidden) open();
}

for (const region of document.querySelectorAll("[data-region]")) region.dataset.shown = region.innerHTML;
showTimes();
setInterval(() => showTimes(), 10_000);
const main = document.querySelector("main");
const sign = document.getElementById("live");
const say = (word, state) => {
  if (sign.textContent === word) return;
  sign.hidden = false;
  sign.textContent = word;
  sign.className = `live ${state}`;
};
const UNANSWERED = "not live: the server does not answer";
const soon = asking((answered) => {
  if (!main.dataset.live) return;
  if (!answered) say(UNANSWERED, "warn");
  else if (sign.textContent === UNANSWERED) say("live", "good");
});
if (main.dataset.live) follow(main, say, soon);
if (document.querySelector("[data-again]")) soon();
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && document.querySelector("[data-again]")) soon();
});
// what has no stream of its own, such as the log of a run
const every = Number(main.dataset.every ?? 0);
if (every) setInterval(() => { if (!document.hidden) refresh().catch(() => {}); }, every * 1000);
