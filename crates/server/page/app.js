// The page at `/`: a client of the native dialect that shows its own workings. A Connection keeps a
// WebSocket alive, a Subscription remembers its place so that it can go on there, a Stream receives
// the same by EventSource, and the log shows what arrived. Others' words enter the page as text only.

/** Rows of the log; a browser lays out this many without effort. */
const LOG_ROWS = 500;
/** Characters of one event that are shown. */
const SHOWN = 2_000;
/** How long "Drop connection" stays away, so that something is missed meanwhile. */
const DROP_PAUSE = 2_000;
/** Pauses before coming back, where the server names none. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
/** A ping this often finds connections that died without a word; half as long it may go unanswered. */
const PING_EVERY = 20_000;

const $ = (id) => document.getElementById(id);

/** An address of the server, also where a proxy serves this page under a prefix. */
const address = (path) => new URL(path, document.baseURI);

/* Topics */

const fieldsOf = ({ kind, name }) =>
  kind === "private" ? { topic: name, private: true } : { [kind]: name };

/** What of a table is asked for, beside its name. */
const wantedOf = ({ filter, snapshot }) => ({ filter: filter || undefined, snapshot: snapshot || undefined });

const titleOf = ({ kind, name }) => `${kind === "notify" ? "NOTIFY" : kind} ${name}`;

function topicOf(frame) {
  const kind = ["topic", "notify", "table"].find((kind) => kind in frame);
  return { kind: frame.private ? "private" : kind, name: frame[kind] };
}

/* The connection */

const NO_CONNECTION = { code: "lost", message: "there is no connection" };

class Connection {
  token = "";
  isOpen = false;
  #socket;
  #goodbye;
  #attempt = 0;
  #timers = {};
  #asked = new Map();
  #last = 0;

  /** `onState` is told the state and why, `onFrame` every frame. */
  constructor(onState, onFrame) {
    this.onState = onState;
    this.onFrame = onFrame;
  }

  connect() {
    const url = address("v1/ws");
    url.protocol = url.protocol.replace("http", "ws");
    try {
      // In a subprotocol, a token does not show in anybody's log of addresses.
      this.#socket = new WebSocket(url, ["tidewire", ...(this.token ? ["bearer", this.token] : [])]);
    } catch {
      return this.disconnect("the token has characters that no token has");
    }
    this.#goodbye = null;
    this.onState("connecting", "connecting");
    this.#socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    this.#socket.onclose = ({ code }) => this.#lost(code);
  }

  disconnect(why = "disconnected") {
    this.#leave();
    this.onState("closed", why);
  }

  /** Loses the connection on purpose and comes back a little later. */
  drop() {
    this.#comeBack(DROP_PAUSE, "dropped");
  }

  /** Sends a request, with `data` as JSON that stays as it is written. Throws an error frame. */
  request(frame, data) {
    return new Promise((resolve, reject) => {
      if (!this.isOpen) return reject(NO_CONNECTION);
      const text = JSON.stringify({ ...frame, id: ++this.#last });
      this.#asked.set(this.#last, { resolve, reject });
      this.#socket.send(data ? `${text.slice(0, -1)},"data":${data}}` : text);
    });
  }

  #receive(frame) {
    clearTimeout(this.#timers.silence);
    if (frame.type === "welcome") this.#welcome(frame);
    if (frame.type === "close") this.#goodbye = frame;
    const asked = this.#asked.get(frame.id);
    this.#asked.delete(frame.id);
    frame.type === "error" ? asked?.reject(frame) : asked?.resolve(frame);
    this.onFrame(frame);
  }

  #welcome({ session, subject }) {
    this.isOpen = true;
    this.#attempt = 0;
    this.#timers.ping = setInterval(() => this.#ping(), PING_EVERY);
    this.session = session;
    this.present(subject);
  }

  /** Says who the server takes this page for. */
  async present(subject) {
    const session = this.session;
    this.onState("open", `connected as ${subject ?? "anonymous"}, session ${session}`);
    if (subject !== null) return;
    // Statistics are for whoever has a token, where there are tokens.
    const { status } = await fetch(address("v1/stats")).catch(() => ({}));
    const isStill = this.isOpen && this.session === session && !this.token;
    if (status === 401 && isStill) {
      this.onState("anonymous", "connected without a token: this server asks for one, and refuses most without");
    }
  }

  #ping() {
    this.#socket.send('{"type":"ping"}');
    const silent = () => this.#comeBack(this.#pause(), "the server is silent");
    this.#timers.silence = setTimeout(silent, PING_EVERY / 2);
  }

