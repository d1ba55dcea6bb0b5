// The status page: parts rendered by the server are fetched anew, and one market follows the WebSocket.
// Text that comes from the exchange reaches the page through textContent only.
"use strict";

const REFRESH_MS = 5000;
const LEVELS = 12;
const TRADES = 15;
const NOTICES = 6;
const SILENT_MS = 45000;
const RETRY_MS = [500, 1000, 2000, 5000, 10000];

const at = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function shown(box, visible) {
  box.hidden = !visible;
}

const time = (ms) => new Date(ms).toISOString().slice(11, 19);

// --- parts rendered by the server ---------------------------------------------------------------------------------

let failures = 0;

function refresh() {
  if (document.hidden) return;
  const request = new XMLHttpRequest(); // its parser runs no scripts, and needs no string of HTML in this page
  request.open("GET", "/status");
  request.responseType = "document";
  request.timeout = 4000;
  request.onload = () => {
    if (request.status !== 200 || !request.response) return lost(`the gateway answered ${request.status}`);
    failures = 0;
    document.title = request.response.title;
    for (const old of document.querySelectorAll("[data-fresh]")) {
      const fresh = request.response.getElementById(old.id);
      if (fresh) old.replaceWith(document.importNode(fresh, true));
    }
  };
  request.onerror = request.ontimeout = () => lost("the gateway does not answer");
  request.send();
}

function lost(why) {
  failures += 1;
  const headline = document.querySelector("#headline .state");
  const when = document.querySelector("#headline .when");
  if (failures < 2 || !headline) return;
  headline.className = "state down";
  headline.lastChild.textContent = "Out of reach";
  if (!at("out-of-reach")) {
    const note = element("b", ` · ${why}; what follows is old`);
    note.id = "out-of-reach";
    when.append(note);
  }
}

setInterval(refresh, REFRESH_MS);
document.addEventListener("visibilitychange", refresh);

// --- choosing a market ---------------------------------------------------------------------------------------------

const input = at("m-input");
const list = at("m-list");
let asked = 0;
let chosen = -1;
let waiting;

function close() {
  shown(list, false);
  input.setAttribute("aria-expanded", "false");
  input.removeAttribute("aria-activedescendant");
  chosen = -1;
}

function offer(markets, note) {
  const lines = markets.map((market, n) => {
    const line = element("li");
    line.id = `m-option-${n}`;
    line.setAttribute("role", "option");
    line.append(element("b", market.ticker), element("span", market.title ?? ""));
    line.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      follow(market.ticker, market.title);
    });
    line.market = market;
    return line;
  });
  if (note) {
    const line = element("li", note, "none");
    line.setAttribute("role", "option");
    line.setAttribute("aria-disabled", "true");
    lines.push(line);
  }
  list.replaceChildren(...lines);
  shown(list, lines.length > 0);
  input.setAttribute("aria-expanded", String(lines.length > 0));
  chosen = -1;
}

async function suggest() {
  const words = input.value.trim();
  const mine = ++asked;
  if (!words) return close();
  let markets = [];
  let note = "";
  try {
    const answer = await fetch(`/v1/markets?limit=12&q=${encodeURIComponent(words)}`);
    const found = await answer.json();
    if (answer.ok) markets = found.markets;
    else note = `${found.detail ?? "No suggestions now"}. Enter takes the text as a ticker.`;
    if (answer.ok && !markets.length) note = "No market has these words. Enter takes the text as a ticker.";
  } catch {
    note = "No suggestions now. Enter takes the text as a ticker.";
  }
  if (mine === asked) offer(markets, note);
}

function options() {
  return [...list.children].filter((line) => line.market);
}

input.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(suggest, 150);
});
input.addEventListener("blur", close);
input.addEventListener("keydown", (event) => {
  const lines = options();
  if (event.key === "Escape") return close();
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  event.preventDefault();
  if (!lines.length) return;
  chosen = (chosen + (event.key === "ArrowDown" ? 1 : -1) + lines.length) % lines.length;
  if (chosen < 0) chosen = lines.length - 1;
  lines.forEach((line, n) => line.setAttribute("aria-selected", String(n === chosen)));
  lines[chosen].scrollIntoView({ block: "nearest" });
  input.setAttribute("aria-activedescendant", lines[chosen].id);
});
at("m-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const line = options()[chosen];
  if (line) follow(line.market.ticker, line.market.title);
  else if (input.value.trim()) follow(input.value.trim(), null);
});

// --- one market, live ----------------------------------------------------------------------------------------------

let market = null;

function follow(ticker, title) {
  clearTimeout(waiting);
  asked += 1;
  input.value = ticker;
  close();
  if (market) market.end();
  market = new Market(ticker, title);
  history.replaceState(null, "", `#${encodeURIComponent(ticker)}`);
}

