// A fake server for the editor, with injected failures.

const TEXTS = ['title', 'section_title', 'content', 'introduction_for_agent', 'context_for_agent', 'operations_for_agent'];

export class Server {
    constructor(titles) {
        this.head = { id: 'wt_1', slug: 's', title: 'T', type: 'course', state: 'draft', description: '', tags: [],
            estimated_duration_minutes: null, current_version: null, has_unpublished_changes: false };
        this.revision = 1;
        this.next = 0;
        this.steps = titles.map((title) => this.make({ title, content: `${title}.` }));
        this.removed = new Set();
        this.responses = new Map();
        this.log = [];
        this.before = () => {};
        this.after = () => {};
    }

    make(from) {
        this.next += 1;
        const texts = Object.fromEntries(TEXTS.map((name) => [name, from[name] ?? (name === 'content' ? '' : null)]));
        return { id: from.id ?? `ws_${this.next}`, key: null, metadata: {}, ...texts };
    }

    get whole() {
        return structuredClone({ ...this.head, revision: this.revision, steps: this.steps });
    }

    titles() {
        return this.steps.map((step) => step.title);
    }

    step(title) {
        return this.steps.find((step) => step.title === title);
    }

    /** Applies a change by another user. */
    change(act) {
        act(this);
        this.revision += 1;
    }

    /** Like `api` of console.js. If `before` or `after` throws, the request or its response is lost. */
    api = async (method, path, options = {}) => {
        this.log.push(`${method} ${path.replace('/walkthroughs/wt_1', '')}`);
        await this.before(method, path, options);
        const key = options.headers?.['Idempotency-Key'];
        const answer = (key && this.responses.get(key)) ?? this.answer(method, path, options);
        if (key && answer.status < 300) this.responses.set(key, answer);
        await this.after(method, path, options);
        return { status: answer.status, headers: new Headers(answer.headers), json: async () => structuredClone(answer.body) };
    };

    answer(method, path, { body, ifMatch, headers }) {
        const [, , , kind, id, act] = path.split('/');
        if (ifMatch && ifMatch !== `"${this.revision}"`) return { status: 412, body: { detail: 'changed in the meantime' } };
        const at = this.steps.findIndex((step) => step.id === id);
        const edited = (status, step) => {
            this.revision += 1;
            return { status, body: structuredClone({ revision: this.revision, step }) };
        };
        const put = (step, after) => {
            const behind = after === null ? 0 : after === undefined ? this.steps.length : this.steps.findIndex((own) => own.id === after) + 1;
            this.steps.splice(behind, 0, step);
            return edited(201, step);
        };
        if (!kind && method === 'GET') {
            const tag = `"${this.revision}"`;
            if (headers?.['If-None-Match'] === tag) return { status: 304, headers: { ETag: tag } };
            return { status: 200, body: this.whole, headers: { ETag: tag } };
        }
        if (!kind) {
            Object.assign(this.head, body);
            this.revision += 1;
            return { status: 200, body: this.whole };
        }
        if (!id) return put(this.make(body), body.after);
        if (act === 'restore') return this.removed.has(id) ? put(this.make({ ...body.step, id }), body.after) : { status: 404, body: {} };
        if (at < 0) return { status: 404, body: { detail: 'no such step' } };
        if (method === 'DELETE') {
            const [step] = this.steps.splice(at, 1);
            this.removed.add(id);
            return edited(200, step);
        }
        if (act === 'move') {
            const [step] = this.steps.splice(at, 1);
            put(step, body.after);
            return { status: 200, body: { revision: this.revision, step } };
        }
        if (act === 'duplicate') return put(this.make({ ...this.steps[at], id: undefined, title: `${this.steps[at].title} (copy)` }), id);
        if (body.title === '') return { status: 422, body: { detail: 'Write a title.', field: 'title' } };
        Object.assign(this.steps[at], body);
        if (body.title) this.steps[at].title = body.title.trim();
        return edited(200, this.steps[at]);
    }
}