  #lost(code) {
    const wasOpen = this.isOpen;
    // Codes from 4500 on say not to come back, as do those for a client that breaks rules.
    const retry = code < 4500 && ![1002, 1007, 1009].includes(code);
    const goodbye = this.#goodbye ?? { retry, message: `the connection was lost (${code})` };
    if (!goodbye.retry) return this.disconnect(goodbye.message);
    const told = (goodbye.retry_after ?? 0) * 1_000 + Math.random() * 500;
    this.#comeBack(Math.max(told, this.#pause()), goodbye.message);
    if (!wasOpen) this.#askWhy();
  }

  /** A browser does not say why a handshake failed, so this asks in another way. */
  async #askWhy() {
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    const answer = await fetch(address("v1/poll?topic=page&timeout=0"), { headers }).catch(() => null);
    if (answer?.status !== 401) return;
    const { error } = await answer.json();
    if (!this.isOpen) this.disconnect(error.message);
  }

  /** Doubles up to a limit; random, so that many clients do not come at the same moment. */
  #pause() {
    return Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#attempt++) * (0.5 + Math.random() / 2);
  }

  #comeBack(pause, why) {
    this.#leave();
    const at = Date.now() + pause;
    const tick = () => {
      const left = at - Date.now();
      if (left <= 0) return this.connect();
      this.onState("waiting", `${why}; coming back in ${Math.ceil(left / 1_000)} s`);
      this.#timers.back = setTimeout(tick, Math.min(left, 1_000));
    };
    tick();
  }

  /** Lets go of the socket at once; a dead one would take minutes to say that it closed. */
  #leave() {
    this.isOpen = false;
    Object.values(this.#timers).forEach(clearTimeout);
    if (this.#socket) {
      this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    for (const { reject } of this.#asked.values()) reject(NO_CONNECTION);
    this.#asked.clear();
  }
}

/* The log */

const log = {
  waiting: [],
  drawing: false,

  event(frame, via) {
    if (frame.type === "change") return this.change(frame, via);
    const data = typeof frame.data === "string" ? frame.data : JSON.stringify(frame.data);
    const head = (frame.event ? `[${frame.event}] ` : "") + (frame.encoding ? `(${frame.encoding}) ` : "");
    this.add({ ...frame, via, topic: topicOf(frame), text: head + data });
  },

  change(frame, via) {
    const { op, move, record, old, key, committed_at: at } = frame;
    const row = record ?? old ?? key;
    const head = move ? `${op} (${move})` : op;
    this.add({ ...frame, at, via, topic: topicOf(frame), text: row ? `${head} ${JSON.stringify(row)}` : head });
  },

  /** Rows of a snapshot, each on its line. */
  rows(frame, via) {
    const topic = topicOf(frame);
    for (const row of frame.rows) this.add({ at: Date.now(), via, topic, text: `row ${JSON.stringify(row)}` });
  },

  note(text, look, { topic, position, via } = {}) {
    this.add({ at: Date.now(), via, topic, position, text, look: `note ${look}` });
  },

  add(row) {
    this.waiting.push(row);
    if (this.waiting.length > LOG_ROWS) this.waiting.shift();
    this.draw();
  },

  /** Once per picture, however much arrived. */
  draw() {
    if (this.drawing || $("pause").checked) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      $("log").prepend(...this.waiting.splice(0).reverse().map(drawRow));
      while ($("log").rows.length > LOG_ROWS) $("log").deleteRow(-1);
    });
  },
};

