import type { Refused } from "./frames.js";

/** A request was refused, or could not be carried out. */
export class TidewireError extends Error {
  /** A code from the server's list, or `disconnected`, `closed`, `too_many_requests` of this client. */
  readonly code: string;
  /** When it makes sense to ask again. */
  readonly retry: Refused["retry"];

  constructor(code: string, message: string, retry: Refused["retry"] = "never") {
    super(message);
    this.name = "TidewireError";
    this.code = code;
    this.retry = retry;
  }

  /** The error that a frame or an HTTP body tells. */
  static of({ code, message, retry }: Pick<Refused, "code" | "message" | "retry">): TidewireError {
    return new TidewireError(code, message, retry);
  }
}

/** What an aborted signal says. */
export function abortReason(signal: AbortSignal): unknown {
  return signal.reason ?? new DOMException("aborted", "AbortError");
}
