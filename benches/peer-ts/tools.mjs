// The tools of the peer. Names, arguments and results match those of Waypost, so that the same client can use both.

const WALKTHROUGH_INPUT = {
  type: 'object',
  properties: { walkthrough_id: { type: 'string' } },
  required: ['walkthrough_id'],
};

export const TOOLS = [
  {
    name: 'list_walkthroughs',
    description: 'Lists the walkthroughs and the user\'s progress.',
    inputSchema: { type: 'object', properties: {} },
  },
  { name: 'select_walkthrough', description: 'Starts or resumes a walkthrough.', inputSchema: WALKTHROUGH_INPUT },
  {
    name: 'next_walkthrough_step',
    description: 'Completes the current step and returns the next one.',
    inputSchema: {
      type: 'object',
      properties: { walkthrough_id: { type: 'string' }, current_step_id: { type: 'string' } },
      required: ['walkthrough_id'],
    },
  },
  { name: 'get_walkthrough_status', description: 'Returns the user\'s progress.', inputSchema: WALKTHROUGH_INPUT },
];

function failure(code, message) {
  return { isError: true, content: [{ type: 'text', text: message }], structuredContent: { error: { code, message } } };
}

function progressOf(row) {
  const status = row.completed === null ? 'not_started' : row.completed === row.step_count ? 'completed' : 'in_progress';
  const completed = row.completed ?? 0;
  return {
    status,
    completed,
    total: row.step_count,
    percent: Math.floor((100 * completed) / row.step_count),
    started_at: row.started_at,
    completed_at: row.completed_at ?? null,
  };
}

function render(row) {
  return (
    `# ${row.title}\nStep ${row.position} of ${row.step_count}\n\n${row.introduction_for_agent}\n\n${row.content}\n\n` +
    `${row.context_for_agent}\n\n${row.operations_for_agent}\n\nWhen the user has done it, call next_walkthrough_step.`
  );
}

function stepResult(walkthroughId, row, completedStepId) {
  const step =
    row.id === null
      ? null
      : {
          id: row.id,
          position: row.position,
          title: row.title,
          section_title: row.section_title,
          content: row.content,
          introduction_for_agent: row.introduction_for_agent,
          context_for_agent: row.context_for_agent,
          operations_for_agent: row.operations_for_agent,
        };
  const message = step ? `This is step ${row.position} of ${row.step_count}.` : 'The walkthrough is completed.';
  return {
    content: [{ type: 'text', text: step ? render(row) : message }],
    structuredContent: {
      walkthrough: {
        id: walkthroughId,
        slug: row.walkthrough_slug,
        title: row.walkthrough_title,
        version: row.version,
        latest_version: row.version,
      },
      progress: progressOf(row),
      step,
      completed_step_id: completedStepId,
      progress_handle: null,
      message,
    },
  };
}

async function list(store, user) {
  const walkthroughs = (await store.list(user)).map((row) => {
    const { status, percent } = progressOf(row);
    const { id, slug, title, description, version, step_count } = row;
    return { id, slug, title, description, step_count, version, status, progress_percent: percent };
  });
  const text = walkthroughs.map((row) => `${row.title} (${row.id})`).join('\n');
  return { content: [{ type: 'text', text }], structuredContent: { walkthroughs, next_cursor: null } };
}

async function status(store, user, walkthroughId) {
  const { row, steps } = await store.status(user, walkthroughId);
  if (row === undefined) return failure('walkthrough_not_found', 'There is no such walkthrough.');
  const done = row.completed ?? 0;
  const state = (position) => (position <= done ? 'completed' : position === done + 1 ? 'current' : 'pending');
  return {
    content: [{ type: 'text', text: `${row.title}: ${done} of ${row.step_count} steps are completed.` }],
    structuredContent: {
      walkthrough: { id: row.id, slug: row.slug, title: row.title, version: row.version, latest_version: row.version },
      progress: progressOf(row),
      steps: steps.map((step) => ({ ...step, state: state(step.position) })),
    },
  };
}

async function next(store, user, walkthroughId, stepId) {
  const { row, advanced, position } = await store.advance(user, walkthroughId, stepId);
  if (row === undefined) return failure('no_active_walkthrough', 'Select a walkthrough first.');
  if (advanced) return stepResult(walkthroughId, row, advanced);
  if (stepId !== undefined && !(position <= row.completed)) {
    return failure('step_mismatch', `The current step is ${row.current_id}.`);
  }
  return stepResult(walkthroughId, await store.select(user, walkthroughId), null);
}

export async function call(store, user, name, args) {
  const id = args?.walkthrough_id;
  if (name === 'list_walkthroughs') return list(store, user);
  if (typeof id !== 'string') return failure('invalid_arguments', 'walkthrough_id must be a string.');
  switch (name) {
    case 'next_walkthrough_step':
      return next(store, user, id, args.current_step_id);
    case 'select_walkthrough': {
      const row = await store.select(user, id);
      return row ? stepResult(id, row, null) : failure('walkthrough_not_found', 'There is no such walkthrough.');
    }
    case 'get_walkthrough_status':
      return status(store, user, id);
    default:
      return failure('unknown_tool', 'There is no such tool.');
  }
}
