/** Reads the format of Server-Sent Events (HTML, section 9.2.6) from pieces of text. */

/** An event; `data` is empty for an id that came alone. */
export interface StreamEvent {
  data: string;
  id: string | undefined;
}

/** Characters of one event; far over the largest the server sends, so what is beyond is no event. */
const LONGEST_EVENT = 64 << 20;

export class EventStream {
  #rest = "";
  #data: string[] = [];
  #id: string | undefined;

  /** The events that are complete with this piece. */
  push(piece: string): StreamEvent[] {
    const events: StreamEvent[] = [];
    const text = this.#rest + piece;
    if (text.length > LONGEST_EVENT) throw new Error("an event is too long");
    // A CR at the end may be the first half of a line end.
    const lines = text.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() as string;
    for (const line of lines) {
      if (line !== "") this.#field(line);
      else if (this.#data.length > 0 || this.#id !== undefined) events.push(this.#take());
    }
    return events;
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    if (name === "id" && !value.includes("\0")) this.#id = value;
  }

  #take(): StreamEvent {
    const event = { data: this.#data.join("\n"), id: this.#id };
    this.#data = [];
    this.#id = undefined;
    return event;
  }
}