class Market {
  constructor(ticker, title) {
    this.ticker = ticker;
    this.bids = new Map();
    this.asks = new Map();
    this.trades = [];
    this.booked = false;
    this.seq = null;
    this.retries = 0;
    this.ended = false;
    this.drawn = true;
    this.name(title);
    at("m-notices").replaceChildren();
    at("m-seq").textContent = "";
    shown(at("m-view"), true);
    shown(at("m-hint"), false);
    this.state("syncing", "connecting");
    this.draw();
    this.connect();
    this.watcher = setInterval(() => this.watch(), 5000);
  }

  name(title) {
    at("m-title").replaceChildren(title || this.ticker, ...(title ? [element("small", this.ticker)] : []));
    this.named = Boolean(title);
  }

  end() {
    this.ended = true;
    clearInterval(this.watcher);
    clearTimeout(this.retry);
    this.socket.close();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/v1/stream`);
    this.heard = Date.now();
    this.socket.onopen = () => {
      const request = { action: "subscribe", symbols: [this.ticker] };
      if (this.seq !== null) request.from_seq = this.seq;
      this.socket.send(JSON.stringify(request));
    };
    this.socket.onmessage = (event) => this.take(JSON.parse(event.data));
    this.socket.onclose = (event) => this.closed(event);
  }

  closed(event) {
    if (this.ended) return;
    this.state("lost", "disconnected");
    if (this.retries === 0) this.notice(`Disconnected${event.reason ? `: ${event.reason}` : ""}. What is shown is old; connecting again.`);
    const pause = RETRY_MS[Math.min(this.retries, RETRY_MS.length - 1)];
    this.retries += 1;
    this.retry = setTimeout(() => this.connect(), pause);
  }

  watch() {
    if (this.socket.readyState === WebSocket.OPEN && Date.now() - this.heard > SILENT_MS) {
      this.notice("Nothing was heard for 45 seconds, not even a heartbeat: connecting again.");
      this.socket.close();
    }
  }

  take(message) {
    this.heard = Date.now();
    if (typeof message.seq === "number" && message.type !== "subscribed") this.count(message.seq);
    switch (message.type) {
      case "subscribed":
        this.subscribed(message);
        break;
      case "orderbook":
        if (message.ticker === this.ticker) this.book(message);
        break;
      case "trade":
        if (message.ticker !== this.ticker) break;
        if (this.trades.some((trade) => trade.trade_id === message.trade_id)) break;
        this.trades.unshift({ ...message, fresh: true });
        this.trades.length = Math.min(this.trades.length, TRADES);
        break;
      case "book_state":
        if (!message.tickers || message.tickers.includes(this.ticker)) this.bookState(message);
        break;
      case "gap":
        this.gap(message);
        break;
      case "status":
        this.notice(`The market is ${message.status}${message.result ? `, result ${message.result}` : ""}.`);
        break;
      case "system":
        this.notice(message.message);
        break;
      case "error":
        this.notice(`${message.message}. ${message.next ?? ""}`);
        if (!this.booked) this.state("lost", "refused");
        break;
    }
    if (this.drawn) {
      this.drawn = false;
      requestAnimationFrame(() => this.draw());
    }
  }

  subscribed(message) {
    const unknown = message.unknown?.includes(this.ticker);
    if (message.resumed === true) {
      this.notice("Connected again: what was missed is sent now.");
      this.state(this.booked ? "live" : "syncing", this.booked ? "live" : "waiting for the book");
    } else {
      this.booked = false;
      this.bids.clear();
      this.asks.clear();
      if (this.seq !== null) this.notice("Connected again: the book comes anew; trades between may be missing.");
      this.seq = message.seq;
      this.state("syncing", "waiting for the book");
      if (!unknown) this.recent();
    }
    this.retries = 0;
    if (unknown) this.notice(`Nothing is known of ${this.ticker} yet. It is followed all the same.`);
  }

  async recent() {
    try {
      const answer = await fetch(`/v1/markets/${encodeURIComponent(this.ticker)}/trades?limit=${TRADES}`);
      if (!this.named && !this.ended) {
        const said = await fetch(`/v1/markets/${encodeURIComponent(this.ticker)}`);
        if (said.ok && !this.ended) this.name((await said.json()).title);
      }
      if (!answer.ok || this.ended) return;
      const known = new Set(this.trades.map((trade) => trade.trade_id));
      const { trades } = await answer.json();
      this.trades.push(...trades.filter((trade) => !known.has(trade.trade_id)));
      this.trades.sort((a, b) => b.ts - a.ts);
      this.trades.length = Math.min(this.trades.length, TRADES);
      this.draw();
    } catch {
      // Without them the list begins with the next trade.
    }
  }

  count(seq) {
    if (this.seq !== null && seq > this.seq + 1) {
      this.notice(`Messages ${this.seq + 1} to ${seq - 1} are missing: the book may be wrong until its next snapshot.`);
      this.state("stale", "stale");
    }
    this.seq = seq;
  }

  book(message) {
    if (message.kind === "snapshot") {
      this.bids.clear();
      this.asks.clear();
      this.booked = true;
      this.state("live", "live");
    } else if (!this.booked) return;
    for (const [side, levels] of [[this.bids, message.bids], [this.asks, message.asks]]) {
      for (const [price, size] of levels) {
        if (size > 0) side.set(price, size);
        else side.delete(price);
      }
    }
    this.changed = message.ts;
  }

  bookState(message) {
    if (message.state === "live") return; // its snapshot says so
    if (message.state === "syncing") this.booked = false;
    this.state(message.state, message.state);
    this.notice(`The book is ${message.state}: ${message.reason ?? "a gap touched it"}.`);
  }

  gap(message) {
    if (message.code) {
      this.notice(message.message);
      this.seq = Math.max(this.seq ?? 0, message.to);
      this.state("stale", "stale");
      return;
    }
    const seconds = ((message.to_ts - message.from_ts) / 1000).toFixed(1);
    this.notice(`Gap of ${seconds} s from ${time(message.from_ts)} (${message.reason.replaceAll("_", " ")}): changes may be missing.`);
    this.state("stale", "stale");
  }

  state(name, text) {
    const badge = at("m-state");
    badge.className = `badge ${name}`;
    if (badge.textContent !== text) badge.textContent = text;
    shown(badge, true);
    at("m-view").classList.toggle("stale-data", name !== "live" && name !== "syncing");
  }

  notice(text) {
    const line = element("li");
    const moment = element("time", time(Date.now()));
    line.append(moment, text);
    const notices = at("m-notices");
    notices.prepend(line);
    while (notices.children.length > NOTICES) notices.lastChild.remove();
  }

  draw() {
    this.drawn = true;
    if (this.ended) return;
    const bids = [...this.bids].sort((a, b) => b[0] - a[0]).slice(0, LEVELS);
    const asks = [...this.asks].sort((a, b) => a[0] - b[0]).slice(0, LEVELS);
    const largest = Math.max(1e-9, ...bids.map((level) => level[1]), ...asks.map((level) => level[1]));
    const rows = [];
    for (let n = 0; n < Math.max(bids.length, asks.length); n += 1) {
      const row = element("tr");
      row.append(size(bids[n], largest), price(bids[n]), price(asks[n]), size(asks[n], largest));
      rows.push(row);
    }
    at("m-book").replaceChildren(...rows);
    shown(at("m-nobook"), !rows.length);
    at("m-nobook").textContent = this.booked ? "The book is empty." : "No book yet.";
    at("m-trades").replaceChildren(...this.trades.map(tradeRow));
    shown(at("m-notrades"), !this.trades.length);
    const sides = [...(this.bids.size ? [`${this.bids.size} bid levels`] : []), ...(this.asks.size ? [`${this.asks.size} ask levels`] : [])];
    at("m-seq").textContent = [this.seq === null ? "" : `seq ${this.seq}`, ...sides, this.changed ? `book of ${time(this.changed)} UTC` : ""]
      .filter(Boolean)
      .join(" · ");
  }
}

function fromAddress() {
  let ticker = "";
  try {
    ticker = decodeURIComponent(location.hash.slice(1));
  } catch {
    return; // no address that this page made
  }
  if (ticker && ticker !== "main" && ticker !== market?.ticker) follow(ticker.slice(0, 128), null);
}

const number = (value) => (value >= 1000 ? value.toLocaleString("en", { maximumFractionDigits: 2 }) : String(value));

function price(level) {
  return element("td", level ? level[0].toFixed(Math.max(2, (String(level[0]).split(".")[1] ?? "").length)) : "");
}

function size(level, largest) {
  const cell = element("td", undefined, "size");
  if (level) {
    const bar = element("i");
    bar.style.setProperty("--w", `${((100 * level[1]) / largest).toFixed(1)}%`);
    cell.append(bar, element("b", number(level[1])));
  }
  return cell;
}

function tradeRow(trade) {
  const row = element("tr", undefined, trade.fresh ? "new" : "");
  trade.fresh = false;
  row.append(
    element("td", time(trade.ts)),
    element("td", trade.side, trade.side === "buy" ? "up" : "down"),
    price([trade.price]),
    element("td", number(trade.size)),
  );
  return row;
}

addEventListener("hashchange", fromAddress);
fromAddress();
