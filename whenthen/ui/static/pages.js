// What the pages do beside being read: times in the reader's zone, and fresh content while something happens.
// Nothing here is needed: without it times are in UTC, and a page is as it was when it was asked for.
//
// Who listens to what:
//   the clock                          showTimes, every ten seconds
//   /api/stream, `data-live` of main   Asking.soon, for each thing that happened
//   the tab is looked at, or not       Stream opens or closes, Asking.soon
//   Asking                             Regions.refresh: this page again, one request at a time; it says what main asks for from now on

const SOON = 1500; //: milliseconds after something happened in which the page is asked for again
const SELDOM = 30_000; //: the longest pause between two questions while something may follow
const PATIENCE = 20_000; //: that a server has for an answer
const OPEN_AGAIN = 5000; //: after a stream was refused, doubled each time up to a minute
const UNANSWERED = "not live: the server does not answer";
const STREAMED = ["events", "decisions", "firings", "actions", "runs", "audit", "gap"];

const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
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
    const today = moment.toDateString() === now.toDateString();
    const text = !element.classList.contains("clock") ? shownTime(moment, now) : today ? clock.format(moment) : full.format(moment);
    if (element.textContent !== text) element.textContent = text;
    if (!element.dataset.local) {
      element.dataset.local = "1";
      element.dataset.exact = `${full.format(moment)} · ${element.dataset.exact}`;
      element.setAttribute("aria-description", element.dataset.exact); // a time may have no label of its own
    }
  }
}

/** A button beside each address that somebody copies; a browser lets it do so on this machine and over HTTPS. */
function offerCopies(root = document) {
  if (!navigator.clipboard) return;
  for (const text of root.querySelectorAll("code.copy:not(:has(+ .copying))")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copying", textContent: "Copy" });
    button.setAttribute("aria-label", `Copy ${text.textContent}`);
    button.addEventListener("click", async () => {
      const done = await navigator.clipboard.writeText(text.textContent).then(() => true, () => false);
      button.textContent = done ? "Copied" : "Select it";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    text.after(button);
  }
}

/** What is wrong with following a page, in the words that its head shows. */
class Trouble extends Error {
  constructor(words, ended = false) {
    super(words);
    this.ended = ended; // nothing changes by asking again
  }
}

/** The parts of a page that are replaced by those of the same page asked for again: elements with an id and `data-region`. */
class Regions {
  #made = new Map(); // by id: the HTML of the server that is shown

  constructor() {
    for (const region of document.querySelectorAll("[data-region]")) this.#begin(region, region.innerHTML);
  }

  #begin(region, html) {
    this.#made.set(region.id, html);
    // what the server opened is not what somebody opened
    for (const detail of region.querySelectorAll("details[open]")) detail.dataset.begins = "open";
  }

  /** Whether somebody is in a region, which then stays: by the focus, a selection, an opened detail, or what was written or chosen. */
  #taken(region) {
    const chosen = getSelection();
    const focused = document.activeElement;
    return (
      (region.contains(focused) && !scrolled(region).includes(focused)) ||
      (!chosen.isCollapsed && chosen.containsNode(region, true)) ||
      region.querySelector("details[open]:not([data-begins])") !== null ||
      [...region.querySelectorAll("input, select, textarea")].some(changed)
    );
  }

  /** Ask for this page, and replace what is new. Gives whether something may follow: what the history has not taken yet (`data-again`), or what was left as it is. */
  async refresh(main) {
    const fresh = await this.#asked();
    for (const name of ["live", "every"]) {
      const value = fresh.querySelector("main")?.dataset[name];
      if (value === undefined) delete main.dataset[name];
      else main.dataset[name] = value;
    }
    let more = false;
    for (const old of document.querySelectorAll("[data-region]")) {
      const next = fresh.getElementById(old.id);
      if (!next) continue;
      old.toggleAttribute("data-again", "again" in next.dataset);
      more ||= "again" in next.dataset;
      const html = next.innerHTML;
      if (this.#made.get(old.id) === html) continue;
      if (this.#taken(old)) {
        more = true;
        continue;
      }
      this.#begin(next, html);
      const places = scrolled(old).map(placeOf);
      old.replaceWith(next);
      scrolled(next).forEach((each, number) => putBack(each, places[number] ?? AT_FIRST));
    }
    showTimes();
    offerCopies();
    return more;
  }

  async #asked() {
    let answer, text;
    try {
      answer = await fetch(location.href, {
        headers: { accept: "text/html" }, redirect: "manual", signal: AbortSignal.timeout(PATIENCE),
      });
      text = await answer.text();
    } catch {
      throw new Trouble(UNANSWERED);
    }
    if (answer.type === "opaqueredirect") throw new Trouble("logged out: reload to log in", true);
    if (answer.status === 403) throw new Trouble("not live: you may not see this any more", true);
    if (answer.status === 404) throw new Trouble("not live: this is not there any more", true);
    if (!answer.ok) throw new Trouble(answer.status >= 500 ? UNANSWERED : `not live: answered ${answer.status}`);
    const fresh = new DOMParser().parseFromString(text, "text/html");
    // after an upgrade; while one goes on, either version may answer, so it is not reloaded by itself
    if (fresh.querySelector("script[type=module]")?.getAttribute("src") !== own) throw new Trouble("another version: reload");
    return fresh;
  }
}

