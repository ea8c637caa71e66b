// Parses `text/event-stream` responses of `fetch`, which can send headers, unlike `EventSource`. Independent of the page.

/** Splits a stream of text into events. */
export class EventParser {
  constructor() {
    this.buffer = "";
  }

  /**
   * Adds text and returns the events that are complete: name and data.
   * @param {string} text
   * @returns {{name: string, data: string}[]}
   */
  push(text) {
    this.buffer += text;
    const parts = this.buffer.split(/\r?\n\r?\n/);
    this.buffer = parts.pop();
    return parts.map(parse).filter((event) => event !== null);
  }
}

/** Returns an event, or null if it has no data, such as a comment that keeps the connection open. */
function parse(text) {
  let name = "message";
  const data = [];
  for (const line of text.split(/\r?\n/)) {
    if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    else if (line.startsWith("event:")) name = line.slice(6).trim();
  }
  return data.length ? { name, data: data.join("\n") } : null;
}

/** Yields the events of a response until it ends. */
export async function* readEvents(response) {
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
