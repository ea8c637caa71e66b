// The console's modules that do not use the DOM.

export * from '../../../crates/web/assets/editor-model.js';
export * from '../../../crates/web/assets/editor-queue.js';
export * from '../../../crates/web/assets/editor-diff.js';
export * from '../../../crates/web/assets/editor-text.js';
export * from '../../../crates/web/assets/editor-keep.js';
export * from '../../../crates/web/assets/editor-session.js';