function drawRow({ at, via, topic, position = "", text, look = "" }) {
  const row = element("tr", look);
  const time = new Date(at);
  const clock = `${time.toTimeString().slice(0, 8)}.${String(time.getMilliseconds()).padStart(3, "0")}`;
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}… (${text.length} characters)` : text;
  for (const part of [clock, topic ? titleOf(topic) : "", position, shown]) row.append(element("td", "", part));
  if (via) row.cells[1].append(" ", element("span", "via", via));
  return row;
}

function element(tag, look, text = "") {
  const made = document.createElement(tag);
  made.className = look;
  made.textContent = text;
  return made;
}

/* One subscription */

class Subscription {
  position = null;
  count = 0;
  members = new Map();
  /** What this page is seen as, and under which reference. */
  key = null;
  ref = null;

  constructor(topic, { since, presence, stream, filter, snapshot }) {
    this.topic = topic;
    this.wanted = wantedOf({ filter, snapshot });
    // With a snapshot, a position counts once all rows are there.
    this.isWhole = !snapshot;
    this.since = since;
    this.presence = presence;
    this.stream = stream ? new Stream(this) : null;
    this.card = $("card").content.cloneNode(true).firstElementChild;
    this.show("h3", titleOf(topic));
    this.show(".filter", filter ?? "");
    this.part(".leave").setAttribute("aria-label", `Unsubscribe from ${titleOf(topic)}`);
    this.part(".leave").onclick = () => leave(this);
    this.part(".presence").hidden = !presence;
    this.part(".stream").hidden = !stream;
    this.part("form").onsubmit = (submitted) => {
      submitted.preventDefault();
      this.track(this.part("input").value.trim());
    };
    this.part(".untrack").onclick = () => this.untrack();
  }

  part(selector) {
    return this.card.querySelector(selector);
  }

  show(selector, text, look = "") {
    this.part(selector).textContent = text;
    this.part(selector).dataset.look = look;
  }

  /** Asks for the topic, from the last position known. The answer is read with the other frames. */
  ask() {
    this.asked = this.position ?? this.since;
    this.tell({ type: "subscribe", since: this.asked, presence: this.presence || undefined, ...this.wanted }, (refusal) => {
      this.show(".outcome", `refused: ${refusal.code}`, "bad");
      if (refusal.retry === "later") setTimeout(() => isLive(this) && this.ask(), 1_000 + Math.random() * 2_000);
      if (refusal.retry === "never" && !this.position) forget(this, refusal);
    });
  }

  /** A request about this topic; a refusal shows on the card. */
  async tell(frame, onRefusal) {
    try {
      const answer = await connection.request({ ...frame, ...fieldsOf(this.topic) });
      this.show(".answer", "");
      return answer;
    } catch (refusal) {
      if (refusal === NO_CONNECTION) return;
      this.show(".answer", refusal.message, "bad");
      onRefusal?.(refusal);
    }
  }

  receive(frame) {
    this[`on_${frame.type}`]?.(frame);
  }

  on_subscribed({ position, outcome, reason, members }) {
    if (outcome !== "resumed") this.isWhole = !this.wanted.snapshot;
    const after = this.asked === "earliest" ? "" : ` after ${this.asked}`;
    this.reach(position, reason ? `gap: ${reason}` : outcome === "resumed" ? outcome + after : outcome);
    if (members) this.on_members({ members });
    if (this.key !== null) this.track(this.key);
    this.stream?.open();
  }

  on_event(frame) {
    this.note(frame.position);
    this.show(".count", ++this.count);
    log.event(frame, this.stream && "WebSocket");
  }

  on_change(frame) {
    this.on_event(frame);
  }

  on_rows(frame) {
    log.rows(frame, this.stream && "WebSocket");
    if (!frame.last) return;
    this.isWhole = true;
    this.note(this.shown);
  }

  on_bookmark({ position }) {
    this.note(position);
  }

  on_gap({ position, reason }) {
    this.reach(position, `gap: ${reason}`);
  }

  on_ended({ code, message }) {
    this.show(".outcome", `ended: ${code}`, "bad");
    this.show(".answer", message, "bad");
  }

  on_members({ members }) {
    this.members = new Map(members.map((member) => [member.ref, member]));
    this.drawMembers();
  }

  on_presence({ joins, leaves }) {
    for (const { ref } of leaves) this.members.delete(ref);
    for (const member of joins) this.members.set(member.ref, member);
    this.drawMembers();
  }

  /** Shows a place, and keeps it to go on from there. */
  note(position) {
    this.show(".position", (this.shown = position));
    this.position = this.isWhole ? position : null;
  }

  reach(position, outcome) {
    this.note(position);
    this.show(".outcome", outcome, lookOf(outcome));
    log.note(outcome, lookOf(outcome), { topic: this.topic, position });
  }

  /** Being seen ends with a connection, so it is asked for again after each. */
  async track(key) {
    const answer = await this.tell({ type: "track", key: key || undefined });
    if (!answer) return;
    this.key = key;
    this.ref = answer.ref;
    this.part(".untrack").hidden = false;
    this.drawMembers();
  }

  untrack() {
    this.key = this.ref = null;
    this.part(".untrack").hidden = true;
    this.tell({ type: "untrack" });
  }

  drawMembers() {
    const drawn = [...this.members.values()].map(({ ref, key, meta }) => {
      const more = Object.keys(meta).length ? ` ${JSON.stringify(meta)}` : "";
      return ref === this.ref ? element("li", "me", `${key} (you)${more}`) : element("li", "", key + more);
    });
    this.part(".members").replaceChildren(...drawn);
  }
}

const lookOf = (outcome) => (outcome.startsWith("gap") ? "warn" : "good");

/** The same topic by EventSource, which comes back by itself with `Last-Event-ID`. */
class Stream {
  #source;
  #position;
  #count = 0;

  constructor(subscription) {
    this.subscription = subscription;
  }

  /** Begins at the WebSocket's place, so that both tell the same; one that is open stays. */
  open() {
    if (this.#source) return;
    const { topic, shown, wanted } = this.subscription;
    const url = address("v1/sse");
    url.search = new URLSearchParams({ ...fieldsOf(topic), since: this.#position ?? shown });
    // The rows came by the WebSocket; what differs is told by both.
    if (wanted.filter) url.searchParams.set("filter", wanted.filter);
    if (connection.token) url.searchParams.set("token", connection.token);
    this.#source = new EventSource(url);
    this.#source.onerror = () => this.#lost();
    const hear = (type, act) => this.#source.addEventListener(type, ({ data }) => act(JSON.parse(data)));
    hear("message", (frame) => {
      this.#count += 1;
      this.#show("open", frame.position);
      log.event(frame, "EventSource");
    });
    hear("subscribed", ({ position, outcome, reason }) => this.#told(position, reason ? `gap: ${reason}` : outcome));
    hear("gap", ({ position, reason }) => this.#told(position, `gap: ${reason}`));
    hear("close", ({ retry }) => retry || this.close());
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  #told(position, outcome) {
    this.#show(outcome, position);
    log.note(outcome, lookOf(outcome), { topic: this.subscription.topic, position, via: "EventSource" });
  }

  #lost() {
    this.#show("lost, comes back by itself");
    // Answered with something else than a stream, a browser does not try again.
    if (this.#source?.readyState !== EventSource.CLOSED) return;
    this.#source = null;
    setTimeout(() => isLive(this.subscription) && this.open(), 2_000 + Math.random() * 3_000);
  }

  #show(text, position = this.#position) {
    this.#position = position;
    this.subscription.show(".stream dd", `${text}, ${this.#count} events, ${position ?? "no position"}`);
  }
}

