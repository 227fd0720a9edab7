// The page at `/`: a client of the native dialect that shows its own workings. A Connection keeps a
// WebSocket alive, a Subscription remembers its place so that it can go on there, a Stream receives
// the same by EventSource, and the log shows what arrived. Words of others enter the page as text
// only, never as markup.

/** Rows of the log; a browser lays out this many without effort. */
const LOG_ROWS = 500;
/** Characters of one event that are shown. */
const SHOWN = 2_000;
/** How long "Drop connection" stays away, so that something is missed meanwhile. */
const DROP_PAUSE = 2_000;
/** Pauses before coming back, where the server did not name one. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 15_000;
/** A ping this often shows connections that died without a word; one unanswered ends them. */
const PING_EVERY = 20_000;

const $ = (id) => document.getElementById(id);

/** An address of the server, also where a proxy serves this page under a prefix. */
const address = (path) => new URL(path, document.baseURI);

/* Topics */

const fieldsOf = ({ kind, name }) =>
  kind === "private" ? { topic: name, private: true } : { [kind]: name };

function topicOf(frame) {
  if (frame.private) return { kind: "private", name: frame.topic };
  const kind = ["topic", "notify", "table"].find((kind) => frame[kind] !== undefined);
  return { kind, name: frame[kind] };
}

const titleOf = ({ kind, name }) => `${kind === "notify" ? "NOTIFY" : kind} ${name}`;

/* The connection */

/** What a close code means where the server could not say it in a frame before. */
const comesBack = (code) => code < 4500 && ![1002, 1007, 1009].includes(code);

class Connection {
  token = "";
  #socket = null;
  #open = false;
  #goodbye = null;
  #attempt = 0;
  #timer;
  #pinger;
  #asked = new Map();
  #last = 0;

  /** `onState` is told `{ state, text, … }`, `onFrame` every frame. */
  constructor(onState, onFrame) {
    this.onState = onState;
    this.onFrame = onFrame;
  }

  get isOpen() {
    return this.#open;
  }

  connect() {
    clearTimeout(this.#timer);
    const url = address("v1/ws");
    url.protocol = url.protocol.replace("http", "ws");
    let socket;
    try {
      // In a subprotocol, a token does not show in anybody's log of addresses.
      socket = new WebSocket(url, ["tidewire", ...(this.token ? ["bearer", this.token] : [])]);
    } catch {
      return this.#end("the token has characters that no token has");
    }
    this.#socket = socket;
    this.#goodbye = null;
    this.onState({ state: "connecting", text: "connecting" });
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = ({ code }) => this.#lost(code);
  }

  disconnect() {
    this.#leave();
    this.#end("disconnected");
  }

  /** Loses the connection on purpose and comes back a little later. */
  drop() {
    this.#leave();
    this.#comeBack(DROP_PAUSE, "dropped");
  }

  /** Sends a request; its answer, or a refusal thrown as `{ code, message, retry }`. */
  request(frame) {
    return new Promise((resolve, reject) => {
      if (!this.#open) {
        return reject({ code: "lost", message: "there is no connection", retry: "lost" });
      }
      const id = ++this.#last;
      this.#asked.set(id, { resolve, reject });
      this.#socket.send(typeof frame === "function" ? frame(id) : JSON.stringify({ ...frame, id }));
    });
  }

  #receive(frame) {
    this.#attempt = 0;
    clearTimeout(this.silence);
    if (frame.type === "welcome") this.#welcome(frame);
    if (frame.type === "close") this.#goodbye = frame;
    const asked = this.#asked.get(frame.id);
    if (asked && this.#asked.delete(frame.id)) {
      frame.type === "error" ? asked.reject(frame) : asked.resolve(frame);
    }
    this.onFrame(frame);
  }

