// Runs requests one after the other and retries them until they succeed. The only side effect is the timer, which tests
// replace.

/** The server cannot be reached or returns a server error. The request is retried. */
export class ConnectionLost extends Error {
  constructor(message = "The server cannot be reached.", afterMs = 0) {
    super(message);
    this.afterMs = afterMs;
  }
}

/** The session has expired. The request is retried after signing in. */
export class SignedOut extends Error {}

const FIRST_WAIT_MS = 1_000;
const MAX_WAIT_MS = 30_000;
const SIGN_IN_WAIT_MS = 15_000;

/** Returns the delay before the next attempt after `failures` failed attempts. */
export function backOff(failures, afterMs = 0) {
  return Math.max(afterMs, Math.min(FIRST_WAIT_MS * 2 ** (failures - 1), MAX_WAIT_MS));
}

/**
 * A task queue. `trouble` is null, "lost" or "signed-out". `onChange` is called when `trouble` or the activity changes.
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
   * Runs `task` after the earlier tasks. It is retried while it throws `ConnectionLost` or `SignedOut`; its argument is the
   * number of earlier attempts. If a task with the same `name` is already waiting, returns that task's promise instead.
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

  /** Retries immediately instead of waiting. */
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
    for (let attempts = 0; ; attempts += 1) {
      try {
        const result = await entry.task(attempts);
        this.setTrouble(null);
        return entry.resolve(result);
      } catch (error) {
        if (!(error instanceof ConnectionLost || error instanceof SignedOut)) {
          this.setTrouble(null);
          return entry.reject(error);
        }
        this.setTrouble(error instanceof ConnectionLost ? "lost" : "signed-out");
        await this.wait(error instanceof ConnectionLost ? backOff(attempts + 1, error.afterMs) : SIGN_IN_WAIT_MS);
      }
    }
  }

  setTrouble(trouble) {
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