/* All of them together */

const subscriptions = new Map();
const isLive = (subscription) => subscriptions.get(titleOf(subscription.topic)) === subscription;

/** A second subscription to a topic replaces the first, here as on the server. */
function subscribe(topic, wish = {}) {
  const old = subscriptions.get(titleOf(topic));
  old?.stream?.close();
  const made = new Subscription(topic, wish);
  subscriptions.set(titleOf(topic), made);
  old ? old.card.replaceWith(made.card) : $("subscriptions").append(made.card);
  made.ask();
}

function remove(subscription) {
  subscriptions.delete(titleOf(subscription.topic));
  subscription.stream?.close();
  subscription.card.remove();
}

function leave(subscription) {
  remove(subscription);
  $("subscribe").elements.name.focus();
  subscription.tell({ type: "unsubscribe" });
}

/** What was never granted and never will be is explained where it was asked for. */
function forget(subscription, { code, message }) {
  if (!isLive(subscription)) return;
  remove(subscription);
  say($("subscribe"), `${titleOf(subscription.topic)}: ${message}`, "bad");
  if (code !== "not_configured") return;
  for (const { elements } of [$("subscribe"), $("publish")]) {
    elements.kind.value = "topic";
    elements.name.value = "room:1";
  }
}

const askAll = () => subscriptions.forEach((one) => one.ask());

