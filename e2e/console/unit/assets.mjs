// The console's modules as pages load them, apart from those that need a page.

export * from '../../../crates/web/assets/editor-model.js';
export * from '../../../crates/web/assets/editor-queue.js';
export * from '../../../crates/web/assets/editor-diff.js';
export * from '../../../crates/web/assets/editor-text.js';
export * from '../../../crates/web/assets/editor-keep.js';
export * from '../../../crates/web/assets/editor-session.js';
