// PostgreSQL: one pool per process, named statements (prepared once per connection), pipelined if a statement does not
// depend on the result of the previous one.
import pg from 'pg';

const STEP_COLUMNS = `n.id, n.position, n.title, n.section_title, n.content, n.introduction_for_agent,
  n.context_for_agent, n.operations_for_agent`;

const LIST = {
  name: 'list',
  text: `SELECT w.id, w.slug, w.title, w.description, w.version, w.step_count, p.completed
    FROM walkthrough w LEFT JOIN progress p ON p.walkthrough_id = w.id AND p.tracking_id = $1 ORDER BY w.title`,
};

const SELECT = {
  name: 'select',
  text: `WITH started AS (
      INSERT INTO progress (tracking_id, walkthrough_id, completed, started_at) VALUES ($1, $2, 0, now())
      ON CONFLICT (tracking_id, walkthrough_id) DO UPDATE SET completed = progress.completed
      RETURNING completed, started_at, completed_at)
    SELECT p.completed, p.started_at, p.completed_at, w.slug AS walkthrough_slug, w.title AS walkthrough_title,
      w.version, w.step_count, ${STEP_COLUMNS}
    FROM started p JOIN walkthrough w ON w.id = $2
    LEFT JOIN step n ON n.walkthrough_id = w.id AND n.position = p.completed + 1`,
};

// Reads the progress (locked until the commit), the current step's ID and the next step.
const READ = {
  name: 'read',
  text: `SELECT p.completed, p.started_at, w.slug AS walkthrough_slug, w.title AS walkthrough_title, w.version,
      w.step_count, c.id AS current_id, ${STEP_COLUMNS}
    FROM progress p JOIN walkthrough w ON w.id = p.walkthrough_id
    LEFT JOIN step c ON c.walkthrough_id = p.walkthrough_id AND c.position = p.completed + 1
    LEFT JOIN step n ON n.walkthrough_id = p.walkthrough_id AND n.position = p.completed + 2
    WHERE p.tracking_id = $1 AND p.walkthrough_id = $2 FOR UPDATE OF p`,
};

const ADVANCE = {
  name: 'advance',
  text: `WITH done AS (
      INSERT INTO step_completion (tracking_id, walkthrough_id, position, completed_at) VALUES ($1, $2, $3, now()))
    UPDATE progress SET completed = $3, completed_at = CASE WHEN $4 THEN now() END
    WHERE tracking_id = $1 AND walkthrough_id = $2 RETURNING completed_at`,
};

const POSITION = { name: 'position', text: 'SELECT position FROM step WHERE walkthrough_id = $1 AND id = $2' };

const STATUS = {
  name: 'status',
  text: `SELECT w.id, w.slug, w.title, w.version, w.step_count, p.completed, p.started_at, p.completed_at
    FROM walkthrough w LEFT JOIN progress p ON p.walkthrough_id = w.id AND p.tracking_id = $2 WHERE w.id = $1`,
};

const STEPS = {
  name: 'steps',
  text: 'SELECT id, title, section_title, position FROM step WHERE walkthrough_id = $1 ORDER BY position',
};

export class Store {
  constructor(url, connections) {
    this.pool = new pg.Pool({ connectionString: url, max: connections, min: connections, pipeline: true });
    this.pool.on('error', (error) => console.error(error));
  }

  async list(trackingId) {
    return (await this.pool.query({ ...LIST, values: [trackingId] })).rows;
  }

  async select(trackingId, walkthroughId) {
    return (await this.pool.query({ ...SELECT, values: [trackingId, walkthroughId] })).rows[0];
  }

  async status(trackingId, walkthroughId) {
    const [walkthrough, steps] = await Promise.all([
      this.pool.query({ ...STATUS, values: [walkthroughId, trackingId] }),
      this.pool.query({ ...STEPS, values: [walkthroughId] }),
    ]);
    return { row: walkthrough.rows[0], steps: steps.rows };
  }

  // Reads the progress, finds the next step and updates: one transaction, two round trips.
  async advance(trackingId, walkthroughId, stepId) {
    const client = await this.pool.connect();
    let broken;
    try {
      const begin = client.query('BEGIN');
      const read = client.query({ ...READ, values: [trackingId, walkthroughId] });
      await begin;
      const row = (await read).rows[0];
      if (row === undefined || row.current_id === null || (stepId !== undefined && stepId !== row.current_id)) {
        const known = stepId && (await client.query({ ...POSITION, values: [walkthroughId, stepId] })).rows[0];
        await client.query('COMMIT');
        return { row, position: known?.position };
      }
      const completed = row.completed + 1;
      const values = [trackingId, walkthroughId, completed, completed === row.step_count];
      const update = client.query({ ...ADVANCE, values });
      const commit = client.query('COMMIT');
      row.completed_at = (await update).rows[0].completed_at;
      await commit;
      row.completed = completed;
      return { row, advanced: row.current_id };
    } catch (error) {
      broken = error;
      throw error;
    } finally {
      client.release(broken);
    }
  }
}