const connection = new Connection(showState, (frame) => {
  if (frame.type === "welcome") askAll();
  else subscriptions.get(titleOf(topicOf(frame)))?.receive(frame);
});

function showState(state, text) {
  const news = state !== "connecting" && state !== $("state").dataset.state;
  if (news) log.note(text, state === "open" ? "" : "warn");
  $("state").dataset.state = state;
  $("state").textContent = text;
  $("drop").disabled = state !== "open" && state !== "anonymous";
  $("power").textContent = state === "closed" ? "Connect" : "Disconnect";
}

/* Forms */

function say(form, text, look) {
  const place = form.querySelector(".answer");
  place.textContent = text;
  place.dataset.look = look;
}

function onSubmit(id, act) {
  $(id).onsubmit = (submitted) => {
    submitted.preventDefault();
    const form = $(id);
    say(form, "", "");
    act(form.elements, form)?.catch(({ message }) => say(form, message, "bad"));
  };
}

onSubmit("subscribe", ({ kind, name, from, position, presence, stream, filter, snapshot }) => {
  const since = from.value === "position" ? position.value.trim() : from.value || undefined;
  const has = (box) => box.checked && !box.disabled;
  const wish = { since, presence: has(presence), stream: has(stream) };
  const ofTable = kind.value === "table" ? { filter: filter.value.trim(), snapshot: has(snapshot) } : {};
  subscribe({ kind: kind.value, name: name.value }, { ...wish, ...ofTable });
});

$("subscribe").oninput = () => {
  const { kind, from, position, stream, presence, snapshot } = $("subscribe").elements;
  position.required = from.value === "position";
  position.parentElement.hidden = !position.required;
  // The address of a stream has no word for private topics.
  stream.disabled = kind.value === "private";
  presence.disabled = kind.value === "table";
  $("of-table").hidden = kind.value !== "table";
  // A snapshot is the table as it is now.
  snapshot.disabled = from.value === "earliest";
};

onSubmit("publish", async ({ kind, name, data, format }, form) => {
  const frame = { type: "publish", ...fieldsOf({ kind: kind.value, name: name.value }) };
  const json = format.value === "json" ? checked(data.value) : JSON.stringify(data.value);
  const { position } = await connection.request(frame, json);
  say(form, position ? `published at ${position}` : "given to PostgreSQL, which tells everyone who listens", "good");
});

/** JSON is sent as it was typed, since writing it anew would round long numbers. */
function checked(json) {
  try {
    JSON.parse(json);
    return json;
  } catch ({ message }) {
    throw new Error(`not JSON: ${message}`);
  }
}

onSubmit("token-form", async ({ token }) => {
  connection.token = token.value.trim();
  if (!connection.isOpen || !connection.token) {
    connection.disconnect();
    return connection.connect();
  }
  const { subject } = await connection.request({ type: "authenticate", token: connection.token });
  connection.present(subject);
  askAll();
});

$("drop").onclick = () => connection.drop();
$("power").onclick = () => ($("state").dataset.state === "closed" ? connection.connect() : connection.disconnect());
$("pause").onchange = () => log.draw();
$("clear").onclick = () => {
  log.waiting.length = 0;
  $("log").replaceChildren();
};

/* What the address asks for, or else the demo's channel */

const asked = new URLSearchParams(location.search);
$("token").value = connection.token = asked.get("token") ?? "";
const topics = [...asked].filter(([kind]) => ["topic", "notify", "table"].includes(kind));
const wish = { filter: asked.get("filter"), snapshot: asked.get("snapshot") !== "false" };
for (const [kind, name] of topics.length ? topics : [["notify", "orders"]]) {
  subscribe({ kind, name }, kind === "table" ? wish : {});
}
connection.connect();