/** Whether a field of a form is not as the server made it. */
function changed(field) {
  if (field.type === "hidden") return false;
  if (field.tagName !== "SELECT") return field.value !== field.defaultValue || field.checked !== field.defaultChecked;
  return field.selectedIndex !== Math.max(0, [...field.options].findIndex((option) => option.defaultSelected));
}

const own = document.querySelector("script[type=module]").getAttribute("src");
const scrolled = (region) => [...region.querySelectorAll("pre, .scroll")];
const placeOf = (box) => ({
  top: box.scrollTop, left: box.scrollLeft, end: box.scrollTop + box.clientHeight >= box.scrollHeight - 4,
  focused: box === document.activeElement,
});

/** Of a box that was not there before. */
const AT_FIRST = { top: 0, left: 0, end: true, focused: false };

/** Where somebody had scrolled to; a log whose end was in sight is followed. */
function putBack(box, { top, left, end, focused }) {
  box.scrollTop = end && box.classList.contains("log") ? box.scrollHeight : top;
  box.scrollLeft = left;
  if (focused) box.focus({ preventScroll: true });
}

/** Asks for the page again: soon after something happened, then more and more seldom while something may follow, or every so often where main says so. */
class Asking {
  #regions = new Regions();
  #timer = null;
  #at = 0;
  #pause = SOON;
  #underway = false;
  #told;

  constructor(main, told) {
    this.main = main;
    this.#told = told;
  }

  soon() {
    this.#pause = SOON;
    this.#later(SOON);
  }

  #later(wait) {
    if (this.#timer !== null && this.#at <= Date.now() + wait) return;
    clearTimeout(this.#timer);
    this.#at = Date.now() + wait;
    this.#timer = setTimeout(() => this.#ask(), wait);
  }

  async #ask() {
    this.#timer = null;
    if (document.hidden) return; // asked again when it is looked at
    if (this.#underway) return this.#later(SOON);
    this.#underway = true;
    let more = true;
    let trouble = null;
    try {
      more = await this.#regions.refresh(this.main);
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      trouble = error;
    } finally {
      this.#underway = false;
    }
    this.#told(trouble);
    if (trouble?.ended) return;
    const every = Number(this.main.dataset.every ?? 0) * 1000;
    if (every && !trouble) this.#later(every);
    else if (more) this.#later(this.#pause);
    this.#pause = Math.min(2 * this.#pause, SELDOM);
  }
}

/** `/api/stream`, while the page is looked at and main says what of it. Opened again after each refusal, until there is no more to follow. */
class Stream {
  #source = null;
  #again = null;
  #pause = OPEN_AGAIN;

  constructor(main, { said, happened }) {
    this.main = main;
    this.said = said;
    this.happened = happened;
  }

  get open() {
    return this.#source?.readyState === EventSource.OPEN;
  }

  /** Open it or close it, as the page wants it now. */
  adjust() {
    const wanted = !document.hidden && this.main.dataset.live;
    if (!wanted) this.close();
    else if (!this.#source && this.#again === null) this.#begin();
  }

  close() {
    clearTimeout(this.#again);
    this.#again = null;
    this.#source?.close();
    this.#source = null;
  }

  #begin() {
    const source = new EventSource(`/api/stream?${this.main.dataset.live}`);
    this.#source = source;
    source.onopen = () => {
      this.#pause = OPEN_AGAIN;
      this.said("live", "good");
      this.happened(); // for what happened since the page was made
    };
    source.onerror = () => {
      if (source !== this.#source) return;
      this.said("reconnecting", "warn");
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again
      // refused: too many watch, a server that starts, or somebody who is logged out, which asking for the page tells
      this.close();
      this.#again = setTimeout(() => {
        this.#again = null;
        this.adjust();
      }, this.#pause);
      this.#pause = Math.min(2 * this.#pause, 60_000);
      this.happened();
    };
    for (const kind of STREAMED) source.addEventListener(kind, () => this.happened());
  }
}

function follow(main) {
  const sign = document.getElementById("live");
  const say = (words, tone) => {
    if (sign.textContent === words) return;
    sign.hidden = words === "";
    sign.textContent = words;
    sign.className = `live ${tone}`;
  };
  let ended = false;
  const stream = new Stream(main, { said: say, happened: () => asking.soon() });
  const asking = new Asking(main, (trouble) => {
    ended = trouble?.ended ?? false;
    if (ended) stream.close();
    else stream.adjust();
    if (trouble) say(trouble.message, "warn");
    else if (!main.dataset.live) say("", ""); // such as of a run that has ended
    else if (stream.open) say("live", "good");
  });
  const look = () => {
    if (ended) return;
    stream.adjust();
    if (!document.hidden && (main.dataset.live || main.dataset.every || document.querySelector("[data-again]"))) asking.soon();
  };
  // a browser has few connections to one server, and pages that nobody sees would hold them
  document.addEventListener("visibilitychange", look);
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (event) => event.persisted && look());
  look();
}

// what a form did is told once: not again when the page is reloaded, or its address is sent to somebody
const here = new URL(location.href);
if (here.searchParams.has("done")) {
  for (const name of ["done", "seal"]) here.searchParams.delete(name);
  history.replaceState(null, "", here);
}
if (!here.searchParams.has("after")) {
  for (const log of document.querySelectorAll("main[data-live] .log")) log.scrollTop = log.scrollHeight;
}
follow(document.querySelector("main"));
showTimes();
offerCopies();
setInterval(() => showTimes(), 10_000);
