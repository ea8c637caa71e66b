// Requests one after the other, tried again for as long as it takes. Pure but for its timer, which tests replace.

/** The server cannot be reached, or is in trouble: try again. */
export class Lost extends Error {
  constructor(message = "The server cannot be reached.", afterMs = 0) {
    super(message);
    this.afterMs = afterMs;
  }
}

/** The session has ended: try again when somebody has signed in. */
export class SignedOut extends Error {}

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;
const SIGN_IN_WAIT_MS = 15_000;

/** How long to wait before the try after `failures` of them. */
export function backOff(failures, afterMs = 0) {
  return Math.max(afterMs, Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), LONGEST_WAIT_MS));
}

/**
 * `trouble` is null, "lost" or "signed-out"; `onChange` is called whenever it, or whether something is at work, changes.
 */
export class Queue {
  constructor({ timer = globalThis, onChange = () => {} } = {}) {
    this.timer = timer;
    this.onChange = onChange;
    this.tasks = [];
    this.working = false;
    this.trouble = null;
    this.wakeUp = null;
  }

  get idle() {
    return !this.working && this.tasks.length === 0;
  }

  /**
   * Runs `task` when those before it are done. It is run again for as long as it throws `Lost` or `SignedOut`; its argument
   * is how often it was run before. A task with a `name` that already waits is not added again.
   */
  push(task, name = null) {
    const waiting = name && this.tasks.find((other) => other.name === name);
    if (waiting) return waiting.promise;
    const entry = { task, name };
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    this.tasks.push(entry);
    this.work();
    return entry.promise;
  }

  /** Does not wait any longer for the next try. */
  wake() {
    this.wakeUp?.();
  }

  async work() {
    if (this.working) return;
    this.working = true;
    this.onChange();
    while (this.tasks.length > 0) await this.run(this.tasks.shift());
    this.working = false;
    this.onChange();
  }

  async run(entry) {
    for (let tries = 0; ; tries += 1) {
      try {
        const result = await entry.task(tries);
        this.is(null);
        return entry.resolve(result);
      } catch (error) {
        if (!(error instanceof Lost || error instanceof SignedOut)) {
          this.is(null);
          return entry.reject(error);
        }
        this.is(error instanceof Lost ? "lost" : "signed-out");
        await this.wait(error instanceof Lost ? backOff(tries + 1, error.afterMs) : SIGN_IN_WAIT_MS);
      }
    }
  }

  is(trouble) {
    if (this.trouble === trouble) return;
    this.trouble = trouble;
    this.onChange();
  }

  wait(ms) {
    return new Promise((resolve) => {
      const done = () => {
        this.timer.clearTimeout(timer);
        this.wakeUp = null;
        resolve();
      };
      const timer = this.timer.setTimeout(done, ms);
      this.wakeUp = done;
    });
  }
}
