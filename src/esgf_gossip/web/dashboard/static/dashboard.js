// Keeps an open page in step with the node: hears its events, fetches the same page again, puts in what differs.
// Nothing is made of data here, only of pages the server wrote; without this script every page renews itself.
"use strict";

(() => {
  const FETCH_EVERY_MS = 1000; // A page is made anew no more often, whatever happens.
  const SETTLE_MS = 30; // Events of one moment are one fetch.
  const TICK_MS = 10000;
  const RETRY_MS = 5000;
  const GIVE_UP_MS = 15000;
  const SILENT_MS = 15000; // Without an event for so long the node is asked whether it is there.
  const ANSWER_MS = 5000;
  const NEWS_KEPT = 20;
  const live = document.getElementById("live");
  const news = document.getElementById("news");
  const parser = new DOMParser();
  let fetchedAt = -FETCH_EVERY_MS;
  let timer = null;
  let number = 0;
  let loading = 0;
  let again = false;
  let shown = location.pathname + location.search;

  // The past, or a refusal: nothing on such a page moves. Its value is said in place of "live".
  const isStill = document.documentElement.hasAttribute("data-still");

  function say(state, words) {
    live.classList.toggle("is-live", state === "live");
    live.classList.toggle("is-lost", state === "lost");
    const said = live.querySelector(".words");
    if (said.textContent !== words) said.textContent = words;
  }

  // ---- times

  const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"]];

  function relative(then, now) {
    const seconds = Math.floor((now - then) / 1000);
    const far = Math.abs(seconds);
    if (far >= 60 * 86400) return null;
    if (far < 60) return seconds >= 0 ? "just now" : "in a moment";
    const [size, unit] = UNITS.find(([size]) => far >= size);
    const count = Math.floor(far / size);
    const text = `${count} ${unit}${count === 1 ? "" : "s"}`;
    return seconds > 0 ? `${text} ago` : `in ${text}`;
  }

  // The clock of the node counts, as each page tells it, not the one of this screen.
  let offset = 0;

  function tellTime(page) {
    const time = page.querySelector("#made");
    if (time) offset = Date.parse(time.dateTime) - Date.now();
  }

  function renewTimes(root) {
    if (isStill) return;
    const now = Date.now() + offset;
    for (const time of root.querySelectorAll("main time:not([data-fixed])")) {
      const text = relative(Date.parse(time.dateTime), now);
      if (text !== null && time.textContent !== text) time.textContent = text;
    }
  }

  // ---- pages

  // Relative times differ at every fetch; what is compared is what the server said.
  const said = new WeakMap();

  function remember(root) {
    for (const part of root.querySelectorAll("[data-live]")) said.set(part, part.outerHTML);
  }

  const host = (row) => row.querySelector("a").textContent;

  // Which details are open: by what they are about where that is said, for places move when something new comes.
  const key = (one, place) => one.dataset.key || `${place}`;

  function open(part) {
    return new Set([...part.querySelectorAll("details")].map((one, place) => (one.open ? key(one, place) : "")));
  }

  // What had the focus: the same link, else the one of the same name (the head of a column turns its link around).
  function same(part, focused) {
    const all = [...part.querySelectorAll(focused.localName)];
    return all.find((one) => focused.href && one.getAttribute("href") === focused.getAttribute("href"))
      || all.find((one) => one.textContent === focused.textContent);
  }

  function put(fresh, mayFlash) {
    for (const part of fresh.querySelectorAll("[data-live]")) {
      const old = document.getElementById(part.id);
      if (!old || said.get(old) === part.outerHTML) continue;
      const focused = old.contains(document.activeElement) ? document.activeElement : null;
      const scrolled = [...old.querySelectorAll(".scroll, .places, .log")].map((one) => [one.scrollLeft, one.scrollTop]);
      const opened = open(old);
      const rows = new Map([...old.querySelectorAll(".nodes tbody tr")].map((row) => [host(row), row.children[1].textContent]));
      const source = part.outerHTML;
      const placed = document.importNode(part, true);
      old.replaceWith(placed);
      said.set(placed, source);
      placed.querySelectorAll("details").forEach((one, place) => { one.open = opened.has(key(one, place)); });
      placed.querySelectorAll(".scroll, .places, .log").forEach((one, place) => {
        if (scrolled[place]) [one.scrollLeft, one.scrollTop] = scrolled[place];
      });
      if (mayFlash) {
        for (const row of placed.querySelectorAll(".nodes tbody tr")) {
          if (rows.size && rows.get(host(row)) !== row.children[1].textContent) row.classList.add("is-new");
        }
      }
      if (focused) same(placed, focused)?.focus({ preventScroll: true });
    }
    const title = fresh.querySelector("title");
    if (title) document.title = title.textContent;
    renewTimes(document);
  }

  async function load(url, { push = false, mayFlash = true } = {}) {
    if (push) {
      clearTimeout(timer);
      timer = null;
    } else if (loading) {
      again = true; // Whoever asks for a page of its own, or a slow line, must not lose it to a renewal.
      return;
    }
    const mine = ++number;
    loading += 1;
    fetchedAt = performance.now();
    try {
      const answer = await fetch(url, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(GIVE_UP_MS) });
      const text = await answer.text();
      if (mine !== number) return; // A later question was asked meanwhile.
      if (push && !answer.ok) { location.href = url; return; }
      if (!answer.ok) throw new Error(answer.statusText);
      if (push && url !== location.pathname + location.search) history.pushState(null, "", url);
      shown = location.pathname + location.search;
      const fresh = parser.parseFromString(text, "text/html");
      const part = fresh.getElementById("main");
      if (!part) throw new Error("no page");
      tellTime(fresh);
      put(fresh, mayFlash);
      if (push) forms(fresh);
    } catch (error) {
      if (push) location.href = url;
      else if (mine === number) schedule(RETRY_MS);
    } finally {
      loading -= 1;
      if (!loading && again) {
        again = false;
        schedule(SETTLE_MS);
      }
    }
  }

  function forms(fresh) {
    // Links of the filter follow the question; what is being typed stays.
    for (const form of fresh.querySelectorAll("form[data-soft]")) {
      const old = document.querySelector(`form[data-soft][action="${form.getAttribute("action")}"]`);
      if (!old || old.contains(document.activeElement)) continue;
      old.replaceWith(document.importNode(form, true));
    }
  }

  function schedule(afterMs) {
    if (timer !== null || document.hidden || isStill) return;
    const wait = Math.max(afterMs, fetchedAt + FETCH_EVERY_MS - performance.now());
    timer = setTimeout(() => {
      timer = null;
      load(location.pathname + location.search);
    }, wait);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-soft]");
    if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    load(link.getAttribute("href"), { push: true, mayFlash: false });
  });

  function ask(form, push) {
    const fields = new URLSearchParams([...new FormData(form)].filter(([, text]) => text !== ""));
    const query = fields.toString();
    if (fields.get("at") || isStill) {
      if (push) location.href = `${form.getAttribute("action")}?${query}`;
      return;
    }
    load(form.getAttribute("action") + (query ? `?${query}` : ""), { push: true, mayFlash: false });
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-soft]")) return;
    event.preventDefault();
    ask(event.target, true);
  });
  let typing = null;
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-soft]");
    if (!form || event.target.type === "text") return; // Times and names are asked for when they are whole.
    clearTimeout(typing);
    typing = setTimeout(() => ask(form, false), 150);
  });
  addEventListener("popstate", () => {
    const now = location.pathname + location.search;
    // A step to a part of this page changes nothing on it.
    if (now !== shown) load(now, { push: true, mayFlash: false });
  });

  // ---- events

  function tell(text) {
    const line = document.createElement("p");
    line.textContent = text;
    news.append(line);
    while (news.children.length > NEWS_KEPT) news.firstElementChild.remove();
  }

  let events = null;
  let heardAt = 0;

  // A node that hangs closes no connection: "live" must not stand over what is old.
  async function askAlive() {
    const silent = performance.now() - heardAt;
    if (!events || document.hidden || silent < SILENT_MS) return;
    try {
      await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      heardAt = performance.now();
      if (events && events.readyState === EventSource.OPEN) say("live", "live");
    } catch (error) {
      say("lost", "no answer; what you see is old");
    }
  }

  function listen() {
    if (events || document.hidden) return;
    const stream = events = new EventSource("/api/v1/events");
    stream.onopen = () => {
      say("live", "live");
      heardAt = performance.now();
      // What happened before the stream was open is not told by it.
      schedule(SETTLE_MS);
    };
    stream.onerror = () => {
      say("lost", "connection lost; trying again");
      if (stream.readyState === EventSource.CLOSED && events === stream) {
        events = null;
        setTimeout(listen, RETRY_MS);
      }
    };
    for (const name of ["digest-accepted", "service-health", "document-changed", "dataset-event", "reset"]) {
      stream.addEventListener(name, () => schedule(SETTLE_MS));
    }
    stream.addEventListener("node-status", (event) => {
      heardAt = performance.now();
      const data = JSON.parse(event.data);
      tell(`${data.host} is ${data.status}`);
      schedule(SETTLE_MS);
    });
  }

  // A browser has six connections to a node: a tab that nobody sees must not hold one.
  function rest() {
    if (!document.hidden) {
      listen();
    } else if (events) {
      events.close();
      events = null;
      say("", "paused while hidden");
    }
  }

  remember(document);
  tellTime(document);
  renewTimes(document);
  setInterval(() => renewTimes(document), TICK_MS);
  if (isStill) {
    if (document.documentElement.dataset.still) say("", document.documentElement.dataset.still);
  } else {
    document.addEventListener("visibilitychange", rest);
    // Ages, figures and expiry move without an event.
    setInterval(() => schedule(SETTLE_MS), 30000);
    setInterval(askAlive, ANSWER_MS);
    listen();
  }
})();