  #welcome({ session, subject }) {
    this.#open = true;
    this.#pinger = setInterval(() => this.#ping(), PING_EVERY);
    this.onState({ state: "open", text: `connected as ${subject ?? "anonymous"}, session ${session}` });
  }

  #ping() {
    this.#socket.send('{"type":"ping"}');
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      this.#leave();
      this.#comeBack(this.#pause(), "the server is silent");
    }, PING_EVERY / 2);
  }

  /** Lets go of the socket at once; a dead one would take minutes to say that it closed. */
  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    this.#open = false;
    clearTimeout(this.#timer);
    clearTimeout(this.silence);
    clearInterval(this.#pinger);
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const refusal = { code: "lost", message: "the connection was lost before the answer", retry: "lost" };
    for (const { reject } of this.#asked.values()) reject(refusal);
    this.#asked.clear();
  }

  async #lost(code) {
    const wasOpen = this.#open;
    const goodbye = this.#goodbye ?? { retry: comesBack(code), message: `the connection was lost (${code})` };
    this.#leave();
    if (!goodbye.retry) return this.#end(goodbye.message);
    const told = (goodbye.retry_after ?? 0) * 1_000;
    this.#comeBack(Math.max(told + Math.random() * 500, this.#pause()), goodbye.message);
    if (!wasOpen) this.#askWhy();
  }

  /** A browser does not say why a handshake failed, so this asks in another way. */
  async #askWhy() {
    const headers = this.token ? { authorization: `Bearer ${this.token}` } : {};
    const answer = await fetch(address("v1/poll?topic=page&timeout=0"), { headers }).catch(() => null);
    if (answer?.status !== 401 || this.#open) return;
    const { error } = await answer.json();
    this.#leave();
    this.#end(error.message);
  }

  /** Doubles up to a limit; random, so that many clients do not come at the same moment. */
  #pause() {
    const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#attempt++);
    return pause * (0.5 + Math.random() / 2);
  }

  #comeBack(pause, why) {
    const at = Date.now() + pause;
    const tick = () => {
      const left = at - Date.now();
      if (left <= 0) return this.connect();
      this.onState({ state: "waiting", text: `${why}; coming back in ${Math.ceil(left / 1_000)} s` });
      this.#timer = setTimeout(tick, Math.min(left, 1_000));
    };
    tick();
  }

  #end(why) {
    this.onState({ state: "closed", text: why });
  }
}

/* The log */

