// The console's modules that do not use the DOM.

export * from '../../../crates/console/assets/editor-model.js';
export * from '../../../crates/console/assets/editor-queue.js';
export * from '../../../crates/console/assets/editor-diff.js';
export * from '../../../crates/console/assets/editor-text.js';
export * from '../../../crates/console/assets/editor-keep.js';
export * from '../../../crates/console/assets/editor-session.js';
export * from '../../../crates/console/assets/times.js';
export * from '../../../crates/console/assets/messages.js';
export * from '../../../crates/console/assets/event-stream.js';
export * from '../../../crates/console/assets/tool-arguments.js';