const log = {
  waiting: [],
  drawing: false,

  add(row) {
    this.waiting.push(row);
    if (this.waiting.length > LOG_ROWS) this.waiting.shift();
    this.draw();
  },

  event(frame, via) {
    const data = typeof frame.data === "string" ? frame.data : JSON.stringify(frame.data);
    const head = [frame.event && `[${frame.event}] `, frame.encoding && `(${frame.encoding}) `];
    const text = head.filter(Boolean).join("") + data;
    this.add({ at: frame.at, via, topic: titleOf(topicOf(frame)), position: frame.position, text });
  },

  note(topic, position, text, look = "", via = "") {
    this.add({ at: Date.now(), via, topic: topic && titleOf(topic), position, text, look: `note ${look}` });
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

function drawRow({ at, via, topic = "", position = "", text, look = "" }) {
  const row = document.createElement("tr");
  row.className = look;
  const time = new Date(at);
  const clock = time.toLocaleTimeString([], { hour12: false });
  const shown = text.length > SHOWN ? `${text.slice(0, SHOWN)}… (${text.length} characters)` : text;
  for (const part of [`${clock}.${String(time.getMilliseconds()).padStart(3, "0")}`, topic, position, shown]) {
    row.insertCell().textContent = part;
  }
  if (via) row.cells[1].append(element("span", "via", via));
  return row;
}

function element(tag, look, text) {
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
  tracked = null;
  ref = null;
  stream = null;

  constructor(topic, { since, presence, stream }) {
    this.topic = topic;
    this.since = since;
    this.presence = presence;
    if (stream) this.stream = new Stream(this);
    this.card = $("card").content.cloneNode(true).firstElementChild;
    this.part("h3").textContent = titleOf(topic);
    this.part(".leave").setAttribute("aria-label", `Unsubscribe from ${titleOf(topic)}`);
    this.part(".leave").onclick = () => leave(this);
    this.part(".presence").hidden = !presence;
    this.part(".stream").hidden = !stream;
    this.part("form").onsubmit = (submitted) => {
      submitted.preventDefault();
      this.track(this.part("[name=key]").value.trim() || undefined);
    };
    this.part(".untrack").onclick = () => this.untrack();
  }

  part(selector) {
    return this.card.querySelector(selector);
  }

  show(selector, text, look = "") {
    const part = this.part(selector);
    part.textContent = text;
    for (const one of ["good", "warn", "bad"]) part.classList.toggle(one, one === look);
  }

  /** Asks for the topic, from the last position known. The answer comes as a frame. */
  async ask() {
    const since = this.position ?? this.since;
    this.asked = since;
    const presence = this.presence || undefined;
    await this.tell({ type: "subscribe", since, presence }, (refusal) => {
      this.show(".outcome", `refused: ${refusal.code}`, "bad");
      if (refusal.retry === "later") setTimeout(() => live(this) && this.ask(), 1_000 + Math.random() * 2_000);
      if (refusal.retry === "never" && this.position === null) forget(this, refusal);
    });
  }

  /** A request about this topic; a refusal shows on the card. */
  async tell(frame, onRefusal = () => {}) {
    try {
      const answer = await connection.request({ ...frame, ...fieldsOf(this.topic) });
      this.show("p.answer", "");
      return answer;
    } catch (refusal) {
      if (refusal.retry === "lost") return null;
      this.show("p.answer", refusal.message, "bad");
      onRefusal(refusal);
      return null;
    }
  }

  receive(frame) {
    const act = this[`on_${frame.type}`];
    if (act) act.call(this, frame);
  }

  on_subscribed({ position, outcome, reason, members }) {
    this.reach(position);
    const from = this.asked && this.asked !== "earliest" ? ` after ${this.asked}` : "";
    const text = outcome === "gap" ? `gap: ${reason}` : outcome === "resumed" ? `resumed${from}` : outcome;
    const look = outcome === "gap" ? "warn" : "good";
    this.show(".outcome", text, look);
    log.note(this.topic, position, `subscribed: ${text}`, look);
    if (members) this.on_members({ members });
    if (this.tracked) this.track(this.tracked.key);
    this.stream?.open();
  }

  on_event(frame) {
    this.reach(frame.position);
    this.show(".count", ++this.count);
    log.event(frame, this.stream ? "WebSocket" : "");
  }

  on_gap({ position, reason }) {
    this.reach(position);
    this.show(".outcome", `gap: ${reason}`, "warn");
    log.note(this.topic, position, `gap: ${reason}`, "warn");
  }

  on_ended({ code, message }) {
    this.show(".outcome", `ended: ${code}`, "bad");
    this.show("p.answer", message, "bad");
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

  reach(position) {
    this.position = position;
    this.show(".position", position);
  }

  /** Being seen ends with a connection, so it is asked for again after each. */
  async track(key) {
    const answer = await this.tell({ type: "track", key });
    if (!answer) return;
    this.tracked = { key };
    this.ref = answer.ref;
    this.part(".untrack").hidden = false;
    this.drawMembers();
  }

  async untrack() {
    this.tracked = this.ref = null;
    this.part(".untrack").hidden = true;
    await this.tell({ type: "untrack" });
  }

  drawMembers() {
    const drawn = [...this.members.values()].map(({ ref, key, meta }) => {
      const more = meta && Object.keys(meta).length ? ` ${JSON.stringify(meta)}` : "";
      return element("li", ref === this.ref ? "me" : "", `${key}${ref === this.ref ? " (you)" : ""}${more}`);
    });
    this.part(".members").replaceChildren(...drawn);
  }
}

/** The same topic by EventSource, which comes back by itself with `Last-Event-ID`. */
class Stream {
  #source = null;
  #position = "";
  #count = 0;

  constructor(subscription) {
    this.subscription = subscription;
  }

  /** Begins at the WebSocket's place, so that both tell the same. Open already, it stays. */
  open() {
    if (this.#source) return;
    const { topic, position } = this.subscription;
    const url = address("v1/sse");
    url.search = new URLSearchParams({ ...fieldsOf(topic), since: this.#position || position });
    if (connection.token) url.searchParams.set("token", connection.token);
    const source = (this.#source = new EventSource(url));
    const hear = (name, act) => source.addEventListener(name, ({ data }) => data && act(JSON.parse(data)));
    hear("message", (frame) => {
      this.#position = frame.position;
      this.#count += 1;
      this.#show("open");
      log.event(frame, "EventSource");
    });
    hear("subscribed", (frame) => this.#told(frame.position, frame.reason ? `gap: ${frame.reason}` : frame.outcome));
    hear("gap", (frame) => this.#told(frame.position, `gap: ${frame.reason}`));
    hear("refused", (frame) => this.#show(`refused: ${frame.message}`));
    hear("close", (frame) => frame.retry || this.close());
    source.onerror = () => this.#lost();
  }

  close() {
    this.#source?.close();
    this.#source = null;
  }

  #told(position, text) {
    this.#position = position;
    this.#show(text);
    log.note(this.subscription.topic, position, `subscribed: ${text}`, text.startsWith("gap") ? "warn" : "good", "EventSource");
  }

  #lost() {
    this.#show("lost, comes back by itself");
    if (this.#source?.readyState !== EventSource.CLOSED) return;
    // Answered with something else than a stream: a browser does not try that again.
    this.#source = null;
    this.#show("refused, comes back later");
    setTimeout(() => live(this.subscription) && this.open(), 2_000 + Math.random() * 3_000);
  }

  #show(text) {
    this.subscription.show(".stream dd", `${text}, ${this.#count} events, ${this.#position}`);
  }
}

/* All of them together */

const subscriptions = new Map();
const live = (subscription) => subscriptions.get(titleOf(subscription.topic)) === subscription;

/** A second subscription to a topic replaces the first, here as on the server. */
function subscribe(topic, wish) {
  const old = subscriptions.get(titleOf(topic));
  old?.stream?.close();
  const made = new Subscription(topic, wish);
  subscriptions.set(titleOf(topic), made);
  old ? old.card.replaceWith(made.card) : $("subscriptions").append(made.card);
  if (connection.isOpen) made.ask();
}

function remove(subscription) {
  if (!live(subscription)) return;
  subscriptions.delete(titleOf(subscription.topic));
  subscription.stream?.close();
  subscription.card.remove();
}

async function leave(subscription) {
  remove(subscription);
  $("subscribe").elements.name.focus();
  await subscription.tell({ type: "unsubscribe" });
}

/** What was never granted and never will be is explained where it was asked for. */
function forget(subscription, { code, message }) {
  if (!live(subscription)) return;
  remove(subscription);
  answer($("subscribe"), `${titleOf(subscription.topic)}: ${message}`, "bad");
  if (code === "not_configured") {
    for (const form of [$("subscribe"), $("publish")]) {
      form.elements.kind.value = "topic";
      form.elements.name.value = "room:1";
    }
  }
}

const connection = new Connection(onState, (frame) => {
  if (frame.type === "welcome") for (const one of subscriptions.values()) one.ask();
  else subscriptions.get(titleOf(topicOf(frame)))?.receive(frame);
});

let state = "";

function onState(now) {
  $("state").dataset.state = now.state;
  $("state").textContent = now.text;
  $("drop").disabled = now.state !== "open";
  $("power").textContent = now.state === "closed" ? "Connect" : "Disconnect";
  if (now.state !== state && now.state !== "connecting") log.note(null, "", now.text, now.state === "open" ? "" : "warn");
  state = now.state;
}

/* Forms */

const answer = (form, text, look) => {
  const place = form.querySelector(".answer");
  place.textContent = text;
  place.className = `answer ${look}`;
};

const on = (form, act) => {
  $(form).onsubmit = (submitted) => {
    submitted.preventDefault();
    act($(form), $(form).elements);
  };
};

on("subscribe", (form, { kind, name, from, position, presence, stream }) => {
  answer(form, "", "");
  const since = from.value === "position" ? position.value.trim() : from.value || undefined;
  const topic = { kind: kind.value, name: name.value };
  subscribe(topic, { since, presence: presence.checked, stream: stream.checked && !stream.disabled });
});

$("subscribe").oninput = () => {
  const { kind, from, position, stream } = $("subscribe").elements;
  $("position-label").hidden = from.value !== "position";
  position.required = from.value === "position";
  // A private topic needs words that a stream's address does not have.
  stream.disabled = kind.value === "private";
};

on("publish", async (form, { kind, name, data, format }) => {
  const topic = fieldsOf({ kind: kind.value, name: name.value });
  let json = JSON.stringify(data.value);
  try {
    // Sent as it was typed, since parsing would round long numbers.
    if (format.value === "json") JSON.parse((json = data.value));
    const head = (id) => JSON.stringify({ type: "publish", id, ...topic }).slice(0, -1);
    const { position } = await connection.request((id) => `${head(id)},"data":${json}}`);
    answer(form, position ? `published at ${position}` : "given to PostgreSQL, which says it to everyone listening", "good");
  } catch (refusal) {
    answer(form, refusal instanceof SyntaxError ? `not JSON: ${refusal.message}` : refusal.message, "bad");
  }
});

on("token-form", async (form) => {
  connection.token = $("token").value.trim();
  if (!connection.isOpen || !connection.token) {
    connection.disconnect();
    return connection.connect();
  }
  try {
    const { subject } = await connection.request({ type: "authenticate", token: connection.token });
    answer(form, `now ${subject ?? "anonymous"}`, "good");
    for (const one of subscriptions.values()) one.ask();
  } catch (refusal) {
    answer(form, refusal.message, "bad");
  }
});

$("drop").onclick = () => connection.drop();
$("power").onclick = () => ($("power").textContent === "Connect" ? connection.connect() : connection.disconnect());
$("pause").onchange = () => log.draw();
$("clear").onclick = () => $("log").replaceChildren(log.waiting.splice(0) && "");

/* What the address asks for, or else the demo's channel */

const asked = [...new URLSearchParams(location.search)].filter(([kind]) => kind === "topic" || kind === "notify");
for (const [kind, name] of asked.length ? asked : [["notify", "orders"]]) {
  Object.assign($("subscribe").elements.kind, { value: kind });
  subscribe({ kind, name }, {});
}
connection.connect();
